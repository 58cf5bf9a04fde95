"""How ingest scales, and how well near-duplicates are told from what only looks alike.

``python benchmarks/ingest.py scale --files 100000`` makes small files, no two alike, and measures a first run, an
unchanged one and one with one more file: wall and CPU seconds, and the highest memory of the process.
``python benchmarks/ingest.py near-duplicates FOLDER`` takes the pictures of a folder, changes each in several ways, and
counts the pairs that are missed, and those that are found among the untouched pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from unmask.data.near_duplicates import Marks, near_duplicates
from unmask.media.fingerprint import picture_mark

CODE = """
import json, logging, resource, sys, time
from pathlib import Path
from unmask.config import IngestConfig
from unmask.data.ingest_stage import run_ingest
from unmask.data.sources import Source
from unmask.objects import FolderStore
begin, cpu = time.monotonic(), time.process_time()
outcome = run_ingest([Source("s", FolderStore(Path(sys.argv[1])))], Path(sys.argv[2]), IngestConfig(), 42)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"wall_s": round(time.monotonic() - begin, 1), "cpu_s": round(time.process_time() - cpu, 1),
                  "peak_mib": round(memory), **outcome.metrics}))
"""


def write_pictures(folder: Path, n: int, first: int = 0) -> None:
    """Write small JPEG pictures of blurred noise, half of them reals."""
    for i in range(first, first + n):
        rng = np.random.default_rng(i)
        coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_LINEAR)
        place = folder / ("real" if i % 2 else "fake") / f"{i // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"p{i:07d}x.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])


def run(folder: Path, out: Path) -> dict[str, float]:
    """Ingest in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-c", CODE, str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def scale(n_files: int) -> None:
    """Print one line a run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary) / "media", Path(temporary) / "out"
        begin = time.monotonic()
        write_pictures(folder, n_files)
        print(f"made {n_files} files in {time.monotonic() - begin:.0f} s", flush=True)
        for name in ("first run", "unchanged", "one more file"):
            if name == "one more file":
                write_pictures(folder, 1, n_files)
            print(f"{name:14s}", json.dumps(run(folder, out)), flush=True)
        size = sum(path.stat().st_size for path in out.iterdir())
        print(f"result {size / 2**20:.1f} MiB", flush=True)
        shutil.rmtree(out)


def changes(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Change a picture as people do."""
    height, width = picture.shape[:2]
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    edge = max(1, width // 50)
    half = cv2.resize(picture, (max(8, width // 2), max(8, height // 2)), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).normal(0, 8, picture.shape)
    return {
        "JPEG quality 30": jpeg,
        "half size": half,
        "brighter by 20 %": np.clip(picture * 1.2, 0, 255).astype(np.uint8),
        "noise of 8 levels": np.clip(picture + noise, 0, 255).astype(np.uint8),
        "2 % cut off at each side": picture[edge:-edge, edge:-edge],
        "mirrored": picture[:, ::-1],
        "grey": cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
    }


def rates(folder: Path, most: int) -> None:
    """Print the miss rate of each change and the number of pairs among untouched pictures."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))[:most]
    pictures = [cv2.imread(str(path)) for path in files]

    def marks(some: list[np.ndarray]) -> list[Marks]:
        none = np.zeros(0, np.uint32)
        found = (picture_mark(np.ascontiguousarray(picture[:, :, ::-1])) for picture in some)
        return [Marks((mark,) if mark else (), none) for mark in found]

    untouched = marks(pictures)
    n = len(files)
    begin = time.process_time()
    among = len(near_duplicates(untouched))
    print(f"{n} pictures, {among} pairs of {n * (n - 1) // 2} found alike, {time.process_time() - begin:.2f} s CPU")
    fresh = np.r_[np.zeros(n, bool), np.ones(n, bool)]
    for name in changes(pictures[0]):
        changed = marks([changes(picture)[name] for picture in pictures])
        pairs = {(pair.first, pair.second) for pair in near_duplicates([*untouched, *changed], fresh)}
        missed = sum((i, i + n) not in pairs for i in range(n))
        print(f"{name:26s} missed {missed} of {n} ({missed / n:.1%})")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    by_scale = commands.add_parser("scale")
    by_scale.add_argument("--files", type=int, default=100_000)
    by_rate = commands.add_parser("near-duplicates")
    by_rate.add_argument("folder", type=Path)
    by_rate.add_argument("--most", type=int, default=5000)
    arguments = parser.parse_args()
    if arguments.command == "scale":
        scale(arguments.files)
    else:
        rates(arguments.folder, arguments.most)


if __name__ == "__main__":
    main()
