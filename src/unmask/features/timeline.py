"""What the features of a clip are measured from, as curves over time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmask.config import ExtractConfig
from unmask.features.artefacts import Artefacts
from unmask.features.face_motion import FaceMotion
from unmask.features.measure import Measurement, Pass, measure_frames
from unmask.features.observation import Floats
from unmask.features.quality import Quality
from unmask.features.skin import SkinSignals
from unmask.features.temporal import PULSE_RATE_HZ, Temporal, pulse_wave
from unmask.media.video import VideoReader


@dataclass(frozen=True)
class Curve:
    """One curve over time.

    Attributes:
        title: What it shows.
        unit: Of its values.
        time_s: ``(N,)``.
        values: ``(N,)``.
        dots: Whether single frames were measured, with gaps between them.
    """

    title: str
    unit: str
    time_s: Floats
    values: Floats
    dots: bool = False


def curves_of(path: Path, config: ExtractConfig) -> tuple[list[Curve], Measurement]:
    """Measure a video, keeping what its features are made from.

    Args:
        path: The video.
        config: As in extraction.

    Returns:
        Curves of the largest face, and the features.

    Raises:
        MediaError: As `unmask.features.measure`.
    """
    with VideoReader(path) as reader:
        run = Pass(reader.facts.n_frames, reader.facts.fps, config)
        times_s: list[float] = []
        sizes: list[int] = []
        for frame in reader:
            run.see(frame)
            times_s.append(frame.time_s)
            sizes.append(frame.coded_bytes)
    found = measure_frames(run, reader, config)
    return _curves(run, np.array(times_s), np.array(sizes, np.float64)), found


def _curves(run: Pass, times_s: Floats, sizes: Floats) -> list[Curve]:
    families: dict[str, Any] = run.families
    track = run.main_track
    curves: list[Curve] = []
    if track is not None:
        curves += _shape_curves(families["face"], track)
        curves += _skin_curves(run.skin, track)
        curves += _artefact_curves(families["art"], families["temp"], track)
    return curves + _picture_curves(families["quality"], times_s, sizes)


def _shape_curves(face: FaceMotion, track: int) -> list[Curve]:
    series = face.series(track)
    if series is None:
        return []
    return [
        Curve("eye opening (face.eye_blink)", "ratio", series.time_s, series.eye),
        Curve("mouth opening (face.mouth_…)", "ratio", series.time_s, series.mouth),
        Curve("asymmetry (face.sym_drift)", "% of size", series.time_s, 100 * series.asymmetry),
    ]


def _skin_curves(skin: SkinSignals, track: int) -> list[Curve]:
    series = skin.series(track)
    if series is None or len(series.time_s) < PULSE_RATE_HZ * 2:
        return []
    relative = 100 * np.diff(series.face_luma / np.median(series.face_luma), 2)
    grid = np.arange(series.time_s[0], series.time_s[-1], 1 / PULSE_RATE_HZ)
    colours = series.skin_rgb.mean(axis=1)
    even = np.stack([np.interp(grid, series.time_s, channel) for channel in colours.T], axis=1)
    return [
        Curve("jumps of the face's light (forensics.flicker)", "%", series.time_s[1:-1], relative),
        Curve("pulse wave (temp.rppg)", "–", grid, pulse_wave(even)),
    ]


def _artefact_curves(art: Artefacts, temporal: Temporal, track: int) -> list[Curve]:
    time_s, edge, texture, colour = art.series(track).T
    at_s, oddity = temporal.oddities(track).T
    return [
        Curve("edge along the outline (art.edge)", "log2", time_s, edge, True),
        Curve("texture of the skin (art.texture)", "bits", time_s, texture, True),
        Curve("colour step (art.color)", "a*b*", time_s, colour, True),
        Curve("odd movement (temp.flow_oddity)", "log2", at_s, oddity, True),
    ]


def _picture_curves(quality: Quality, times_s: Floats, sizes: Floats) -> list[Curve]:
    path = quality.path()
    n = min(len(path), len(quality.times_s))
    length = np.hypot(*(path[:n] - path[:n].mean(axis=0)).T)
    return [
        Curve("camera off its mean (quality.shake)", "px", quality.times_s[:n], length),
        Curve("coded size (forensics.codec)", "kB", times_s, sizes / 1e3),
    ]
