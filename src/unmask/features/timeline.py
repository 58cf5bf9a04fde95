"""A picture of what the features are measured from, over the time of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmask.config import ExtractConfig
from unmask.errors import MissingExtraError
from unmask.features.artefacts import Artefacts
from unmask.features.catalogue import CATALOGUE
from unmask.features.face_motion import FaceMotion
from unmask.features.measure import Measurement, Pass, measure_frames
from unmask.features.observation import Floats
from unmask.features.quality import Quality
from unmask.features.skin import SkinSignals
from unmask.features.temporal import PULSE_RATE_HZ, Temporal, pulse_wave
from unmask.media.video import VideoReader
from unmask.schemas import write_atomically

PANEL_HEIGHT_IN, COLUMN_WIDTH_IN = 1.25, 6.2


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


def plot_timeline(paths: Sequence[Path], out: Path, config: ExtractConfig) -> None:
    """Draw clips beside one another, each a column of curves over a table of its features.

    Args:
        paths: Videos.
        out: PNG to write.
        config: As in extraction.

    Raises:
        MediaError: A clip cannot be measured.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("The picture of the features", "analysis") from error
    measured = [curves_of(path, config) for path in paths]
    titles = list(dict.fromkeys(curve.title for curves, _ in measured for curve in curves))
    limits = {title: _limits([c for curves, _ in measured for c in curves if c.title == title]) for title in titles}
    figure = Figure(
        figsize=(COLUMN_WIDTH_IN * len(paths), PANEL_HEIGHT_IN * len(titles) + 4.2), layout="constrained", dpi=100
    )
    grid = figure.add_gridspec(len(titles) + 1, len(paths), height_ratios=[1.0] * len(titles) + [3.4])
    for column, (path, (curves, found)) in enumerate(zip(paths, measured, strict=True)):
        by_title = {curve.title: curve for curve in curves}
        for row, title in enumerate(titles):
            axes = figure.add_subplot(grid[row, column])
            _draw(axes, title, by_title.get(title), limits[title])
            if row == 0:
                axes.set_title(f"{'/'.join(path.parts[-3:])}\n{title}", fontsize=9, loc="left")
        _write_values(figure.add_subplot(grid[len(titles), column]), found)
    with write_atomically(out) as temporary:
        figure.savefig(temporary, format="png")


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Common limits of a kind of curve, so that clips can be compared; single outliers do not count."""
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, [0.2, 99.8])
    margin = 0.08 * (high - low) + 1e-6
    return float(low - margin), float(high + margin)


def _draw(axes: Any, title: str, curve: Curve | None, limits: tuple[float, float]) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.set_ylim(*limits)
    if curve is None or not len(curve.values):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", fontsize=9)
        return
    axes.set_ylabel(curve.unit, fontsize=8)
    axes.plot(curve.time_s, curve.values, "o-" if curve.dots else "-", linewidth=0.8, markersize=2.5)
    axes.set_xlabel("s", fontsize=7, loc="right", labelpad=-2)


def _write_values(axes: Any, found: Measurement) -> None:
    axes.axis("off")
    lines = []
    for name, spec in CATALOGUE.items():
        value = found.features[name]
        shown = (
            f"{value:10.3f} {spec.unit.split(':')[0]}"
            if value is not None
            else f"      null {found.null_reasons[name]}"
        )
        lines.append(f"{name:20s} {shown}")
    axes.text(
        0, 1, "\n".join(lines), family="monospace", fontsize=7.5, va="top", transform=axes.transAxes, in_layout=False
    )
