"""Taking over the published Meso weights, which are Keras files with channels last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.detectors.base import Detector
from unmask.detectors.registry import build
from unmask.detectors.storage import save_weights
from unmask.errors import InputError, MissingExtraError

Arrays = dict[str, NDArray[np.float32]]
KINDS = ("conv2d", "batch_normalization", "dense")
# Keras name of a weight to torch's, and how its axes are moved.
CONV_AXES = (3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
DENSE_AXES = (1, 0)  # in, out -> out, in
NORM_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def import_keras_weights(
    file: Path, name: str, out: Path, *, output_means: Literal["real", "fake"] = "real"
) -> Detector:
    """Convert a Keras weight file of a Meso network to a file that ``pretrained`` takes.

    Args:
        file: HDF5 file as ``save_weights`` of Keras 2 writes it.
        name: ``meso4`` or ``mesoinception4``.
        out: Safetensors file to write.
        output_means: What the published network's output near 1 says. The reference implementation numbers its
            folders ``df`` 0 and ``real`` 1, so the last layer is turned round to give logits of fake.

    Returns:
        The detector with the weights, in evaluation mode.

    Raises:
        InputError: The file is not HDF5, or its layers are not those of the network.
        MissingExtraError: h5py is not installed.
    """
    detector = build(name)
    load_keras_layers(detector, read_keras_layers(file), output_means=output_means)
    save_weights(detector, out)
    return detector.eval()


def read_keras_layers(file: Path) -> dict[str, Arrays]:
    """Read the layers of a Keras weight file.

    Args:
        file: HDF5 file.

    Returns:
        Layer name to weight name (``kernel``, ``bias``, ``gamma``, …) to array.

    Raises:
        InputError: The file is missing or is not HDF5.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("Reading a Keras weight file", "training") from error
    layers: dict[str, Arrays] = {}

    def visit(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            *_, layer, weight = path.split("/")
            layers.setdefault(layer, {})[weight.partition(":")[0]] = np.asarray(item, np.float32)

    try:
        with h5py.File(file, "r") as content:
            content.visititems(visit)
    except OSError as error:
        raise InputError(f"{file} is not a readable HDF5 file: {error}", "Hand in the published .h5 file.") from error
    return layers


def load_keras_layers(
    detector: Detector, layers: Mapping[str, Arrays], *, output_means: Literal["real", "fake"] = "real"
) -> None:
    """Put Keras layers into a Meso network, in the order in which both were created.

    Args:
        detector: Changed in place.
        layers: See `read_keras_layers`. Names end in a number that counts the layers of a kind.
        output_means: See `import_keras_weights`.

    Raises:
        InputError: A layer is missing, too many, or of another shape.
    """
    modules: dict[str, list[nn.Module]] = {
        "conv2d": [m for m in detector.modules() if isinstance(m, nn.Conv2d)],
        "batch_normalization": [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)],
        "dense": [m for m in detector.modules() if isinstance(m, nn.Linear)],
    }
    for kind in KINDS:
        named = _of_kind(layers, kind)
        if len(named) != len(modules[kind]):
            raise InputError(
                f"The file has {len(named)} {kind} layers; {detector.architecture} has {len(modules[kind])}.",
                "Hand in the weights of the same network.",
            )
        for name, module in zip(named, modules[kind], strict=True):
            _fill(module, name, layers[name], detector.architecture)
    if output_means == "real":
        with torch.no_grad():
            for parameter in modules["dense"][-1].parameters():
                parameter.neg_()


def _of_kind(layers: Mapping[str, Arrays], kind: str) -> list[str]:
    numbered = []
    for name in layers:
        match = re.fullmatch(rf"{kind}(?:_(\d+))?", name)
        if match:
            numbered.append((int(match[1] or 0), name))
    return [name for _, name in sorted(numbered)]


def _fill(module: nn.Module, name: str, arrays: Arrays, architecture: str) -> None:
    own: dict[str, Tensor] = module.state_dict()
    own.pop("num_batches_tracked", None)
    given: dict[str, Tensor] = {}
    for weight, array in arrays.items():
        if weight == "kernel":
            axes = CONV_AXES if array.ndim == 4 else DENSE_AXES
            given["weight"] = torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))
        else:
            given[NORM_NAMES.get(weight, weight)] = torch.from_numpy(array)
    expected = {key: tuple(tensor.shape) for key, tensor in own.items()}
    found = {key: tuple(tensor.shape) for key, tensor in given.items()}
    if expected != found:
        raise InputError(
            f"Layer {name} of the file has the shapes {found}; {architecture} needs {expected}.",
            "Hand in the weights of the same network at its published input size.",
        )
    with torch.no_grad():
        for key, tensor in given.items():
            own[key].copy_(tensor)
