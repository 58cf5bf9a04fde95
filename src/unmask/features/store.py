"""The feature store: one file a measured sample, found by the hash of its bytes.

A file holds crops and windows of sound as a Parquet table and everything else as JSON in its metadata. It is written
whole or not at all, so a killed run loses only the samples in hand.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unmask.config import ExtractConfig
from unmask.features.catalogue import EXTRACTOR_VERSION
from unmask.features.measure import Measurement
from unmask.media.crops import Crop
from unmask.media.sound import Window
from unmask.objects import FolderStore, ObjectStore
from unmask.schemas import sha256_json, write_atomically

logger = logging.getLogger(__name__)

_KEY = b"unmask"
_SETTINGS = (
    "crops_per_video",
    "crop_size_px",
    "crop_scale",
    "jpeg_quality",
    "min_decoded_share",
    "min_face_share",
    "sound_windows",
)
_COLUMNS = pa.schema(
    [
        ("face_index", pa.int16()),
        ("frame_index", pa.int32()),
        ("time_s", pa.float64()),
        ("x0_px", pa.float32()),
        ("y0_px", pa.float32()),
        ("x1_px", pa.float32()),
        ("y1_px", pa.float32()),
        ("confidence", pa.float32()),
        ("yaw_deg", pa.float32()),
        ("jpeg", pa.binary()),
        ("window_index", pa.int16()),
        ("pcm", pa.binary()),
    ]
)
_OF_CROPS = [field.name for field in fields(Crop)]
_OF_WINDOWS = [field.name for field in fields(Window)]


@dataclass(frozen=True)
class Failure:
    """A sample that could not be measured.

    Attributes:
        code: Of the `MediaError`.
        detail: What was seen.
    """

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class FeatureStore:
    """Results by content, extractor version and the settings that change a result.

    Args:
        store: Folder or bucket.
        config: Settings of extraction.
        scratch: Folder for copies of objects that do not lie in a folder.
    """

    def __init__(self, store: ObjectStore, config: ExtractConfig, scratch: Path) -> None:
        self._store = store
        self._key = store_key(config)
        self._scratch = scratch
        self._is_folder = isinstance(store, FolderStore)

    def path(self, sha256: str, modality: str) -> Path:
        """Where a worker writes the result of a file: in the folder itself, or before it is uploaded."""
        key = self._object(sha256, modality)
        return Path(self._store.address(key)) if self._is_folder else self._scratch / key

    def keep(self, sha256: str, modality: str) -> None:
        """Bring what a worker wrote into the store.

        Raises:
            StorageError: The bucket does not take it.
        """
        path = self.path(sha256, modality)
        if not self._is_folder and path.exists():
            self._store.upload(path, self._object(sha256, modality))

    def save(self, sha256: str, modality: str, result: Measurement | Failure) -> None:
        """Write a result atomically."""
        save_result(self.path(sha256, modality), result)
        self.keep(sha256, modality)

    def load(self, sha256: str, modality: str) -> Measurement | Failure | None:
        """Read a result; None if there is none, or if its file is damaged.

        Raises:
            StorageError: The bucket does not answer.
        """
        path = self.path(sha256, modality)
        if not self._is_folder and not path.exists():
            key = self._object(sha256, modality)
            if self._store.stat(key) is None:
                return None
            self._store.download(key, path)
        return load_result(path)

    def forget(self, sha256: str, modality: str) -> None:
        """Remove the local copy of an object, if it is one."""
        if not self._is_folder:
            self.path(sha256, modality).unlink(missing_ok=True)

    def _object(self, sha256: str, modality: str) -> str:
        return f"extract/{self._key}/{sha256[:2]}/{sha256}.{modality}.parquet"


def store_key(config: ExtractConfig) -> str:
    """Name the part of the store that fits this extractor and these settings."""
    settings = config.model_dump(mode="json", include=set(_SETTINGS))
    return f"{EXTRACTOR_VERSION}-{sha256_json(settings)[:12]}"


def save_result(path: Path, result: Measurement | Failure) -> None:
    """Write a measurement or a failure to one file, atomically."""
    if isinstance(result, Failure):
        note: dict[str, Any] = {"failed": [result.code, result.detail]}
        rows: list[dict[str, Any]] = []
    else:
        rows = [part.__dict__ for part in (*result.crops, *result.windows)]
        note = {
            "features": result.features,
            "null_reasons": result.null_reasons,
            "n_frames_expected": result.n_frames_expected,
            "n_frames_decoded": result.n_frames_decoded,
            "face_share": result.face_share,
            "no_sound_reason": result.no_sound_reason,
        }
    table = pa.Table.from_pylist(rows, schema=_COLUMNS)
    table = table.replace_schema_metadata({_KEY: json.dumps(note).encode()})
    with write_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="none")


def load_result(path: Path) -> Measurement | Failure | None:
    """Read what `save_result` wrote; None if there is nothing that can be read."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        note = json.loads(table.schema.metadata[_KEY])
        if "failed" in note:
            return Failure(*note["failed"])
        rows = table.to_pylist()
        return Measurement(
            crops=[Crop(**{name: row[name] for name in _OF_CROPS}) for row in rows if row["pcm"] is None],
            windows=[Window(**{name: row[name] for name in _OF_WINDOWS}) for row in rows if row["pcm"] is not None],
            **note,
        )
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s is damaged and is measured again (%s).", path, error)
        return None
