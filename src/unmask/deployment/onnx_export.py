"""ONNX export of detectors, and the proof that the export gives the same probabilities as torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from scipy.special import expit

from unmask.deployment.bundle import INPUT, OUTPUT
from unmask.errors import InputError, MissingExtraError
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import AnyPreprocessing

try:
    import onnx
    import onnxscript  # noqa: F401  # the exporter imports it late and fails with a riddle without it
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtraError("ONNX export", "training") from error

logger = logging.getLogger(__name__)

# The opset that the exporter's own translations target: no conversion between versions, and every runtime reads it.
OPSET = 18
MAX_BATCH = 4096


def export_onnx(detector: nn.Module, preprocessing: AnyPreprocessing) -> bytes:
    """Export a detector with a free batch size.

    The exporter notes stack traces with paths of the exporting machine in the file; they are taken out, so that the
    same weights give the same bytes anywhere.

    Args:
        detector: Module from ``(N, 3, S, S)`` or ``(N, L)`` float32 to logits ``(N,)`` float32.
        preprocessing: Gives S, or the length of a window.

    Returns:
        An ONNX file with input ``images`` and output ``logits``.
    """
    was_training = detector.training
    detector.eval()
    # Two inputs: torch.export would take a batch of one for a constant.
    example = torch.zeros(2, *preprocessing.input_shape)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                detector,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: batch},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
    finally:
        detector.train(was_training)
    assert program is not None  # dynamo=True always gives a program
    model = program.model_proto
    _strip_notes(model)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's step-by-step messages away from the user; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _strip_notes(message: Any) -> None:
    """Clear doc strings and metadata in a protobuf message and everything below it."""
    for descriptor, value in message.ListFields():
        if descriptor.name in ("metadata_props", "doc_string"):
            message.ClearField(descriptor.name)
        elif descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else (value,):
                _strip_notes(part)


def probe_images(rng: np.random.Generator, n: int = 8, size_px: int = 256) -> list[NDArray[np.uint8]]:
    """Draw pictures that reach many parts of a network: noise, shading, edges, and JPEG traces.

    Args:
        rng: Source of randomness.
        n: Number of pictures.
        size_px: Side of a picture.

    Returns:
        RGB images ``(S, S, 3)``, uint8; every second one went through JPEG.
    """
    images = []
    for index in range(n):
        noise = rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        shading = cv2.resize(coarse, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
        image = cv2.addWeighted(shading, 1 - index / max(n, 1), noise, index / max(n, 1), 0)
        x, y, radius = (int(value) for value in rng.integers(size_px // 4, size_px // 2, 3))
        cv2.circle(image, (x, y), radius, tuple(int(value) for value in coarse[0, 0]), -1)
        if index % 2:
            image = decode_crop(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=60))
        images.append(np.asarray(image, np.uint8))
    return images


def probe_sounds(rng: np.random.Generator, n: int = 8, n_samples: int = 64_600) -> list[NDArray[np.int16]]:
    """Draw sounds that reach many parts of a network: gliding tones with overtones, under more or less noise.

    Args:
        rng: Source of randomness.
        n: Number of sounds.
        n_samples: Length of a sound, at 16 kHz.

    Returns:
        Windows ``(n_samples,)``, int16, of different loudness.
    """
    time_s = np.arange(n_samples) / 16_000
    sounds = []
    for index in range(n):
        pitch_hz = rng.uniform(80, 400) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.5, 4) * time_s))
        phase = 2 * np.pi * np.cumsum(pitch_hz) / 16_000
        voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * np.abs(
            np.sin(2 * np.pi * rng.uniform(1, 4) * time_s)
        )
        sound = voice + index / max(n, 1) * rng.standard_normal(n_samples)
        sounds.append(np.clip(sound * 4000 / (1 + index % 3), -32768, 32767).astype(np.int16))
    return sounds


def parity(
    detector: nn.Module,
    content: bytes,
    images: Sequence[NDArray[Any]],
    preprocessing: AnyPreprocessing,
    calibrate: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.asarray,
) -> float:
    """Compare the probabilities of torch and ONNX Runtime on the same inputs.

    Pictures or sounds go through the preprocessing of scoring, once as one batch and once one by one, and beside them a
    batch of plain noise, whose values no preprocessing would give.

    Args:
        detector: The module, in eval mode.
        content: The ONNX file.
        images: RGB images ``(H, W, 3)``, uint8, or windows of sound ``(L,)``, int16.
        preprocessing: Of the detector.
        calibrate: Turns logits ``(N,)`` into calibrated logits ``(N,)``; probability = sigmoid of those.

    Returns:
        The largest difference of probability; infinite when the ONNX file gives something that is not a number.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = to_input(images, preprocessing)
    noise = np.random.default_rng(0).standard_normal((3, *inputs.shape[1:])).astype(np.float32)
    worst = 0.0
    for batch in (inputs, noise, *(inputs[index : index + 1] for index in range(min(len(inputs), 4)))):
        with torch.no_grad():
            expected = detector(torch.from_numpy(batch)).double().numpy()
        (found,) = session.run([OUTPUT], {INPUT: batch})
        if found.shape != expected.shape:
            raise InputError(
                f"The ONNX file gives logits of shape {found.shape}, torch {expected.shape}.",
                "The detector's forward must return one logit an input, shape (N,).",
            )
        difference = np.abs(expit(calibrate(found.astype(np.float64))) - expit(calibrate(expected)))
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
    return worst


def check_parity(name: str, difference: float, tolerance: float) -> None:
    """Refuse an export that does not answer like torch.

    Args:
        name: The detector.
        difference: From `parity`.
        tolerance: Largest difference that is accepted.

    Raises:
        InputError: The difference is larger.
    """
    if not difference <= tolerance:
        raise InputError(
            f"The ONNX export of {name} differs from torch by {difference:.2e} in probability; "
            f"{tolerance:.0e} is allowed.",
            "Look for operations of the detector that behave differently in ONNX; or, to accept the difference, "
            "raise bundle.parity_tolerance.",
        )
