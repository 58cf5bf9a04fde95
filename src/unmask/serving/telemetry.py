"""Figures for Prometheus, and a log of one JSON line a request; neither holds media, names of files or keys."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300)


class Telemetry:
    """All figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("unmask_requests", "Answered requests", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "unmask_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "unmask_stage_seconds",
            "Time of a stage of an analysis",
            ["stage", "modality"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("unmask_requests_in_flight", "Requests with a place", registry=registry)
        self.busy = Counter("unmask_busy", "Requests that were refused for want of a place", registry=registry)
        self.verdicts = Counter(
            "unmask_verdicts", "Verdicts", ["version", "arm", "verdict", "answered"], registry=registry
        )
        self.restarts = Counter("unmask_worker_restarts", "Decoding processes replaced", ["reason"], registry=registry)
        self.swaps = Counter("unmask_model_swaps", "New versions that began to answer", ["arm"], registry=registry)
        self.model = Gauge("unmask_model", "1 for the versions that answer", ["arm", "version"], registry=registry)
        self.following = Gauge(
            "unmask_model_following", "1 if the last look at the source went well", ["arm"], registry=registry
        )
        self.jobs = Gauge("unmask_jobs", "Jobs", ["status"], registry=registry)
        self.feedback = Counter("unmask_feedback", "What users said", ["version", "right"], registry=registry)

    def render(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; a record may carry further fields in ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        values: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["error"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False)


def log_json(level: int = logging.INFO) -> None:
    """Send all logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("unmask").setLevel(level)
    for name in ("uvicorn", "uvicorn.error"):
        each = logging.getLogger(name)
        each.handlers, each.propagate = [], True
        each.setLevel(level)
