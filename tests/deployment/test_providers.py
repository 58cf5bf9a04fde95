"""Where detectors run: what is there, in the order that was asked for, and the CPU always."""

from __future__ import annotations

import logging

import onnxruntime
import pytest
from release_parts import Parts

from unmask.deployment.providers import CPU, choose_providers
from unmask.deployment.runtime import Bundle
from unmask.errors import ConfigError


def test_the_cpu_takes_over_with_a_warning(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with caplog.at_level(logging.WARNING):
        bundle = Bundle.load(parts.bundle, providers=("tensorrt", "cuda"))
    assert "tensorrt, cuda: not in this build of ONNX Runtime, so detectors run on cpu" in caplog.text
    assert [session.get_providers() for session in bundle.sessions.values()] == [[CPU], [CPU]]


def test_the_cpu_alone_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_providers(["cpu"]) == [CPU]
        assert choose_providers([]) == [CPU]
    assert caplog.text == ""


def test_order_is_kept_and_the_cpu_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ONNX Runtime for GPUs would answer; there is none on the machines that run these tests."""
    there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert choose_providers(["cpu", "cuda", "tensorrt", "cuda"]) == [
        "CUDAExecutionProvider", "TensorrtExecutionProvider", CPU,
    ]  # fmt: skip


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="no provider gpu"):
        choose_providers(["gpu"])
