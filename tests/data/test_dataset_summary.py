from __future__ import annotations

from pathlib import Path

from media_writers import write_picture

from unmask.config import IngestConfig
from unmask.data.ingest_stage import run_ingest
from unmask.data.sources import Source
from unmask.objects import FolderStore
from unmask.schemas import DatasetInfo


def test_the_page_tells_counts_balance_audit_and_failures(tmp_path: Path) -> None:
    for i in range(12):
        write_picture(tmp_path / f"one/real/{i}a.jpg", i)
        write_picture(tmp_path / f"two/fake/GAN/{i + 50}b.jpg", 50 + i)
    for i in range(12, 72):
        write_picture(tmp_path / f"two/real/{i + 100}c.jpg", i + 100)
    (tmp_path / "one/real/<b>|x.jpg").write_text("no picture")
    sources = [Source(name, FolderStore(tmp_path / name)) for name in ("one", "two")]
    run_ingest(sources, tmp_path / "out", IngestConfig(), 1)
    info = DatasetInfo.load(tmp_path / "out/dataset.json")
    assert info.balance is not None
    assert (info.balance.ratio, info.balance.level, info.balance.class_balance) == (6.0, "severe", "sampler")
    assert info.balance.by_source == {"one": {"real": 12, "fake": 0}, "two": {"real": 60, "fake": 12}}
    assert info.balance.by_manipulation == {"GAN": 12}
    assert set(info.metadata_audit_by_source) == {"one", "two"}
    page = (tmp_path / "out/summary.md").read_text()
    for line in (
        "| two | 60 | 12 |",
        "| GAN | 12 |",
        "| unsupported | 1 |",
        f"| test | {info.groups['test']} | {info.counts['test']['real']} | {info.counts['test']['fake']} |",
        "Fewer fake files, 1 to 6: severe.",
    ):
        assert line in page
    assert "<b>" not in page  # a file name is no markup
