"""How many crops a second the loader gives, against bare decoding and against folders of PNG files.

    python benchmarks/loader.py [--crops 2048] [--size 256]

The crops are made by code: smooth pictures with sensor noise, compressed as `unmask extract` does, of about the size
of real crops (15 kB). Rates are per second of CPU time of the whole process, so that they do not depend on the number
of cores or on other work; the peers run in the same process, in turns with the loader. The floor is the JPEG library
on bytes that are in memory. One PNG folder is read by OpenCV and goes through our own preprocessing; the other is read
as most projects do it: `ImageFolder` of torchvision with `Resize`, `ToTensor` and `Normalize` in a `DataLoader`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import FACES, Preprocessing, write_table
from unmask.training.augment import Augmentation
from unmask.training.loader import CropLoader, TrainingView, index_crops, split_batches

JPEG_QUALITY = 95
BATCH_SIZE = 32
CROPS_OF_VIDEO = 32
FLOOR = "floor: JPEG library alone"
OURS = "loader, to inputs of 224 px"
PREPROCESSING = Preprocessing(size_px=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def draw_crop(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Draw a picture about as hard to compress as a face crop: RGB ``(S, S, 3)``, uint8."""
    image = cv2.resize(rng.uniform(30, 220, (12, 12, 3)).astype(np.float32), (size_px, size_px))
    noise = rng.normal(0, 1.1, (size_px, size_px, 1)) + rng.normal(0, 0.3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def make_sets(root: Path, n_crops: int, size_px: int) -> tuple[Path, list[Path], float]:
    """Write the same crops as Parquet and as PNG files.

    Returns:
        Folder of the Parquet part, the PNG files, and the mean size of a JPEG crop in bytes.
    """
    rng = np.random.default_rng(0)
    rows, files = [], []
    for number in range(n_crops):
        image = draw_crop(rng, size_px)
        files.append(root / "png" / ("real", "fake")[number % 2] / f"{number:06d}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(files[-1]), image[..., ::-1])
        rows.append(
            {
                "sample_id": f"{number // CROPS_OF_VIDEO:016d}",
                "face_index": 0,
                "frame_index": number % CROPS_OF_VIDEO,
                "time_s": 0.0,
                "label": number // CROPS_OF_VIDEO % 2,
                "group_id": "g",
                "split": "train",
                **dict.fromkeys(("x0_px", "y0_px", "x1_px", "y1_px"), 0.0),
                "confidence": 1.0,
                "yaw_deg": None,
                "jpeg": simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorsubsampling="420"),
            }
        )
    write_table(root / "faces" / "part-00000.parquet", pa.Table.from_pylist(rows, FACES.arrow_schema()), FACES)
    return root / "faces", files, float(np.mean([len(row["jpeg"]) for row in rows]))


def per_cpu_second(works: dict[str, Callable[[], object]], n_crops: int, repeats: int = 3) -> dict[str, float]:
    """Return the best rate of some repetitions of each, in turns, in crops per second of CPU time."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = max(best[name], n_crops / (time.process_time() - start))
    return best


def decode_all(jpegs: Sequence[bytes | memoryview]) -> None:
    """Decode each, and keep none: what is kept costs new memory for each."""
    for jpeg in jpegs:
        decode_crop(jpeg)


def image_folder(root: Path) -> Iterable[object]:
    """Get the loader that most projects have."""
    steps = transforms.Compose(
        [
            transforms.Resize((PREPROCESSING.size_px, PREPROCESSING.size_px)),
            transforms.ToTensor(),
            transforms.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
        ]
    )
    return DataLoader(ImageFolder(str(root), steps), batch_size=BATCH_SIZE, shuffle=True)


def read_png(files: list[Path]) -> None:
    """Read, decode and preprocess PNG files, as a loader of an image folder does."""
    for start in range(0, len(files), BATCH_SIZE):
        images = [cv2.imread(str(file))[..., ::-1] for file in files[start : start + BATCH_SIZE]]
        to_input([np.ascontiguousarray(image) for image in images], PREPROCESSING)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=2048)
    parser.add_argument("--size", type=int, default=256, help="side of a crop in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faces, files, jpeg_bytes = make_sets(Path(folder), options.crops, options.size)
        index = index_crops(faces)
        rows = np.arange(len(index.frame))
        loader = CropLoader(index, PREPROCESSING)

        def drain(batches: Iterable[object]) -> None:
            for _ in batches:
                pass

        def batches(view: TrainingView | None) -> Iterable[object]:
            return loader.batches(split_batches(rows, BATCH_SIZE), view)

        jpegs = [bytes(loader.encoded(int(row))) for row in rows]
        rates = per_cpu_second(
            {
                FLOOR: lambda: decode_all(jpegs),
                "decode only, from Parquet": lambda: decode_all([loader.encoded(int(row)) for row in rows]),
                OURS: lambda: drain(batches(None)),
                "loader, with augmentation": lambda: drain(batches(TrainingView(Augmentation()))),
                "PNG, OpenCV, our preprocessing": lambda: read_png(files),
                "PNG, ImageFolder of torchvision": lambda: drain(image_folder(Path(folder) / "png")),
            },
            len(rows),
        )
    print(f"{options.crops} crops of {options.size} px, {jpeg_bytes / 1000:.1f} kB of JPEG each")
    for name, rate in rates.items():
        print(f"{name:36s} {rate:8,.0f} crops per CPU-second, {rate / rates[FLOOR]:5.2f} × the floor")
    for name in [name for name in rates if name.startswith("PNG")]:
        print(f"loader to inputs against {name}: {rates[OURS] / rates[name]:.1f} ×")


if __name__ == "__main__":
    main()
