"""Batches of crops or windows of sound from Parquet: row groups shuffled, then rows; decoded and augmented in threads.

What a batch holds depends only on the rows, the seed and the epoch, never on timing, so that a run that was killed
can go on at any batch.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import ContractError
from unmask.media.preprocessing import decode_item, to_input
from unmask.schemas import (
    FACES,
    WINDOWS,
    WINDOWS_FOLDER,
    AnyPreprocessing,
    DetectorModality,
    TableSpec,
    validate_table,
)
from unmask.training.self_blend import SelfBlender, compress_alike

Rows = NDArray[np.int64]
INDEX_COLUMNS = ("sample_id", "face_index", "frame_index", "label", "group_id", "split")
# The columns of the faces table without the pixels: what can be held in memory for any data set.
INDEX = TableSpec("faces", tuple(c for c in FACES.columns if c.name in INDEX_COLUMNS), FACES.key)
WINDOW_INDEX = TableSpec("windows", tuple(c for c in WINDOWS.columns if c.name not in ("time_s", "pcm")), WINDOWS.key)
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
        column: Of the parts that holds the crops.
    """

    files: tuple[Path, ...]
    frame: pd.DataFrame
    groups: tuple[tuple[int, int], ...]
    group_bytes: NDArray[np.int64]
    column: str = "jpeg"

    def select(self, keep: NDArray[np.bool_]) -> CropIndex:
        """Keep only some of the crops.

        Args:
            keep: Boolean ``(n_crops,)``.

        Returns:
            Index with the kept crops, renumbered.
        """
        return replace(self, frame=self.frame[keep].reset_index(drop=True))


def index_crops(faces: Path) -> CropIndex:
    """Read where the crops lie, without reading the crops.

    Args:
        faces: Folder of Parquet parts, or one part.

    Returns:
        The index of all crops.

    Raises:
        ContractError: There is no part, or a part is unreadable or breaks the schema.
    """
    return _index(faces, INDEX, "jpeg")


def index_windows(faces: Path) -> CropIndex:
    """Read where the windows of sound lie.

    Args:
        faces: Folder that `unmask extract` wrote the crops to.

    Returns:
        The index of all windows; they have the ``face_index`` 0, and their ``window_index`` as ``frame_index``.

    Raises:
        ContractError: There is no part, or a part is unreadable or breaks the schema.
    """
    found = _index(faces / WINDOWS_FOLDER, WINDOW_INDEX, "pcm")
    frame = found.frame.rename(columns={"window_index": "frame_index"})
    return replace(found, frame=frame.assign(face_index=np.int16(0), frame_index=frame["frame_index"].astype("int32")))


def index_for(faces: Path, modality: DetectorModality) -> CropIndex:
    """Read where the crops or the windows lie, whichever a detector takes."""
    return index_windows(faces) if modality == "audio" else index_crops(faces)


def _index(folder: Path, spec: TableSpec, column: str) -> CropIndex:
    files = tuple(sorted(folder.glob("*.parquet"))) if folder.is_dir() else (folder,)
    what = f"table {spec.name}"
    if not files or not files[0].is_file():
        raise ContractError(folder, what, "does not exist", "Run `unmask extract` first.")
    wanted = [one.name for one in spec.columns]
    frames: list[pd.DataFrame] = []
    groups: list[tuple[int, int]] = []
    sizes: list[int] = []
    for part, file in enumerate(files):
        try:
            parquet = pq.ParquetFile(file)
            listed = [name for name in wanted if name in parquet.schema_arrow.names]
            table = validate_table(parquet.read(columns=listed), spec, file)
        except (pa.ArrowInvalid, OSError) as error:
            raise ContractError(file, what, f"is not a readable Parquet file ({error})") from error
        lengths = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        frame = table.to_pandas()
        frame["group"] = np.repeat(np.arange(len(lengths)) + len(groups), lengths)
        frame["offset"] = np.concatenate([np.arange(length) for length in lengths] or [np.empty(0, np.int64)])
        frames.append(frame)
        groups += [(part, i) for i in range(len(lengths))]
        sizes += [parquet.metadata.row_group(i).total_byte_size for i in range(len(lengths))]
        parquet.close()
    return CropIndex(files, pd.concat(frames, ignore_index=True), tuple(groups), np.asarray(sizes, np.int64), column)


def draw_training_rows(
    frame: pd.DataFrame, frames_per_video: int, rng: np.random.Generator, *, even: bool = False
) -> Rows:
    """Draw crops of each sample without replacement, from its largest face only.

    Smaller faces of a forged video are often untouched, and would teach a wrong label.

    Args:
        frame: Rows of an index.
        frames_per_video: At most so many a sample.
        rng: Source of the draw.
        even: Draw crops of the rarer class again until there are as many as of the other.

    Returns:
        Positions in ``frame``, ascending; those that are drawn a second time have the length of ``frame`` added, a
        third time twice the length, and so on, so that each is augmented in its own way.
    """
    lots = pd.DataFrame({"sample_id": frame["sample_id"], "lot": rng.random(len(frame))})
    lots = lots[frame["face_index"].to_numpy() == 0].sort_values("lot")
    drawn = np.sort(lots.groupby("sample_id", sort=False).head(frames_per_video).index.to_numpy(np.int64))
    if not even:
        return drawn
    labels = frame["label"].to_numpy()[drawn]
    classes = sorted((drawn[labels == label] for label in (0, 1)), key=len)
    rarer, n_more = classes[0], len(classes[1]) - len(classes[0])
    if not len(rarer):
        return drawn
    rounds = -(-n_more // len(rarer))
    again = np.concatenate([rng.permutation(rarer) + (i + 1) * len(frame) for i in range(rounds)] or [drawn[:0]])
    return np.sort(np.concatenate([drawn, again[:n_more]]))


def limit_samples(frame: pd.DataFrame, most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keep at most so many samples of each class, drawn at random.

    Args:
        frame: Rows of an index.
        most: Samples a class.
        rng: Source of the draw.

    Returns:
        Boolean ``(n_crops,)``.
    """
    samples = frame.drop_duplicates("sample_id")[["sample_id", "label"]]
    samples = samples.assign(lot=rng.random(len(samples))).sort_values("lot")
    kept = samples.groupby("label").head(most)["sample_id"]
    return frame["sample_id"].isin(kept).to_numpy()


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
    window = window_of_group[index.frame["group"].to_numpy()[rows % len(index.frame)]]
    shuffled = rng.permutation(len(rows))
    return rows[shuffled[np.argsort(window[shuffled], kind="stable")]]


@dataclass(frozen=True)
class Batch:
    """Crops that go through a detector together.

    Attributes:
        inputs: ``(N, 3, S, S)`` or ``(N, L)``, float32, preprocessed.
        labels: ``(N,)``, float32, 0 real, 1 fake.
        rows: Positions in the index ``(N,)``, with its length added where a crop was drawn again.
    """

    inputs: Tensor
    labels: Tensor
    rows: Rows


class Damages(Protocol):
    """What `Augmentation` and `SoundAugmentation` are."""

    def __call__(self, item: NDArray[Any], rng: np.random.Generator, /, *, rarer: bool = False) -> NDArray[Any]:
        """Damage a crop or a window."""


@dataclass(frozen=True)
class TrainingView:
    """What happens to crops on the way into training, and nowhere else.

    Attributes:
        augmentation: Damages; None for none.
        blender: Makes fakes of real crops; None for none.
        blend_chance: For each real crop.
        rarer_label: Class that is augmented more; None when neither is.
        seed: Of the run, and the epoch; with the row they seed what happens to a crop.
    """

    augmentation: Damages | None = None
    blender: SelfBlender | None = None
    blend_chance: float = 0.0
    rarer_label: int | None = None
    seed: tuple[int, int] = (0, 0)

    def __call__(self, image: NDArray[Any], label: float, row: int) -> tuple[NDArray[Any], float]:
        """Prepare a crop, or a window of sound.

        Args:
            image: RGB ``(S, S, 3)``, uint8; or ``(L,)``, int16.
            label: 0 or 1.
            row: Its number, which makes its random choices its own.

        Returns:
            The crop, and its label: 1 if it has become a self-blended fake.
        """
        rng = np.random.default_rng((*self.seed, row))
        if self.blender is not None and label == 0 and rng.random() < self.blend_chance:
            blended = self.blender(image, rng)
            if blended is not None:
                image, label = blended, 1.0
        if self.blender is not None:
            image = compress_alike(image, rng)
        if self.augmentation is not None:
            image = self.augmentation(image, rng, rarer=label == self.rarer_label)
        return image, label


class CropLoader:
    """Reads, decodes, augments and preprocesses crops.

    Args:
        index: Where they lie.
        preprocessing: Of the detector.
        workers: Threads that decode and augment.
        memory_bytes: Encoded bytes kept in memory; a set that fits is read once for all epochs.
    """

    def __init__(
        self,
        index: CropIndex,
        preprocessing: AnyPreprocessing,
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

    def epoch_order(self, frames_per_video: int, seed: int, epoch: int, *, even: bool = False) -> Rows:
        """Draw and shuffle the crops of a training epoch.

        Args:
            frames_per_video: At most so many crops a sample.
            seed: Of the run.
            epoch: 1-based.
            even: As many crops of either class, see `draw_training_rows`.

        Returns:
            Positions in the index; the same for the same arguments.
        """
        rng = np.random.default_rng((seed, epoch))
        rows = draw_training_rows(self.index.frame, frames_per_video, rng, even=even)
        # Half of the memory: the windows before and behind a boundary are needed at the same time.
        return shuffle_rows(self.index, rows, rng, self.memory_bytes // 2)

    def encoded(self, row: int) -> memoryview:
        """Return the bytes of a crop or window: JPEG or samples.

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
                self._cache[group] = parquet.read_row_group(number, columns=[self.index.column]).column(0)
            self._cached_bytes += int(self.index.group_bytes[group])
            while self._cached_bytes > self.memory_bytes and len(self._cache) > 1:
                dropped, _ = self._cache.popitem(last=False)
                self._cached_bytes -= int(self.index.group_bytes[dropped])
        return memoryview(self._cache[group][int(self._offset[row])].as_buffer())

    def batches(self, batches: Sequence[Rows], view: TrainingView | None = None) -> Iterator[Batch]:
        """Prepare batches in threads, a few ahead of the one that is used.

        Args:
            batches: Positions in the index, batch by batch.
            view: For training only.

        Yields:
            The batches, in order.
        """
        waiting: deque[Future[Batch]] = deque()
        n_crops = len(self._group)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="crops") as pool:
            try:
                for rows in batches:
                    encoded = [self.encoded(int(row) % n_crops) for row in rows]
                    waiting.append(pool.submit(self._prepare, encoded, rows, view))
                    if len(waiting) > BATCHES_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _prepare(self, encoded: Sequence[memoryview], rows: Rows, view: TrainingView | None) -> Batch:
        images = [decode_item(one, self.preprocessing) for one in encoded]
        labels = self._label[rows % len(self._label)]
        if view is not None:
            viewed = [view(*crop) for crop in zip(images, labels.tolist(), rows.tolist(), strict=True)]
            images = [image for image, _ in viewed]
            labels = np.array([label for _, label in viewed], np.float32)
        inputs = torch.from_numpy(to_input(images, self.preprocessing))
        return Batch(inputs, torch.from_numpy(labels), rows)


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
