"""How much does measuring cost over decoding alone? CPU-seconds of both, side by side, and the share of each stage.

Run: ``python benchmarks/extract.py [--clip FILE] [--repeats N]``. Without a clip a ten-second 1080p clip of a rendered
talking face is made first. The figures are CPU-seconds of one process with one thread, the best of several runs, each
measurement next to a decoding run, so that a busy machine disturbs both alike. The ratio falls with the bit rate of the
clip, because more bits cost more decoding; a phone or a video platform gives 4 to 16 Mbit/s at 1080p.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from unmask.config import ExtractConfig
from unmask.data.sampleset.clips import Job, render
from unmask.features.measure import Pass, measure
from unmask.media.video import VideoReader

WIDTH_PX, HEIGHT_PX, FPS, DURATION_S = 1920, 1080, 30, 10


def main() -> None:
    """Make or take a clip, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="measure this clip")
    parser.add_argument("--keep", type=Path, help="write the rendered clip here")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        clip = arguments.clip or make_clip(arguments.keep or Path(folder) / "clip.mp4")
        compare(clip, arguments.repeats)


def make_clip(path: Path) -> Path:
    """Enlarge a rendered talking face to 1080p, before moving surroundings and with camera noise, as H.264."""
    print(f"rendering {DURATION_S} s at {WIDTH_PX}×{HEIGHT_PX} …", flush=True)
    truth, _ = render(Job(7, 0, 0, 480, FPS, float(DURATION_S)), path.parent)
    rng = np.random.default_rng(1)
    wall = sum(
        cv2.resize(rng.uniform(10, 50, (n * 9, n * 16, 3)).astype(np.float32), (WIDTH_PX, HEIGHT_PX))
        for n in (2, 8, 30, 80)
    )
    noise = rng.normal(0, 3, (HEIGHT_PX, WIDTH_PX, 1)).astype(np.float32)
    left = (WIDTH_PX - HEIGHT_PX) // 2
    with VideoReader(path.parent / truth.path) as reader, av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.options = {"crf": "21", "preset": "fast"}
        for frame in reader:
            picture = np.roll(wall, round(10 * np.sin(frame.index / 9)), axis=1)
            face = frame.rgb(0, 0, frame.width_px, frame.height_px)
            picture[:, left : left + HEIGHT_PX] = cv2.resize(
                face, (HEIGHT_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC
            )
            grain = np.roll(noise, rng.integers(0, HEIGHT_PX, 2), axis=(0, 1))
            rgb = np.clip(picture + grain, 0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def compare(clip: Path, repeats: int) -> None:
    """Time decoding and measuring in turn, then print the best of each and their ratio."""
    config = ExtractConfig(workers=1)
    measure(clip, "video", config)  # loads the networks
    decoding, whole, stages = [], [], []
    for _ in range(repeats):
        decoding.append(cpu_seconds(lambda: decode(clip)))
        shares: dict[str, float] = defaultdict(float)
        with Stopwatches(shares):
            whole.append(cpu_seconds(lambda: measure(clip, "video", config)))
        stages.append(shares)
    best = int(np.argmin(whole))
    with VideoReader(clip) as reader:
        frames = sum(1 for _ in reader)
        print(f"{clip.name}: {frames} frames, {8e-6 * reader.coded_bytes / frames * reader.facts.fps:.1f} Mbit/s")
    print(f"{'decoding alone':24s} {min(decoding):6.2f} CPU-s")
    print(f"{'measuring':24s} {whole[best]:6.2f} CPU-s   ratio {whole[best] / min(decoding):.2f}")
    paired = sorted(w / d for w, d in zip(whole, decoding, strict=True))
    print(f"{'ratio, run by run':24s} " + " ".join(f"{ratio:.2f}" for ratio in paired))
    shares = stages[best]
    shares["decoding and the rest"] = whole[best] - sum(shares.values())
    for name, seconds in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {name:22s} {seconds:6.2f} CPU-s   {seconds / whole[best]:5.1%}")


def decode(clip: Path) -> int:
    """Decode every frame with the same decoder and do nothing with it."""
    with VideoReader(clip) as reader:
        return sum(1 for _ in reader)


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU time of this process for some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Stopwatches:
    """Times the stages of a pass while active.

    Args:
        shares: Stage to CPU-seconds; added to.
    """

    def __init__(self, shares: dict[str, float]) -> None:
        self._shares = shares
        self._create = Pass

    def __enter__(self) -> None:
        create, timed = self._create, self._timed

        def watched(*arguments: Any) -> Pass:
            run = create(*arguments)
            run.tracker.update = timed("faces", run.tracker.update)  # type: ignore[method-assign]
            run._skin.see = timed("skin colours", run._skin.see)  # type: ignore[method-assign]
            run._cut_crops = timed("crops", run._cut_crops)  # type: ignore[method-assign]
            for name, family in run.families.items():
                family.see = timed(name, family.see)  # type: ignore[method-assign]
            run.finish = timed("finish", run.finish)  # type: ignore[method-assign]
            return run

        _module().Pass = watched

    def __exit__(self, *exception: object) -> None:
        _module().Pass = self._create

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            start = time.process_time()
            result = function(*arguments)
            self._shares[name] += time.process_time() - start
            return result

        return wrapper


def _module() -> Any:
    """The module that makes a `Pass`; the package gives its name to the function."""
    return sys.modules[Pass.__module__]


if __name__ == "__main__":
    main()
