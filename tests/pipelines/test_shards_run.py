"""A data set that is divided among pods comes out as if one pod had done it all.

No deferred annotations here: kfp reads those of the pipeline below.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kfp import compiler, dsl

from pipelines.resources import Cluster
from pipelines.training import Settings, prepare
from unmask.adapters.local_runner import RunResult, run_compiled
from unmask.data.sampleset import generate
from unmask.schemas import DatasetInfo

pytestmark = pytest.mark.slow


def prepared(root: Path, media: Path, shards: int) -> RunResult:
    """Run ingest and extract of the training pipeline alone."""

    @dsl.pipeline(name="prepare")
    def only(sources: list, store: str = "", config: str = "") -> None:  # type: ignore[type-arg]
        nothing: Any = ""
        settings = Settings(nothing, nothing, nothing, nothing, nothing, nothing, 1, store, config)
        prepare(sources, "", settings, Cluster(shards=shards))

    compiler.Compiler().compile(only, str(root / f"{shards}.yaml"))
    arguments = {"sources": [f"main={media}"], "store": str(root / f"store-{shards}")}
    return run_compiled(root / f"{shards}.yaml", arguments, root / f"work-{shards}")


def table(result: RunResult, key: str, name: str) -> pd.DataFrame:
    parts = [pd.read_parquet(path) for path in sorted(result.outputs[key].glob(name))]
    frame = pd.concat(parts, ignore_index=True)
    return frame.sort_values(
        [column for column in ("sample_id", "face_index", "frame_index") if column in frame], ignore_index=True
    )


def test_two_shards_give_what_one_step_gives(tmp_path: Path) -> None:
    media = tmp_path / "media"
    generate(media, videos=16, seed=5)
    whole, divided = (prepared(tmp_path, media, shards) for shards in (1, 2))
    steps = {"inspect-shard 1/2", "inspect-shard 2/2", "extract-shard 1/2", "extract-shard 2/2"}
    assert set(divided.cached) == steps | {"ingest-inspected", "merge-extract"}
    assert set(whole.cached) == {"ingest", "extract"}
    versions = [DatasetInfo.load(result.outputs["dataset"] / "dataset.json").version for result in (whole, divided)]
    assert versions[0] == versions[1]
    pairs = [("ingest/dataset", "ingest-inspected/dataset", "samples.parquet")]
    pairs += [("extract/features", "merge-extract/features", "features.parquet")]
    pairs += [("extract/faces", "merge-extract/faces", "*.parquet")]
    for one, many, name in pairs:
        pd.testing.assert_frame_equal(table(whole, one, name), table(divided, many, name), check_exact=True)
