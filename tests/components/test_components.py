"""The components: thin, described, and calling options that the command has."""

from __future__ import annotations

import importlib
import re
from typing import Any

import click
import pytest
from kfp import dsl

import unmask
from components import images
from unmask.cli import cli

STAGES = ["ingest", "extract", "train", "tune", "ensemble", "fuse", "evaluate", "bundle", "promote"]
# Read by the command from the executor input, or present for the cache key only.
LISTS = {"detectors", "detectors_2", "detectors_3"}
NOT_IN_THE_COMMAND = LISTS | {"upstream", "data_version", "metrics", "roc", "dataset_version"}


def component(stage: str) -> Any:
    return getattr(importlib.import_module(f"components.{stage}"), stage)


def container(stage: str) -> Any:
    return component(stage).component_spec.implementation.container


@pytest.mark.parametrize("stage", STAGES)
def test_a_component_calls_its_stage_and_hands_the_executor_input_on(stage: str) -> None:
    command = container(stage)
    assert command.command == ["unmask", stage]
    assert command.args[-2:] == ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
    assert command.image in (images.PIPELINE, images.TRAINING)


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_has_the_options_that_the_component_uses(stage: str) -> None:
    command = cli.get_command(click.Context(cli), stage)
    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts}
    required = {parameter.opts[0] for parameter in command.params if parameter.required}
    used = {text for text in container(stage).args if isinstance(text, str) and text.startswith("--")}
    assert used <= known
    assert required <= used


@pytest.mark.parametrize("stage", STAGES)
def test_every_input_and_output_reaches_the_command(stage: str) -> None:
    spec = component(stage).component_spec
    text = " ".join(map(str, container(stage).args))
    used = set(re.findall(r"\['(\w+)'\]", text))
    assert {*spec.inputs, *spec.outputs} - used <= NOT_IN_THE_COMMAND
    assert used <= {*spec.inputs, *spec.outputs}


@pytest.mark.parametrize("stage", STAGES)
def test_inputs_are_described_and_metrics_are_drawn(stage: str) -> None:
    spec = component(stage).component_spec
    assert spec.description
    assert all(field.description for field in spec.inputs.values())
    assert spec.outputs["metrics"].type == "system.Metrics@0.0.1"


def test_the_report_and_the_curves_have_the_types_that_the_ui_draws() -> None:
    outputs = component("evaluate").component_spec.outputs
    types = {name: field.type.split("@")[0] for name, field in outputs.items()}
    assert types["report"] == "system.HTML"
    assert types["summary"] == "system.Markdown"
    assert types["roc"] == "system.ClassificationMetrics"
    sizes = component("bundle").component_spec.outputs["sizes"]
    assert sizes.type.startswith("system.HTML")


def test_the_image_tag_is_the_version_of_the_package() -> None:
    assert unmask.__version__ == images.VERSION
    assert images.PIPELINE.endswith(f":{unmask.__version__}")
