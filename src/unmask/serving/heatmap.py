"""Heat maps by occlusion: how the answer changes when a part of the face is hidden (Zeiler & Fergus 2014).

It asks the deployed ONNX networks themselves, so it needs no gradients and no training code.
"""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from unmask.deployment.runtime import Bundle
from unmask.ensemble.apply import apply_ensemble
from unmask.media.preprocessing import decode_crop

OVERLAP = 1.5  # side of the hidden square over that of a cell: neighbouring answers overlap, the map is smoother
# Orange and blue stay apart for every kind of colour vision.
FOR_FAKE, FOR_REAL = (230, 97, 0), (26, 133, 255)
LARGEST_SHARE = 0.65  # of the colour over the picture
SIDE_PX = 256
SEED = 5
# Below this change of the logit nothing is coloured: it would only be noise blown up to full colour.
SMALLEST_FULL_COLOUR = 0.25


def occlusion_map(bundle: Bundle, jpeg: bytes, cells: int) -> NDArray[np.float64]:
    """Measure how much each part of a crop speaks for a fake.

    Args:
        bundle: Whose detectors are asked.
        jpeg: A face crop.
        cells: Parts along a side.

    Returns:
        Change of the combined logit when the part is hidden ``(cells, cells)``: positive where it spoke for a fake,
        negative where it spoke for a real face.
    """
    image = decode_crop(jpeg)
    rng = np.random.default_rng(SEED)
    hidden = [
        hide(image, row, column, cells, rng)
        for hide in (_blurred, _scrambled)
        for row in range(cells)
        for column in range(cells)
    ]
    logits = np.full((1 + len(hidden), len(bundle.ensemble.detectors)), np.nan)
    for position, name in enumerate(bundle.ensemble.detectors):
        if not bundle.listens(name):
            logits[:, position] = bundle.frame_logits(name, [image, *hidden])
    combined = apply_ensemble(bundle.ensemble, logits)[0]
    change: NDArray[np.float64] = (combined[0] - combined[1:]).reshape(2, cells, cells).mean(axis=0)
    return change


# A detector takes smooth parts for traces of one kind, and rough ones for those of another. So each part is hidden in
# both ways, and what the two ways have in common stays.
def _blurred(image: NDArray[np.uint8], row: int, column: int, cells: int, _: np.random.Generator) -> NDArray[np.uint8]:
    out, part = _with_part(image, row, column, cells)
    size = max(3, (min(part.shape[:2]) // 2) | 1)
    part[:] = cv2.GaussianBlur(part, (size, size), size / 3)
    return out


def _scrambled(
    image: NDArray[np.uint8], row: int, column: int, cells: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    out, part = _with_part(image, row, column, cells)
    pixels = part.reshape(-1, 3)
    part[:] = rng.permutation(pixels).reshape(part.shape)
    return out


def _with_part(
    image: NDArray[np.uint8], row: int, column: int, cells: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Copy a picture, and give the square of one cell in it."""
    out = image.copy()
    height, width = image.shape[:2]
    y0, y1 = _span(row, cells, height)
    x0, x1 = _span(column, cells, width)
    return out, out[y0:y1, x0:x1]


def _span(index: int, cells: int, length: int) -> tuple[int, int]:
    middle, half = (index + 0.5) * length / cells, OVERLAP * length / cells / 2
    return max(0, round(middle - half)), min(length, round(middle + half))


def draw_heatmap(jpeg: bytes, change: NDArray[np.float64]) -> bytes:
    """Lay a map over its crop: orange where hiding lowers the probability of a fake, blue where it raises it.

    Args:
        jpeg: The crop.
        change: Of `occlusion_map`.

    Returns:
        A JPEG.
    """
    image = cv2.resize(decode_crop(jpeg), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    strength = change / max(float(np.abs(change).max()), SMALLEST_FULL_COLOUR)
    smooth = cv2.resize(strength.astype(np.float32), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC).clip(-1, 1)
    colours = np.where(smooth[..., None] > 0, np.array(FOR_FAKE, np.float32), np.array(FOR_REAL, np.float32))
    share = LARGEST_SHARE * np.abs(smooth)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    out = grey * (1 - share) + colours * share
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(out.clip(0, 255).astype(np.uint8)), quality=90))
