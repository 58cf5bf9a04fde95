"""The bundle folder: names, hashes, and reading it so that every byte used is a byte that was checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from pydantic import ValidationError

from unmask.errors import ContractError
from unmask.schemas import Document, Manifest, rows_for_choice, sha256_file

MANIFEST = "manifest.json"
ENSEMBLE = "ensemble.json"
FUSION = "fusion.json"
EXTRACT = "extract.json"
REFERENCE = "reference.json"
OPTIMISATION = "optimisation.json"
OPTIMISATION_PAGE = "optimisation.html"
# Before the name of a detector that learned from the whole ensemble.
STUDENT = "student-"
TEST_SCORES_FILE = "test_scores.parquet"
FORMAT_VERSION = 1
INPUT = "images"
OUTPUT = "logits"
MIN_REFERENCE_N = 10

DocumentType = TypeVar("DocumentType", bound=Document)


class FeatureRange(Document):
    """Where a feature lies over training samples.

    Attributes:
        n_real: Real samples with a value.
        n_fake: Fake samples with a value.
        real: 5th, 50th and 95th percentile over reals; null with fewer than 10.
        fake: 5th, 50th and 95th percentile over fakes; null with fewer than 10.
        low: Smallest value of either class; null without a value.
        high: Largest value of either class; null without a value.
    """

    n_real: int
    n_fake: int
    real: tuple[float, float, float] | None
    fake: tuple[float, float, float] | None
    low: float | None
    high: float | None


class FeatureReference(Document):
    """``reference.json``: what is usual, so that a measurement can be read.

    Attributes:
        splits: Splits that it was made of.
        features: Feature name to its range.
    """

    splits: tuple[str, ...]
    features: dict[str, FeatureRange]


def file_safe(name: str) -> str:
    """Turn a detector name into a file name stem.

    Args:
        name: For example ``timm:resnet10t``.

    Returns:
        Letters, digits, dot, underscore and hyphen only, for example ``timm-resnet10t``.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "detector"


def detector_document(onnx_name: str) -> str:
    """Name the detector document that lies beside an ONNX file."""
    return f"{onnx_name.removesuffix('.onnx')}.json"


def feature_reference(rows: pd.DataFrame, names: Sequence[str]) -> FeatureReference:
    """Describe each feature over the training rows.

    Args:
        rows: Rows of FEATURES of the train split.
        names: Feature columns.

    Returns:
        The ranges.

    Raises:
        LeakError: A row has another split.
    """
    rows = rows_for_choice(rows, {"train"}, "the feature reference")
    ranges = {}
    for name in names:
        values = rows[name].to_numpy(float, na_value=np.nan)
        labels = rows["label"].to_numpy(float, na_value=np.nan)
        known = np.isfinite(values)
        real, fake = values[known & (labels == 0)], values[known & (labels == 1)]
        either = np.concatenate([real, fake])
        ranges[name] = FeatureRange(
            n_real=len(real),
            n_fake=len(fake),
            real=_percentiles(real),
            fake=_percentiles(fake),
            low=float(either.min()) if len(either) else None,
            high=float(either.max()) if len(either) else None,
        )
    return FeatureReference(splits=("train",), features=ranges)


def _percentiles(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float, float] | None:
    if len(values) < MIN_REFERENCE_N:
        return None
    low, middle, high = np.percentile(values, (5, 50, 95))
    return float(low), float(middle), float(high)


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` and refuse a format that this version does not know.

    Args:
        folder: The bundle.

    Returns:
        The manifest.

    Raises:
        ContractError: There is none, it is not JSON, of another format, or incomplete.
    """
    path = folder / MANIFEST
    if path.is_file():
        try:
            stated = json.loads(path.read_bytes())
        except ValueError as error:
            raise ContractError(
                path, "document", f"is not JSON ({error})", "Write or download the bundle again."
            ) from error
        version = stated.get("format_version") if isinstance(stated, dict) else None
        if version != FORMAT_VERSION:
            raise ContractError(
                path,
                "format_version",
                f"is {version!r}; this unmask reads {FORMAT_VERSION}",
                "Use the version of unmask that wrote the bundle (unmask_version in the manifest), or bundle anew.",
            )
    manifest = Manifest.load(path)
    required = {*manifest.onnx.values(), ENSEMBLE, FUSION, EXTRACT}
    unlisted = sorted(required - set(manifest.files))
    if unlisted:
        raise ContractError(path, "files", f"no hash for {', '.join(unlisted)}", "Bundle anew.")
    for name in manifest.files:
        # A name with a folder part could point outside the bundle.
        if Path(name).name != name:
            raise ContractError(path, f"files.{name}", "is not a plain file name", "Bundle anew.")
    return manifest


def file_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Compare the files with the manifest.

    Args:
        folder: The bundle.
        manifest: Its manifest.

    Returns:
        A sentence for each file that is missing or changed; empty when all is well.
    """
    problems = []
    for name, expected in sorted(manifest.files.items()):
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif sha256_file(folder / name) != expected:
            problems.append(f"{name} is not the file that was bundled")
    return problems


def read_checked(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Read every file of a bundle once and check its hash.

    What is used later comes from these bytes, so nothing can be exchanged between the check and the use.

    Args:
        folder: The bundle.
        manifest: Its manifest.

    Returns:
        File name to content.

    Raises:
        ContractError: A file is missing or its SHA-256 differs.
    """
    contents = {}
    for name, expected in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            raise ContractError(path, "file", "is named in the manifest and missing", "Copy the whole folder again.")
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ContractError(
                path,
                "SHA-256",
                f"is {found[:12]}…, the manifest says {expected[:12]}…: the file was changed or damaged",
                "Do not use it; copy or download the bundle again.",
            )
        contents[name] = content
    return contents


def parse_document(contents: Mapping[str, bytes], name: str, model: type[DocumentType], folder: Path) -> DocumentType:
    """Parse a document from bytes that were checked.

    Args:
        contents: From `read_checked`.
        name: File name.
        model: Its schema.
        folder: The bundle, for the error.

    Returns:
        The document.

    Raises:
        ContractError: It breaks its schema.
    """
    try:
        return model.model_validate_json(contents[name])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or model.__name__
        raise ContractError(folder / name, where, first["msg"], "Bundle anew.") from error
