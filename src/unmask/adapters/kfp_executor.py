"""The executor contract of Kubeflow Pipelines, with the standard library only.

A step's command gets ``--executor-input``: on a cluster the launcher, on one machine the local runner, puts the JSON
there. Folders of list inputs are read from it, and after success the executor output file tells the KFP UI what to
draw. Containers therefore need no kfp.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unmask.errors import InputError
from unmask.schemas.files import StageOutcome, write_atomically

logger = logging.getLogger(__name__)
MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
MAX_ROC_POINTS = 500
CATEGORIES = ("real", "fake")


class ExecutorIO:
    """What the launcher told a step, and what the step tells back.

    Args:
        executor_input: The ``ExecutorInput`` message as plain JSON values.
    """

    def __init__(self, executor_input: Mapping[str, Any]) -> None:
        self._input = executor_input

    @classmethod
    def from_json(cls, text: str) -> ExecutorIO:
        """Read the text of ``--executor-input``.

        Raises:
            InputError: It is not an ``ExecutorInput`` message.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"--executor-input is not JSON ({error}).", "Leave it out by hand; the pipeline fills it in."
            ) from error
        if not isinstance(value, dict) or not isinstance(value.get("outputs"), dict):
            raise InputError(
                "--executor-input names no outputs.", "Leave it out by hand; the pipeline fills it in with '{{$}}'."
            )
        return cls(value)

    def has_input(self, name: str) -> bool:
        """Tell whether the step has an input artifact of this name."""
        return name in self._input.get("inputs", {}).get("artifacts", {})

    def input_paths(self, name: str) -> list[Path]:
        """Find where the artifacts of an input lie.

        Args:
            name: Name of the input in the component; it may hold one artifact or a list.

        Returns:
            One path an artifact, in the order of the list.

        Raises:
            InputError: The step has no such input.
        """
        inputs = self._input.get("inputs", {}).get("artifacts", {})
        if name not in inputs:
            known = ", ".join(sorted(inputs)) or "none"
            raise InputError(f"The step has no input artifact {name!r}.", f"Its input artifacts are: {known}.")
        return [_local_path(artifact) for artifact in inputs[name].get("artifacts", [])]

    def numbered_input_paths(self, name: str) -> list[Path]:
        """Find where the artifacts of an input and of its numbered brothers lie.

        Args:
            name: Name of the input; ``name_2``, ``name_3`` … are read as well if the step was given them.

        Returns:
            One path an artifact, those of ``name`` first.

        Raises:
            InputError: The step has none of these inputs.
        """
        given = self._input.get("inputs", {}).get("artifacts", {})
        brothers = [key for key in sorted(given) if re.fullmatch(rf"{re.escape(name)}_\d+", key)]
        own = [name] if name in given or not brothers else []
        return [path for key in (*own, *brothers) for path in self.input_paths(key)]

    def finish(self, outcome: StageOutcome, parameters: Mapping[str, str] = MappingProxyType({})) -> None:
        """Tell KFP what the step did; call it once, after success.

        Every declared output is registered. Artifacts of type ``Metrics`` carry the numbers, those of type
        ``ClassificationMetrics`` the ROC curve and the confusion matrix, in their metadata, which is what the UI
        draws; the same goes to their files, so that a cached step is found again.

        Args:
            outcome: What the stage reports.
            parameters: Name to value of the step's output parameters.
        """
        outputs = self._input["outputs"]
        registered = {}
        for name, entry in outputs.get("artifacts", {}).items():
            artifact = dict(entry["artifacts"][0])
            drawn = _metadata(artifact.get("type", {}).get("schemaTitle", ""), outcome)
            if drawn is not None:
                with write_atomically(_local_path(artifact)) as temporary:
                    temporary.write_text(json.dumps(drawn, indent=2) + "\n", encoding="utf-8")
            metadata = {**artifact.get("metadata", {}), **(drawn or {})}
            # The launcher of a cluster gives no name, and a made-up one would clash with that of the next run.
            same = {key: artifact[key] for key in ("name", "uri") if key in artifact}
            registered[name] = {"artifacts": [{**same, "metadata": metadata}]}
        with write_atomically(Path(outputs["outputFile"])) as temporary:
            message = {"parameterValues": dict(parameters), "artifacts": registered}
            temporary.write_text(json.dumps(message), encoding="utf-8")


def _local_path(artifact: Mapping[str, Any]) -> Path:
    if custom := artifact.get("customPath") or artifact.get("custom_path"):
        return Path(custom)
    uri = str(artifact["uri"])
    for scheme, mount in MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return Path(uri)


def _metadata(schema_title: str, outcome: StageOutcome) -> dict[str, Any] | None:
    """Return what the UI draws for an artifact of this type, or None for types that are drawn from their file."""
    if schema_title == "system.Metrics":
        undefined = [name for name, value in outcome.metrics.items() if not math.isfinite(value)]
        if undefined:
            logger.info("not shown in the KFP UI because undefined: %s", ", ".join(undefined))
        return {name: float(value) for name, value in outcome.metrics.items() if name not in undefined}
    if schema_title == "system.ClassificationMetrics":
        return {**_roc(outcome), **_confusion(outcome)}
    return None


def _roc(outcome: StageOutcome) -> dict[str, Any]:
    points = [point for point in outcome.roc or () if all(map(math.isfinite, point))]
    if not points:
        return {}
    if len(points) > MAX_ROC_POINTS:  # the UI draws each point as a shape, and the metadata store limits their size
        step = (len(points) - 1) / (MAX_ROC_POINTS - 1)
        points = [points[round(i * step)] for i in range(MAX_ROC_POINTS)]
    return {
        "confidenceMetrics": [
            {"confidenceThreshold": float(threshold), "falsePositiveRate": float(fpr), "recall": float(tpr)}
            for threshold, fpr, tpr in points
        ]
    }


def _confusion(outcome: StageOutcome) -> dict[str, Any]:
    if outcome.confusion is None:
        return {}
    return {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": name} for name in CATEGORIES],
            "rows": [{"row": [int(cell) for cell in row]} for row in outcome.confusion],
        }
    }
