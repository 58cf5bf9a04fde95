"""Damages that media meet on their way to a detector: re-compression, blur, noise, scaling, light.

Each perturbation has five severities, after the scheme of Hendrycks & Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019. Their scales are made for photographs of 224 px and
end where a person no longer knows the object; a face crop of 256 px from a clip that was compressed once or twice
already loses the traces of forgery much earlier, so the scales here begin milder: severity 1 is what an upload does,
severity 5 what a person would call ruined. The parameters stand in `PERTURBATIONS` and nowhere else.

All but one work on a crop by itself. H.264 works on the aligned crops of one face in the order of time, as one short
clip: the first is coded whole, each later one as what changed since the ones before. The crops lie further apart in
time than frames of a video, and the picture around the face is not there, so the coder finds less to predict from
than in the video; the constant rate factor holds the quality, and it is the quality that is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Image = NDArray[np.uint8]
REFERENCE_SIDE_PX = 256
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Perturbation:
    """One kind of damage.

    Attributes:
        name: As in the configuration and the robustness table.
        title: As in the report.
        parameter: What the levels mean, with their unit.
        levels: The parameter at severities 1 to 5.
        damage: Takes an RGB image ``(H, W, 3)``, a level and a generator; gives an image of the same shape.
        damage_clip: Takes images of one shape in the order of time, and a level; None damages each by itself.
    """

    name: str
    title: str
    parameter: str
    levels: tuple[float, float, float, float, float]
    damage: Callable[[Image, float, np.random.Generator], Image]
    damage_clip: Callable[[Sequence[Image], float], list[Image]] | None = None


def perturb(image: Image, name: str, severity: int, rng: np.random.Generator) -> Image:
    """Damage one image.

    Args:
        image: RGB image ``(H, W, 3)``, uint8.
        name: A name of `PERTURBATIONS`, or ``clean``.
        severity: 1 to 5; 0 gives the image back unchanged.
        rng: Source of randomness; only the two kinds of noise draw from it.

    Returns:
        RGB image of the same shape, uint8. The argument is never changed.

    Raises:
        KeyError: The name is unknown.
        ValueError: The severity is not 0 to 5.
    """
    if severity == 0:
        return image
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} is not one of 0, 1, 2, 3, 4, 5")
    chosen = PERTURBATIONS[name]
    return chosen.damage(image, chosen.levels[severity - 1], rng)


def perturb_clip(images: Sequence[Image], name: str, severity: int, rngs: Sequence[np.random.Generator]) -> list[Image]:
    """Damage the crops of one face of one sample.

    Args:
        images: RGB images ``(H, W, 3)``, uint8, in the order of time.
        name: A name of `PERTURBATIONS`, or ``clean``.
        severity: 1 to 5; 0 gives the images back unchanged.
        rngs: One source of randomness an image.

    Returns:
        RGB images of the same shapes, uint8. The arguments are never changed.

    Raises:
        KeyError: The name is unknown.
        ValueError: The severity is not 0 to 5.
    """
    whole = PERTURBATIONS[name].damage_clip if severity else None
    if whole is None or severity not in SEVERITIES:
        return [perturb(image, name, severity, rng) for image, rng in zip(images, rngs, strict=True)]
    level = PERTURBATIONS[name].levels[severity - 1]
    damaged: list[Image] = list(images)
    for shape in sorted({image.shape for image in images}):
        places = [place for place, image in enumerate(images) if image.shape == shape]
        for place, image in zip(places, whole([images[place] for place in places], level), strict=True):
            damaged[place] = image
    return damaged


def _to_uint8(values: NDArray[Any]) -> Image:
    """Round and clip to the range of a byte."""
    rounded: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def _jpeg(image: Image, quality: float, _rng: np.random.Generator) -> Image:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=int(quality), colorsubsampling="420")
    decoded: Image = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return decoded


def _h264(image: Image, crf: float, _rng: np.random.Generator) -> Image:
    return _h264_clip([image], crf)[0]


def _h264_clip(images: Sequence[Image], crf: float) -> list[Image]:
    """Encode images with x264 at a constant rate factor, and decode them."""
    height, width = images[0].shape[:2]
    # 4:2:0 needs even sides; x264 also wants a few macroblocks.
    padded_height, padded_width = max(32, height + height % 2), max(32, width + width % 2)
    # One thread, so that the same bytes come out on any number of cores.
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = padded_width, padded_height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.thread_count = 1
    encoder.options = {"crf": f"{crf:g}", "preset": "medium", "x264-params": "threads=1"}
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = []
    for place, image in enumerate(images):
        padded: Any = cv2.copyMakeBorder(
            image, 0, padded_height - height, 0, padded_width - width, cv2.BORDER_REPLICATE
        )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded, np.uint8), format="rgb24")
        frame.pts = place
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return [np.ascontiguousarray(one.to_ndarray(format="rgb24")[:height, :width]) for one in decoded]


def _gaussian_blur(image: Image, sigma_px: float, _rng: np.random.Generator) -> Image:
    # The sigma belongs to a crop of 256 px; a smaller crop shows the same face with fewer pixels.
    scaled = sigma_px * max(image.shape[:2]) / REFERENCE_SIDE_PX
    blurred: Any = cv2.GaussianBlur(image, (0, 0), sigmaX=scaled, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.uint8)


def _gaussian_noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return _to_uint8(image.astype(np.float32) + noise * np.float32(255 * sigma))


def _salt_pepper(image: Image, share: float, rng: np.random.Generator) -> Image:
    draw = rng.random(image.shape[:2], dtype=np.float32)
    damaged = image.copy()
    damaged[draw < share / 2] = 0
    damaged[draw > 1 - share / 2] = 255
    return damaged


def _resize(image: Image, scale: float, _rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    restored: Any = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(restored, np.uint8)


def _brightness(image: Image, added: float, _rng: np.random.Generator) -> Image:
    hsv: Any = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.minimum(hsv[..., 2] + added, 1)
    return _to_uint8(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)


def _contrast(image: Image, factor: float, _rng: np.random.Generator) -> Image:
    values = image.astype(np.float32)
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _to_uint8((values - mean) * factor + mean)


def _gamma(image: Image, exponent: float, _rng: np.random.Generator) -> Image:
    table = _to_uint8((np.arange(256) / 255) ** exponent * 255)
    return table[image]


_ALL = (
    Perturbation("jpeg", "JPEG compression", "quality, 4:2:0", (80, 60, 40, 25, 10), _jpeg),
    # 23 and 40 are the two settings of FaceForensics++.
    Perturbation(
        "h264", "H.264 re-encoding", "constant rate factor, crops as a clip", (23, 29, 35, 40, 46), _h264, _h264_clip
    ),
    Perturbation(
        "gaussian_blur", "Gaussian blur", "sigma in px on a crop of 256 px", (0.6, 1.2, 2, 3, 4.5), _gaussian_blur
    ),
    Perturbation(
        "gaussian_noise",
        "Gaussian noise",
        "sigma as a share of full range",
        (0.02, 0.04, 0.08, 0.12, 0.18),
        _gaussian_noise,
    ),
    Perturbation("salt_pepper", "Salt and pepper", "share of pixels", (0.005, 0.01, 0.03, 0.06, 0.12), _salt_pepper),
    Perturbation(
        "resize", "Down- and up-scaling", "side kept, area then bilinear", (0.75, 0.5, 0.35, 0.25, 0.15), _resize
    ),
    Perturbation("brightness", "Brightening", "added to HSV value", (0.08, 0.16, 0.24, 0.32, 0.4), _brightness),
    Perturbation("contrast", "Loss of contrast", "contrast kept", (0.75, 0.6, 0.45, 0.3, 0.2), _contrast),
    Perturbation("gamma", "Darkening by gamma", "exponent", (1.2, 1.5, 1.9, 2.4, 3), _gamma),
)
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType({one.name: one for one in _ALL})
