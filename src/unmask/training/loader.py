"""Batches of crops from Parquet: row groups shuffled, then rows; decoding and augmentation in threads.

What a batch holds depends only on the rows, the seed and the epoch, never on timing, so that a run that was killed
can go on at any batch.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import ContractError
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import FACES, Preprocessing, TableSpec, validate_table
from unmask.training.augment import Augmentation

Rows = NDArray[np.int64]
INDEX_COLUMNS = ("sample_id", "face_index", "frame_index", "label", "group_id", "split")
# The columns of the faces table without the pixels: what can be held in memory for any data set.
INDEX = TableSpec("faces", tuple(c for c in FACES.columns if c.name in INDEX_COLUMNS), FACES.key)
DEFAULT_MEMORY_BYTES = 512 * 2**20
BATCHES_AHEAD = 3


@dataclass(frozen=True)
class CropIndex:
    """Where each crop lies.

    Attributes:
        files: The Parquet parts.
        frame: One row a crop: the columns of `INDEX`, and ``group`` (number of its row group over all parts) and
            ``offset`` (row within that row group).
        groups: For each row group its part and its number within the part.
        group_bytes: Size of each row group.
    """

    files: tuple[Path, ...]
    frame: pd.DataFrame
    groups: tuple[tuple[int, int], ...]
    group_bytes: NDArray[np.int64]

    def select(self, keep: NDArray[np.bool_]) -> CropIndex:
        """Keep only some of the crops.

        Args:
            keep: Boolean ``(n_crops,)``.

        Returns:
            Index with the kept crops, renumbered.
        """
        return CropIndex(self.files, self.frame[keep].reset_index(drop=True), self.groups, self.group_bytes)


def index_crops(faces: Path) -> CropIndex:
    """Read where the crops lie, without reading the crops.

    Args:
        faces: Folder of Parquet parts, or one part.

    Returns:
        The index of all crops.

    Raises:
        ContractError: There is no part, or a part is unreadable or breaks the schema.
    """
    files = tuple(sorted(faces.glob("*.parquet"))) if faces.is_dir() else (faces,)
    if not files or not files[0].is_file():
        raise ContractError(faces, "table faces", "does not exist", "Run `unmask extract` first.")
    frames: list[pd.DataFrame] = []
    groups: list[tuple[int, int]] = []
    sizes: list[int] = []
    for part, file in enumerate(files):
        try:
            parquet = pq.ParquetFile(file)
            listed = [name for name in INDEX_COLUMNS if name in parquet.schema_arrow.names]
            table = validate_table(parquet.read(columns=listed), INDEX, file)
        except (pa.ArrowInvalid, OSError) as error:
            raise ContractError(file, "table faces", f"is not a readable Parquet file ({error})") from error
        lengths = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        frame = table.to_pandas()
        frame["group"] = np.repeat(np.arange(len(lengths)) + len(groups), lengths)
        frame["offset"] = np.concatenate([np.arange(length) for length in lengths] or [np.empty(0, np.int64)])
        frames.append(frame)
        groups += [(part, i) for i in range(len(lengths))]
        sizes += [parquet.metadata.row_group(i).total_byte_size for i in range(len(lengths))]
        parquet.close()
    return CropIndex(files, pd.concat(frames, ignore_index=True), tuple(groups), np.asarray(sizes, np.int64))


def draw_training_rows(frame: pd.DataFrame, frames_per_video: int, rng: np.random.Generator) -> Rows:
    """Draw crops of each sample without replacement, from its largest face only.

    Smaller faces of a forged video are often untouched, and would teach a wrong label.

    Args:
        frame: Rows of an index.
        frames_per_video: At most so many a sample.
        rng: Source of the draw.

    Returns:
        Positions in ``frame``, ascending.
    """
    lots = pd.DataFrame({"sample_id": frame["sample_id"], "lot": rng.random(len(frame))})
    lots = lots[frame["face_index"].to_numpy() == 0].sort_values("lot")
    drawn = lots.groupby("sample_id", sort=False).head(frames_per_video)
    return np.sort(drawn.index.to_numpy(np.int64))


def evenly_spaced_rows(frame: pd.DataFrame, frames_per_video: int) -> Rows:
    """Pick evenly spaced crops of each face of each sample, in the middle of equal stretches of time.

    Args:
        frame: Rows of an index.
        frames_per_video: At most so many a face.

    Returns:
        Positions in ``frame``, ordered by sample, face and frame.
    """
    ordered = frame.reset_index(drop=True).sort_values(["sample_id", "face_index", "frame_index"])
    picked: list[Rows] = []
    for _, track in ordered.groupby(["sample_id", "face_index"], sort=False):
        n_picked = min(frames_per_video, len(track))
        middle = (np.arange(n_picked) + 0.5) * len(track) / n_picked
        picked.append(track.index.to_numpy(np.int64)[middle.astype(np.int64)])
    return np.concatenate(picked) if picked else np.empty(0, np.int64)


def shuffle_rows(index: CropIndex, rows: Rows, rng: np.random.Generator, window_bytes: int) -> Rows:
    """Shuffle row groups, gather as many as fit in memory, and shuffle the rows of each such window.

    A data set that fits in memory is shuffled as a whole; a larger one is read row group by row group, each once.

    Args:
        index: The index.
        rows: Positions in the index.
        rng: Source of the order.
        window_bytes: Size of a window.

    Returns:
        The rows in their new order.
    """
    order = rng.permutation(len(index.groups))
    window_of_group = np.empty(len(order), np.int64)
    window_of_group[order] = np.cumsum(index.group_bytes[order]) // max(1, window_bytes)
    window = window_of_group[index.frame["group"].to_numpy()[rows]]
    shuffled = rng.permutation(len(rows))
    return rows[shuffled[np.argsort(window[shuffled], kind="stable")]]


@dataclass(frozen=True)
class Batch:
    """Crops that go through a detector together.

    Attributes:
        inputs: ``(N, 3, S, S)``, float32, preprocessed.
        labels: ``(N,)``, float32, 0 real, 1 fake.
        rows: Positions in the index ``(N,)``.
    """

    inputs: Tensor
    labels: Tensor
    rows: Rows


class CropLoader:
    """Reads, decodes, augments and preprocesses crops.

    Args:
        index: Where they lie.
        preprocessing: Of the detector.
        workers: Threads that decode and augment.
        memory_bytes: JPEG bytes kept in memory; a set that fits is read once for all epochs.
    """

    def __init__(
        self,
        index: CropIndex,
        preprocessing: Preprocessing,
        *,
        workers: int = 1,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self.index = index
        self.preprocessing = preprocessing
        self.workers = max(1, workers)
        self.memory_bytes = memory_bytes
        self._group = index.frame["group"].to_numpy(np.int64)
        self._offset = index.frame["offset"].to_numpy(np.int64)
        self._label = index.frame["label"].to_numpy(np.float32, na_value=np.nan)
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._cached_bytes = 0

    def epoch_order(self, frames_per_video: int, seed: int, epoch: int) -> Rows:
        """Draw and shuffle the crops of a training epoch.

        Args:
            frames_per_video: At most so many crops a sample.
            seed: Of the run.
            epoch: 1-based.

        Returns:
            Positions in the index; the same for the same arguments.
        """
        rng = np.random.default_rng((seed, epoch))
        rows = draw_training_rows(self.index.frame, frames_per_video, rng)
        # Half of the memory: the windows before and behind a boundary are needed at the same time.
        return shuffle_rows(self.index, rows, rng, self.memory_bytes // 2)

    def jpeg(self, row: int) -> memoryview:
        """Return the JPEG bytes of a crop.

        Args:
            row: Position in the index.

        Returns:
            The bytes, not copied.
        """
        group = int(self._group[row])
        if group in self._cache:
            self._cache.move_to_end(group)
        else:
            part, number = self.index.groups[group]
            with pq.ParquetFile(self.index.files[part]) as parquet:
                self._cache[group] = parquet.read_row_group(number, columns=["jpeg"]).column(0)
            self._cached_bytes += int(self.index.group_bytes[group])
            while self._cached_bytes > self.memory_bytes and len(self._cache) > 1:
                dropped, _ = self._cache.popitem(last=False)
                self._cached_bytes -= int(self.index.group_bytes[dropped])
        return memoryview(self._cache[group][int(self._offset[row])].as_buffer())

    def batches(
        self,
        batches: Sequence[Rows],
        augmentation: Augmentation | None = None,
        seed: tuple[int, int] = (0, 0),
    ) -> Iterator[Batch]:
        """Prepare batches in threads, a few ahead of the one that is used.

        Args:
            batches: Positions in the index, batch by batch.
            augmentation: For training only.
            seed: Of the run, and the epoch; with the row they seed the augmentation of each crop.

        Yields:
            The batches, in order.
        """
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="crops") as pool:
            try:
                for rows in batches:
                    jpegs = [self.jpeg(int(row)) for row in rows]
                    waiting.append(pool.submit(self._prepare, jpegs, rows, augmentation, seed))
                    if len(waiting) > BATCHES_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _prepare(
        self, jpegs: Sequence[memoryview], rows: Rows, augmentation: Augmentation | None, seed: tuple[int, int]
    ) -> Batch:
        images = [decode_crop(jpeg) for jpeg in jpegs]
        if augmentation is not None:
            generators = (np.random.default_rng((*seed, int(row))) for row in rows)
            images = [augmentation(image, rng) for image, rng in zip(images, generators, strict=True)]
        inputs = torch.from_numpy(to_input(images, self.preprocessing))
        return Batch(inputs, torch.from_numpy(self._label[rows]), rows)


def split_batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Cut rows into batches of nearly equal size, so that no batch of one row upsets batch normalisation.

    Args:
        rows: Positions in an index.
        batch_size: At most so many a batch.

    Returns:
        The batches.
    """
    if not len(rows):
        return []
    return np.array_split(rows, -(-len(rows) // batch_size))
