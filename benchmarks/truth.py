# ruff: noqa: D103, E402 - each check says in its lines what it checks; the drawings lie beside the tests
"""What do the features say of clips whose truth is known? One table, measured, with the limits that must hold.

Run: ``python benchmarks/truth.py [--only NAME]``. Everything is made by code; it ends with status 1 when a limit is
broken. The tests hold the same limits on smaller material.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / room) for room in ("features", "media")]

from drawn_face import FPS, backdrop, draw_face, drawn, noisy, remux, write_clip
from leaves import dead_leaves
from talking import talk

from unmask.config import ExtractConfig
from unmask.features.double_jpeg import double_quantisation
from unmask.features.measure import Pass, measure
from unmask.features.naturalness import brisque
from unmask.features.observation import Null
from unmask.features.prnu import NoisePattern
from unmask.features.recompression import rhythm
from unmask.features.temporal import pulse
from unmask.media.jpeg import coded_jpeg
from unmask.media.video import VideoReader
from unmask.metrics import roc_auc

CONFIG = ExtractConfig(crops_per_video=4, crop_size_px=64)
LOSSLESS = {"qp": "0", "preset": "ultrafast"}  # after strong blur the spectrum would be that of the encoder
CLEAN = {"crf": "12", "preset": "veryfast", "threads": "1"}


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    what: str
    truth: str
    measured: str
    holds: bool


def features(folder: Path, frames: Iterator[np.ndarray] | Sequence[np.ndarray], **options: object) -> dict[str, float]:
    """Encode and measure."""
    path = write_clip(folder / "clip.mp4", frames, **({"options": CLEAN} | options))  # type: ignore[arg-type]
    found = measure(path, "video", CONFIG).features
    return {name: float("nan") if value is None else value for name, value in found.items()}


def listed(values: Sequence[float], digits: int = 2) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


def rising(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


def blinks(folder: Path) -> Iterator[Line]:
    for times in ((), (2.0,), (1.5, 4.1, 7.7), (1.0, 2.5, 4.2, 6.0, 8.4)):
        found = features(folder, talk(10, blinks_s=times))["face.eye_blink"] / 6
        yield Line("blinks in 10 s", str(len(times)), f"{found:.2f}", abs(found - len(times)) <= 1)


def pulses(folder: Path) -> Iterator[Line]:
    for bpm in (58, 76, 103):
        ratio, found = pulse_of(folder, talk(12, pulse_bpm=bpm, noise=3.0))
        yield Line(
            "pulse, noise of 3 grey levels", f"{bpm} ± 3 bpm", f"{found:.1f} bpm, {ratio:.1f} dB", abs(found - bpm) <= 3
        )
    frozen = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        frozen.append(pulse_of(folder, (noisy(drawn(), rng, 3.0) for _ in range(12 * FPS)))[0])
    shown = "highest of 3: " + f"{max(frozen):.1f} dB"
    yield Line("pulse of a frozen face", "none: below 3 dB", shown, max(frozen) < 3)


def pulse_of(folder: Path, frames: Iterator[np.ndarray]) -> tuple[float, float]:
    path = write_clip(folder / "clip.mp4", frames, options=CLEAN)
    with VideoReader(path) as reader:
        run = Pass(reader.facts.n_frames, reader.facts.fps, CONFIG)
        for frame in reader:
            run.see(frame)
    series = run.skin.series(run.main_track)
    assert series is not None
    found = pulse(series, FPS)
    return (float("nan"), float("nan")) if isinstance(found, Null) else found


def shakes(folder: Path) -> Iterator[Line]:
    wall = np.repeat(dead_leaves(2, 700, 900, 4000)[..., None], 3, axis=2)
    wall[150:534, 300:684] = drawn(size=384)
    times = np.arange(90) / FPS
    values = []
    for amplitude in (2.0, 5.0, 12.0):
        rng = np.random.default_rng(0)
        frames = []
        for shift in amplitude * np.sin(2 * np.pi * 3 * times):
            view = cv2.warpAffine(wall, np.float32([[1, 0, shift - 120], [0, 1, -90]]), (640, 480))
            frames.append(noisy(view, rng))
        values.append(features(folder, frames)["quality.shake"])
        expected = 100 * amplitude / np.sqrt(2) / np.hypot(640, 480)
        close = abs(values[-1] / expected - 1) <= 0.15
        yield Line("camera shake", f"{expected:.3f} % ± 15 %", f"{values[-1]:.3f} %", close and rising(values))


def flickers(folder: Path) -> Iterator[Line]:
    values = []
    for percent in (0.5, 1.0, 3.0):
        found = features(folder, talk(4, flicker=percent / 100), options={"qp": "4", "preset": "ultrafast"})
        values.append(found["forensics.flicker"])
        close = abs(values[-1] / percent - 1) <= 0.15
        yield Line("flicker of the face", f"{percent} % ± 15 %", f"{values[-1]:.3f} %", close and rising(values))


def cameras(folder: Path) -> Iterator[Line]:
    def agreement(seed: int, pair: tuple[int, int]) -> float:
        rng = np.random.default_rng(seed)
        wall = np.tile(dead_leaves(seed, 500, 500, 1500), (2, 2)).astype(np.float64)
        sensors = {c: np.random.default_rng(100 + c).normal(0, 0.012, (256, 256)) for c in pair}
        pattern, place = NoisePattern(256), np.array([370.0, 370.0])
        for index in range(16):
            place = np.clip(place + rng.normal(0, 40, 2), 0, 740)
            x, y = place.astype(int)
            half = int(index >= 8)
            shot = wall[y : y + 256, x : x + 256] * (1 + sensors[pair[half]]) + rng.normal(0, 1.5, (256, 256))
            pattern.add(np.clip(shot, 0, 255).round().astype(np.uint8), half)
        found = pattern.agreement()
        return float("nan") if isinstance(found, Null) else found

    same = [agreement(seed, (seed, seed)) for seed in range(20)]
    other = [agreement(seed, (seed, seed + 50)) for seed in range(20)]
    auc = roc_auc(np.repeat([0, 1], 20), np.array(other + same))
    medians = f"medians {np.median(same):.3f} and {np.median(other):.3f}"
    yield Line("one camera or two, 20 + 20 clips", "AUC ≥ .95", f"AUC {auc:.3f}, {medians}", auc >= 0.95)


def coded_cameras(folder: Path) -> Iterator[Line]:
    """The same through the whole way: pictures of one sensor or two, as H.264, measured as any clip."""
    config = CONFIG.model_copy(update={"min_face_share": 0.0})
    options = {"crf": "15", "preset": "veryfast", "threads": "1"}

    def agreement(seed: int, pair: tuple[int, int]) -> float:
        rng = np.random.default_rng(seed)
        wall = np.tile(dead_leaves(seed, 500, 500, 1500), (2, 2)).astype(np.float64)
        sensors = {c: np.random.default_rng(100 + c).normal(0, 0.012, (320, 320)) for c in pair}
        place, frames = np.array([300.0, 300.0]), []
        for index in range(64):
            place = np.clip(place + rng.normal(0, 20, 2), 0, 640)
            x, y = place.astype(int)
            shot = wall[y : y + 320, x : x + 320] * (1 + sensors[pair[index // 32]]) + rng.normal(0, 1.5, (320, 320))
            frames.append(np.repeat(np.clip(shot, 0, 255).round().astype(np.uint8)[..., None], 3, axis=2))
        found = measure(write_clip(folder / "clip.mp4", frames, options=options), "video", config)
        value = found.features["forensics.prnu"]
        return float("nan") if value is None else value

    same = [agreement(seed, (seed, seed)) for seed in range(10)]
    other = [agreement(seed, (seed, seed + 50)) for seed in range(10)]
    auc = roc_auc(np.repeat([0, 1], 10), np.array(other + same))
    medians = f"medians {np.median(same):.3f} and {np.median(other):.3f}"
    yield Line("the same after H.264 at CRF 15, 10 + 10 clips", "AUC ≥ .95", f"AUC {auc:.3f}, {medians}", auc >= 0.95)


def double_video(folder: Path) -> Iterator[Line]:
    once, twice = [], []
    for seed in range(12):
        period = (12, 15, 25, 30)[seed % 4]
        frames = moving(seed, 200)
        first = {"crf": str(26 + 2 * (seed % 3)), "preset": "veryfast", "g": str(period), "threads": "1"}
        again = {"crf": "23", "preset": "veryfast", "g": "250", "threads": "1"}
        decoded = decoded_pictures(write_clip(folder / "1.mp4", frames, options=first))[period // 3 :]
        once.append(score_rhythm(write_clip(folder / "2.mp4", frames, options=again)))
        twice.append(score_rhythm(write_clip(folder / "3.mp4", decoded, options=again)))
    auc = roc_auc(np.repeat([0, 1], len(once)), np.array(once + twice))
    medians = f"medians {np.median(once):.1f} and {np.median(twice):.1f}"
    yield Line("H.264 once or twice, 12 + 12 clips", "AUC ≥ .9", f"AUC {auc:.3f}, {medians}", auc >= 0.9)


def moving(seed: int, n: int) -> list[np.ndarray]:
    """A textured scene that sways, with a smaller one that crosses it."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(cv2.cvtColor(dead_leaves(seed, 400, 520, 1200), cv2.COLOR_GRAY2RGB), (640, 480))
    inset = cv2.cvtColor(dead_leaves(seed + 50, 100, 100, 200), cv2.COLOR_GRAY2RGB)
    frames = []
    for index in range(n):
        x, y = round(40 + 25 * np.sin(index / 30)), round(40 + 15 * np.sin(index / 17))
        frame = wall[y : y + 192, x : x + 320].copy()
        left = round(110 + 60 * np.sin(index / 20))
        frame[40:140, left : left + 100] = inset
        frames.append(noisy(frame, rng, 1.5))
    return frames


def decoded_pictures(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.rgb(0, 0, frame.width_px, frame.height_px) for frame in reader]


def score_rhythm(path: Path) -> float:
    with VideoReader(path) as reader:
        pairs = [(frame.coded_bytes, frame.coded_as) for frame in reader]
    found = rhythm([size for size, _ in pairs], [kind for _, kind in pairs])
    return float("nan") if isinstance(found, Null) else found


def double_jpeg(folder: Path) -> Iterator[Line]:
    def encoded(luma: np.ndarray, quality: int) -> bytes:
        return bytes(cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())

    def score(data: bytes) -> float:
        found = double_quantisation(coded_jpeg(data))  # type: ignore[arg-type]
        return float("nan") if isinstance(found, Null) else found

    qualities = (60, 70, 80, 90, 95)
    once, twice = [], []
    for seed in range(12):
        scene = dead_leaves(seed)
        for second in qualities:
            once.append(score(encoded(scene, second)))
            for first in qualities:
                if first != second:
                    decoded = cv2.imdecode(np.frombuffer(encoded(scene, first), np.uint8), cv2.IMREAD_GRAYSCALE)
                    twice.append(score(encoded(decoded, second)))
    labels = np.repeat([0, 1], [len(once), len(twice)])
    auc = roc_auc(labels, np.array(once + twice))
    medians = f"medians {np.median(once):.2f} and {np.median(twice):.2f}"
    yield Line(f"JPEG once or twice, {len(once)} + {len(twice)}", "AUC ≥ .9", f"AUC {auc:.3f}, {medians}", auc >= 0.9)


def logos(folder: Path) -> Iterator[Line]:
    values = []
    for logo in (False, True):
        frames = []
        rng = np.random.default_rng(0)
        wall = np.repeat(np.tile(dead_leaves(3, 500, 700, 2500), (1, 2))[..., None], 3, axis=2)
        for index in range(90):
            frame = wall[60:420, 4 * index : 4 * index + 480].copy()
            left = round(110 + 60 * np.sin(index / 12))
            frame[120:312, left : left + 192] = drawn(size=192)
            if logo:
                cv2.putText(frame, "AI", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.3, (235, 235, 235), 4)
                cv2.rectangle(frame, (12, 16), (90, 74), (235, 235, 235), 3)
            frames.append(noisy(frame, rng, 3))
        values.append(features(folder, frames)["wm.detected"])
    yield Line("no logo", "below .01", f"{values[0]:.4f}", values[0] < 0.01)
    yield Line("a logo", "above .03", f"{values[1]:.4f}", values[1] > 0.03)


def monotone(folder: Path) -> Iterator[Line]:
    frames = list(talk(2, size=384, noise=4))
    blurs = [
        features(folder, [cv2.GaussianBlur(f, (0, 0), sigma) if sigma else f for f in frames], options=LOSSLESS)
        for sigma in (0, 0.7, 1.4, 2.8)
    ]
    for name, sign in (("quality.blur", -1), ("art.texture", -1), ("art.freq", -1)):
        values = [found[name] for found in blurs]
        yield Line(f"{name}, blur 0 0.7 1.4 2.8 px", "falls", listed(values), rising([sign * v for v in values]))
    tints = []
    for tint in (0, 10, 25, 45):
        oval = np.any(drawn(size=384) != drawn(size=384, skin=0.97), axis=2)
        shifted = [np.where(oval[..., None], np.clip(f + np.array([tint, 0, -tint]), 0, 255), f) for f in frames]
        tints.append(features(folder, [f.astype(np.uint8) for f in shifted])["art.color"])
    yield Line("art.color, face tinted by 0 10 25 45", "rises", listed(tints), rising(tints))
    scenes = [dead_leaves(seed).astype(np.float32) for seed in range(5)]
    for name, ways in (
        ("blur 1 1.5 2 3 px", [lambda p, s=s: cv2.GaussianBlur(p, (0, 0), s) for s in (1, 1.5, 2, 3)]),
        (
            "noise 8 14 22 32",
            [lambda p, d=d: p + np.random.default_rng(1).normal(0, d, p.shape) for d in (8, 14, 22, 32)],
        ),
        ("JPEG 90 30 10 5", [lambda p, q=q: jpeg(p, q) for q in (90, 30, 10, 5)]),
    ):
        values = [
            float(np.median([brisque(np.clip(way(s), 0, 255).astype(np.float32)) for s in scenes])) for way in ways
        ]
        yield Line(f"quality.brisque, {name}", "rises", listed(values, 1), rising(values))


def jpeg(luma: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", np.clip(luma, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def mouths(folder: Path) -> Iterator[Line]:
    talking, still = (features(folder, talk(4, speaking=speaking)) for speaking in (True, False))
    pair = talking["face.mouth_static"], still["face.mouth_static"]
    yield Line("mouth_static, talking and still", "below .2, above .9", listed(pair), pair[0] < 0.2 and pair[1] > 0.9)
    pair = talking["face.mouth_exag"], still["face.mouth_exag"]
    yield Line("mouth_exag, talking and still", "wider when talking", listed(pair), pair[0] > pair[1])


def drifts(folder: Path) -> Iterator[Line]:
    values = []
    for size in (0.0, 0.15, 0.3):
        rng = np.random.default_rng(0)
        lopsided = [draw_face(256, mirrored_half=size * k / 4, backdrop=backdrop()) for k in range(5)]
        course = np.clip(np.round(2 + 2 * np.sin(np.arange(90) / 11)), 0, 4).astype(int)
        values.append(features(folder, [noisy(lopsided[k], rng) for k in course])["face.sym_drift"])
    yield Line("sym_drift, one corner of the mouth moves by 0 15 30 %", "rises", listed(values), rising(values))


# fmt: off
# Of the same clip at 720 and 1080 lines: the catalogue names the dependence, and this is how far it goes.
FREQ_ACROSS_SIZES = 5.0
INVARIANT = {
    "quality.blur": 0.15, "quality.brisque": 5.0, "quality.shake": 0.15, "forensics.flicker": 0.15,
    "face.mouth_exag": 0.1, "face.mouth_static": 0.1, "face.eye_blink": 0.01, "face.sym_drift": 0.6, "art.edge": 0.2,
    "art.texture": 0.25, "art.color": 1.5, "art.freq": 0.4, "temp.flow_oddity": 0.3,
}
# fmt: on


def invariances(folder: Path) -> Iterator[Line]:
    frames = list(talk(10, blinks_s=(2.0, 4.0), pulse_bpm=72, noise=2))
    path = write_clip(folder / "plain.mp4", frames, options=CLEAN)
    plain = measure(path, "video", CONFIG).features
    other = measure(remux(path, folder / "remuxed.mkv"), "video", CONFIG).features
    gaps = {n: abs(other[n] - v) for n, v in plain.items() if v is not None}  # type: ignore[operator]
    pulse_gap = gaps.pop("temp.rppg")  # Matroska rounds times to milliseconds
    shown = f"largest difference {max(gaps.values()):.1e}; pulse {pulse_gap:.3f} dB"
    yield Line("re-muxed", "equal to .001, pulse .05", shown, max(gaps.values()) <= 1e-3 and pulse_gap <= 0.05)
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    yield compared("mirrored", plain, features(folder, mirrored))
    turned = [np.ascontiguousarray(np.rot90(frame, -1)) for frame in frames]
    yield compared("turned, with its flag", plain, features(folder, turned, rotation=90))
    large = [noisy(cv2.resize(drawn(m, 1.0, 1080), (1920, 1080)), np.random.default_rng(i), 1.0) for i, m in course(75)]
    small = [cv2.resize(frame, (1280, 720), interpolation=cv2.INTER_AREA) for frame in large]
    pair = features(folder, large), features(folder, small)
    yield compared("720 and 1080 lines, all but art.freq", *pair, ("art.freq",))
    # Measured at the file's own resolution, on which the traces of generators lie: it cannot be the same at another.
    gap = abs(pair[0]["art.freq"] - pair[1]["art.freq"])
    yield Line(
        "720 and 1080 lines, art.freq", f"within {FREQ_ACROSS_SIZES}", f"differs by {gap:.2f}", gap <= FREQ_ACROSS_SIZES
    )


def course(n: int) -> list[tuple[int, float]]:
    return [(i, (0.02, 0.15, 0.3, 0.15)[i // 4 % 4]) for i in range(n)]


def compared(what: str, one: dict, other: dict, without: Sequence[str] = ()) -> Line:
    """Compare the values of two clips within the stated tolerances."""
    shares = {}
    for name, tolerance in INVARIANT.items():
        a, b = one[name], other[name]
        known = a is not None and b is not None and np.isfinite(a) and np.isfinite(b)
        if known and name not in without:
            shares[name] = abs(a - b) / tolerance
    worst = max(shares, key=lambda name: shares[name])
    text = f"{len(shares)} compared; nearest to its limit: {worst}, {shares[worst]:.0%} of {INVARIANT[worst]:g}"
    return Line(what, "within tolerance", text, max(shares.values()) <= 1 and len(shares) >= 8)


CHECKS: dict[str, Callable[[Path], Iterator[Line]]] = {
    "blinks": blinks,
    "pulses": pulses,
    "shakes": shakes,
    "flickers": flickers,
    "cameras": cameras,
    "coded_cameras": coded_cameras,
    "double_video": double_video,
    "double_jpeg": double_jpeg,
    "logos": logos,
    "monotone": monotone,
    "mouths": mouths,
    "drifts": drifts,
    "invariances": invariances,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CHECKS, action="append", help="only these; may be given several times")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    av.logging.set_level(av.logging.PANIC)
    broken = 0
    print(f"{'what':52s} {'truth':26s} {'measured':60s} holds")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or CHECKS:
            for line in CHECKS[name](Path(folder)):
                broken += not line.holds
                print(
                    f"{line.what:52s} {line.truth:26s} {line.measured:60s} {'yes' if line.holds else 'NO'}", flush=True
                )
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
