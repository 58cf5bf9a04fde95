"""The hardest mistakes: confident and wrong, with what the detectors saw and what pushed the score."""

from __future__ import annotations

import base64
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import simplejpeg
from numpy.typing import NDArray

from unmask.evaluation.inputs import Inputs, read_test_faces, read_test_windows
from unmask.evaluation.results import Results
from unmask.fusion.apply import contributions
from unmask.media.preprocessing import decode_crop, resize_crop
from unmask.media.sound import spectrogram, window_samples

THUMBNAIL_PX = 112
THUMBNAIL_QUALITY = 80
CROPS_PER_SAMPLE = 3
REASONS_PER_SAMPLE = 3


@dataclass(frozen=True)
class Crop:
    """One face crop of a sample, or the spectrum of a window of its sound.

    Attributes:
        data_uri: The picture itself.
        text: What it is, for who cannot see it.
    """

    data_uri: str
    text: str


@dataclass(frozen=True)
class Mistake:
    """A sample that was judged wrongly.

    Attributes:
        sample_id: Which.
        place: Source and path within it.
        kind: ``missed fake`` or ``false alarm``.
        about: Manipulation, compression, what is known.
        probability: P(fake) that it got.
        agreement: How far the detectors agree, see `unmask.ensemble.apply.agreement`; None when unknown.
        reasons: Inputs of fusion that pushed hardest, with their push in logit units, positive towards fake.
        crops: Up to three, evenly spaced in time.
    """

    sample_id: str
    place: str
    kind: str
    about: str
    probability: float
    agreement: float | None
    reasons: tuple[tuple[str, float], ...]
    crops: tuple[Crop, ...]


def hardest_mistakes(results: Results, limit: int = 6) -> tuple[list[Mistake], list[Mistake]]:
    """Collect the mistakes that were made with the most confidence.

    Args:
        results: The findings.
        limit: How many of each kind.

    Returns:
        False alarms, and missed fakes, the most confident first.
    """
    scores, threshold = results.headline, results.point.threshold
    called = scores.probabilities >= threshold
    order = np.argsort(-scores.probabilities, kind="stable")
    alarms = [row for row in order if called[row] and scores.labels[row] == 0][:limit]
    missed = [row for row in order[::-1] if not called[row] and scores.labels[row] == 1][:limit]
    ids = [str(scores.sample_ids[row]) for row in (*alarms, *missed)]
    crops = _crops(results.inputs, ids) if ids else {}
    return (
        [_mistake(results, str(scores.sample_ids[row]), "false alarm", crops) for row in alarms],
        [_mistake(results, str(scores.sample_ids[row]), "missed fake", crops) for row in missed],
    )


def _mistake(results: Results, sample_id: str, kind: str, crops: dict[str, tuple[Crop, ...]]) -> Mistake:
    inputs = results.inputs
    sample = _row(inputs.samples, sample_id)
    score = _row(inputs.fusion_rows, sample_id)
    known = (sample["manipulation"], sample["compression"], sample["modality"])
    agreement = score["agreement"]
    return Mistake(
        sample_id=sample_id,
        place=place_of(inputs, sample),
        kind=kind,
        about=", ".join(str(value) for value in known if isinstance(value, str)),
        probability=float(score["probability"]),
        agreement=None if pd.isna(agreement) else float(agreement),
        reasons=_reasons(inputs, sample_id),
        crops=crops.get(sample_id, ()),
    )


def _row(frame: pd.DataFrame, sample_id: str) -> dict[Hashable, Any]:
    """Find the row of a sample; empty when it has none."""
    return next(iter(frame.loc[frame["sample_id"] == sample_id].to_dict("records")), {})


def place_of(inputs: Inputs, sample: Mapping[Hashable, Any]) -> str:
    """Say where a sample lies: its path below the source, because the rest is the same for all and tells of a machine.

    Args:
        inputs: With the places of the sources.
        sample: Row of SAMPLES.

    Returns:
        For example ``faces/fake/clip.mp4``.
    """
    root = inputs.dataset.sources.get(str(sample["source"]), "").rstrip("/")
    uri = str(sample["uri"])
    inside = uri.removeprefix(f"{root}/") if root and uri.startswith(f"{root}/") else PurePosixPath(uri).name
    return f"{sample['source']}/{inside}"


def _reasons(inputs: Inputs, sample_id: str) -> tuple[tuple[str, float], ...]:
    """Say which inputs of fusion pushed the score of a sample hardest."""
    if not inputs.fusion.used:
        return ()
    logit = _row(inputs.ensemble_rows, sample_id)["logit"]
    measured = _row(inputs.features, sample_id)
    wanted = [name for name in inputs.fusion.inputs if "." in name and not name.startswith("missing:")]
    values = {name: measured.get(name) for name in wanted}
    known = {name: None if value is None or pd.isna(value) else float(value) for name, value in values.items()}
    pushes = contributions(inputs.fusion, float(logit), known)
    return tuple(sorted(pushes, key=lambda push: -abs(push[1]))[:REASONS_PER_SAMPLE])


def _crops(inputs: Inputs, sample_ids: Sequence[str]) -> dict[str, tuple[Crop, ...]]:
    columns = ["sample_id", "face_index", "frame_index", "time_s", "jpeg", "split"]
    rows = read_test_faces(inputs.faces, sample_ids, columns).to_pandas()
    largest = rows.loc[rows["face_index"] == 0].sort_values(["sample_id", "frame_index"])
    seen = {str(sample_id): _spread(own, _face) for sample_id, own in largest.groupby("sample_id")}
    unseen = [sample_id for sample_id in sample_ids if sample_id not in seen]
    heard = read_test_windows(inputs.faces, unseen).to_pandas().sort_values(["sample_id", "window_index"])
    return seen | {str(sample_id): _spread(own, _sound) for sample_id, own in heard.groupby("sample_id")}


def _spread(rows: pd.DataFrame, draw: Callable[[Any], Crop]) -> tuple[Crop, ...]:
    n = min(CROPS_PER_SAMPLE, len(rows))
    # The middles of n equal stretches: first and last frames are often fades.
    places = [int((2 * place + 1) * len(rows) / (2 * n)) for place in range(n)]
    return tuple(draw(rows.iloc[place]) for place in places)


def _face(row: Any) -> Crop:
    text = f"face crop at {row['time_s']:.1f} s, frame {row['frame_index']}"
    return Crop(_thumbnail(decode_crop(row["jpeg"])), text)


def _sound(row: Any) -> Crop:
    return Crop(
        _thumbnail(spectrogram(window_samples(row["pcm"]))), f"spectrum of the sound from {row['time_s']:.1f} s on"
    )


def _thumbnail(image: NDArray[np.uint8]) -> str:
    small = np.ascontiguousarray(resize_crop(image, THUMBNAIL_PX))
    data = simplejpeg.encode_jpeg(small, quality=THUMBNAIL_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
