"""What was judged and what users said of it, in SQLite or PostgreSQL; never the media, never a name of a file."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from unmask.errors import InputError, StorageError
from unmask.fusion.rules import FeedbackCount, count_feedback

logger = logging.getLogger(__name__)

Label = Literal["real", "fake"]

_METADATA = sa.MetaData()
ANALYSES = sa.Table(
    "analyses",
    _METADATA,
    sa.Column("analysis_id", sa.String(64), primary_key=True),
    sa.Column("version", sa.String(200), primary_key=True),
    sa.Column("arm", sa.String(20), nullable=False),
    sa.Column("answered", sa.Boolean, nullable=False),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("caller", sa.String(80), nullable=False),
    sa.Column("modality", sa.String(10)),
    sa.Column("verdict", sa.String(20), nullable=False),
    sa.Column("reason", sa.String(40)),
    sa.Column("probability", sa.Float),
    sa.Column("threshold", sa.Float, nullable=False),
    sa.Column("operating_point", sa.String(40), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Column("pushes", sa.Text, nullable=False),
    sa.Column("capped", sa.Boolean),
    sa.Column("artefact_factor", sa.Float),
    sa.Column("upload", sa.String(200)),
)
FEEDBACK = sa.Table(
    "feedback",
    _METADATA,
    sa.Column("analysis_id", sa.String(64), primary_key=True),
    sa.Column("author", sa.String(80), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("label", sa.String(10), nullable=False),
    sa.Column("verified", sa.Boolean, nullable=False),
)


@dataclass(frozen=True)
class Record:
    """One judgement.

    Attributes:
        analysis_id: Of the request; two versions that judged it share it.
        version: That judged.
        arm: champion or challenger.
        answered: Whether the caller got this judgement; false for a shadow.
        at: Seconds since the epoch.
        caller: Name of the API key.
        modality: image, video, audio; None when unknown.
        verdict: real, fake, uncertain, not scored.
        reason: Code of why it was not scored; None when it was.
        probability: P(fake), or None.
        threshold: Of the verdict.
        operating_point: Its name.
        seconds: Time to answer.
        features: Feature to value, None where not measured.
        pushes: Input of fusion to contribution.
        capped: Whether strong camera evidence capped the probability; None when there is no such rule.
        artefact_factor: How much frame traces counted; None when there is no such rule.
        upload: Name of the kept upload; None when it was deleted.
    """

    analysis_id: str
    version: str
    arm: str
    answered: bool
    at: float
    caller: str
    modality: str | None
    verdict: str
    reason: str | None
    probability: float | None
    threshold: float
    operating_point: str
    seconds: float
    features: Mapping[str, float | None] = field(default_factory=dict)
    pushes: Mapping[str, float] = field(default_factory=dict)
    capped: bool | None = None
    artefact_factor: float | None = None
    upload: str | None = None


@dataclass(frozen=True)
class Judged:
    """A record with what is known of the truth.

    Attributes:
        record: The judgement.
        label: What users say; None when nobody said anything, or they disagree.
        verified: Whether somebody who checked it said so.
    """

    record: Record
    label: Label | None = None
    verified: bool = False


class FeedbackStore:
    """The store.

    Args:
        url: SQLAlchemy URL, for example ``sqlite:///feedback.db`` or ``postgresql+pg8000://user@host/unmask``.

    Raises:
        InputError: The URL is not understood.
        StorageError: The database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
            options: dict[str, Any] = {"pool_pre_ping": True}
            if parsed.get_backend_name() == "sqlite":
                options["connect_args"] = {"timeout": 30, "check_same_thread": False}
                if parsed.database and parsed.database != ":memory:":
                    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(parsed, **options)
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise InputError(
                f"The feedback store cannot be opened: {error}.",
                "Give sqlite:///PATH, or postgresql+pg8000://USER:PASSWORD@HOST/DATABASE (extra `postgres`).",
            ) from error
        if parsed.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _write_ahead)
        with self._explained():
            _METADATA.create_all(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, records: Iterable[Record]) -> None:
        """Keep judgements."""
        rows = [_row(record) for record in records]
        if rows:
            with self._explained(), self._engine.begin() as connection:
                connection.execute(sa.insert(ANALYSES), rows)

    def say(self, analysis_id: str, author: str, label: Label, verified: bool) -> bool:
        """Keep what a user says of an analysis; the same user may say otherwise later.

        Args:
            analysis_id: Of the answer.
            author: Name of the API key.
            label: The truth, as the user knows it.
            verified: Whether it was checked and not only felt.

        Returns:
            False if there is no such analysis.
        """
        values = {"at": time.time(), "label": label, "verified": verified}
        which = (FEEDBACK.c.analysis_id == analysis_id) & (FEEDBACK.c.author == author)
        with self._explained(), self._engine.begin() as connection:
            if self._find(connection, analysis_id) is None:
                return False
            if connection.execute(sa.update(FEEDBACK).where(which).values(values)).rowcount == 0:
                connection.execute(sa.insert(FEEDBACK).values(analysis_id=analysis_id, author=author, **values))
        return True

    def answered(self, analysis_id: str) -> Record | None:
        """Find the judgement that a caller got."""
        with self._explained(), self._engine.connect() as connection:
            row = self._find(connection, analysis_id)
            return None if row is None else _record(row)

    @staticmethod
    def _find(connection: sa.Connection, analysis_id: str) -> sa.RowMapping | None:
        query = sa.select(ANALYSES).where((ANALYSES.c.analysis_id == analysis_id) & ANALYSES.c.answered)
        return connection.execute(query).mappings().first()

    def judged(self, *, told_only: bool = False, limit: int = 100_000) -> list[Judged]:
        """Read judgements with their labels, the latest if there are too many, in order of time.

        Args:
            told_only: Leave out those of which no user has said anything.
            limit: At most so many.
        """
        query = sa.select(ANALYSES).order_by(ANALYSES.c.at.desc()).limit(limit)
        if told_only:
            query = query.where(ANALYSES.c.analysis_id.in_(sa.select(FEEDBACK.c.analysis_id)))
        with self._explained(), self._engine.connect() as connection:
            records = [_record(row) for row in connection.execute(query).mappings()]
            said = connection.execute(sa.select(FEEDBACK)).mappings().all()
        labels = _labels(said)
        return [Judged(record, *labels.get(record.analysis_id, (None, False))) for record in reversed(records)]

    def feedback_counts(self, version: str) -> dict[str, FeedbackCount]:
        """Count how often the inputs of a version's fusion pushed towards what users say is true."""
        counts: dict[str, FeedbackCount] = {}
        for judged in self.judged(told_only=True):
            if judged.label is not None and judged.record.version == version:
                counts = count_feedback(counts, judged.record.pushes.items(), int(judged.label == "fake"))
        return counts

    def _explained(self) -> _Explained:
        return _Explained(str(self._engine.url))  # SQLAlchemy hides the password in it


class _Explained:
    """Turns errors of the database into ours."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SQLAlchemyError):
            reason = str(getattr(error, "orig", None) or error).splitlines()[0][:200]
            raise StorageError(
                f"The feedback store {self._url} does not work: {reason}.", "Check that the database runs."
            ) from error


def _write_ahead(connection: Any, _: object) -> None:
    """Let readers and one writer work side by side in SQLite."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _row(record: Record) -> dict[str, Any]:
    values = {column.name: getattr(record, column.name) for column in ANALYSES.columns}
    return values | {"features": json.dumps(dict(record.features)), "pushes": json.dumps(dict(record.pushes))}


def _record(row: sa.RowMapping) -> Record:
    values = dict(row)
    return Record(**{**values, "features": json.loads(values["features"]), "pushes": json.loads(values["pushes"])})


def _labels(said: Iterable[sa.RowMapping]) -> dict[str, tuple[Label | None, bool]]:
    """Join what several users say of one analysis: who checked outweighs who did not; a tie gives no label."""
    votes: dict[str, list[tuple[Label, bool]]] = {}
    for row in said:
        votes.setdefault(row["analysis_id"], []).append((row["label"], bool(row["verified"])))
    labels: dict[str, tuple[Label | None, bool]] = {}
    for analysis_id, each in votes.items():
        checked = [label for label, verified in each if verified]
        counted = checked or [label for label, _ in each]
        fakes = sum(label == "fake" for label in counted)
        label: Label | None = None if 2 * fakes == len(counted) else "fake" if 2 * fakes > len(counted) else "real"
        labels[analysis_id] = (label, bool(checked) and label is not None)
    return labels
