"""The registered model: MLflow runs this file inside it ("models from code"); nothing of unmask imports it.

A row is one file, given as bytes (``media``) or, where whoever loads the model allows it, as a path of the scoring
host (``path``). Paths are refused by default, because behind `mlflow models serve` it is the client who names them:

    mlflow.pyfunc.load_model("models:/unmask-detector@challenger", model_config={"allow_paths": True})
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from unmask.deployment.runtime import Bundle
from unmask.deployment.verdict import Verdict
from unmask.errors import InputError


class UnmaskModel(PythonModel):
    """A bundle behind MLflow's generic interface."""

    def load_context(self, context: Any) -> None:
        """Load the bundle; every file is checked against its hash.

        Args:
            context: Gives the folder of the bundle and the settings of whoever loads the model.
        """
        self.bundle = Bundle.load(Path(context.artifacts["bundle"]))
        self.allow_paths = bool((context.model_config or {}).get("allow_paths", False))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Judge files.

        Args:
            context: Unused.
            model_input: Columns ``media`` (bytes) or ``path``, and optionally ``name`` for the answer.
            params: Unused.

        Returns:
            One row a file: file, modality, verdict, probability of a fake (null when not scored), reason, and the
            whole verdict as JSON.

        Raises:
            InputError: A row has neither bytes nor an allowed path.
        """
        return pd.DataFrame([_row(self._score(row)) for row in model_input.to_dict("records")])

    def _score(self, row: dict[Any, Any]) -> Verdict:
        media, path = row.get("media"), row.get("path")
        if isinstance(media, bytes | bytearray | memoryview):
            name = row.get("name")
            with tempfile.NamedTemporaryFile(prefix="unmask-") as stream:
                stream.write(media)
                stream.flush()
                return self.bundle.score(Path(stream.name), name=name if isinstance(name, str) else "media")
        if not isinstance(path, str):
            raise InputError("A row has neither media nor path.", "Give the bytes of a file in the column media.")
        if not self.allow_paths:
            raise InputError(
                "This model was loaded without permission to read files of its host.",
                "Send the bytes in the column media, or load it with model_config={'allow_paths': True}.",
            )
        return self.bundle.score(Path(path))


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": verdict.file,
        "modality": verdict.modality,
        "verdict": verdict.verdict,
        "probability": verdict.probability,
        "reason": verdict.reason,
        "details": verdict.model_dump_json(),
    }


mlflow.models.set_model(UnmaskModel())
