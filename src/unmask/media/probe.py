"""Find out cheaply what a media file is and whether it decodes: headers and one frame, judged by content.

The name of a file is never believed: the demuxer is chosen from the bytes alone. Only plain containers are allowed;
playlists and other formats that make the library open further files or addresses are refused.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import av
import av.container
import av.error
import av.stream
import simplejpeg

from unmask.config import IngestConfig
from unmask.errors import MediaError

Modality = Literal["image", "video", "audio"]

_SUFFIXES: dict[Modality, str] = {
    "video": ".3g2 .3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv",
    "image": ".avif .bmp .gif .heic .heif .jpeg .jpg .png .tif .tiff .webp",
    "audio": ".aac .aif .aiff .flac .m4a .mka .mp3 .oga .ogg .opus .wav .wma",
}
MODALITY_OF_SUFFIX = {suffix: modality for modality, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

IMAGE_CONTAINERS = ("jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "gif")
CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "mpegts", "mpeg", "asf"),
    *("ogg", "wav", "w64", "aiff", "flac", "mp3", "aac"),
    *IMAGE_CONTAINERS,
)
IMAGE_BRANDS = frozenset({"avif", "heic", "heix", "heim", "mif1", "msf1"})
MAX_PIXELS = 150_000_000  # of one frame; the largest cameras have 100 to 150 million
MAX_PACKETS_TO_FIRST_FRAME = 300
SNIFF_BYTES = 1024
MAX_TAG = 64  # characters of an encoder tag
# Luminance table of Annex K of the JPEG standard in the order of the file (zigzag).
IJG_LUMA = (
    *(16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40),
    *(26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51),
    *(56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87),
    *(95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99),
)


@dataclass(frozen=True)
class MediaFacts:
    """What the headers of a media file say, in the words of the samples table.

    Attributes:
        modality: By content.
        container: Format of the file.
        size_bytes: Size of the file.
        width_px: Displayed width, after rotation; None for audio.
        height_px: Displayed height, after rotation; None for audio.
        fps: Average frames per second; None for images and audio.
        duration_s: As the container states it, or counted where it does not; None for images.
        n_frames: Frames as the container states or implies them; 1 for images, None for audio.
        codec: Of the picture, or of the sound for audio.
        bitrate_bps: Bits per second of the whole file; None for images.
        sample_rate_hz: Of the audio stream; None without one.
        has_audio: Whether there is an audio stream.
        rotation_deg: By how much a player turns the picture clockwise: 0, 90, 180, 270; None for audio.
        pixel_format: Of the picture, or the sample format of audio.
        encoder: What the file says about the program that wrote it, and the quality of a JPEG; None if nothing.
        channels: Of the audio stream; None without one.
    """

    modality: Modality
    container: str
    size_bytes: int
    width_px: int | None
    height_px: int | None
    fps: float | None
    duration_s: float | None
    n_frames: int | None
    codec: str
    bitrate_bps: float | None
    sample_rate_hz: int | None
    has_audio: bool
    rotation_deg: int | None
    pixel_format: str | None = None
    encoder: str | None = None
    channels: int | None = None

    def columns(self) -> dict[str, Any]:
        """Give the columns of the samples table that a probe fills."""
        return dict(vars(self))


def expected_modality(name: str) -> Modality | None:
    """Tell what the name of a file promises.

    Args:
        name: Of the file, with or without folders; only its suffix is looked at.

    Returns:
        image, video or audio; None when the suffix says nothing.
    """
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return MODALITY_OF_SUFFIX.get(f".{suffix.lower()}") if dot and stem else None


def probe(path: Path, config: IngestConfig, before: Callable[[Any], None] | None = None) -> MediaFacts:
    """Read the facts of a media file and check that it can be used.

    Args:
        path: The file.
        config: Limits of duration and frame rate.
        before: See `read_facts`.

    Returns:
        The facts.

    Raises:
        MediaError: ``unreadable``, ``empty_file``, ``unsupported``, ``corrupt``, ``truncated``, ``wrong_type``,
            ``no_video_stream``, ``too_short`` or ``too_slow``.
    """
    facts = read_facts(path, before=before)
    check_facts(facts, config)
    return facts


class Look(Protocol):
    """What else is to be seen while a file is open anyway."""

    def __call__(self, container: Any, stream: Any, frame: Any, facts: MediaFacts) -> None:
        """Look.

        Args:
            container: The open file, somewhere behind its first frame.
            stream: Of the picture, or of the sound for audio.
            frame: Its first frame.
            facts: Of the file.
        """


def read_facts(path: Path, look: Look | None = None, before: Callable[[Any], None] | None = None) -> MediaFacts:
    """Read the facts of a media file from its headers, and decode its first frame as a proof.

    Args:
        path: The file.
        look: Is called with the open file, so that it need not be opened twice.
        before: Is called with the open file before a frame is decoded, and may raise what forbids that.

    Returns:
        The facts.

    Raises:
        MediaError: The file cannot be read, is not media, does not decode, or is not what its name says.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("unreadable", "not a regular file")  # opening a pipe would wait for ever
        size = status.st_size
        if size == 0:
            raise MediaError("empty_file", "the file has 0 bytes")
        with open_media(path) as container:
            if before is not None:
                before(container)
            facts, stream, frame = _facts(container, size)
            if look is not None:
                look(container, stream, frame, facts)
        if facts.codec == "mjpeg" and facts.modality == "image":
            content = path.read_bytes()
            _check_jpeg(content)
            facts = replace(facts, encoder=jpeg_quality(content) or facts.encoder)
    except OSError as error:
        raise MediaError("unreadable", error.strerror or str(error)) from error
    _check_name(path, facts)
    return facts


def check_facts(facts: MediaFacts, config: IngestConfig) -> None:
    """Check the facts of a file against the limits.

    Args:
        facts: Of the file.
        config: Limits of duration and frame rate.

    Raises:
        MediaError: ``too_short`` or ``too_slow``.
    """
    if facts.duration_s is not None and facts.duration_s < config.min_duration_s:
        raise MediaError("too_short", f"{facts.duration_s:.2f} s, the limit is {config.min_duration_s:g} s")
    if facts.fps is not None and facts.fps < config.min_fps:
        raise MediaError("too_slow", f"{facts.fps:.2f} frames per second, the limit is {config.min_fps:g}")


class _NamelessStream:
    """A binary stream without its name, so that the demuxer can only be chosen by content."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.seek = stream.seek
        self.tell = stream.tell


@contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a media file by content alone, with only plain containers and no network allowed.

    Args:
        path: The file.

    Yields:
        The open container.

    Raises:
        MediaError: ``unsupported`` when it is not media that we read, ``corrupt`` when its headers are broken.
        OSError: The file cannot be read.
    """
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    with path.open("rb") as stream:
        try:
            container = av.open(_NamelessStream(stream), "r", options=options, metadata_errors="ignore")
        except av.error.FFmpegError as error:
            raise _not_opened(path, error) from error
        with container:
            yield container


def _not_opened(path: Path, error: av.error.FFmpegError) -> MediaError:
    """Say as exactly as the first bytes allow why a file could not be opened."""
    with path.open("rb") as stream:
        head = stream.read(SNIFF_BYTES)
    if head[4:8] == b"ftyp":
        return MediaError("corrupt", "MP4 or MOV without a readable index (moov): cut off, or its writing never ended")
    if head[:2] == b"PK" or head[:5] == b"%PDF-":
        return MediaError("unsupported", f"the file is {'an archive' if head[:2] == b'PK' else 'a PDF'}, not media")
    if _is_text(head):
        return MediaError("unsupported", "the file holds text, not media")
    return MediaError("corrupt", f"no known media format; it begins with bytes {head[:8].hex(' ')} ({error.strerror})")


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        # The last character may be cut in the middle.
        head[: max(1, len(head) - 4)].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _facts(container: av.container.InputContainer, size: int) -> tuple[MediaFacts, Any, Any]:
    pictures = [
        stream
        for stream in container.streams.video
        # Cover art of a song is a video stream of one picture.
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    sounds = container.streams.audio
    if pictures:
        sound = sounds[0] if sounds else None
        return _picture_facts(container, pictures[0], sound, size)
    if sounds:
        return _sound_facts(container, sounds[0], size)
    raise MediaError("unsupported", f"{container.format.name} file with neither picture nor sound")


def _picture_facts(container: Any, stream: Any, sound: Any, size: int) -> tuple[MediaFacts, Any, Any]:
    frame = _first_frame(container, stream)
    rotation = -round(frame.rotation) % 360
    width, height = frame.width, frame.height
    if rotation % 180 == 90:
        width, height = height, width
    image = _is_image(container, stream)
    fps = duration = bitrate = None
    n_frames = 1
    if not image:
        fps, duration, n_frames = _timing(container, stream)
        bitrate = 8 * size / duration if duration else None
    facts = MediaFacts(
        modality="image" if image else "video",
        container=container.format.name,
        size_bytes=size,
        width_px=width,
        height_px=height,
        fps=fps,
        duration_s=duration,
        n_frames=n_frames,
        codec=stream.codec_context.codec.canonical_name,
        bitrate_bps=bitrate,
        sample_rate_hz=_sample_rate(sound),
        has_audio=sound is not None,
        rotation_deg=rotation,
        pixel_format=stream.codec_context.pix_fmt,
        encoder=_encoder(container, stream),
        channels=_channels(sound),
    )
    return facts, stream, frame


def _sound_facts(container: Any, stream: Any, size: int) -> tuple[MediaFacts, Any, Any]:
    frame = _first_frame(container, stream)
    duration = container.duration / av.time_base if container.duration else _counted(container, stream)[1]
    facts = MediaFacts(
        modality="audio",
        container=container.format.name,
        size_bytes=size,
        width_px=None,
        height_px=None,
        fps=None,
        duration_s=duration,
        n_frames=None,
        codec=stream.codec_context.codec.canonical_name,
        bitrate_bps=8 * size / duration if duration else None,
        sample_rate_hz=_sample_rate(stream),
        has_audio=True,
        rotation_deg=None,
        pixel_format=stream.codec_context.format.name if stream.codec_context.format else None,
        encoder=_encoder(container, stream),
        channels=_channels(stream),
    )
    return facts, stream, frame


def _encoder(container: Any, stream: Any) -> str | None:
    """Join what file and stream say about the program that wrote them."""
    of_file, of_stream = ({key.lower(): value for key, value in of.metadata.items()} for of in (container, stream))
    tags = (of_file.get("encoder"), of_stream.get("encoder"), of_file.get("major_brand"))
    return " / ".join(str(tag)[:MAX_TAG].strip() for tag in tags if tag) or None


def _channels(sound: Any) -> int | None:
    # A stream of unknown coding has no codec context.
    if sound is None or sound.codec_context is None:
        return None
    return sound.codec_context.layout.nb_channels or None


def _sample_rate(sound: Any) -> int | None:
    if sound is None or sound.codec_context is None:
        return None
    return sound.codec_context.sample_rate or None


def _is_image(container: Any, stream: Any) -> bool:
    name = container.format.name
    if name == "gif" or (name == "webp_pipe" and stream.frames > 1):
        if stream.frames > 1:
            raise MediaError("unsupported", f"an animated {name.removesuffix('_pipe')}; convert it to MP4")
        return True
    return name in IMAGE_CONTAINERS or container.metadata.get("major_brand") in IMAGE_BRANDS


def _first_frame(container: Any, stream: Any) -> Any:
    """Decode until the first frame comes out; a damaged packet before it is passed over."""
    if stream.codec_context is None or stream.codec_context.codec is None:
        raise MediaError("unsupported", f"no decoder for the {stream.type} stream")
    stream.codec_context.thread_count = 1
    # Opening had the same limit, but a decoder does not inherit it.
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    problem = "no packet"
    for attempt, packet in enumerate(container.demux(stream)):
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            problem = error.strerror or str(error)
            frames = []
        if frames:
            return frames[0]
        if attempt >= MAX_PACKETS_TO_FIRST_FRAME:
            break
    raise MediaError("corrupt", f"the headers read, but nothing of the {stream.type} stream decodes ({problem})")


def _timing(container: Any, stream: Any) -> tuple[float | None, float | None, int]:
    """Take frame rate, duration and number of frames from the headers, or count packets where those are silent."""
    fps = float(stream.average_rate or stream.guessed_rate or 0) or None
    duration = container.duration / av.time_base if container.duration else None
    of_stream = float(stream.duration * stream.time_base) if stream.duration else duration
    if stream.frames and of_stream:
        return fps or stream.frames / of_stream, duration or of_stream, stream.frames
    if of_stream and fps:
        return fps, duration or of_stream, round(of_stream * fps)
    n_frames, counted = _counted(container, stream)
    if fps is None and counted:
        fps = n_frames / counted
    return fps, duration or counted or (n_frames / fps if fps else None), n_frames


def _counted(container: Any, stream: Any) -> tuple[int, float | None]:
    """Count packets and their time span without decoding; for files whose headers do not tell."""
    n_packets, first, last = 0, None, None
    try:
        container.seek(0)
        for packet in container.demux(stream):
            if packet.size:
                n_packets += 1
            if packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                first = packet.pts if first is None else min(first, packet.pts)
                last = end if last is None else max(last, end)
    except av.error.FFmpegError:
        pass  # the end of a cut file; what was counted stands
    if first is None or last is None:
        return n_packets, None
    return n_packets, float((last - first) * stream.time_base)


def _check_jpeg(content: bytes) -> None:
    """Find a cut-off JPEG: the video library fills the missing part with grey and says nothing."""
    try:
        simplejpeg.decode_jpeg(content, min_width=1, min_height=1, min_factor=8)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise MediaError("truncated", "the JPEG ends before its picture does") from error
        # Any other complaint is about something that the decoder before this one coped with.


def jpeg_quality(content: bytes) -> str | None:
    """Name the quality of a JPEG by its first quantisation table.

    Args:
        content: The file.

    Returns:
        ``jpeg quality 75`` if it is a table of the Independent JPEG Group's scale, which most programs use;
        ``jpeg tables `` and a hash if it is another; None where there is none before the picture.
    """
    place = content.find(b"\xff\xdb")
    if place < 0 or len(content) < place + 69 or content[place + 4] & 0xF0:  # 16-bit tables are no one's default
        return None
    table = content[place + 5 : place + 69]
    quality = _quality_of_table().get(table)
    return f"jpeg quality {quality}" if quality else f"jpeg tables {hashlib.blake2b(table, digest_size=4).hexdigest()}"


@cache
def _quality_of_table() -> dict[bytes, int]:
    tables = {}
    for quality in range(100, 0, -1):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        tables[bytes(min(255, max(1, (base * scale + 50) // 100)) for base in IJG_LUMA)] = quality
    return tables


def _check_name(path: Path, facts: MediaFacts) -> None:
    expected = expected_modality(path.name)
    if expected is None or expected == facts.modality:
        return
    holds = f"{facts.codec} {facts.modality} in {facts.container.split(',')[0]}"
    if expected == "video" and facts.modality == "audio":
        raise MediaError("no_video_stream", f"named {path.suffix} but holds only sound ({holds})")
    raise MediaError("wrong_type", f"named {path.suffix} ({expected}) but holds {holds}; rename or remove it")
