"""The table contracts: what is wrong is named by file, column and row."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unmask.errors import ContractError, LeakError
from unmask.schemas import (
    FACES,
    FEATURES,
    VIDEO_SCORES,
    Column,
    TableSpec,
    read_table,
    rows_for_choice,
    validate_table,
    write_table,
)


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": ["a", "b", "c"],
            "label": [0, 1, None],
            "group_id": ["g", "g", "h"],
            "split": ["test", "calib", None],
            "logit": [-0.5, 1.5, None],
            "probability": [0.4, 0.8, None],
            "agreement": [1.0, 1.0, None],
            "reason": [None, None, "no_face: none of 32 frames shows a face"],
        }
    )


def test_a_table_comes_back_as_it_was_written(tmp_path: Path, scores: pd.DataFrame) -> None:
    write_table(tmp_path / "scores.parquet", scores, VIDEO_SCORES)
    back = read_table(tmp_path / "scores.parquet", VIDEO_SCORES)
    assert back.column("label").to_pylist() == [0, 1, None]
    assert back.column("reason").to_pylist()[2].startswith("no_face")
    assert back.schema.equals(VIDEO_SCORES.arrow_schema())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": ["test", "holdout", None]}, ["column split, row 1", "'holdout'", "train, val, calib, test"]),
        ({"probability": [0.4, 1.2, None]}, ["column probability, row 1", "1.2", "above 1"]),
        ({"logit": [float("inf"), 0, 0]}, ["column logit, row 0", "not a finite number"]),
        ({"sample_id": ["a", "b", "a"]}, ["column sample_id, row 2", "a occurs twice"]),
        ({"sample_id": ["a", None, "c"]}, ["column sample_id, row 1", "missing"]),
        ({"label": [0, "x", 1]}, ["column label", "not int8"]),
        ({"label": [0, 7, 1]}, ["column label, row 1", "not one of 0, 1"]),
        ({"mood": ["good", "bad", "ugly"]}, ["unknown columns: mood"]),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, scores: pd.DataFrame, change: dict[str, list], words: list) -> None:
    path = tmp_path / "scores.parquet"
    with pytest.raises(ContractError) as caught:
        write_table(path, scores.assign(**change), VIDEO_SCORES)
    for word in [str(path), *words]:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_table_that_others_wrote_is_checked_on_reading(tmp_path: Path, scores: pd.DataFrame) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.Table.from_pandas(scores.drop(columns="agreement"), preserve_index=False), path)
    with pytest.raises(ContractError, match="columns missing: agreement"):
        read_table(path, VIDEO_SCORES)
    path.write_bytes(b"not parquet")
    with pytest.raises(ContractError, match="not a readable Parquet file"):
        read_table(path, VIDEO_SCORES)
    with pytest.raises(ContractError, match="does not exist"):
        read_table(tmp_path / "absent.parquet", VIDEO_SCORES)


def test_feature_columns_are_free_but_named_by_family() -> None:
    table = FEATURES.empty()
    assert validate_table(table.append_column("quality.blur", pa.array([], pa.float64())), FEATURES, "t") is not None
    with pytest.raises(ContractError, match=r"unknown columns: taste\.blur"):
        validate_table(table.append_column("taste.blur", pa.array([], pa.float64())), FEATURES, "t")


def test_parts_in_a_folder_are_one_table_and_keys_hold_across_parts(tmp_path: Path) -> None:
    def part(sample: str) -> pa.Table:
        row = {"sample_id": sample, "face_index": 0, "frame_index": 3, "time_s": 0.1, "label": 1, "group_id": "g"}
        row |= {"split": "train", "x0_px": 0, "y0_px": 0, "x1_px": 9, "y1_px": 9, "confidence": 1, "yaw_deg": 0}
        return pa.Table.from_pylist([row | {"jpeg": b"\xff\xd8"}])

    for index, sample in enumerate("ab"):
        write_table(tmp_path / f"part-{index}.parquet", part(sample), FACES)
    assert read_table(tmp_path, FACES).num_rows == 2
    write_table(tmp_path / "part-2.parquet", part("a"), FACES)
    with pytest.raises(ContractError, match="a, 0, 3 occurs twice"):
        read_table(tmp_path, FACES)


def test_faces_lie_in_row_groups_of_256_without_compression(tmp_path: Path) -> None:
    rows = FACES.arrow_schema()
    count = 600
    columns = {
        field.name: pa.array([b"x" if field.name == "jpeg" else "s" if pa.types.is_string(field.type) else 1] * count)
        for field in rows
    }
    columns["split"] = pa.array(["train"] * count)
    columns["frame_index"] = pa.array(range(count))
    write_table(tmp_path / "part.parquet", pa.table(columns), FACES)
    metadata = pq.ParquetFile(tmp_path / "part.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [256, 256, 88]
    assert metadata.row_group(0).column(rows.get_field_index("jpeg")).compression == "UNCOMPRESSED"


def test_no_choice_is_made_on_test_rows(scores: pd.DataFrame) -> None:
    assert len(rows_for_choice(scores.iloc[[1]], {"calib"}, "fit")) == 1
    with pytest.raises(LeakError, match=r"fit was handed rows .* 1 of test"):
        rows_for_choice(scores.iloc[:2], {"calib"}, "fit")
    with pytest.raises(LeakError, match="fit"):  # a failed sample has no split and is no row for a choice either
        rows_for_choice(scores.iloc[2:], {"calib"}, "fit")


def test_tables_of_earlier_versions_may_lack_optional_columns() -> None:
    spec = TableSpec(
        "t",
        (Column("a", pa.string(), "key"), Column("b", pa.int16(), "new", True, optional=True)),
        key=("a",),
    )
    assert validate_table(pa.table({"a": ["x"]}), spec, "t").to_pylist() == [{"a": "x", "b": None}]
    with pytest.raises(ContractError, match="columns missing: a"):
        validate_table(pa.table({"b": [1]}), spec, "t")
