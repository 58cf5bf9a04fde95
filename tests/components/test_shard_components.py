"""The components for shards: thin, calling options that the command has, and fit to be collected in a pipeline."""

from typing import Any

import click
import pytest
import yaml
from kfp import compiler, dsl

from components.extract_shard import extract_shard
from components.ingest_inspected import ingest_inspected
from components.inspect_shard import inspect_shard
from components.merge_extract import merge_extract
from unmask.cli import cli


def container(component: Any) -> Any:
    return component.component_spec.implementation.container


@pytest.mark.parametrize("component", [extract_shard, merge_extract, inspect_shard, ingest_inspected])
def test_the_command_has_the_options_that_the_component_uses(component: Any) -> None:
    program, stage = container(component).command
    command = cli.get_command(click.Context(cli), stage)
    assert (program, command is not None) == ("unmask", True)
    known = {name for parameter in command.params for name in parameter.opts}
    used = {text for text in container(component).args if isinstance(text, str) and text.startswith("--")}
    assert {parameter.opts[0] for parameter in command.params if parameter.required} <= used <= known
    assert container(component).args[-2:] == ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
    assert all(field.description for field in component.component_spec.inputs.values())


def test_shards_can_be_collected(tmp_path) -> None:
    @dsl.pipeline(name="shards")
    def sharded(upstream: str = "") -> None:
        given = dsl.importer(artifact_uri="/data", artifact_class=dsl.Dataset)
        with dsl.ParallelFor(["1/2", "2/2"]) as shard:
            part = extract_shard(dataset=given.output, upstream=upstream, shard=shard, store="", config="")
        merge_extract(
            dataset=given.output,
            shard_faces=dsl.Collected(part.outputs["faces"]),
            shard_features=dsl.Collected(part.outputs["features"]),
            upstream=upstream,
            config="",
        )

    compiler.Compiler().compile(sharded, str(tmp_path / "shards.yaml"))
    spec = next(yaml.safe_load_all((tmp_path / "shards.yaml").read_text()))
    lists = spec["components"]["comp-merge-extract"]["inputDefinitions"]["artifacts"]
    assert {name for name, field in lists.items() if field.get("isArtifactList")} == {"shard_faces", "shard_features"}


def test_merging_reads_the_lists_that_kubeflow_hands_over(tmp_path) -> None:
    """The executor input names an artifact for each shard; folders that are not there are named in the error."""
    import json

    from click.testing import CliRunner

    shards = {
        name: {"artifacts": [{"name": name, "uri": f"{tmp_path}/{name}{i}", "metadata": {}} for i in (1, 2)]}
        for name in ("shard_faces", "shard_features")
    }
    given = json.dumps({"inputs": {"artifacts": shards}, "outputs": {"outputFile": str(tmp_path / "o.json")}})
    options = ["--dataset", str(tmp_path), "--out-faces", str(tmp_path / "f"), "--out-features", str(tmp_path / "g")]
    result = CliRunner().invoke(cli, ["merge-extract", *options, "--executor-input", given])
    assert result.exit_code != 0
    assert "folders of faces" not in str(result.exception) + result.output  # both lists arrived, of equal length


def test_inspected_shards_can_be_collected(tmp_path) -> None:
    @dsl.pipeline(name="inspected")
    def sharded(sources: list[str]) -> None:
        with dsl.ParallelFor(["1/2", "2/2"]) as shard:
            part = inspect_shard(sources=sources, data_version="1", shard=shard, store="", config="")
        ingest_inspected(
            sources=sources,
            inspected=dsl.Collected(part.outputs["inspected"]),
            data_version="1",
            seed=42,
            store="",
            config="",
        )

    compiler.Compiler().compile(sharded, str(tmp_path / "inspected.yaml"))
    spec = next(yaml.safe_load_all((tmp_path / "inspected.yaml").read_text()))
    lists = spec["components"]["comp-ingest-inspected"]["inputDefinitions"]["artifacts"]
    assert {name for name, field in lists.items() if field.get("isArtifactList")} == {"inspected"}


def test_ingest_reads_the_list_of_parts_that_kubeflow_hands_over(tmp_path) -> None:
    """The first of two parts is missing, so the step names it instead of reading the files itself."""
    import json

    import cv2
    import numpy as np
    from click.testing import CliRunner

    for name in ("real", "fake"):
        (tmp_path / "media" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "media" / name / "a.png"), np.zeros((16, 16, 3), np.uint8))
    source = ["--source", f"few={tmp_path / 'media'}"]
    second = ["--shard", "2/2", "--out", str(tmp_path / "part2")]
    assert CliRunner().invoke(cli, ["inspect", *source, *second]).exit_code == 0
    parts = [{"name": "inspected", "uri": f"{tmp_path}/part2", "metadata": {}}]
    inputs = {"inputs": {"artifacts": {"inspected": {"artifacts": parts}}}}
    given = json.dumps({**inputs, "outputs": {"outputFile": str(tmp_path / "o.json")}})
    result = CliRunner().invoke(cli, ["ingest", *source, "--out", str(tmp_path / "out"), "--executor-input", given])
    assert "1 parts were given. 1 of 2 shards are missing: 1/2." in str(result.exception)
