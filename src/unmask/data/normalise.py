"""`unmask ingest --normalise`: both classes in one format, so that a detector cannot learn the files.

The common format follows from the data: what nine of ten files have at least. Traces of the former format stay in the
pixels (a picture that was small is softer), so this removes what file metadata tell, not every difference.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from unmask.data.inspection import Inspection
from unmask.data.sources import SourceFile
from unmask.errors import MediaError, StorageError
from unmask.media.examination import examine
from unmask.media.probe import MediaFacts
from unmask.media.reencode import reencode_audio, reencode_image, reencode_video
from unmask.objects import MediaFiles, ObjectStore
from unmask.progress import track
from unmask.schemas import Document, sha256_file, sha256_json

REENCODE_VERSION = 1
COMMON_QUANTILE = 0.1
BITS_PER_PIXEL = 0.12
SUFFIXES = {"image": ".jpg", "video": ".mp4", "audio": ".wav"}


class CommonFormat(Document):
    """What every file of one kind is brought to; ``normalised.json`` holds one for each kind.

    Attributes:
        width_px: Displayed width; None for audio.
        height_px: Displayed height; None for audio.
        fps: Frame rate of videos.
        duration_s: Length of videos and recordings; None for pictures.
        bit_rate_bps: Of the picture of videos.
        sample_rate_hz: Of recordings.
        sound: Whether videos keep their sound; only if all have one.
    """

    width_px: int | None = None
    height_px: int | None = None
    fps: float | None = None
    duration_s: float | None = None
    bit_rate_bps: int | None = None
    sample_rate_hz: int | None = None
    sound: bool = False


class CommonFormats(Document):
    """Kind of media to its common format."""

    formats: dict[str, CommonFormat]


def common_formats(facts: Sequence[MediaFacts]) -> CommonFormats:
    """Derive the format of each kind of media.

    Args:
        facts: Of usable files.
    """
    formats: dict[str, CommonFormat] = {}
    for kind in sorted({fact.modality for fact in facts}):
        some = [fact for fact in facts if fact.modality == kind]
        size = _common_size(some) if kind != "audio" else (None, None)
        fps = _low([fact.fps for fact in some])
        formats[kind] = CommonFormat(
            width_px=size[0],
            height_px=size[1],
            fps=fps,
            duration_s=_low([fact.duration_s for fact in some]),
            bit_rate_bps=int(BITS_PER_PIXEL * size[0] * size[1] * fps) if size[0] and size[1] and fps else None,
            sample_rate_hz=int(_low([fact.sample_rate_hz for fact in some]) or 0) or None if kind == "audio" else None,
            sound=kind == "video" and all(fact.has_audio for fact in some),
        )
    return CommonFormats(formats=formats)


def _low(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.quantile(known, COMMON_QUANTILE, method="lower")) if known else None


def _common_size(facts: Sequence[MediaFacts]) -> tuple[int, int]:
    """Give the size with the middle shape and the area that nine of ten files have at least; even numbers."""
    shape = float(np.median([(fact.width_px or 1) / (fact.height_px or 1) for fact in facts]))
    area = _low([float((fact.width_px or 1) * (fact.height_px or 1)) for fact in facts]) or 1.0
    return max(2, 2 * round((area * shape) ** 0.5 / 2)), max(2, 2 * round((area / shape) ** 0.5 / 2))


def normalise(
    files: Sequence[SourceFile], inspections: Sequence[Inspection], media: MediaFiles, target: ObjectStore
) -> tuple[list[SourceFile], list[Inspection], CommonFormats]:
    """Bring all usable files into one format; files done in an earlier run are not done again.

    Args:
        files: Media files.
        inspections: Of each.
        media: Gives their bytes.
        target: Where the new files go, by format and hash of the original.

    Returns:
        Files with their new addresses, what was found in the new files, and the formats.
    """
    formats = common_formats([found.facts for found in inspections if found.facts and found.reason is None])
    there = {stored.key for stored in target.objects()}

    def one(place: int) -> tuple[SourceFile, Inspection]:
        file, found = files[place], inspections[place]
        if found.facts is None or found.reason is not None:
            return file, found
        wanted = formats.formats[found.facts.modality]
        version = sha256_json([REENCODE_VERSION, wanted.model_dump()])[:12]
        key = f"normalised/{version}/{found.sha256}{SUFFIXES[found.facts.modality]}"
        try:
            return _normalised(file, found, wanted, key, media, target, key in there)
        except MediaError as error:
            return file, replace(found, reason=str(error))
        except StorageError as error:
            return file, replace(found, reason=f"unreadable: {error.problem}")

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        done = list(track(pool.map(one, range(len(files))), len(files), "normalise", "files"))
    return [file for file, _ in done], [found for _, found in done], formats


def _normalised(
    file: SourceFile,
    found: Inspection,
    wanted: CommonFormat,
    key: str,
    media: MediaFiles,
    target: ObjectStore,
    done: bool,
) -> tuple[SourceFile, Inspection]:
    with TemporaryDirectory() as temporary:
        fresh = Path(temporary) / f"fresh{Path(key).suffix}"
        if done:
            target.download(key, fresh)
        else:
            with media.local(file.uri) as path:
                _reencode(path, fresh, found.facts.modality if found.facts else "", wanted)
            target.upload(fresh, key)
        seen = examine(fresh)
        return (
            replace(file, uri=target.address(key), size_bytes=fresh.stat().st_size),
            replace(found, sha256=sha256_file(fresh), facts=seen.facts, peak_dbfs=seen.peak_dbfs),
        )


def _reencode(path: Path, out: Path, kind: str, wanted: CommonFormat) -> None:
    if kind == "audio":
        reencode_audio(path, out, wanted.sample_rate_hz or 16_000, wanted.duration_s or 1e9)
        return
    assert wanted.width_px is not None
    assert wanted.height_px is not None
    if kind == "image":
        reencode_image(path, out, wanted.width_px, wanted.height_px)
        return
    reencode_video(
        path,
        out,
        wanted.width_px,
        wanted.height_px,
        wanted.fps or 25.0,
        wanted.duration_s or 1e9,
        wanted.bit_rate_bps or 1_000_000,
        wanted.sound,
    )
