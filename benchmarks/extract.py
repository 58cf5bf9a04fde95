"""How much does measuring cost over decoding alone? CPU-seconds of both, side by side, and the share of each stage.

Run: ``python benchmarks/extract.py [--clip FILE] [--repeats N] [--workers]``, or with ``--memory`` or ``--folder DIR``.
Without a clip a ten-second 1080p clip of a rendered talking face is made first. The figures are CPU-seconds of one
process with one thread, the best of several runs, each measurement next to a decoding run, so that a busy machine
disturbs both alike. The ratio falls with the bit rate of the clip, because more bits cost more decoding; a phone or a
video platform gives 4 to 16 Mbit/s at 1080p. ``--workers`` adds the throughput of one and of two processes,
``--memory`` gives the peak memory of a worker over clips of unlike length and size up to ten minutes in 4K, and
``--folder`` the time that the videos below a folder take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from unmask.config import ExtractConfig
from unmask.data.sampleset.clips import Job, render
from unmask.features.extract_stage import JOB
from unmask.features.measure import Pass, measure
from unmask.media.pool import Answer, WorkerPool
from unmask.media.video import VideoReader

WIDTH_PX, HEIGHT_PX, FPS, DURATION_S = 1920, 1080, 30, 10


def main() -> None:
    """Make or take a clip, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="measure this clip")
    parser.add_argument("--keep", type=Path, help="write the rendered clip here")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", action="store_true", help="compare one and two processes")
    parser.add_argument("--memory", action="store_true", help="peak memory of a worker")
    parser.add_argument("--folder", type=Path, help="measure the videos below this folder instead")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.folder:
            measure_folder(arguments.folder, Path(folder))
            return
        if arguments.memory:
            compare_memory(Path(folder))
            return
        clip = arguments.clip or make_clip(arguments.keep or Path(folder) / "clip.mp4")
        compare(clip, arguments.repeats)
        if arguments.workers:
            compare_workers(clip, Path(folder))


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


def jobs_for(clips: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Jobs as the stage hands them to its workers."""
    config = ExtractConfig().model_dump(mode="json")
    return [
        {
            "path": str(clip),
            "modality": "video",
            "size_bytes": clip.stat().st_size,
            "config": config,
            "out": str(out / f"{index}.parquet"),
        }
        for index, clip in enumerate(clips)
    ]


def run_jobs(clips: Sequence[Path], out: Path, workers: int) -> tuple[float, float, list[tuple[float, Answer]]]:
    """Measure clips in worker processes.

    Returns:
        Wall and CPU seconds from the first answer on, when all processes are awake; seconds since the last answer of
        the same run, with the answers.
    """
    warm = [clips[0]] * workers
    answers: list[tuple[float, Answer]] = []
    start = last = cpu = 0.0
    with WorkerPool(JOB, workers, 3600) as pool:
        for answer in pool.run(jobs_for([*warm, *clips], out)):
            now = time.monotonic()
            if len(answers) == workers - 1 and not start:
                start, cpu = now, workers_cpu_seconds(pool)
            answers.append((now - last, answer))
            last = now
        cpu = workers_cpu_seconds(pool) - cpu
    return last - start, cpu, answers[workers:]


def workers_cpu_seconds(pool: WorkerPool) -> float:
    """CPU time of the processes of a pool so far (Linux)."""
    ticks = 0
    for worker in pool._workers:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def compare_workers(clip: Path, folder: Path) -> None:
    """Throughput of one and of two processes, in turn; on a busy machine the wall time says little."""
    n = 6
    rates: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for workers in (1, 2):
            wall, cpu, _answers = run_jobs([clip] * n, folder, workers)
            rates[workers].append(60 * n / wall)
            costs[workers].append(cpu / n)
    for workers in (1, 2):
        shown = f"{max(rates[workers]):6.1f} videos/min   {min(costs[workers]):5.2f} CPU-s a video"
        print(f"{workers} process{'es' if workers > 1 else '  '}             {shown}")
    print(f"{'two over one':24s} {max(rates[2]) / max(rates[1]):.2f} by the clock of this machine as it is now")
    free = 2 * min(costs[1]) / min(costs[2])
    print(f"{'':24s} {free:.2f} if both cores were free, {120 / min(costs[2]):.1f} videos/min (from CPU-seconds)")


def compare_memory(folder: Path) -> None:
    """Peak memory of a fresh worker over clips of unlike size and length, up to ten minutes in 4K."""
    shapes = ((1280, 720, 10), (1920, 1080, 10), (3840, 2160, 10), (3840, 2160, 600))
    for width, height, seconds in shapes:
        clip = long_clip(folder / f"{height}-{seconds}.mp4", width, height, seconds)
        # The high-water mark of the process itself; what getrusage gives begins with that of its parent.
        code = (
            "import json,sys,time;from unmask.features.extract_stage import extract_one;"
            "r=extract_one(json.loads(sys.argv[1]));"
            "m=next(l for l in open('/proc/self/status') if l.startswith('VmHWM'));"
            "print(int(m.split()[1])/1024,time.process_time(),r)"
        )
        job = json.dumps(jobs_for([clip], folder)[0])
        done = subprocess.run([sys.executable, "-c", code, job], capture_output=True, text=True, check=True)
        peak, cpu, failure = done.stdout.split(maxsplit=2)
        print(
            f"{width}×{height}, {seconds:4d} s: peak {float(peak):5.0f} MB, {float(cpu):6.1f} CPU-s"
            + ("" if failure.strip() == "None" else f"  {failure.strip()}"),
            flush=True,
        )


def long_clip(path: Path, width: int, height: int, seconds: int, fps: int = 10) -> Path:
    """Encode two seconds of a rendered talking face, and repeat its packets."""
    rng = np.random.default_rng(0)
    truth, _ = render(Job(7, 0, 0, 480, fps, 2.0), path.parent)
    short = path.with_suffix(".short.mp4")
    with VideoReader(path.parent / truth.path) as reader, av.open(str(short), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "26", "preset": "ultrafast", "g": "20", "bf": "0"}
        for frame in reader:
            picture = np.full((height, width, 3), 60, np.uint8)
            face = cv2.resize(frame.rgb(0, 0, frame.width_px, frame.height_px), (height, height))
            left = (width - height) // 2 + int(rng.integers(0, 9))
            picture[:, left : left + height] = face
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(short)) as source, av.open(str(path), "w") as target:
        template = source.streams.video[0]
        packets = [packet for packet in source.demux(template) if packet.dts is not None]
        contents = [(bytes(packet), packet.pts, packet.is_keyframe) for packet in packets]
        step = packets[1].pts - packets[0].pts
        copy = target.add_stream_from_template(template)
        for turn in range(seconds // 2):
            for data, pts, key in contents:
                packet = av.Packet(data)
                packet.pts = packet.dts = pts + turn * step * len(contents)
                packet.duration, packet.time_base, packet.is_keyframe = step, template.time_base, key
                packet.stream = copy
                target.mux(packet)
    return path


def measure_folder(root: Path, out: Path) -> None:
    """Time the videos below a folder with one process a core."""
    clips = sorted(path for path in root.rglob("*.mp4"))
    wall, cpu, answers = run_jobs(clips, out, 1)
    times = np.array([seconds for seconds, _ in answers])
    failed = [(clips[a.index - 1].name, a.error or a.value) for _, a in answers if a.error or a.value]
    print(
        f"{len(clips)} videos, one process: {wall:.0f} s by the clock, {cpu:.0f} CPU-s ({cpu / len(clips):.2f} a video)"
    )
    print(
        f"a video: median {np.median(times):.2f} s, largest {times.max():.2f} s by the clock; failures: {len(failed)}"
    )
    for name, why in failed:
        print(f"  {name}: {why}")


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
            run.skin.see = timed("skin colours", run.skin.see)  # type: ignore[method-assign]
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
