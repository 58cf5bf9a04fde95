"""Temporal features of the face: how well optical flow explains it, and the pulse in its skin."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.features.observation import Clip, Floats, Moment, Null, Value
from unmask.features.skin import SkinSeries, SkinSignals
from unmask.media.faces import FACE_OVAL, Image

FLOW_SHORT_SIDE_PX = 270
MIN_FLOW_PAIRS = 4
MIN_FLOW_FACE_PX = 24  # at that scale
FLOW_MARGIN = 0.5  # of the face's width: flow is looked for in the face and so far around it
MIN_FLOW_SIDE_PX = 96  # of that window; smaller ones have too few scales for fast movement
MIN_CHANGE = 0.3  # mean grey levels between two frames; below, nothing moves
ERROR_FLOOR = 0.25  # grey levels; added to both errors

PULSE_HZ = (0.7, 4.0)
PULSE_RATE_HZ = 30.0
MIN_PULSE_S = 6.0
MIN_PULSE_FPS = 12.0
MIN_PULSE_SHARE = 0.8  # of the frames between first and last must show the face
MIN_PULSE_FACE_PX = 64
POS_WINDOW_S = 1.6
MAX_SPECTRUM_S = 20.0  # longer clips are averaged; a heart does not keep its rate for longer
MAX_GAP_S = 0.5


class Temporal:
    """`temp.flow_oddity`, `temp.rppg`.

    Args:
        skin: Collects the colours of the skin on the same pass.
    """

    def __init__(self, skin: SkinSignals) -> None:
        self._skin = skin
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: tuple[int, Image] | None = None
        self._oddities: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._n_pairs = 0
        self._n_still = 0
        self._too_small: set[int] = set()

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        frame = moment.frame
        if frame.short_side_px < FLOW_SHORT_SIDE_PX // 2:
            return
        before, self._before = self._before, None
        if before is not None and before[0] == frame.index - 1:
            self._compare(before[1], moment)
        if moment.sampled:
            self._before = (frame.index, frame.luma_at(FLOW_SHORT_SIDE_PX))

    def _compare(self, before: Image, moment: Moment) -> None:
        now = moment.frame.luma_at(FLOW_SHORT_SIDE_PX)
        if now.shape != before.shape or not moment.faces:
            return
        self._n_pairs += 1
        if float(cv2.mean(cv2.absdiff(before, now))[0]) < MIN_CHANGE:
            self._n_still += 1
            return
        scale = now.shape[1] / moment.frame.width_px
        for track, face in moment.faces.items():
            box = face.box * scale
            left, top, right, bottom = _window(box, now.shape)
            oval = face.landmarks[list(FACE_OVAL), :2] * scale - [left, top]
            inside, ring = _face_and_ring(oval, (bottom - top, right - left))
            if box[2] - box[0] < MIN_FLOW_FACE_PX or not cv2.countNonZero(ring):
                self._too_small.add(track)
                continue
            error = prediction_error(self._flow, *(image[top:bottom, left:right] for image in (before, now)))
            own, around = (cv2.mean(error, mask)[0] + ERROR_FLOOR for mask in (inside, ring))
            self._oddities[track].append((moment.frame.time_s, float(np.log2(own / around))))

    def oddities(self, track: int) -> Floats:
        """Time and oddity of a track, ``(N, 2)``."""
        return np.array(self._oddities.get(track, []), np.float64).reshape(-1, 2)

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the values of the family."""
        if clip.modality == "image":
            return {"temp.flow_oddity": Null("single_image"), "temp.rppg": Null("single_image")}
        return {"temp.flow_oddity": self._oddity(clip), "temp.rppg": self._pulse(clip)}

    def _oddity(self, clip: Clip) -> Value:
        if clip.main_track is None:
            return Null("no_face")
        if min(clip.width_px, clip.height_px) < FLOW_SHORT_SIDE_PX // 2:
            return Null("too_small")
        found = self._oddities[clip.main_track]
        if len(found) >= MIN_FLOW_PAIRS:
            return float(np.median(self.oddities(clip.main_track)[:, 1]))
        if clip.main_track in self._too_small:
            return Null("small_face")
        return Null("static") if self._n_still >= MIN_FLOW_PAIRS else Null("too_short")

    def _pulse(self, clip: Clip) -> Value:
        if clip.main_track is None:
            return Null("no_face")
        series = self._skin.series(clip.main_track)
        if series is None:
            return Null("small_face")
        found = pulse(series, clip.fps)
        return found if isinstance(found, Null) else found[0]


def prediction_error(flow: cv2.DISOpticalFlow, before: Image, now: Image) -> Image:
    """Predict ``before`` from ``now`` by optical flow; absolute error ``(H, W)`` in grey levels, uint8."""
    # Planes of small clips are views of the decoder's padded rows, which the flow does not take.
    before, now = np.ascontiguousarray(before), np.ascontiguousarray(now)
    motion = flow.calc(before, now, np.zeros((*before.shape, 2), np.float32))
    height, width = before.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    predicted = cv2.remap(
        now, x + motion[..., 0], y + motion[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(cv2.absdiff(predicted, before), np.uint8)


def _window(box: NDArray[np.floating], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A rectangle around a face box with a margin: left, top, right, bottom, inside the picture."""
    margin = FLOW_MARGIN * float(box[2] - box[0])
    edges = []
    for low, high, extent in zip(box[:2], box[2:], shape[1::-1], strict=True):
        reach = max(float(high - low) / 2 + margin, MIN_FLOW_SIDE_PX / 2)
        middle = min(max(float(low + high) / 2, reach), extent - reach)
        edges.append((max(round(middle - reach), 0), min(round(middle + reach), extent)))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _face_and_ring(oval: NDArray[np.floating], shape: tuple[int, ...]) -> tuple[Image, Image]:
    inside = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(inside, np.round(oval).astype(np.int32), 255)
    reach = max(3, round(float(np.ptp(oval[:, 0])) / 6)) | 1
    wider = np.asarray(cv2.dilate(inside, np.ones((reach, reach), np.uint8)), np.uint8)
    return inside, wider & ~inside


def pulse(series: SkinSeries, fps: float) -> tuple[float, float] | Null:
    """Measure the pulse in the skin by POS (Wang et al. 2017).

    Args:
        series: Colours of the skin.
        fps: Frames a second of the clip.

    Returns:
        Signal-to-noise ratio in dB (de Haan & Jeanne 2013) and the rate in beats a minute; or why not.
    """
    if series.width_px < MIN_PULSE_FACE_PX:
        return Null("small_face")
    if fps < MIN_PULSE_FPS:
        return Null("too_slow")
    colours = np.asarray(series.skin_rgb)
    time_s, colours = series.time_s, colours.mean(axis=1)
    if len(time_s) < 2 or time_s[-1] - time_s[0] < MIN_PULSE_S or np.diff(time_s).max() > MAX_GAP_S:
        return Null("too_short")
    if len(time_s) < MIN_PULSE_SHARE * fps * (time_s[-1] - time_s[0]):
        return Null("too_short")
    grid = np.arange(time_s[0], time_s[-1], 1 / PULSE_RATE_HZ)
    even = np.stack([np.interp(grid, time_s, channel) for channel in colours.T], axis=1)
    wave = pulse_wave(even)
    return signal_to_noise(wave, PULSE_RATE_HZ) if float(wave.std()) > 1e-6 else Null("static")


def pulse_wave(rgb: Floats) -> Floats:
    """Pulse wave ``(N,)`` of mean skin colours ``(N, 3)`` at `PULSE_RATE_HZ`."""
    return without_drift(pos(rgb, PULSE_RATE_HZ), PULSE_RATE_HZ)


def pos(rgb: Floats, rate_hz: float) -> Floats:
    """Plane-orthogonal-to-skin: the pulse wave from mean skin colours (Wang et al. 2017, algorithm 1).

    Args:
        rgb: ``(N, 3)`` at an even rate.
        rate_hz: That rate.

    Returns:
        ``(N,)`` without unit.
    """
    n = round(POS_WINDOW_S * rate_hz)
    wave = np.zeros(len(rgb))
    for start in range(len(rgb) - n + 1):
        window = rgb[start : start + n]
        normal = window / np.maximum(window.mean(axis=0), 1e-6)
        first = normal[:, 1] - normal[:, 2]
        second = normal[:, 1] + normal[:, 2] - 2 * normal[:, 0]
        part = first + second * (first.std() / max(float(second.std()), 1e-9))
        wave[start : start + n] += part - part.mean()
    return wave


def without_drift(wave: Floats, rate_hz: float) -> Floats:
    """Take out what is slower than the slowest pulse: sway of the head, changes of light."""
    half = round(rate_hz / PULSE_HZ[0]) // 2
    padded = np.pad(wave, half, mode="reflect")
    return wave - np.convolve(padded, np.ones(2 * half + 1) / (2 * half + 1), mode="valid")


def mean_spectrum(wave: Floats, n: int, rate_hz: float) -> tuple[Floats, Floats]:
    """Mean power of Hann windows of n samples that overlap by half (Welch 1967).

    Args:
        wave: ``(N,)``, N at least n.
        n: Samples a window.
        rate_hz: Samples a second.

    Returns:
        Frequencies in Hz and power without unit, zero-padded to 2048 points or more.
    """
    points = max(2048, n)
    windows = np.lib.stride_tricks.sliding_window_view(wave, n)[:: max(1, n // 2)]
    windows = (windows - windows.mean(axis=1, keepdims=True)) * np.hanning(n + 1)[:n]
    power = (np.abs(np.fft.rfft(windows, points, axis=1)) ** 2).mean(axis=0)
    return np.asarray(np.fft.rfftfreq(points, 1 / rate_hz), np.float64), np.asarray(power, np.float64)


def signal_to_noise(wave: Floats, rate_hz: float) -> tuple[float, float]:
    """Power near the strongest frequency and its harmonic over the rest of the pulse band.

    Args:
        wave: ``(N,)`` at an even rate.
        rate_hz: That rate.

    Returns:
        dB, and the frequency in beats a minute.
    """
    n = min(len(wave), round(MAX_SPECTRUM_S * rate_hz))
    frequency, power = mean_spectrum(wave, n, rate_hz)
    width_hz = max(0.1, 2 * rate_hz / n)  # half the main lobe of the window
    band = (frequency >= PULSE_HZ[0]) & (frequency <= PULSE_HZ[1])
    # A peak, and not the foot of something slower that reaches into the band.
    summit = band & (power >= np.roll(power, 1)) & (power >= np.roll(power, -1))
    peak = float(frequency[summit][np.argmax(power[summit])]) if summit.any() else float(frequency[band][0])
    signal = band & ((np.abs(frequency - peak) <= width_hz) | (np.abs(frequency - 2 * peak) <= 2 * width_hz))
    ratio = (power[signal].sum() + 1e-20) / (power[band & ~signal].sum() + 1e-20)
    return float(10 * np.log10(ratio)), 60 * peak
