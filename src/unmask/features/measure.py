"""The single pass: decode a file once, and take all features and face crops from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2

from unmask.config import ExtractConfig
from unmask.errors import InputError, MediaError
from unmask.features.artefacts import Artefacts
from unmask.features.catalogue import CATALOGUE
from unmask.features.face_motion import FaceMotion
from unmask.features.forensics import Forensics
from unmask.features.observation import Clip, Family, Moment, Null, Value
from unmask.features.quality import Quality
from unmask.features.skin import SkinSignals
from unmask.features.temporal import Temporal
from unmask.features.watermark import Watermark
from unmask.media.crops import Crop, EvenSampler, cut_crop, encode_crop
from unmask.media.faces import Face, FaceTracker
from unmask.media.probe import IMAGE_CONTAINERS
from unmask.media.sound import Sound, Window, read_sound
from unmask.media.video import Frame, VideoReader, read_image

EXAMINED_HZ = 15.0  # how often landmarks are looked for; blinks and syllables are slower
N_SAMPLED = 24  # frames on which costly things are measured
SIGNIFICANT_DIGITS = 9  # of a feature
MIN_TRACK_SHARE = 0.05  # of the examined frames; shorter tracks beside the main one are dropped


@dataclass(frozen=True)
class Measurement:
    """What one file gave.

    Attributes:
        features: Every name of the catalogue to its value, None where it could not be measured.
        null_reasons: Name to a code of `NULL_REASONS`, for every None.
        crops: Face crops by track and time.
        n_frames_expected: Frames that the container promises; None for audio.
        n_frames_decoded: Frames decoded; None for audio.
        face_share: Share of examined frames with a face; None for audio.
        windows: Of its sound, in order of time.
        no_sound_reason: ``code: sentence`` why there are none; None if there are.
    """

    features: dict[str, float | None]
    null_reasons: dict[str, str]
    crops: list[Crop] = field(default_factory=list)
    n_frames_expected: int | None = None
    n_frames_decoded: int | None = None
    face_share: float | None = None
    windows: list[Window] = field(default_factory=list)
    no_sound_reason: str | None = None


def measure(
    path: Path,
    modality: str,
    config: ExtractConfig,
    *,
    threads: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Measure one file.

    Args:
        path: The file.
        modality: video, image or audio.
        config: Crops, and when a file fails.
        threads: Of the video decoder; the result does not depend on it.
        watch: Called with frames seen and frames expected, frame by frame.

    Returns:
        Features, crops and windows of sound. Audio gives windows only, a picture none.

    Raises:
        MediaError: The file cannot be decoded, too few of its frames decode, or too few of them show a face. That the
            sound of a video cannot be decoded is no failure.
        InputError: ``modality`` is none of the three.
    """
    if modality == "audio":
        return _measure_audio(path, config)
    if modality not in ("video", "image"):
        raise InputError(f"{modality!r} is no modality.", "Use video, image or audio.")
    try:
        if modality == "image":
            return replace(_measure_image(path, config), no_sound_reason="image: a picture has no sound")
        if threads == 1:
            seen = _measure_video(path, config, threads, watch)
            return _with_sound(seen, read_sound(path, config.sound_windows))
        with ThreadPoolExecutor(1, "unmask-sound") as aside:
            sound = aside.submit(read_sound, path, config.sound_windows)
            return _with_sound(_measure_video(path, config, threads, watch), sound.result())
    except cv2.error as error:
        raise MediaError("unsupported", f"{path.name}: {str(error).strip().splitlines()[-1]}") from error


def _measure_audio(path: Path, config: ExtractConfig) -> Measurement:
    sound = read_sound(path, config.sound_windows)
    if sound.undecodable:
        raise MediaError("corrupt", f"{path.name}: {sound.reason}")
    return _with_sound(Measurement(dict.fromkeys(CATALOGUE), dict.fromkeys(CATALOGUE, "audio")), sound)


def _with_sound(measurement: Measurement, sound: Sound) -> Measurement:
    return replace(measurement, windows=list(sound.windows), no_sound_reason=sound.reason)


def _measure_image(path: Path, config: ExtractConfig) -> Measurement:
    frame = read_image(path)
    run = Pass(1, 1.0, config)
    run.see(frame)
    clip = Clip("image", 1, 0.0, 1.0, frame.width_px, frame.height_px, path.stat().st_size, run.main_track)
    return run.finish(clip, 1)


def _measure_video(
    path: Path, config: ExtractConfig, threads: int, watch: Callable[[int, int], None] | None
) -> Measurement:
    with VideoReader(path, threads) as reader:
        if reader.facts.container in IMAGE_CONTAINERS:
            raise MediaError("wrong_type", f"{path.name} is a picture ({reader.facts.codec}), not a video")
        run = Pass(reader.facts.n_frames, reader.facts.fps, config)
        for frame in reader:
            run.see(frame)
            if watch is not None:
                watch(frame.index + 1, reader.facts.n_frames)
    return measure_frames(run, reader, config)


def measure_frames(run: Pass, reader: VideoReader, config: ExtractConfig) -> Measurement:
    """Take everything together when a pass has seen all frames of a video.

    Args:
        run: Has seen them.
        reader: Has decoded them.
        config: When a file fails.

    Raises:
        MediaError: Too few frames decode, or too few of them show a face.
    """
    n = reader.n_decoded
    if n == 0:
        raise MediaError("corrupt", f"no frame decodes (the container promises {reader.facts.n_frames})")
    if reader.decoded_share < config.min_decoded_share:
        raise MediaError(
            "truncated",
            f"{n} of {reader.facts.n_frames} frames decode ({reader.decoded_share:.0%}, "
            f"the limit is {config.min_decoded_share:.0%})",
        )
    fps = (n - 1) / run.last_s if run.last_s > 0 else reader.facts.fps
    clip = Clip("video", n, n / fps, fps, *run.size_px, reader.coded_bytes, run.main_track)
    return run.finish(clip, reader.facts.n_frames)


class Pass:
    """Watches the frames of one clip, in order.

    Args:
        n_frames: Expected length of the clip.
        fps: Frames a second.
        config: How crops are made.

    Attributes:
        tracker: Finds and follows the faces.
        families: Name to what watches the frames.
        skin: Colours of face and skin.
        size_px: Displayed width and height.
        last_s: Time of the last frame.
    """

    def __init__(self, n_frames: int, fps: float, config: ExtractConfig) -> None:
        self._config = config
        self._n_frames = max(n_frames, 1)
        self._stride = max(1, round(fps / EXAMINED_HZ))
        self._samples = EvenSampler(self._n_frames, N_SAMPLED)
        self.tracker = FaceTracker()
        self.skin = skin = SkinSignals()
        self.size_px, self.last_s = (0, 0), 0.0
        self.families: dict[str, Family] = {
            "quality": Quality(fps),
            "wm": Watermark(),
            "forensics": Forensics(self._n_frames, skin),
            "face": FaceMotion(),
            "art": Artefacts(),
            "temp": Temporal(skin),
        }
        self._tracks: dict[int, _Track] = {}
        self._motion = _Motion()

    def see(self, frame: Frame) -> None:
        """Look at the next frame."""
        self.size_px, self.last_s = (frame.width_px, frame.height_px), frame.time_s
        examined = frame.index % self._stride == 0
        if examined:
            faces: Mapping[int, Face] = self.tracker.update(frame)
            self._motion.note(faces, frame.time_s)
            self._cut_crops(frame, faces)
        else:
            faces = self._motion.faces_at(frame.time_s)
        sampled = examined and self._samples.due(frame.index)
        if sampled:
            self._samples.take(frame.index)
        moment = Moment(frame, faces, examined, sampled)
        self.skin.see(moment)
        for family in self.families.values():
            family.see(moment)

    def _cut_crops(self, frame: Frame, faces: Mapping[int, Face]) -> None:
        for number, face in faces.items():
            if number not in self._tracks:
                self._tracks[number] = _Track(EvenSampler(self._n_frames, self._config.crops_per_video))
            track = self._tracks[number]
            track.area_px2 += face.area_px2
            track.n_frames += 1
            if track.sampler.due(frame.index):
                track.sampler.take(frame.index)
                track.crops.append(self._crop(frame, face))

    def _crop(self, frame: Frame, face: Face) -> Crop:
        image = cut_crop(frame, face, self._config.crop_scale, self._config.crop_size_px)
        x0, y0, x1, y1 = (float(edge) for edge in face.box)
        jpeg = encode_crop(image, self._config.jpeg_quality)
        return Crop(0, frame.index, frame.time_s, x0, y0, x1, y1, face.presence, face.yaw_deg, jpeg)

    @property
    def main_track(self) -> int | None:
        """Number of the track with the largest area over time, or None without a face."""
        return max(self._tracks, key=lambda number: self._tracks[number].area_px2, default=None)

    def finish(self, clip: Clip, n_frames_expected: int) -> Measurement:
        """Take everything together after the last frame.

        Args:
            clip: What is known by now.
            n_frames_expected: Frames that the container promises.

        Returns:
            The measurement.

        Raises:
            MediaError: ``no_face``, if too few examined frames show one.
        """
        face_share = self.tracker.n_with_face / max(self.tracker.n_examined, 1)
        if face_share < self._config.min_face_share:
            raise MediaError(
                "no_face",
                f"a face in {self.tracker.n_with_face} of {self.tracker.n_examined} examined frames ({face_share:.0%}, "
                f"the limit is {self._config.min_face_share:.0%})",
            )
        values: dict[str, Value] = {}
        for family in self.families.values():
            values |= family.values(clip)
        nulls = {name: _why_null(values[name]) for name in CATALOGUE}
        return Measurement(
            features={name: None if nulls[name] else _rounded(values[name]) for name in CATALOGUE},
            null_reasons={name: code for name, code in nulls.items() if code},
            crops=self._ordered_crops(),
            n_frames_expected=n_frames_expected,
            n_frames_decoded=clip.n_frames,
            face_share=face_share,
        )

    def _ordered_crops(self) -> list[Crop]:
        tracks = sorted(self._tracks.values(), key=lambda track: -track.area_px2)
        least = MIN_TRACK_SHARE * self.tracker.n_examined
        kept = [track for index, track in enumerate(tracks) if index == 0 or track.n_frames >= max(least, 2)]
        return [replace(crop, face_index=index) for index, track in enumerate(kept) for crop in track.crops]


def _rounded(value: Value) -> float:
    """Cut off what lies below the accuracy of any measurement, and with it the order in which sums were taken."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _why_null(value: Value) -> str | None:
    if isinstance(value, Null):
        return value.code
    return None if math.isfinite(value) else "undefined"


@dataclass
class _Track:
    """One face over the clip: where its crops are due, and how large it was altogether."""

    sampler: EvenSampler
    area_px2: float = 0.0
    n_frames: int = 0
    crops: list[Crop] = field(default_factory=list)


class _Motion:
    """Carries landmarks on at their last speed over the frames that are not examined."""

    def __init__(self) -> None:
        self._before: Mapping[int, Face] = {}
        self._now: Mapping[int, Face] = {}
        self._before_s = self._now_s = 0.0

    def note(self, faces: Mapping[int, Face], time_s: float) -> None:
        """Take the faces of an examined frame."""
        self._before, self._before_s = self._now, self._now_s
        self._now, self._now_s = faces, time_s

    def faces_at(self, time_s: float) -> dict[int, Face]:
        """Give the faces a little later."""
        span_s = self._now_s - self._before_s
        share = (time_s - self._now_s) / span_s if span_s > 0 else 0.0
        carried = {}
        for number, face in self._now.items():
            before = self._before.get(number, face)
            carried[number] = replace(face, landmarks=face.landmarks + (face.landmarks - before.landmarks) * share)
        return carried
