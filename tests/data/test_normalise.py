"""Normalising: a set that its files give away gives away nothing afterwards, and keeps its splits."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from unmask.cli import cli
from unmask.config import IngestConfig
from unmask.data.ingest_stage import run_ingest
from unmask.data.normalise import CommonFormats
from unmask.data.sources import Source
from unmask.objects import FolderStore
from unmask.schemas import SAMPLES, DatasetInfo, read_table

CONFIG = IngestConfig(near_duplicates=False)


def scene(seed: int, width: int, height: int) -> np.ndarray:
    """Smooth random colours: the same statistics at every size."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_clip(path: Path, seed: int, width: int, height: int, fps: int, bit_rate: int, codec: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps, bit_rate=bit_rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        picture = scene(seed, width + 32, height)
        for i in range(int(2.4 * fps)):
            shown = np.ascontiguousarray(picture[:, i % 32 : i % 32 + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def confounded(tmp_path: Path) -> Path:
    """Reals are small JPEG pictures of high quality, fakes large PNG ones, of the same scenes' kind."""
    root = tmp_path / "confounded"
    for i in range(40):
        (root / "real").mkdir(parents=True, exist_ok=True)
        (root / "fake").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"real/person_{i}.jpg"), scene(i, 96, 96), [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(str(root / f"fake/gan_{1000 + i}.png"), scene(500 + i, 200, 160))
    return root


def test_pictures_that_differ_in_size_and_format_no_longer_do(confounded: Path, tmp_path: Path) -> None:
    source, target = [Source("s", FolderStore(confounded))], FolderStore(tmp_path / "even")
    before = run_ingest(source, tmp_path / "before", CONFIG, 3)
    assert before.metrics["metadata_auc"] > 0.99
    assert any("`unmask ingest --normalise` does" in text for text in before.messages)
    after = run_ingest(source, tmp_path / "after", CONFIG, 3, normalised=target)
    assert 0.3 < after.metrics["metadata_auc"] < 0.65
    assert any("before that, metadata alone reached AUC 1" in text for text in after.messages)
    first, second = (
        read_table(tmp_path / name / "samples.parquet", SAMPLES).to_pandas() for name in ("before", "after")
    )
    pd.testing.assert_frame_equal(first[["sample_id", "split", "group_id"]], second[["sample_id", "split", "group_id"]])
    assert len(second.drop_duplicates(["width_px", "height_px", "codec", "pixel_format", "encoder"])) == 1
    assert all(Path(uri).is_file() and str(tmp_path / "even") in uri for uri in second["uri"])
    width, height = (
        CommonFormats.load(tmp_path / "after/normalised.json").formats["image"].width_px,
        second["height_px"][0],
    )
    assert (second["width_px"][0], width * height) == (width, pytest.approx(96 * 96, rel=0.05))

    # Unchanged files are neither probed nor encoded again, and the splits stay.
    times = {stored.key: stored.version for stored in target.objects()}
    run_ingest(source, tmp_path / "after", CONFIG, 3, normalised=target)
    assert {stored.key: stored.version for stored in target.objects()} == times
    pd.testing.assert_frame_equal(read_table(tmp_path / "after/samples.parquet", SAMPLES).to_pandas(), second)


def test_videos_that_differ_in_rate_size_and_length_no_longer_do(tmp_path: Path) -> None:
    for i in range(5):
        write_clip(tmp_path / f"v/real/{i}a.mp4", i, 96, 64, 25, 600_000, "mpeg4")
        write_clip(tmp_path / f"v/fake/{i + 100}b.mp4", 50 + i, 160, 96, 30, 150_000, "libx264")
    target = FolderStore(tmp_path / "even")
    run_ingest([Source("v", FolderStore(tmp_path / "v"))], tmp_path / "out", CONFIG, 3, normalised=target)
    table = read_table(tmp_path / "out/samples.parquet", SAMPLES).to_pandas()
    assert set(table["status"]) == {"ok"}
    for name in ("width_px", "height_px", "fps", "codec", "container", "has_audio", "encoder", "n_frames"):
        assert table[name].nunique(dropna=False) == 1, name
    assert table["bitrate_bps"].max() < 1.3 * table["bitrate_bps"].min()
    assert table["duration_s"].max() - table["duration_s"].min() < 0.05


def test_recordings_get_one_rate_length_and_level(tmp_path: Path) -> None:
    def write(path: Path, seed: int, rate: int, level: float, seconds: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).normal(0, 0.2, int(seconds * rate)).astype(np.float32)
        samples = np.round(level * np.clip(noise, -1, 1) * 32767).astype(np.int16)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate = rate
            for packet in [*stream.encode(frame), *stream.encode()]:
                container.mux(packet)

    for i in range(5):
        write(tmp_path / f"a/real/{i}a.wav", i, 16_000, 0.3, 2.5)
        write(tmp_path / f"a/fake/{i + 100}b.wav", 50 + i, 22_050, 0.9, 3.0)
    target = FolderStore(tmp_path / "even")
    run_ingest([Source("a", FolderStore(tmp_path / "a"))], tmp_path / "out", CONFIG, 3, normalised=target)
    table = read_table(tmp_path / "out/samples.parquet", SAMPLES).to_pandas()
    assert set(table["sample_rate_hz"]) == {16_000}
    assert set(table["size_bytes"]) == {table["size_bytes"][0]}
    assert table["duration_s"].tolist() == [2.5] * 10
    assert table["peak_dbfs"].to_numpy() == pytest.approx(-3, abs=0.02)
    assert DatasetInfo.load(tmp_path / "out/dataset.json").metadata_audit_auc.value == pytest.approx(0.5, abs=0.25)


def test_the_command_wants_a_place_for_normalised_files(confounded: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["ingest", "--source", str(confounded), "--out", str(tmp_path / "o"), "--normalise"])
    assert run.exit_code == 1
    assert "Give --normalised-out" in str(run.exception)
