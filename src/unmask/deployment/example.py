"""The example that travels in a bundle: pictures, and what its detectors said to them when it was made.

Hashes prove that a bundle has arrived whole; the example proves that this machine, with its libraries and its
processor, gets the same scores out of it. Pictures are drawn from a seed, so nobody's face travels.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import simplejpeg
from numpy.typing import NDArray
from pydantic import Field

from unmask.deployment.bundle import INPUT
from unmask.deployment.runtime import Bundle
from unmask.ensemble.apply import sigmoid
from unmask.errors import ContractError
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import Document, Preprocessing

EXAMPLE = "example.json"
N_PICTURES = 4
SIDE_PX = 256
SEED = 31


class Example(Document):
    """``example.json``.

    Attributes:
        jpegs: Pictures, JPEG as base64.
        logits: Detector name to one logit a picture.
        tolerance: Largest difference of probability that still counts as the same answer; processors round apart.
    """

    jpegs: list[str] = Field(min_length=1)
    logits: dict[str, list[float]]
    tolerance: float = Field(default=0.02, gt=0, lt=1)


def save_example(folder: Path, onnx_names: Mapping[str, str], preprocessing: Mapping[str, Preprocessing]) -> None:
    """Write the example of the detectors in a folder.

    Args:
        folder: With the ONNX files; ``example.json`` is written there.
        onnx_names: Detector name to file name.
        preprocessing: Detector name to preprocessing.
    """
    jpegs = draw_pictures()
    images = [decode_crop(jpeg) for jpeg in jpegs]
    logits = {}
    for name, file in onnx_names.items():
        session = onnxruntime.InferenceSession((folder / file).read_bytes(), providers=["CPUExecutionProvider"])
        (scored,) = session.run(None, {INPUT: to_input(images, preprocessing[name])})
        logits[name] = [float(value) for value in scored]
    Example(jpegs=[base64.b64encode(jpeg).decode() for jpeg in jpegs], logits=logits).save(folder / EXAMPLE)


def check_example(bundle: Bundle) -> bool:
    """Check that a loaded bundle still says what it said when it was made.

    Args:
        bundle: Just loaded.

    Returns:
        False if it carries no example, as bundles made before there were any.

    Raises:
        ContractError: A detector says something else.
    """
    if EXAMPLE not in bundle.manifest.files:
        return False
    path = bundle.folder / EXAMPLE
    example = Example.load(path)
    images = [decode_crop(base64.b64decode(jpeg)) for jpeg in example.jpegs]
    for name in bundle.ensemble.detectors:
        expected = sigmoid(example.logits[name])
        found = sigmoid(bundle.frame_logits(name, images))
        difference = float(np.abs(found - expected).max())
        if not difference <= example.tolerance:
            raise ContractError(
                path,
                f"logits.{name}",
                f"this machine gets a probability that differs by {difference:.3f}; {example.tolerance:g} is allowed",
                "Do not serve it here: compare the version of onnxruntime with that of the machine that made it.",
            )
    return True


def draw_pictures() -> list[bytes]:
    """Draw pictures with coarse and fine structure, as JPEG."""
    rng = np.random.default_rng(SEED)
    pictures = []
    for _ in range(N_PICTURES):
        coarse = rng.uniform(30, 220, (8, 8, 3)).repeat(SIDE_PX // 8, 0).repeat(SIDE_PX // 8, 1)
        fine = rng.normal(0, 18, (SIDE_PX, SIDE_PX, 3))
        image: NDArray[np.uint8] = np.clip(coarse + fine, 0, 255).astype(np.uint8)
        pictures.append(bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)))
    return pictures
