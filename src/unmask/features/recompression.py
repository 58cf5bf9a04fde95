"""Earlier compression of a video: the rhythm that re-coded key frames leave in the sizes of coded frames.

Where the first encoder had put a key frame, prediction from the frame before fails a little when the video is coded
again, and the frame costs more bits than its neighbours; this returns with the period of the first encoder (Stamm, Lin
& Liu 2012, IEEE TIFS 7(4); Vázquez-Padín et al. 2012, WIFS). The phase is free, so a trimmed clip keeps the trace.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmask.features.observation import Floats, Null, Value

MIN_FRAMES = 60
MAX_FRAMES = 3000
PERIODS = (9, 100)  # frames
MIN_REPEATS = 4
NEIGHBOURS = 6  # on each side, of the same kind
MAX_SCORE = 6.0  # one outlier counts no more than this


def rhythm(sizes: Sequence[int], kinds: Sequence[str]) -> Value:
    """Measure the strongest periodic excess of coded size.

    Args:
        sizes: ``(N,)`` bytes of each frame in presentation order; 0 when unknown.
        kinds: ``(N,)`` I, P, B, or an empty string.

    Returns:
        Standard score of the strongest rhythm; null with ``too_short`` or ``not_applicable``.
    """
    if len(sizes) < MIN_FRAMES:
        return Null("too_short")
    excess = size_excess(np.asarray(sizes[:MAX_FRAMES], np.float64), list(kinds[:MAX_FRAMES]))
    known = np.isfinite(excess)
    if known.mean() < 0.5:
        return Null("not_applicable")
    spread = 1.4826 * float(np.median(np.abs(excess[known]))) + 1e-3
    scores = np.clip(excess / spread, -MAX_SCORE, MAX_SCORE)
    scores = (scores - scores[known].mean()) / (float(scores[known].std()) + 0.3)
    return max(_strongest_phase(scores, n) for n in range(PERIODS[0], min(PERIODS[1], len(scores) // MIN_REPEATS) + 1))


def _strongest_phase(scores: Floats, period: int) -> float:
    """Largest standard score of the mean over all frames at one phase of a period."""
    rows = np.pad(scores, (0, -len(scores) % period), constant_values=np.nan).reshape(-1, period)
    counts = np.isfinite(rows).sum(axis=0)
    sums = np.nansum(rows, axis=0)
    return float(np.where(counts >= MIN_REPEATS - 1, sums / np.sqrt(np.maximum(counts, 1)), -np.inf).max())


def size_excess(sizes: Floats, kinds: Sequence[str]) -> Floats:
    """Log size of each inter frame, less the median of its neighbours of the same kind.

    Args:
        sizes: ``(N,)`` bytes.
        kinds: ``(N,)`` I, P or B.

    Returns:
        ``(N,)``, NaN for key frames, the frame after one, rare kinds and unknown sizes.
    """
    excess = np.full(len(sizes), np.nan)
    places = _places(kinds)
    for place in sorted(set(places)):
        members = np.array([i for i, other in enumerate(places) if other == place and sizes[i] > 0], int)
        if place[0] not in "PB" or len(members) < NEIGHBOURS:
            continue
        logs = np.log(sizes[members])
        for i, member in enumerate(members):
            first = max(0, i - NEIGHBOURS)
            around = np.concatenate([logs[first:i], logs[i + 1 : i + NEIGHBOURS + 1]])
            excess[member] = logs[i] - np.median(around)
    for i, kind in enumerate(kinds):
        if kind == "I":
            excess[i : i + 2] = np.nan
    return excess


def _places(kinds: Sequence[str]) -> list[tuple[str, int, int]]:
    """Kind of each frame, number of B frames around or before it, and its place among them.

    B frames that others refer to are larger than the rest, and P frames grow with the distance that they predict over;
    only frames of the same place can be compared.
    """
    places: list[tuple[str, int, int]] = []
    start = 0
    while start < len(kinds):
        end = start
        while end < len(kinds) and kinds[end] == "B":
            end += 1
        run = end - start
        places += [("B", run, place) for place in range(run)]
        if end < len(kinds):
            places.append((kinds[end] or "?", run, 0))
        start = end + 1
    return places
