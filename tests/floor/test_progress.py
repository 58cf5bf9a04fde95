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
