"""Decoding of videos and images into upright luma and chroma planes, in one linear pass with PyAV.

Planes are views of the decoder's memory wherever its format allows, so a pass costs little more than decoding. RGB
is made only of the small regions that are asked for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.errors import MediaError
from unmask.media.faces import Floats, Image, thumbnail_size, warp
from unmask.media.jpeg import CodedJpeg, coded_jpeg

logger = logging.getLogger(__name__)

Matrix = Literal["bt601", "bt709", "bt2020"]
# Luma weights of red and blue (ITU-R BT.601, BT.709, BT.2020); the rest is green.
_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
_COLOURSPACES: dict[int, Matrix] = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_PICTURE_TYPES = {1: "I", 2: "P", 3: "B"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_DIRECT = {f"{prefix}{sampling}p" for prefix in ("yuv", "yuvj", "yuva") for sampling in (410, 411, 420, 422, 440, 444)}
_HD_HEIGHT_PX = 720  # from here on BT.709 is assumed when a file does not say
_FALLBACK_FPS = 25.0
_MAX_FPS = 240.0
# Frames decoded before they are asked for: looking at one may take as long as decoding several.
_AHEAD = 8


@dataclass
class Frame:
    """One upright picture as planes.

    Attributes:
        index: In presentation order, 0-based.
        time_s: Presentation time; the first frame is at 0.
        luma: ``(H, W)``, uint8, in the range that the file uses.
        chroma: Cb and Cr, ``(h, w)`` each, uint8, subsampled as in the file; None when the picture is grey.
        matrix: Which weights make RGB of it.
        full_range: Whether luma runs from 0 to 255 (else 16 to 235).
        quarter_turns: Counter-clockwise quarter turns that were applied to make it upright.
        coded_bytes: Size of its packet; 0 when unknown.
        coded_as: I, P or B as the codec says, or an empty string.
        jpeg: Luma and quantisation table, when the picture is a JPEG file.
    """

    index: int
    time_s: float
    luma: Image
    chroma: tuple[Image, Image] | None
    matrix: Matrix = "bt601"
    full_range: bool = False
    quarter_turns: int = 0
    coded_bytes: int = 0
    coded_as: str = ""
    jpeg: CodedJpeg | None = None
    _levels: list[Image] = field(default_factory=list, repr=False)

    @property
    def width_px(self) -> int:
        """Displayed width."""
        return int(self.luma.shape[1])

    @property
    def height_px(self) -> int:
        """Displayed height."""
        return int(self.luma.shape[0])

    @property
    def short_side_px(self) -> int:
        """The smaller of width and height."""
        return min(self.width_px, self.height_px)

    @property
    def coded_luma(self) -> Image:
        """Luma in the orientation of the coded blocks: ``(H, W)`` before rotation."""
        return np.rot90(self.luma, -self.quarter_turns)

    def level(self, number: int) -> Image:
        """Luma, halved ``number`` times by area averaging; every level is made once."""
        if not self._levels:
            self._levels.append(self.luma)
        while len(self._levels) <= number:
            self._levels.append(_shrink(self._levels[-1], 0.5))
        return self._levels[number]

    def level_from(self, short_side_px: int) -> Image:
        """The smallest level whose shorter side is at least ``short_side_px``, or luma itself if it is smaller."""
        number = 0
        while self.short_side_px >> (number + 1) >= short_side_px:
            number += 1
        return self.level(number)

    def luma_at(self, short_side_px: int) -> Image:
        """Luma scaled down to a shorter side of ``short_side_px``; a smaller picture stays as it is."""
        if self.short_side_px <= short_side_px:
            return self.luma
        image = self.level_from(short_side_px)
        return image if min(image.shape) == short_side_px else _shrink(image, short_side_px / min(image.shape))

    def rgb(self, x0: int, y0: int, x1: int, y1: int, size_px: tuple[int, int] | None = None) -> Image:
        """Convert a region to RGB; what lies outside of the picture is black.

        Args:
            x0: Left edge.
            y0: Top edge.
            x1: Right edge, excluded.
            y1: Bottom edge, excluded.
            size_px: Width and height of the result; None keeps the size of the region.

        Returns:
            ``(height, width, 3)``, uint8.
        """
        size = size_px or (x1 - x0, y1 - y0)
        number = self._level_for((x0, y0, x1, y1), size)
        step = 1 << number
        planes = [_cut(self.level(number), x0 / step, y0 / step, x1 / step, y1 / step, size)]
        for plane in self.chroma or ():
            sx, sy = self._chroma_scale(plane)
            planes.append(_cut(plane, x0 * sx, y0 * sy, x1 * sx, y1 * sy, size))
        image = self._to_rgb(planes)
        inside = _inside(image.shape[:2], (x0, y0, x1, y1), (self.width_px, self.height_px))
        return np.asarray(np.where(inside[..., None], image, 0), np.uint8) if not inside.all() else image

    def thumbnail_rgb(self, max_side_px: int) -> Image:
        """Shrink the whole picture so that its longer side is ``max_side_px``; RGB, uint8."""
        size = thumbnail_size(self.width_px, self.height_px, max_side_px)
        number = 0
        while max(self.width_px, self.height_px) >> (number + 1) >= 2 * max_side_px:
            number += 1
        planes = (self.level(number), *(self.chroma or ()))
        return self._to_rgb([np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in planes])

    def warp_rgb(self, to_picture: Floats, size_px: int) -> Image:
        """Sample a square ``(size_px, size_px, 3)``; ``to_picture`` ``(2, 3)`` maps its pixels to the picture's."""
        planes = [warp(self.luma, to_picture, size_px, 0 if self.full_range else 16)]
        for plane in self.chroma or ():
            scale = np.array(self._chroma_scale(plane), np.float32)
            # Pixel centres lie at half a pixel, so x maps to scale · (x + ½) − ½.
            matrix = to_picture * scale[:, None]
            matrix[:, 2] += scale / 2 - 0.5
            planes.append(warp(plane, matrix, size_px, 128))
        return self._to_rgb(planes)

    def colour(self, yuv: NDArray[Any]) -> NDArray[np.float64]:
        """Convert mean values ``(..., 3)`` of luma, Cb and Cr to RGB, float64, not clipped."""
        matrix = rgb_matrix(self.matrix, self.full_range).astype(np.float64)
        return np.asarray(yuv @ matrix[:, :3].T + matrix[:, 3])

    def _level_for(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> int:
        """The smallest level that still has as many pixels as the result, and on whose grid the region lies."""
        number = 0
        while (
            min(box[2] - box[0], box[3] - box[1]) >> (number + 1) >= max(size)
            and all(edge % (2 << number) == 0 for edge in box)
            and self.width_px % (2 << number) == 0
            and self.height_px % (2 << number) == 0
        ):
            number += 1
        return number

    def _chroma_scale(self, plane: Image) -> tuple[float, float]:
        """Chroma pixels per luma pixel, across and down; powers of two even for odd sizes."""
        across = 2.0 ** -round(np.log2(self.width_px / plane.shape[1]))
        down = 2.0 ** -round(np.log2(self.height_px / plane.shape[0]))
        return across, down

    def _to_rgb(self, planes: list[Image]) -> Image:
        if len(planes) == 1:
            grey = np.full_like(planes[0], 128)
            planes = [planes[0], grey, grey]
        return np.asarray(cv2.transform(cv2.merge(planes), rgb_matrix(self.matrix, self.full_range)), np.uint8)


@lru_cache(maxsize=8)
def rgb_matrix(matrix: Matrix, full_range: bool) -> Floats:
    """Matrix ``(3, 4)`` from 8-bit luma, Cb, Cr and 1 to RGB from 0 to 255."""
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    to_rgb = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    to_rgb = to_rgb * ([1, 1, 1] if full_range else [255 / 219, 255 / 224, 255 / 224])
    offset = -to_rgb @ [0 if full_range else 16, 128, 128]
    return np.concatenate([to_rgb, offset[:, None]], axis=1).astype(np.float32)


def _shrink(image: Image, factor: float) -> Image:
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cut(plane: Image, x0: float, y0: float, x1: float, y1: float, size: tuple[int, int]) -> Image:
    """Cut a rectangle with edges on whole pixels out of a plane, repeating its border, and resize it."""
    left, top, right, bottom = int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1))
    height, width = plane.shape
    inner = plane[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    margins = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if not inner.size:
        inner, margins = np.zeros((bottom - top, right - left), np.uint8), (0, 0, 0, 0)
    if any(margins):
        inner = np.asarray(cv2.copyMakeBorder(inner, *margins, cv2.BORDER_REPLICATE), np.uint8)
    if inner.shape == size[::-1]:
        return inner
    shrink = inner.shape[1] > size[0] or inner.shape[0] > size[1]
    return np.asarray(cv2.resize(inner, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR), np.uint8)


def _inside(shape: tuple[int, ...], box: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a resized region show the picture, and not what lies outside of it."""
    x0, y0, x1, y1 = box
    x = x0 + (np.arange(shape[1]) + 0.5) * (x1 - x0) / shape[1]
    y = y0 + (np.arange(shape[0]) + 0.5) * (y1 - y0) / shape[0]
    return ((y >= 0) & (y < size[1]))[:, None] & ((x >= 0) & (x < size[0]))[None]


@dataclass(frozen=True)
class StreamFacts:
    """What a container says of its video stream.

    Attributes:
        n_frames: Frames that it promises; packets are counted where the header does not say.
        fps: Average frames per second.
        codec: Name of the codec.
        container: Name of the format of the file.
    """

    n_frames: int
    fps: float
    codec: str
    container: str = ""


class VideoReader:
    """Decodes a video once, from the first frame to the last.

    Damaged packets and frames are left out and counted; nothing ends silently: compare ``n_decoded`` with
    ``facts.n_frames`` (`decoded_share`).

    Args:
        path: The file.
        threads: Of the decoder; 0 lets it choose. With more than one, frames are decoded ahead while earlier ones are
            looked at; the frames are the same.

    Attributes:
        facts: What the container says.
        n_decoded: Good frames so far.
        n_damaged: Packets and frames that could not be used so far.
        coded_bytes: Bytes of all packets of the stream so far.

    Raises:
        MediaError: ``unreadable``, ``empty_file``, ``corrupt``, ``unsupported`` or ``no_video_stream``.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = path
        self.n_decoded = 0
        self.n_damaged = 0
        self.coded_bytes = 0
        self._sizes: dict[int, int] = {}  # by time stamp, of packets whose frames have not come out yet
        self._ahead = ThreadPoolExecutor(1, "unmask-decode") if threads != 1 else None
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, path)
            self.facts = _facts(self._container, self._stream, path)
            self._stream.codec_context.thread_count = threads
            self._stream.codec_context.thread_type = "AUTO" if threads != 1 else "NONE"
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ahead is not None:  # it must not read what is closed
            self._ahead.shutdown(cancel_futures=True)
        self._container.close()

    @property
    def decoded_share(self) -> float:
        """Good frames over promised frames, at most 1."""
        return min(1.0, self.n_decoded / max(self.facts.n_frames, 1))

    def __iter__(self) -> Iterator[Frame]:
        """Decode.

        Yields:
            Upright frames in presentation order. A frame's planes may be views of the decoder's memory: keep no
            frame longer than needed.
        """
        first_s: float | None = None
        last_s = -1.0
        size: tuple[int, int] | None = None
        frames = self._raw_frames()
        for raw in frames if self._ahead is None else _read_ahead(frames, self._ahead):
            if size is None:
                size = (raw.width, raw.height)
            elif (raw.width, raw.height) != size:  # the resolution changes midway: keep the first
                raw = raw.reformat(width=size[0], height=size[1])
            stamp = raw.time if raw.time is not None else self.n_decoded / self.facts.fps
            first_s = stamp if first_s is None else first_s
            time_s = max(stamp - first_s, 0.0)
            if time_s <= last_s:  # repeated or backward time stamps
                time_s = last_s + 1 / self.facts.fps
            last_s = time_s
            frame = _frame(raw, self.n_decoded, time_s)
            frame.coded_bytes = self._sizes.pop(raw.pts, 0)
            self.n_decoded += 1
            yield frame

    def _raw_frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                logger.debug("%s: reading stopped: %s", self.path, error)
                self.n_damaged += 1
                return
            if packet.size:
                self.coded_bytes += packet.size
                if packet.pts is not None:
                    self._sizes[packet.pts] = packet.size
            try:
                decoded = packet.decode()
            except (av.error.FFmpegError, OSError) as error:
                logger.debug("%s: a packet was left out: %s", self.path, error)
                self.n_damaged += 1
                continue
            for raw in decoded:
                if raw.is_corrupt:
                    self.n_damaged += 1
                    self._sizes.pop(raw.pts, None)
                else:
                    yield raw


def _read_ahead(frames: Iterator[Any], thread: ThreadPoolExecutor) -> Iterator[Any]:
    """Let a thread take the next frames while the caller is busy with one."""
    pending = deque(thread.submit(next, frames, None) for _ in range(_AHEAD))
    while (frame := pending.popleft().result()) is not None:
        pending.append(thread.submit(next, frames, None))
        yield frame


def _open(path: Path) -> Any:
    if not path.is_file():
        raise MediaError("unreadable", f"{path.name} does not exist")
    if not path.stat().st_size:
        raise MediaError("empty_file", f"{path.name} has 0 bytes")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError("corrupt", f"{path.name} cannot be opened ({reason})") from error


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise MediaError("no_video_stream", f"{path.name} has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError("unsupported", f"{path.name} uses a video codec that cannot be decoded")
    return stream


def _facts(container: Any, stream: Any, path: Path) -> StreamFacts:
    n_frames = int(stream.frames) or _count_frames(path, container.duration)
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    if not 0 < fps <= _MAX_FPS:  # absent, or the tick of the clock instead of a rate
        duration_s = (container.duration or 0) / 1e6
        fps = n_frames / duration_s if duration_s > 0 and n_frames else _FALLBACK_FPS
    return StreamFacts(n_frames, fps, stream.codec_context.name, container.format.name)


def _count_frames(path: Path, duration: int | None) -> int:
    """Count packets where the header does not say how many there are, and add what a cut-off file lacks.

    Args:
        path: The file; it is read once more, without decoding.
        duration: What the container states, in microseconds, or None.

    Returns:
        Frames that the whole file would have.
    """
    count, end_s = 0, 0.0
    with _open(path) as container:
        start_s = (container.start_time or 0) / 1e6
        try:
            for packet in container.demux():
                count += (
                    bool(packet.size)
                    and packet.stream.type == "video"
                    and packet.stream.index == (container.streams.video[0].index)
                )
                if packet.pts is not None:
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_s)
        except (av.error.FFmpegError, OSError) as error:
            logger.debug("%s: counting stopped: %s", path, error)
    stated_s = (duration or 0) / 1e6
    return round(count * stated_s / end_s) if 0 < end_s < 0.98 * stated_s else count


def _frame(raw: Any, index: int, time_s: float) -> Frame:
    quarter_turns = round((raw.rotation or 0) / 90) % 4
    matrix = _COLOURSPACES.get(int(raw.colorspace)) or ("bt709" if raw.height >= _HD_HEIGHT_PX else "bt601")
    full_range = int(raw.color_range) == _FULL_RANGE or raw.format.name.startswith(("yuvj", "gray"))
    if raw.format.is_rgb or raw.format.name == "pal8":
        raw = raw.reformat(format="yuv444p", dst_colorspace="ITU601", dst_color_range="MPEG")
        matrix, full_range = "bt601", False
    elif raw.format.name not in _DIRECT and raw.format.name != "gray":
        subsampled = raw.format.chroma_width(8) < 8 or len(raw.format.components) < 3
        raw = raw.reformat(format="yuv420p" if subsampled else "yuv444p")
    planes = [_plane(plane) for plane in raw.planes[:3]]
    if quarter_turns:
        planes = [np.asarray(np.ascontiguousarray(np.rot90(plane, quarter_turns))) for plane in planes]
    chroma = (planes[1], planes[2]) if len(planes) == 3 else None
    coded_as = _PICTURE_TYPES.get(int(raw.pict_type), "")
    return Frame(index, time_s, planes[0], chroma, matrix, full_range, quarter_turns, coded_as=coded_as)


def _plane(plane: Any) -> Image:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def read_image(path: Path) -> Frame:
    """Read a still image, upright (EXIF orientation applied).

    Args:
        path: JPEG, PNG, WebP, TIFF, BMP, or anything else that FFmpeg reads as one frame.

    Returns:
        The picture as one frame at time 0, chroma not subsampled.

    Raises:
        MediaError: ``unreadable`` or ``corrupt``.
    """
    try:
        data = np.fromfile(path, np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise MediaError("unreadable", f"{path.name} cannot be read ({error})") from error
    if bgr is None:
        with VideoReader(path) as reader:
            for frame in reader:
                return frame
        raise MediaError("corrupt", f"{path.name} is no image that can be decoded")
    luma, red, blue = (np.asarray(plane, np.uint8) for plane in cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb)))
    return Frame(0, 0.0, luma, (blue, red), "bt601", full_range=True, jpeg=coded_jpeg(data.tobytes()))
