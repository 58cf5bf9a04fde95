"""Smaller and quicker ONNX files: 8-bit values, and weights set to zero.

Nothing here judges whether the result is still good enough; `unmask.deployment.optimise` does.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.deployment.bundle import INPUT
from unmask.errors import MissingExtraError

WEIGHTED = ("Conv", "Gemm", "MatMul")
DYNAMIC = ("Gemm", "MatMul", "Conv")
CALIBRATION_BATCH = 8


def quantise_static(content: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Turn weights and activations into 8-bit values, with ranges that were seen on real crops.

    The first and the last layer that hold weights stay in 32 bit: they cost little time, and their rounding is felt
    most.

    Args:
        content: An ONNX file in 32 bit.
        inputs: Preprocessed crops of training ``(N, 3, S, S)``.

    Returns:
        The ONNX file, with the same input and output.

    Raises:
        MissingExtraError: The package onnx is not installed.
    """
    quantization = _import_quantization()
    with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
        source, prepared, target = (Path(temporary) / name for name in ("in.onnx", "prepared.onnx", "out.onnx"))
        source.write_bytes(content)
        with _quiet():
            # Folds normalisation into convolutions and fills in shapes; both make the 8-bit graph better.
            quantization.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(target),
                _Reader(inputs),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=edge_layers(prepared.read_bytes()),
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        return _stripped(target.read_bytes())


def quantise_dynamic(content: bytes) -> bytes:
    """Turn weights into 8-bit values; ranges of activations are found anew for each batch.

    Args:
        content: An ONNX file in 32 bit.

    Returns:
        The ONNX file, with the same input and output.

    Raises:
        MissingExtraError: The package onnx is not installed.
    """
    quantization = _import_quantization()
    import onnx

    model = onnx.load_from_string(content)
    # Shapes that the exporter wrote down contradict those that the quantiser infers.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
        source, target = Path(temporary) / "in.onnx", Path(temporary) / "out.onnx"
        source.write_bytes(model.SerializeToString(deterministic=True))
        with _quiet():
            quantization.quantize_dynamic(
                str(source),
                str(target),
                op_types_to_quantize=list(DYNAMIC),
                # ONNX Runtime has no dynamic convolution with signed weights on CPUs.
                weight_type=quantization.QuantType.QUInt8,
                nodes_to_exclude=edge_layers(content),
            )
        return _stripped(target.read_bytes())


def prune(content: bytes, share: float) -> bytes:
    """Set the smallest weights of each convolution to zero.

    ONNX Runtime computes with zeros as with any other number: this makes a file that compresses better, and nothing
    quicker.

    Args:
        content: An ONNX file in 32 bit.
        share: Of the weights of each convolution, in [0, 1).

    Returns:
        The ONNX file.

    Raises:
        MissingExtraError: The package onnx is not installed.
    """
    _import_quantization()
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(content)
    convolved = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for tensor in model.graph.initializer:
        if tensor.name in convolved:
            weights = numpy_helper.to_array(tensor).copy()
            size = np.abs(weights).ravel()
            count = int(share * size.size)
            if count:
                weights.ravel()[np.argpartition(size, count - 1)[:count]] = 0
                tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def edge_layers(content: bytes) -> list[str]:
    """Name the first and the last layer that hold weights.

    Args:
        content: An ONNX file.

    Returns:
        Names of nodes.
    """
    import onnx

    named = [node.name for node in onnx.load_from_string(content).graph.node if node.op_type in WEIGHTED]
    return list(dict.fromkeys([*named[:1], *named[-1:]]))


class _Reader:
    """Hands calibration crops to the quantiser, a few at a time."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter(
            [{INPUT: inputs[first : first + CALIBRATION_BATCH]} for first in range(0, len(inputs), CALIBRATION_BATCH)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def _import_quantization() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime.quantization as quantization
        import onnxruntime.quantization.shape_inference  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Optimising detectors", "training") from error
    return quantization


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which it gives to the root logger, away from the user."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _stripped(content: bytes) -> bytes:
    """Take out what names the machine or the moment, so that the same weights give the same bytes."""
    import onnx

    model = onnx.load_from_string(content)
    for message in (model, model.graph, *model.graph.node):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
