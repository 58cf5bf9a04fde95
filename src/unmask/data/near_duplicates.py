"""Files that show or say the same although their bytes differ: re-encoded, scaled, slightly edited.

Candidates are found by an index and then verified, so that the cost grows with what is alike and not with the square
of the number of files. Pictures are looked up by parts of their hash (multi-index hashing: Norouzi, Punjani and Fleet,
CVPR 2012), recordings by single words of theirs. Thresholds were chosen on hand-labelled pairs of portraits and are
measured by `benchmarks/ingest.py near-duplicates`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.data.groups import UnionFind
from unmask.media.fingerprint import THUMB_PX, PictureMark

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

RADIUS = 14  # of 64 bits: with at most 14 wrong in five parts, one part has at most 2
PART_BITS = (13, 13, 13, 13, 12)
PART_FLIPS = 2
CHUNK = 2_000_000  # candidates looked at together
VERIFIED_TOGETHER = 20_000
# Correlations of two thumbnails that both must reach: all, colour alone, and detail finer than an eighth.
MIN_ALL, MIN_COLOUR, MIN_DETAIL = 0.88, 0.92, 0.80
MIN_BRIGHTNESS = 0.75  # of brightness alone; below that, nothing else is looked at
# Without colour there is less to go by.
MIN_ALL_GREY, MIN_DETAIL_GREY = 0.94, 0.88
COLOURLESS = 2.0  # mean deviation from grey, in grey levels
# What two clusters' first members must reach when a pair would join the clusters; stops chains.
CHAIN_FACTOR = 0.85
DETAIL_SIGMA = THUMB_PX / 8

MAX_WORD_ERRORS = 0.25  # share of wrong bits; unrelated recordings have 0.5, re-encoded ones below 0.15
MIN_COMMON_WORDS = 48  # 1.5 s
MIN_HITS = 2
COMMON_WORD = 24  # a word found in more places than this says nothing (silence, hum)


@dataclass(frozen=True)
class Marks:
    """By what one file is known again.

    Attributes:
        pictures: Of the picture, or of key frames.
        words: Of a recording.
    """

    pictures: tuple[PictureMark, ...]
    words: NDArray[np.uint32]


@dataclass(frozen=True, order=True)
class Pair:
    """Two files that are alike.

    Attributes:
        first: Position of one.
        second: Position of the other, larger than the first.
        likeness: 1 for the same; for pictures the correlation of detail, for recordings 1 - share of wrong bits.
    """

    first: int
    second: int
    likeness: float


def near_duplicates(marks: Sequence[Marks], fresh: NDArray[np.bool_] | None = None) -> list[Pair]:
    """Find the files that are alike.

    Args:
        marks: Of each file.
        fresh: ``(N,)``: pairs without a fresh file are left out, so that a grown set costs what is new; all by default.

    Returns:
        Pairs in order.
    """
    if fresh is None:
        fresh = np.ones(len(marks), bool)
    return sorted([*_picture_pairs(marks, fresh), *_sound_pairs(marks, fresh)])


def without_chains(marks: Sequence[Marks], pairs: Sequence[Pair]) -> list[Pair]:
    """Choose the pairs that may join groups, the most alike first.

    A is like B and B is like C does not make C like A: two clusters are joined only if their first members are alike
    too, at thresholds that are relaxed.

    Args:
        marks: Of each file.
        pairs: Of `near_duplicates`.

    Returns:
        The pairs whose members end in one cluster; the others would have made a chain.
    """
    sets = UnionFind()
    leader: dict[object, int] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.likeness, pair)):
        roots = sets.find(pair.first), sets.find(pair.second)
        if roots[0] == roots[1]:
            continue
        heads = leader.get(roots[0], pair.first), leader.get(roots[1], pair.second)
        if heads == (pair.first, pair.second) or _roughly_alike(marks[heads[0]], marks[heads[1]]):
            sets.join(pair.first, pair.second)
            leader[sets.find(pair.first)] = min(heads)
    return [pair for pair in pairs if sets.find(pair.first) == sets.find(pair.second)]


def _roughly_alike(a: Marks, b: Marks) -> bool:
    if len(a.words) or len(b.words):
        return True  # recordings that share words at one offset do not form chains of likeness
    thumbs = [np.stack([np.frombuffer(p.thumb, np.uint8) for p in of.pictures]) for of in (a, b)]
    left, right = np.divmod(np.arange(len(thumbs[0]) * len(thumbs[1])), len(thumbs[1]))
    return bool((_likeness(thumbs[0][left], thumbs[1][right], CHAIN_FACTOR) > 0).any())


def _picture_pairs(marks: Sequence[Marks], fresh: NDArray[np.bool_]) -> list[Pair]:
    owner = np.array([i for i, of in enumerate(marks) for _ in of.pictures], np.int64)
    if len(owner) < 2:
        return []
    hashes = np.array([picture.hash for of in marks for picture in of.pictures], np.uint64)
    thumbs = np.frombuffer(b"".join(p.thumb for of in marks for p in of.pictures), np.uint8).reshape(len(owner), -1)
    best: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for left, right in close_hashes(hashes, fresh[owner]):
        other = owner[left] != owner[right]
        for i, j, likeness in _verified(thumbs, left[other], right[other]):
            a, b = sorted(((int(owner[i]), i), (int(owner[j]), j)))
            matched = best[a[0], b[0]]
            matched[a[1]] = max(likeness, matched.get(a[1], 0.0))
    frames = np.bincount(owner, minlength=len(marks))
    # Of two videos, half of the frames of the one that has fewer must be found in the other.
    return [
        Pair(a, b, max(matched.values()))
        for (a, b), matched in best.items()
        if 2 * len(matched) >= min(frames[a], frames[b])
    ]


def close_hashes(hashes: Hashes, fresh: NDArray[np.bool_]) -> Iterator[tuple[Ints, Ints]]:
    """Find all pairs of hashes that differ in at most 14 bits, each once.

    Args:
        hashes: ``(N,)``.
        fresh: ``(N,)``: pairs without a fresh one are left out.

    Yields:
        Positions of the one and of the other, some at a time.
    """
    shifts = np.cumsum((0, *PART_BITS[:-1])).astype(np.uint64)
    parts = [
        ((hashes >> shift) & np.uint64((1 << bits) - 1)).astype(np.int64)
        for shift, bits in zip(shifts, PART_BITS, strict=True)
    ]
    rows = np.flatnonzero(fresh)
    for number, bits in enumerate(PART_BITS):
        order = np.argsort(parts[number], kind="stable")
        start = np.searchsorted(parts[number][order], np.arange((1 << bits) + 1))
        for flip in _flips(bits):
            bucket = parts[number][rows] ^ flip
            sizes = start[bucket + 1] - start[bucket]
            for some in _chunks(sizes):
                left = np.repeat(rows[some], sizes[some])
                within = np.arange(len(left)) - np.repeat(np.cumsum(sizes[some]) - sizes[some], sizes[some])
                right = order[np.repeat(start[bucket[some]], sizes[some]) + within]
                # Two fresh ones meet twice: from either side.
                differing = hashes[left] ^ hashes[right]
                close = (np.bitwise_count(differing) <= RADIUS) & (~fresh[right] | (left < right))
                left, right, differing = left[close], right[close], differing[close]
                new = _met_first_in(differing, number, shifts)
                if new.any():
                    yield left[new], right[new]


def _flips(bits: int) -> list[int]:
    one = [1 << i for i in range(bits)]
    return [0, *one, *(a | b for i, a in enumerate(one) for b in one[:i])]


def _met_first_in(differing: Hashes, number: int, shifts: Hashes) -> NDArray[np.bool_]:
    """Tell which pairs were not found through an earlier part already."""
    new = np.ones(len(differing), bool)
    for shift, bits in list(zip(shifts, PART_BITS, strict=True))[:number]:
        new &= np.bitwise_count((differing >> shift) & np.uint64((1 << bits) - 1)) > PART_FLIPS
    return new


def _chunks(sizes: Ints) -> Iterator[slice]:
    """Cut rows into runs whose sizes sum to about as much as is looked at together."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        yield slice(start, stop)
        start = stop


def _verified(thumbs: Bytes, left: Ints, right: Ints) -> Iterator[tuple[int, int, float]]:
    for start in range(0, len(left), VERIFIED_TOGETHER):
        i, j = left[start : start + VERIFIED_TOGETHER], right[start : start + VERIFIED_TOGETHER]
        likeness = _likeness(thumbs[i], thumbs[j], 1.0)
        for k in np.flatnonzero(likeness > 0):
            yield int(i[k]), int(j[k]), float(likeness[k])


def _likeness(a: Bytes, b: Bytes, factor: float) -> Floats:
    """Compare thumbnails: correlation of their detail, 0 where they are not alike.

    Args:
        a: ``(N, 432)``.
        b: ``(N, 432)``.
        factor: Of all thresholds.
    """
    found = np.zeros(len(a), np.float32)
    x, y = (table.reshape(len(table), -1, 3).astype(np.float32) for table in (a, b))
    greys = [table.mean(axis=2) for table in (x, y)]
    brightness = _correlation(*(table - table.mean(axis=1, keepdims=True) for table in greys))
    left = np.flatnonzero(brightness >= factor * MIN_BRIGHTNESS)
    if not len(left):
        return found
    x, y, brightness = x[left], y[left], brightness[left]
    whole = _correlation(*((table - table.mean(axis=(1, 2), keepdims=True)).reshape(len(left), -1) for table in (x, y)))
    colours = [(table - table.mean(axis=2, keepdims=True)).reshape(len(left), -1) for table in (x, y)]
    grey = np.minimum(*(np.abs(colour).mean(axis=1) for colour in colours)) < COLOURLESS
    fine = [_detail(table) for table in (x, y)]
    detail = _correlation(*(table.reshape(len(left), -1) for table in fine))
    detail_grey = _correlation(*(table.mean(axis=2) for table in fine))
    colourful = (
        (whole >= factor * MIN_ALL) & (_correlation(*colours) >= factor * MIN_COLOUR) & (detail >= factor * MIN_DETAIL)
    )
    colourless = (brightness >= factor * MIN_ALL_GREY) & (detail_grey >= factor * MIN_DETAIL_GREY)
    found[left] = np.where(grey, np.where(colourless, detail_grey, 0), np.where(colourful, detail, 0))
    return found


def _correlation(x: Floats, y: Floats) -> Floats:
    norm = np.sqrt(np.einsum("ij,ij->i", x, x) * np.einsum("ij,ij->i", y, y))
    correlation: Floats = np.einsum("ij,ij->i", x, y) / np.maximum(norm, 1e-6)
    return correlation


def _detail(thumbs: Floats) -> Floats:
    """Take away what is coarser than an eighth of the side: ``(N, 144, 3)`` to the same, of mean 0."""
    place = np.arange(THUMB_PX)
    kernel = np.exp(-0.5 * ((place[:, None] - place[None, :]) / DETAIL_SIGMA) ** 2).astype(np.float32)
    kernel /= kernel.sum(axis=1, keepdims=True)
    square = thumbs.reshape(len(thumbs), THUMB_PX, THUMB_PX, 3)
    coarse = np.einsum("ab,nbxc->naxc", kernel, np.einsum("ab,nxbc->nxac", kernel, square))
    fine: Floats = (square - coarse).reshape(thumbs.shape)
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    return fine


def _sound_pairs(marks: Sequence[Marks], fresh: NDArray[np.bool_]) -> list[Pair]:
    with_words = [i for i, of in enumerate(marks) if len(of.words)]
    if len(with_words) < 2:
        return []
    words = np.concatenate([marks[i].words for i in with_words])
    owner = np.repeat(with_words, [len(marks[i].words) for i in with_words])
    place = np.concatenate([np.arange(len(marks[i].words)) for i in with_words])
    order = np.argsort(words, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(words[order]) != 0])
    sizes = np.diff(np.r_[starts, len(words)])
    hits: Counter[tuple[int, int, int]] = Counter()
    for start, size in zip(starts, sizes, strict=True):
        if 2 <= size <= COMMON_WORD:
            members = order[start : start + size]
            for n, i in enumerate(members):
                for j in members[n + 1 :]:
                    a, b = (i, j) if owner[i] < owner[j] else (j, i)
                    if owner[a] != owner[b] and (fresh[owner[a]] or fresh[owner[b]]):
                        hits[int(owner[a]), int(owner[b]), int(place[b] - place[a])] += 1
    found: dict[tuple[int, int], float] = {}
    for (a, b, offset), count in hits.items():
        if count >= MIN_HITS and (likeness := _common_bits(marks[a].words, marks[b].words, offset)):
            found[a, b] = max(likeness, found.get((a, b), 0.0))
    return [Pair(a, b, likeness) for (a, b), likeness in found.items()]


def _common_bits(a: NDArray[np.uint32], b: NDArray[np.uint32], offset: int) -> float:
    """Compare words where they overlap if b begins ``offset`` words later: share of right bits, 0 if too few."""
    if offset < 0:
        a, offset = a[-offset:], 0
    b = b[offset:]
    n = min(len(a), len(b))
    if n < min(MIN_COMMON_WORDS, len(a), len(b)) or n == 0:
        return 0.0
    errors = float(np.bitwise_count(a[:n] ^ b[:n]).mean()) / 32
    return 1 - errors if errors <= MAX_WORD_ERRORS else 0.0
