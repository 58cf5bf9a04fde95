"""Progress in a log file: plain lines, nothing lost."""

import logging

import pytest

from unmask import progress


def test_lines_without_a_terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="unmask.progress"):
        assert list(progress.track(iter("abc"), 3, "extract", "videos")) == ["a", "b", "c"]
    assert "extract: 1 of 3 videos" in caplog.messages[0]
    assert "s left" in caplog.messages[0]
    assert caplog.messages[-1].startswith("extract: 3 videos in")


def test_bytes_are_counted_as_they_come(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="unmask.progress"), progress.Meter("download") as meter:
        meter.expect(3 * 2**20)
        meter.advance(2**20)
        meter.advance(2**20)
    assert "download: 1.0 MiB of 3.0 MiB" in caplog.messages[0]
    assert caplog.messages[-1].startswith("download: 2.0 MiB in")


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**43, "8.0 TiB")])
def test_sizes_in_words(n: int, text: str) -> None:
    assert progress.in_bytes(n) == text
