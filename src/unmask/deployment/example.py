"""The example that travels in a bundle: pictures and sounds, and what its detectors said to them when it was made.

Hashes prove that a bundle has arrived whole; the example proves that this machine, with its libraries and its
processor, gets the same scores out of it. They are drawn from a seed, so nobody's face or voice travels.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import simplejpeg
from numpy.typing import NDArray
from pydantic import Field

from unmask.deployment.bundle import INPUT
from unmask.deployment.runtime import Bundle
from unmask.ensemble.apply import sigmoid
from unmask.errors import ContractError
from unmask.media.preprocessing import decode_item, to_input
from unmask.media.sound import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from unmask.schemas import AnyPreprocessing, Document

EXAMPLE = "example.json"
N_PICTURES = 4
N_SOUNDS = 2
SIDE_PX = 256
SEED = 31


class Example(Document):
    """``example.json``.

    Attributes:
        jpegs: Pictures, JPEG as base64.
        logits: Detector name to one logit a picture, or a sound.
        tolerance: Largest difference of probability that still counts as the same answer; processors round apart.
        sounds: Windows of sound, 16-bit samples as base64; none where no detector listens.
    """

    jpegs: list[str] = Field(min_length=1)
    logits: dict[str, list[float]]
    tolerance: float = Field(default=0.02, gt=0, lt=1)
    sounds: list[str] = Field(default_factory=list)

    def items(self, preprocessing: AnyPreprocessing) -> list[NDArray[Any]]:
        """Decode what a detector takes of them."""
        encoded = self.sounds if preprocessing.modality == "audio" else self.jpegs
        return [decode_item(base64.b64decode(one), preprocessing) for one in encoded]


def save_example(folder: Path, onnx_names: Mapping[str, str], preprocessing: Mapping[str, AnyPreprocessing]) -> None:
    """Write the example of the detectors in a folder.

    Args:
        folder: With the ONNX files; ``example.json`` is written there.
        onnx_names: Detector name to file name.
        preprocessing: Detector name to preprocessing.
    """
    heard = any(one.modality == "audio" for one in preprocessing.values())
    example = Example(
        jpegs=[base64.b64encode(jpeg).decode() for jpeg in draw_pictures()],
        sounds=[base64.b64encode(sound).decode() for sound in draw_sounds()] if heard else [],
        logits={},
    )
    logits = {}
    for name, file in onnx_names.items():
        session = onnxruntime.InferenceSession((folder / file).read_bytes(), providers=["CPUExecutionProvider"])
        (scored,) = session.run(None, {INPUT: to_input(example.items(preprocessing[name]), preprocessing[name])})
        logits[name] = [float(value) for value in scored]
    example.model_copy(update={"logits": logits}).save(folder / EXAMPLE)


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
    for name in bundle.ensemble.detectors:
        expected = sigmoid(example.logits[name])
        found = sigmoid(bundle.frame_logits(name, example.items(bundle.manifest.preprocessing[name])))
        difference = float(np.abs(found - expected).max())
        if not difference <= example.tolerance:
            raise ContractError(
                path,
                f"logits.{name}",
                f"this machine gets a probability that differs by {difference:.3f}; {example.tolerance:g} is allowed",
                "Do not serve it here: compare the version of onnxruntime with that of the machine that made it.",
            )
    return True


def draw_sounds() -> list[bytes]:
    """Draw windows of sound: tones with overtones under noise, 16-bit samples."""
    rng = np.random.default_rng(SEED)
    time_s = np.arange(WINDOW_SAMPLES) / SAMPLE_RATE_HZ
    sounds = []
    for _ in range(N_SOUNDS):
        voice = sum(np.sin(2 * np.pi * k * rng.uniform(90, 300) * time_s) / k for k in range(1, 9))
        sound = 4000 * voice * np.abs(np.sin(2 * np.pi * 1.7 * time_s)) + rng.normal(0, 300, WINDOW_SAMPLES)
        sounds.append(np.clip(sound, -32768, 32767).astype("<i2").tobytes())
    return sounds


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
