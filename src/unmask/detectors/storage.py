"""Detectors on disk: safetensors and a JSON document; foreign checkpoints are read as tensors only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unmask.detectors.base import Detector
from unmask.detectors.registry import build
from unmask.errors import ContractError, InputError
from unmask.schemas import DetectorInfo, SoundPreprocessing, sha256_file, write_atomically

WEIGHTS_FILE = "weights.safetensors"
INFO_FILE = "detector.json"
# Names under which well-known trainers nest the weights, and prefixes that wrappers put before every name.
NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net")
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def save_weights(detector: Detector, path: Path) -> str:
    """Write the weights of a detector.

    Args:
        detector: The detector.
        path: The safetensors file, written atomically.

    Returns:
        SHA-256 of the file.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    with write_atomically(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)
    return sha256_file(path)


def save_detector(folder: Path, detector: Detector, info: DetectorInfo) -> DetectorInfo:
    """Write a detector: ``weights.safetensors`` and ``detector.json``.

    Args:
        folder: Where to.
        detector: Its weights are written.
        info: Its document; ``weights_sha256`` is replaced by the hash of the written file.

    Returns:
        The document as written.
    """
    digest = save_weights(detector, folder / WEIGHTS_FILE)
    written = info.model_copy(update={"weights_sha256": digest})
    written.save(folder / INFO_FILE)
    return written


def load_detector(folder: Path) -> tuple[Detector, DetectorInfo]:
    """Read a detector that `save_detector` wrote.

    Args:
        folder: Holds ``weights.safetensors`` and ``detector.json``.

    Returns:
        The detector in evaluation mode on the CPU, and its document.

    Raises:
        ContractError: A file is missing, has changed since it was written, or does not fit the architecture.
    """
    info = DetectorInfo.load(folder / INFO_FILE)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ContractError(path, "weights", "does not exist", "Run `unmask train` first.")
    if sha256_file(path) != info.weights_sha256:
        raise ContractError(path, "weights", f"is not the file that {INFO_FILE} names", "Train or copy it again.")
    detector = build_for(info)
    detector.preprocessing = info.preprocessing
    try:
        detector.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        problem = " ".join(str(error).split())[:300]
        raise ContractError(path, "weights", f"does not fit {info.architecture}: {problem}") from error
    return detector.eval(), info


def build_for(info: DetectorInfo) -> Detector:
    """Build the untrained detector that a document describes.

    Args:
        info: The document.

    Returns:
        The detector, for inputs of the size that the document names.
    """
    if isinstance(info.preprocessing, SoundPreprocessing):
        return build(info.architecture, n_samples=info.preprocessing.n_samples)
    return build(info.architecture, input_size_px=info.preprocessing.size_px)


def read_foreign_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a weight file made by somebody else, without running anything in it.

    Args:
        path: Safetensors, or a PyTorch checkpoint (read with ``weights_only=True``).

    Returns:
        Name to tensor, on the CPU; nesting and the prefixes of wrappers are taken off.

    Raises:
        InputError: The file is missing, unreadable, or holds objects other than tensors.
    """
    if not path.is_file():
        raise InputError(f"There is no weight file {path}.", "Set pretrained to imagenet, none, or a file that exists.")
    try:
        if path.suffix == ".safetensors":
            return _without_wrappers(safetensors.torch.load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file makes the readers raise nearly anything
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as weights: {problem}",
            "Hand in a safetensors file, or a PyTorch checkpoint that holds tensors only.",
        ) from error
    return _without_wrappers(_unnest(content, path))


def _unnest(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, dict) and (inner := next((key for key in NESTED_UNDER if key in content), None)):
        content = content[inner]
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise InputError(f"{path} holds no named tensors.", "Hand in a state dict: names to tensors.")


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPER_PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load_weights(detector: Detector, path: Path) -> list[str]:
    """Put foreign weights into a detector; a classifier of another shape is left out.

    The file may hold the whole detector, or its backbone alone (as timm publishes it).

    Args:
        detector: Changed in place.
        path: See `read_foreign_tensors`.

    Returns:
        Names of the detector's tensors that the file did not fill, all of them in the head.

    Raises:
        InputError: The file does not fit the detector.
    """
    tensors = read_foreign_tensors(path)
    own = detector.state_dict()
    fitting: dict[str, Tensor] = {}
    for prefix in ("", "backbone."):
        candidate = {prefix + name: tensor for name, tensor in tensors.items()}
        candidate = {k: v for k, v in candidate.items() if k in own and own[k].shape == v.shape}
        if len(candidate) > len(fitting):
            fitting = candidate
    absent = [name for name in own if name not in fitting]
    needed = [n for n in absent if not n.startswith("head.") and not n.endswith("num_batches_tracked")]
    if needed:
        raise InputError(
            f"{path} does not fit {detector.architecture}: {len(needed)} of {len(own)} tensors are missing or have "
            f"another shape, {json.dumps(needed[0])} first.",
            "Hand in weights of the same architecture and input size.",
        )
    detector.load_state_dict(fitting, strict=False)
    return [name for name in absent if name.startswith("head.")]
