"""Near-duplicates: what must be found, what must not, and that the index finds what comparing all would find."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.config import IngestConfig
from unmask.data.ingest_stage import run_ingest
from unmask.data.near_duplicates import RADIUS, Marks, Pair, close_hashes, near_duplicates, without_chains
from unmask.data.sources import Source
from unmask.media.examination import examine
from unmask.media.fingerprint import SOUND_RATE_HZ, picture_mark, sound_words
from unmask.objects import FolderStore
from unmask.schemas import SAMPLES, DatasetInfo, read_table

NO_WORDS = np.zeros(0, np.uint32)


def portrait(seed: int, side: int = 256) -> np.ndarray:
    """A head and shoulders before a plain wall: alike in layout, different in person."""
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), rng.integers(150, 230, 3), np.uint8)
    skin, hair, coat = (tuple(int(v) for v in rng.integers(20, 220, 3)) for _ in range(3))
    x, y = side // 2 + int(rng.integers(-20, 21)), side // 2 + int(rng.integers(-20, 21))
    width, height = int(rng.integers(48, 75)), int(rng.integers(65, 95))
    cv2.ellipse(picture, (x, y - 15), (width + 14, height + 16), 0, 180, 360, hair, -1)
    cv2.rectangle(picture, (x - width - 10, y), (x - width + 15, y + int(rng.integers(20, 110))), hair, -1)
    cv2.ellipse(picture, (x, side), (int(rng.integers(85, 125)), 60), 0, 0, 360, coat, -1)
    cv2.ellipse(picture, (x, y), (width, height), 0, 0, 360, skin, -1)
    for dx in (-1, 1):
        cv2.circle(picture, (x + dx * width // 2, y - 12), int(rng.integers(5, 11)), (30, 30, 30), -1)
    cv2.ellipse(picture, (x, y + height // 2), (int(rng.integers(12, 30)), 7), 0, 0, 180, (60, 30, 150), -1)
    return picture


def changed(picture: np.ndarray, kind: str) -> np.ndarray:
    side = picture.shape[0]
    if kind == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    if kind == "half":
        return cv2.resize(picture, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    if kind == "wide":
        return cv2.resize(picture, (side * 3 // 2, side), interpolation=cv2.INTER_CUBIC)
    if kind == "darker":
        return (picture * 0.8).astype(np.uint8)
    if kind == "mouth":  # a composite: another mouth is put in
        copy = picture.copy()
        cv2.ellipse(copy, (side // 2, side * 2 // 3), (24, 12), 0, 0, 360, (40, 40, 200), -1)
        return copy
    noise = np.random.default_rng(1).normal(0, 8, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def marks_of(*pictures: np.ndarray) -> Marks:
    return Marks(tuple(mark for picture in pictures if (mark := picture_mark(picture))), NO_WORDS)


@pytest.mark.parametrize("kind", ["jpeg", "half", "wide", "darker", "mouth", "noise"])
def test_changed_portraits_are_known_again_and_others_are_not(kind: str) -> None:
    people = [portrait(seed) for seed in range(150)]
    again = [changed(portrait(seed), kind) for seed in range(150)]
    found = {(p.first, p.second) for p in near_duplicates([marks_of(picture) for picture in [*people, *again]])}
    wanted = {(i, i + 150) for i in range(150)}
    assert len(wanted - found) <= 7  # misses: at most one in twenty
    assert len(found - wanted) <= 2  # of 44,700 pairs of different people


def test_a_flat_picture_is_like_nothing() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    assert picture_mark(black) is None
    assert near_duplicates([marks_of(black), marks_of(black)]) == []


hashes = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8)
flips = st.lists(st.sets(st.integers(0, 63), max_size=18), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(hashes, flips, st.randoms(use_true_random=False))
def test_the_index_finds_exactly_what_comparing_all_finds(seeds, changes, random) -> None:  # type: ignore[no-untyped-def]
    values = [*seeds, *(random.choice(seeds) ^ sum(1 << bit for bit in bits) for bits in changes)]
    table = np.array(values, np.uint64)
    fresh = np.array([random.random() < 0.6 for _ in values])
    wanted = {
        (i, j)
        for i in range(len(values))
        for j in range(i)
        if (values[i] ^ values[j]).bit_count() <= RADIUS and (fresh[i] or fresh[j])
    }
    met = [(max(i, j), min(i, j)) for a, b in close_hashes(table, fresh) for i, j in np.stack([a, b], axis=1).tolist()]
    assert len(met) == len(set(met))
    assert set(met) == wanted


def test_no_chain_joins_what_is_not_alike() -> None:
    """A fade from one portrait to another: neighbours are alike, the ends are not."""
    first, last = portrait(1).astype(float), portrait(2).astype(float)
    fade = [marks_of((first + (last - first) * t).astype(np.uint8)) for t in np.linspace(0, 1, 25)]
    pairs = near_duplicates(fade)
    neighbours = {(pair.first, pair.second) for pair in pairs}
    assert sum((i, i + 1) in neighbours for i in range(24)) >= 22  # a chain from end to end
    joined = without_chains(fade, pairs)
    reached, frontier = {0}, [0]
    while frontier:
        here = frontier.pop()
        for pair in joined:
            for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
                if one == here and other not in reached:
                    reached.add(other)
                    frontier.append(other)
    assert 24 not in reached
    assert len(joined) < len(pairs)


def test_half_of_the_key_frames_must_match() -> None:
    def video(*seeds: int) -> Marks:
        return marks_of(*(portrait(seed) for seed in seeds))

    assert [p[:2] for p in map(_plain, near_duplicates([video(1, 2, 3, 4), video(3, 4, 5, 6)]))] == [(0, 1)]
    assert near_duplicates([video(1, 2, 3, 4), video(4, 5, 6, 7)]) == []
    assert len(near_duplicates([video(1, 2, 3, 4), video(4)])) == 1


def _plain(pair: Pair) -> tuple[int, int]:
    return pair.first, pair.second


def speech(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Syllables: bursts of harmonics at changing pitches with formants."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * SOUND_RATE_HZ:
        n = int(rng.uniform(0.08, 0.25) * SOUND_RATE_HZ)
        t = np.arange(n) / SOUND_RATE_HZ
        pitch, formants = rng.uniform(90, 220), rng.uniform(300, 2800, 3)
        tone = sum(
            np.sin(2 * np.pi * pitch * k * t) * sum(np.exp(-(((pitch * k - f) / 150) ** 2)) for f in formants)
            for k in range(1, 25)
        )
        parts += [tone * np.hanning(n), np.zeros(int(rng.uniform(0, 0.08) * SOUND_RATE_HZ))]
    sound = np.concatenate(parts)[: int(seconds * SOUND_RATE_HZ)]
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, codec: str, rate: int = SOUND_RATE_HZ, **options: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", **options)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def test_recordings_are_known_again_after_coding_and_at_another_level_and_offset(tmp_path: Path) -> None:
    marks = []
    for seed in range(12):
        sound = speech(seed)
        original = write_sound(tmp_path / f"{seed}.wav", sound, "pcm_s16le")
        coded = write_sound(tmp_path / f"{seed}.mp3", 0.3 * sound, "libmp3lame", 16000, bit_rate=24_000)
        later = write_sound(tmp_path / f"{seed}_cut.wav", sound[3333:], "pcm_s16le")
        marks += [Marks((), examine(path).words) for path in (original, coded, later)]
    found = {_plain(pair) for pair in near_duplicates(marks)}
    assert all(first // 3 == second // 3 for first, second in found)  # no two different recordings
    assert {(3 * i, 3 * i + 1) for i in range(12)} <= found
    assert len({(3 * i, 3 * i + 2) for i in range(12)} & found) >= 11


def test_silence_has_no_words() -> None:
    assert len(sound_words(np.zeros(SOUND_RATE_HZ, np.float32))) == 0
    assert len(sound_words(speech(1, 0.2))) == 0


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def composites(tmp_path: Path) -> Path:
    """Thirty reals and thirty fakes, five of which are made from reals of the set."""
    root = tmp_path / "composites"
    for i in range(30):
        write(root / f"real/person_{i:03d}_x.png", portrait(i))
        base = portrait(i) if i < 5 else portrait(100 + i)
        write(root / f"fake/easy_{1000 + i}.png", changed(base, "darker"))
    return root


def test_ingest_groups_and_reports_pairs_across_labels_and_remembers_them(
    composites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = [Source("s", FolderStore(composites))], tmp_path / "out"
    config = IngestConfig()
    outcome = run_ingest(source, out, config, 1)
    info = DatasetInfo.load(out / "dataset.json")
    assert (info.near_duplicates, info.near_duplicates_across_labels) == (5, 5)
    assert any("5 pairs of a real and a fake file show or say nearly the same" in text for text in outcome.messages)
    table = read_table(out / "samples.parquet", SAMPLES).to_pandas()
    assert table["group_id"].nunique() == 55
    assert set(info.largest_groups.values()) == {2}

    compared: list[int] = []
    original = near_duplicates

    def counted(marks, fresh=None):  # type: ignore[no-untyped-def]
        compared.append(int(fresh.sum()))
        return original(marks, fresh)

    monkeypatch.setattr("unmask.data.likeness.near_duplicates", counted)
    before = (out / "near_duplicates.parquet").read_bytes()
    run_ingest(source, out, config, 1)
    assert compared == []  # nothing is new, so nothing is compared
    assert (out / "near_duplicates.parquet").read_bytes() == before

    write(composites / "fake/easy_2000.png", changed(portrait(7), "jpeg"))
    run_ingest(source, out, config, 1)
    assert compared == [1]
    assert DatasetInfo.load(out / "dataset.json").near_duplicates == 6
    run_ingest(source, tmp_path / "off", config.model_copy(update={"near_duplicates": False}), 1)
    assert DatasetInfo.load(tmp_path / "off/dataset.json").near_duplicates == 0


@pytest.mark.skipif("UNMASK_DEV_DATA" not in os.environ, reason="UNMASK_DEV_DATA names no folder of real media")
def test_composites_of_real_faces_are_found_and_do_not_chain() -> None:
    folder = Path(os.environ["UNMASK_DEV_DATA"]) / "ciplab160"
    files = sorted(folder.glob("*/*.jpg"))
    marks = [Marks(examine(path).pictures, NO_WORDS) for path in files]
    pairs = near_duplicates(marks)
    assert len(without_chains(marks, pairs)) == len(pairs)
    names = {(files[p.first].stem, files[p.second].stem) for p in pairs}
    true = [("easy_94_0001", "real_00858"), ("easy_123_0100", "real_00753"), ("easy_177_1010", "real_00874")]
    true += [("easy_236_1100", "real_00958"), ("easy_230_1010", "real_00979"), ("mid_355_1011", "real_00915")]
    assert set(true) <= names
    false = [("hard_94_1111", "mid_123_1111"), ("mid_418_1101", "mid_57_1111"), ("mid_126_1110", "real_00437")]
    assert not set(false) & names
    assert 60 <= len(names) <= 90
