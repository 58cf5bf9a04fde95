"""Which crops a training sees, in which order, and what is done to them."""

import numpy as np
import pandas as pd
import pytest
import torch

from unmask.errors import ContractError
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import FACES, Preprocessing, read_table
from unmask.training.augment import Augmentation
from unmask.training.loader import (
    CropLoader,
    TrainingView,
    draw_training_rows,
    evenly_spaced_rows,
    index_crops,
    limit_samples,
    shuffle_rows,
    split_batches,
)

PREPROCESSING = Preprocessing(size_px=48, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def track(sample: str, n: int, face: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"sample_id": sample, "face_index": face, "frame_index": np.arange(n) * 3})


def test_index_finds_every_crop_where_the_table_has_it(made):
    index = index_crops(made.faces)
    table = read_table(made.faces, FACES).to_pandas()
    pd.testing.assert_series_equal(index.frame["sample_id"], table["sample_id"])
    loader = CropLoader(index, PREPROCESSING)
    assert [bytes(loader.encoded(row)) for row in range(len(table))] == list(table["jpeg"])


def test_crops_are_the_same_with_a_memory_for_one_row_group(made):
    index = index_crops(made.faces)
    assert len(index.groups) > 2
    large, small = CropLoader(index, PREPROCESSING), CropLoader(index, PREPROCESSING, memory_bytes=1)
    order = np.random.default_rng(0).permutation(len(index.frame))
    assert all(bytes(large.encoded(int(row))) == bytes(small.encoded(int(row))) for row in order)
    assert len(small._cache) == 1


def test_missing_and_broken_parts_are_named(tmp_path):
    with pytest.raises(ContractError, match="does not exist"):
        index_crops(tmp_path)
    (tmp_path / "part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(ContractError, match=r"part-0\.parquet.*not a readable"):
        index_crops(tmp_path)


def test_draw_takes_n_of_each_sample_anew_each_epoch_and_only_the_largest_face():
    frame = pd.concat([track("a", 10), track("b", 3), track("a", 10, face=1)], ignore_index=True)
    first = draw_training_rows(frame, 4, np.random.default_rng(1))
    second = draw_training_rows(frame, 4, np.random.default_rng(2))
    for rows in (first, second):
        drawn = frame.loc[rows]
        assert drawn["sample_id"].value_counts().to_dict() == {"a": 4, "b": 3}
        assert (drawn["face_index"] == 0).all()
        assert len(set(rows)) == len(rows)
    assert set(first) != set(second)
    assert np.array_equal(first, draw_training_rows(frame, 4, np.random.default_rng(1)))


def test_evaluation_frames_are_evenly_spaced_for_each_face():
    frame = pd.concat([track("b", 12), track("a", 2), track("a", 9, face=1)], ignore_index=True)
    frame = frame.sample(frac=1, random_state=0, ignore_index=True)
    picked = frame.loc[evenly_spaced_rows(frame, 4)]
    frames = {key: list(rows["frame_index"]) for key, rows in picked.groupby(["sample_id", "face_index"])}
    assert frames == {("a", 0): [0, 3], ("a", 1): [3, 9, 15, 21], ("b", 0): [3, 12, 21, 30]}


def test_shuffle_keeps_windows_of_row_groups_together(made):
    index = index_crops(made.faces)
    rows = np.arange(len(index.frame))
    whole = shuffle_rows(index, rows, np.random.default_rng(3), 10**9)
    tight = shuffle_rows(index, rows, np.random.default_rng(3), 1)
    for order in (whole, tight):
        assert np.array_equal(np.sort(order), rows)
    changes = np.count_nonzero(np.diff(index.frame["group"].to_numpy()[tight]))
    assert changes == len(index.groups) - 1, "with no memory, each row group is visited once"
    assert np.count_nonzero(np.diff(index.frame["group"].to_numpy()[whole])) > 2 * changes
    assert not np.array_equal(tight[:10], np.sort(tight[:10]))


def test_batches_differ_by_at_most_one_row():
    assert [len(batch) for batch in split_batches(np.arange(33), 32)] == [17, 16]
    assert split_batches(np.arange(0), 4) == []


def test_without_augmentation_a_batch_is_exactly_the_preprocessed_crops(made):
    index = index_crops(made.faces)
    loader = CropLoader(index, PREPROCESSING, workers=2)
    rows = np.array([5, 0, 70, 31])
    batches = list(loader.batches(split_batches(rows, 2)))
    expected = to_input([decode_crop(loader.encoded(int(row))) for row in rows], PREPROCESSING)
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), torch.from_numpy(expected))
    assert torch.cat([batch.labels for batch in batches]).tolist() == index.frame["label"].iloc[rows].tolist()


def test_augmentation_depends_on_seed_epoch_and_row_but_not_on_threads_or_batches(made):
    index = index_crops(made.faces)
    rows = np.arange(20)

    def inputs(workers: int, batch_size: int, seed: tuple[int, int]) -> torch.Tensor:
        loader = CropLoader(index, PREPROCESSING, workers=workers)
        view = TrainingView(Augmentation(), seed=seed)
        return torch.cat([b.inputs for b in loader.batches(split_batches(rows, batch_size), view)])

    assert torch.equal(inputs(1, 5, (7, 1)), inputs(3, 20, (7, 1)))
    assert not torch.equal(inputs(1, 5, (7, 1)), inputs(1, 5, (7, 2)))
    assert not torch.equal(inputs(1, 5, (7, 1)), inputs(1, 5, (8, 1)))


def test_a_broken_crop_stops_the_loader_with_its_error(made):
    index = index_crops(made.faces)
    loader = CropLoader(index, PREPROCESSING)
    loader.encoded = lambda row: memoryview(b"no jpeg")  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="JPEG"):
        list(loader.batches([np.array([0])]))


def test_the_rarer_class_is_drawn_again_until_there_are_as_many(made):
    frame = index_crops(made.faces).frame
    frame = frame[(frame["label"] == 0) | (frame["sample_id"] == frame.loc[frame["label"] == 1, "sample_id"].iloc[0])]
    frame = frame.reset_index(drop=True)
    rows = draw_training_rows(frame, 4, np.random.default_rng(0), even=True)
    labels = frame["label"].to_numpy()[rows % len(frame)]
    assert (labels == 0).sum() == (labels == 1).sum() == 4 * frame.loc[frame["label"] == 0, "sample_id"].nunique()
    assert len(set(rows.tolist())) == len(rows), "each repetition has its own number, and so its own augmentation"
    counts = np.bincount(rows % len(frame), minlength=len(frame))[frame["label"].to_numpy() == 1]
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 1


def test_repeated_crops_are_augmented_each_in_its_own_way(made):
    index = index_crops(made.faces)
    loader = CropLoader(index, PREPROCESSING)
    (batch,) = loader.batches([np.array([3, 3 + len(index.frame)])], TrainingView(Augmentation(), seed=(1, 1)))
    (plain,) = loader.batches([np.array([3, 3 + len(index.frame)])])
    assert torch.equal(plain.inputs[0], plain.inputs[1])
    assert torch.equal(plain.labels, batch.labels)
    assert not torch.equal(batch.inputs[0], batch.inputs[1])


def test_limit_keeps_whole_samples_of_each_class(made):
    frame = index_crops(made.faces).frame
    keep = limit_samples(frame, 3, np.random.default_rng(0))
    kept = frame[keep].groupby("label")["sample_id"].nunique()
    assert kept.to_dict() == {0: 3, 1: 3}
    assert not frame.loc[~keep, "sample_id"].isin(frame.loc[keep, "sample_id"]).any()
