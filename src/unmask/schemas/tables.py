"""Parquet tables that pass between stages: their columns, and the checks on writing and on reading."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unmask.errors import ContractError, LeakError
from unmask.schemas.files import write_atomically

SPLITS = ("train", "val", "calib", "test")
MODALITIES = ("image", "video", "audio")
# Of the table windows, within the folder of the table faces.
WINDOWS_FOLDER = "windows"
STATUSES = ("ok", "failed")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name.
        type: Its Arrow type.
        doc: Meaning and unit.
        nullable: Whether a row may lack it.
        allowed: The only values it may take.
        minimum: Smallest value allowed (numbers only).
        maximum: Largest value allowed (numbers only).
        optional: Whether a table may lack it altogether, as those of earlier versions do; it is then null everywhere.
    """

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False
    allowed: tuple[str | int, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class TableSpec:
    """The schema of a table.

    Attributes:
        name: Name used in errors.
        columns: The columns, in order.
        key: Columns whose combination is unique.
        extra: Pattern of further columns that are allowed, all nullable float64.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    extra: str | None = None

    def arrow_schema(self, extra_columns: Collection[str] = ()) -> pa.Schema:
        """Build the Arrow schema, with the given further float64 columns at the end."""
        fields = [pa.field(column.name, column.type, nullable=column.nullable) for column in self.columns]
        return pa.schema(fields + [pa.field(name, pa.float64()) for name in extra_columns])

    def empty(self) -> pa.Table:
        """Build a table of this schema without rows."""
        return self.arrow_schema().empty_table()


def _id(name: str, doc: str, *, nullable: bool = False) -> Column:
    return Column(name, pa.string(), doc, nullable=nullable)


_SAMPLE = _id("sample_id", "hash of source and path within it, 16 hexadecimal characters; stable")
_GROUP = _id("group_id", "what shares a source video or an identity; a group lies in one split", nullable=True)
_SPLIT = Column("split", pa.string(), "train, val, calib, test; null when the sample failed", True, SPLITS)
_LABEL = Column("label", pa.int8(), "0 real, 1 fake, null unknown", True, (0, 1))
_STATUS = Column("status", pa.string(), "ok or failed", allowed=STATUSES)
_REASON = _id("reason", "`code: sentence` when status is failed", nullable=True)

SAMPLES = TableSpec(
    "samples",
    (
        _SAMPLE,
        _id("uri", "where the bytes lie: an absolute path or s3://bucket/key"),
        Column("modality", pa.string(), "image, video, audio; null when unknown", True, MODALITIES),
        _LABEL,
        _id("source", "data set that it came from"),
        _id(
            "manipulation",
            "how it was forged, e.g. Deepfakes; null for reals and when unknown",
            nullable=True,
        ),
        _id("compression", "c0, c23, c40, …; null when unknown", nullable=True),
        _GROUP,
        _SPLIT,
        _id("sha256", "hash of the bytes; null when they cannot be read", nullable=True),
        Column("size_bytes", pa.int64(), "size of the file", minimum=0),
        Column("width_px", pa.int32(), "displayed width, after rotation", True, minimum=1),
        Column("height_px", pa.int32(), "displayed height, after rotation", True, minimum=1),
        Column("fps", pa.float64(), "average frames per second", True, minimum=0),
        Column("duration_s", pa.float64(), "duration as the container states it", True, minimum=0),
        Column("n_frames", pa.int32(), "frames as the container states or implies them", True, minimum=0),
        _id("codec", "name of the video, image or audio codec", nullable=True),
        Column("bitrate_bps", pa.float64(), "bits per second of the whole file", True, minimum=0),
        Column("sample_rate_hz", pa.int32(), "of the audio stream", True, minimum=1),
        Column("has_audio", pa.bool_(), "whether there is an audio stream", True),
        Column("rotation_deg", pa.int16(), "rotation flag of the container", True),
        _STATUS,
        _REASON,
        Column("container", pa.string(), "format of the file", True, optional=True),
        Column("pixel_format", pa.string(), "of the picture, or the sample format of audio", True, optional=True),
        Column("encoder", pa.string(), "program that wrote the file, or quality of a JPEG", True, optional=True),
        Column("channels", pa.int16(), "of the audio stream", True, minimum=1, optional=True),
        Column("peak_dbfs", pa.float64(), "highest level of the sound, dB of full scale", True, optional=True),
    ),
    key=("sample_id",),
)

FACES = TableSpec(
    "faces",
    (
        _SAMPLE,
        Column("face_index", pa.int16(), "0 is the largest track of the sample", minimum=0),
        Column("frame_index", pa.int32(), "in presentation order, 0-based", minimum=0),
        Column("time_s", pa.float64(), "presentation time", minimum=0),
        _LABEL,
        _GROUP,
        _SPLIT,
        Column("x0_px", pa.float32(), "left edge of the face box (before enlarging) in the displayed frame"),
        Column("y0_px", pa.float32(), "top edge"),
        Column("x1_px", pa.float32(), "right edge"),
        Column("y1_px", pa.float32(), "bottom edge"),
        Column("confidence", pa.float32(), "of the face detector or landmark model", minimum=0, maximum=1),
        Column("yaw_deg", pa.float32(), "head yaw, 0 is frontal", True),
        Column("jpeg", pa.binary(), "the crop, RGB JPEG"),
    ),
    key=("sample_id", "face_index", "frame_index"),
)

WINDOWS = TableSpec(
    "windows",
    (
        _SAMPLE,
        Column("window_index", pa.int16(), "in order of time, 0-based", minimum=0),
        Column("time_s", pa.float64(), "when it begins", minimum=0),
        _LABEL,
        _GROUP,
        _SPLIT,
        Column("pcm", pa.binary(), "mono sound at 16 kHz, 16-bit signed little-endian, at most 64,600 samples"),
    ),
    key=("sample_id", "window_index"),
)

FEATURES = TableSpec(
    "features",
    (
        _SAMPLE,
        _LABEL,
        _GROUP,
        _SPLIT,
        _STATUS,
        _REASON,
        Column("n_frames_expected", pa.int32(), "frames that the container promises", True, minimum=0),
        Column("n_frames_decoded", pa.int32(), "frames that were decoded", True, minimum=0),
        Column("face_share", pa.float64(), "share of examined frames with a face", True, minimum=0, maximum=1),
        Column("n_crops", pa.int32(), "face crops written", minimum=0),
        _id("extractor_version", "version of the extractor that measured this row"),
        Column("null_reasons", pa.map_(pa.string(), pa.string()), "feature name to why it could not be measured"),
        Column("n_windows", pa.int32(), "windows of sound written", True, minimum=0, optional=True),
        Column("no_sound_reason", pa.string(), "`code: sentence` why there are none", True, optional=True),
    ),
    key=("sample_id",),
    extra=r"^(quality|wm|forensics|face|art|temp|audio)\.[a-z0-9_]+$",
)

FRAME_SCORES = TableSpec(
    "frame scores",
    (
        _SAMPLE,
        Column("face_index", pa.int16(), "as in faces; of a detector of sound 0", minimum=0),
        Column("frame_index", pa.int32(), "as in faces; of a detector of sound the window_index", minimum=0),
        _LABEL,
        _GROUP,
        _SPLIT,
        Column("logit", pa.float64(), "detector output; larger means more fake"),
    ),
    key=("sample_id", "face_index", "frame_index"),
)

VIDEO_LOGITS = TableSpec(
    "video logits",
    (
        _SAMPLE,
        _id("detector", "its name"),
        _SPLIT,
        Column("logit", pa.float64(), "mean over frames, before any calibration"),
    ),
    key=("sample_id", "detector"),
)

VIDEO_SCORES = TableSpec(
    "video scores",
    (
        _SAMPLE,
        _LABEL,
        _GROUP,
        _SPLIT,
        Column("logit", pa.float64(), "combined logit before the last calibration; null without a score", True),
        Column("probability", pa.float64(), "calibrated P(fake); null without a score", True, minimum=0, maximum=1),
        Column("agreement", pa.float64(), "how far the detectors agree", True, minimum=0, maximum=1),
        _id("reason", "why there is no score", nullable=True),
    ),
    key=("sample_id",),
)

TEST_SCORES = TableSpec(
    "test scores",
    (
        _SAMPLE,
        _id("sha256", "hash of the bytes of the file: what tells that two data sets share a sample"),
        Column("label", pa.int8(), "0 real, 1 fake", allowed=(0, 1)),
        _id("group_id", "what is resampled together", nullable=True),
        _id("source", "data set that it came from"),
        _id("manipulation", "how it was forged; null for reals and when unknown", nullable=True),
        _id("compression", "c0, c23, c40, …; null when unknown", nullable=True),
        Column("probability", pa.float64(), "calibrated P(fake) of the bundle", minimum=0, maximum=1),
    ),
    key=("sample_id",),
)

SEEN_SAMPLES = TableSpec(
    "seen samples",
    (
        _id("sha256", "hash of the bytes of the file"),
        Column("split", pa.string(), "where it lay when the bundle was made", allowed=SPLITS),
    ),
    key=("sha256", "split"),
)

ROBUSTNESS = TableSpec(
    "robustness",
    (
        _id("system", "detector name, or ensemble"),
        _id("perturbation", "clean, jpeg, gaussian_blur, …; or an attack: fgsm, pgd, apgd, square"),
        Column(
            "severity", pa.int8(), "0 clean, then 1 to 5; of an attack the place of its epsilon", minimum=0, maximum=5
        ),
        _id("metric", "roc_auc, fpr, tpr, or roc_auc_change: paired with the same samples when clean"),
        Column("value", pa.float64(), "the estimate; null when undefined", True),
        Column("low", pa.float64(), "lower end of the 95 % interval", True),
        Column("high", pa.float64(), "upper end of the 95 % interval", True),
        Column("n", pa.int32(), "samples", minimum=0),
        _id("crafted_on", "of an attack the detector whose weights or scores it used; null otherwise", nullable=True),
        Column("epsilon", pa.float64(), "of an attack the most that a pixel changes, of 255 levels", True, minimum=0),
    ),
    key=("system", "perturbation", "severity", "metric", "crafted_on"),
)

CROSS_DATASET = TableSpec(
    "cross-dataset",
    (
        _id("detector", "name of the detector"),
        _id("trained_on", "all, source=…, not source=…, not manipulation=…"),
        _id("tested_on", "source=…, or manipulation=… (its fakes against all reals of test)"),
        Column("unseen", pa.bool_(), "whether nothing of what is tested on took part in training"),
        _id("metric", "roc_auc, roc_auc_change (against trained on all), brier, ece, …"),
        Column("value", pa.float64(), "the estimate; null when undefined", True),
        Column("low", pa.float64(), "lower end of the 95 % interval", True),
        Column("high", pa.float64(), "upper end of the 95 % interval", True),
        Column("n", pa.int32(), "samples", minimum=0),
        Column("n_reals", pa.int32(), "reals among them", minimum=0),
        Column("n_fakes", pa.int32(), "fakes among them", minimum=0),
        Column("n_groups", pa.int32(), "independent groups among them", minimum=0),
    ),
    key=("detector", "trained_on", "tested_on", "metric"),
)


def _first_row(mask: pa.ChunkedArray | pa.Array) -> int:
    return int(np.flatnonzero(np.asarray(pc.fill_null(mask, False)))[0])


def _check_values(table: pa.Table, column: Column, path: Path | str) -> None:
    values = table.column(column.name)
    if not column.nullable and values.null_count:
        raise ContractError(path, f"column {column.name}, row {_first_row(pc.is_null(values))}", "value is missing")
    checks: list[tuple[pa.ChunkedArray, str]] = []
    if column.allowed is not None:
        listed = pc.is_in(values, value_set=pa.array(column.allowed, column.type))
        choices = ", ".join(map(str, column.allowed))
        checks.append((pc.and_(pc.invert(listed), pc.is_valid(values)), f"not one of {choices}"))
    if column.minimum is not None:
        checks.append((pc.less(values, column.minimum), f"below {column.minimum:g}"))
    if column.maximum is not None:
        checks.append((pc.greater(values, column.maximum), f"above {column.maximum:g}"))
    if pa.types.is_floating(column.type):
        checks.append((pc.invert(pc.is_finite(values)), "not a finite number"))
    for mask, problem in checks:
        if pc.any(pc.fill_null(mask, False)).as_py():
            row = _first_row(mask)
            raise ContractError(path, f"column {column.name}, row {row}", f"{values[row].as_py()!r} is {problem}")


def _extra_columns(names: Sequence[str], spec: TableSpec, path: Path | str) -> list[str]:
    """Check the names of columns and return those that the pattern for further columns allows."""
    known = {column.name for column in spec.columns}
    needed = {column.name for column in spec.columns if not column.optional}
    missing = [name for name in needed if name not in names]
    if missing:
        raise ContractError(path, f"table {spec.name}", f"columns missing: {', '.join(sorted(missing))}")
    extra = [name for name in names if name not in known]
    unknown = [name for name in extra if not (spec.extra and re.match(spec.extra, name))]
    if unknown:
        raise ContractError(path, f"table {spec.name}", f"unknown columns: {', '.join(unknown)}")
    return extra


def validate_table(table: pa.Table, spec: TableSpec, path: Path | str) -> pa.Table:
    """Check a table against its schema and cast its columns to the exact types.

    Args:
        table: The table.
        spec: Its schema.
        path: Where it comes from or goes to; named in errors.

    Returns:
        The table with the columns of ``spec`` in order, further columns behind.

    Raises:
        ContractError: A column is missing, unknown, of a wrong type, or holds a wrong value; or a key occurs twice.
    """
    extra = _extra_columns(table.column_names, spec, path)
    for column in spec.columns:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    arrays = []
    for column in (*spec.columns, *(Column(name, pa.float64(), "", nullable=True) for name in extra)):
        try:
            arrays.append(table.column(column.name).cast(column.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            found = table.column(column.name).type
            raise ContractError(path, f"column {column.name}", f"is {found}, not {column.type} ({error})") from error
    # Nullability is checked below with the row that breaks it, so the Arrow fields stay nullable until then.
    loose = pa.schema([field.with_nullable(True) for field in spec.arrow_schema(extra)])
    checked = pa.Table.from_arrays(arrays, schema=loose)
    for column in (*spec.columns, *(Column(name, pa.float64(), "", nullable=True) for name in extra)):
        _check_values(checked, column, path)
    _check_key(checked, spec, path)
    return checked.cast(spec.arrow_schema(extra))


def _check_key(table: pa.Table, spec: TableSpec, path: Path | str) -> None:
    keys = table.select(list(spec.key)).to_pandas()
    repeated = keys.duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        value = ", ".join(map(str, keys.iloc[row]))
        raise ContractError(path, f"column {'+'.join(spec.key)}, row {row}", f"{value} occurs twice")


def write_table(path: Path, table: pa.Table | pd.DataFrame, spec: TableSpec) -> None:
    """Check a table and write it atomically as Parquet.

    Row groups hold 256 rows for faces, so that a loader can shuffle them; JPEG bytes are not compressed again.

    Args:
        path: The file.
        table: Arrow table or data frame.
        spec: Its schema.

    Raises:
        ContractError: See `validate_table`.
    """
    if isinstance(table, pd.DataFrame):
        table = _from_pandas(table, spec, path)
    checked = validate_table(table, spec, path)
    binary = any(pa.types.is_binary(column.type) for column in spec.columns)
    options = {"compression": "none", "row_group_size": 256} if binary else {"compression": "zstd"}
    with write_atomically(path) as temporary:
        pq.write_table(checked, temporary, **options)


def _from_pandas(frame: pd.DataFrame, spec: TableSpec, path: Path) -> pa.Table:
    """Convert column by column, so that an error names the column."""
    extra = _extra_columns([str(name) for name in frame.columns], spec, path)
    types = {field.name: field.type for field in spec.arrow_schema(extra)}
    arrays = []
    for name in frame.columns:
        try:
            arrays.append(pa.Array.from_pandas(frame[name], type=types[str(name)]))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
            raise ContractError(path, f"column {name}", f"is not {types[str(name)]} ({error})") from error
    return pa.table(arrays, names=[str(name) for name in frame.columns])


def read_table(path: Path, spec: TableSpec) -> pa.Table:
    """Read a Parquet file, or all ``*.parquet`` parts in a folder, and check it against its schema.

    Args:
        path: The file or folder.
        spec: Its schema.

    Returns:
        The table. ``table.to_pandas()`` gives a data frame.

    Raises:
        ContractError: The file is missing, is not Parquet, or breaks the schema.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise ContractError(path, f"table {spec.name}", "does not exist", "Run the stage that writes it first.")
    parts = []
    for file in files:
        try:
            parts.append(pq.read_table(file))
        except (pa.ArrowInvalid, OSError) as error:
            raise ContractError(file, f"table {spec.name}", f"is not a readable Parquet file ({error})") from error
    if len(parts) == 1:
        return validate_table(parts[0], spec, files[0])
    checked = [validate_table(part, spec, file) for part, file in zip(parts, files, strict=True)]
    return validate_table(pa.concat_tables(checked, promote_options="default"), spec, path)


def rows_for_choice(frame: pd.DataFrame, allowed: Collection[str], chooser: str) -> pd.DataFrame:
    """Refuse rows of a split that a choosing function must not see.

    Every function that fits, selects, tunes or thresholds passes its rows through here first, so that no choice can
    be made on test rows by mistake.

    Args:
        frame: Rows with a column ``split``.
        allowed: Splits that the caller may use, for example ``{"calib"}``.
        chooser: Name of the caller, for the error.

    Returns:
        The same frame.

    Raises:
        LeakError: A row has another split.
    """
    wrong = frame.loc[~frame["split"].isin(list(allowed)), "split"]
    if len(wrong):
        counts = ", ".join(f"{count} of {split}" for split, count in wrong.value_counts(dropna=False).items())
        raise LeakError(
            f"{chooser} was handed rows that it must not see: {counts}.",
            f"Pass only rows of {', '.join(sorted(allowed))}.",
        )
    return frame
