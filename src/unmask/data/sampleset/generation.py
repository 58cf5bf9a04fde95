"""The sample set: which clips it holds, and rendering them side by side."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path

from unmask.data.sampleset.clips import Job, render
from unmask.data.sampleset.truth import TRUTH_FILE, ClipTruth, SampleSetTruth
from unmask.errors import ContractError, InputError
from unmask.progress import track
from unmask.schemas import StageOutcome, new_directory, sha256_file

logger = logging.getLogger(__name__)

GENERATOR_VERSION = 3  # raise it whenever the same parameters give other pictures or sounds
FPS = 25
CLIPS_OF_GROUP = 4
MIN_VIDEOS = 16  # four groups, one for each split
MAX_VIDEOS = 2000  # persons are numbered with three digits
SIZES_PX = range(192, 721, 16)
DURATIONS_S = (1.0, 60.0)

Pair = tuple[ClipTruth, ClipTruth]


def generate(
    out: Path, videos: int = 80, seed: int = 42, *, size_px: int = 320, duration_s: float = 5.2, workers: int = 0
) -> StageOutcome:
    """Render a sample set of talking faces: half of the clips real, half forged in three ways.

    Files are named as in FaceForensics++: ``real/<compression>/NNN.mp4`` shows person NNN, and
    ``fake/<manipulation>/<compression>/NNN_MMM.mp4`` shows target NNN with the face of MMM, in reciprocal pairs. What
    is true of each clip lies in ``truth.json``. Each pair depends on the seed and its own number only, so a larger set
    begins with the smaller one; what an earlier run of the same parameters left in ``out`` is kept.

    Args:
        out: Folder to write.
        videos: Number of clips, a multiple of four.
        seed: Same parameters, same bytes.
        size_px: Width and height of the clips, a multiple of 16.
        duration_s: Length of each clip.
        workers: Processes; 0 is one per core. They do not change the bytes.

    Returns:
        Number of clips and groups, and what was written.

    Raises:
        InputError: A parameter is out of range, or ``out`` holds something else.
    """
    _check(videos, seed, size_px, duration_s)
    jobs = [
        Job(seed, group, member, size_px, FPS, duration_s)
        for group in range(videos // CLIPS_OF_GROUP)
        for member in (0, 1)
    ]
    kept = _kept(out, jobs)
    if len(kept) == len(jobs) and _holds_only(out, kept):
        return _outcome(out, [kept[job] for job in jobs], "was already complete")
    with new_directory(out) as folder:
        missing = [job for job in jobs if job not in kept]
        for pair in (kept[job] for job in jobs if job in kept):
            for clip in pair:
                (folder / clip.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(out / clip.path, folder / clip.path)
        rendered = dict(zip(missing, _render_all(missing, folder, workers), strict=True))
        pairs = [kept.get(job) or rendered[job] for job in jobs]
        truth = SampleSetTruth(
            generator_version=GENERATOR_VERSION,
            seed=seed,
            size_px=size_px,
            fps=FPS,
            duration_s=duration_s,
            clips=tuple(clip for pair in pairs for clip in pair),
        )
        truth.save(folder / TRUTH_FILE)
    return _outcome(out, pairs, "rendered")


def _check(videos: int, seed: int, size_px: int, duration_s: float) -> None:
    if videos < MIN_VIDEOS or videos > MAX_VIDEOS:
        raise InputError(
            f"A sample set cannot have {videos} clips.",
            f"Ask for {MIN_VIDEOS} to {MAX_VIDEOS}: each of the four splits needs two real clips and two fakes.",
        )
    if videos % CLIPS_OF_GROUP:
        below = videos - videos % CLIPS_OF_GROUP
        raise InputError(
            f"{videos} clips cannot be had: two people and the two fakes made of them come together.",
            f"Ask for {below} or {below + CLIPS_OF_GROUP}.",
        )
    if seed < 0:
        raise InputError(f"Seed {seed} is negative.", "Give 0 or more.")
    if size_px not in SIZES_PX:
        raise InputError(
            f"Clips cannot be {size_px} pixels wide.",
            f"Give a multiple of {SIZES_PX.step} from {SIZES_PX[0]} to {SIZES_PX[-1]}.",
        )
    if not DURATIONS_S[0] <= duration_s <= DURATIONS_S[1]:
        raise InputError(
            f"Clips cannot be {duration_s:g} s long.", f"Give {DURATIONS_S[0]:g} to {DURATIONS_S[1]:g} seconds."
        )


def _kept(out: Path, jobs: Sequence[Job]) -> dict[Job, Pair]:
    """Find what an earlier run of the same parameters left, checked by its hashes."""
    try:
        truth = SampleSetTruth.load(out / TRUTH_FILE)
    except ContractError:
        return {}
    first = jobs[0]
    made_with = (truth.generator_version, truth.seed, truth.size_px, truth.fps, truth.duration_s)
    if made_with != (GENERATOR_VERSION, first.seed, first.size_px, first.fps, first.duration_s):
        return {}
    clips = {clip.path: clip for clip in truth.clips}
    kept: dict[Job, Pair] = {}
    for job in jobs:
        real, fake = clips.get(job.real_path), clips.get(job.fake_path)
        if real and fake and all(_is_whole(out / clip.path, clip.sha256) for clip in (real, fake)):
            kept[job] = (real, fake)
    return kept


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _holds_only(out: Path, kept: dict[Job, Pair]) -> bool:
    """Tell whether no clip of a larger set lies in the folder."""
    return len(list(out.rglob("*.mp4"))) == sum(len(pair) for pair in kept.values())


def _render_all(jobs: Sequence[Job], folder: Path, workers: int) -> list[Pair]:
    """Render jobs in processes of their own; the results come in the order of the jobs."""
    workers = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    if not jobs:
        return []
    if workers == 1:
        return list(track((render(job, folder) for job in jobs), len(jobs), "render", "pairs"))
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, _process_context(), initializer=_start_worker) as pool:
        try:
            results: Iterator[Pair] = pool.map(partial(render, folder=folder), jobs)
            return list(track(results, len(jobs), "render", "pairs"))
        except BaseException:
            # Without this, Ctrl-C would wait for the clips in hand.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def _process_context() -> BaseContext:
    """Choose how processes start: from a fresh server, never from the caller, whose threads may hold locks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([render.__module__])  # imported once, not once a process
    return context


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _outcome(out: Path, pairs: Sequence[Pair], what: str) -> StageOutcome:
    kinds = Counter(fake.manipulation for _, fake in pairs)
    count = 2 * len(pairs)
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items(), key=lambda item: str(item[0])))
    return StageOutcome(
        metrics={"n_videos": float(count), "n_groups": len(pairs) / 2},
        messages=(
            f"{out}: {count} clips, {what}: {len(pairs)} real and {len(pairs)} fake ({listed}).",
            "The faces are drawn by a program: the set shows the way, not the accuracy.",
        ),
    )
