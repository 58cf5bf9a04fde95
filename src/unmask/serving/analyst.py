"""From an upload to an answer: measure once in a process of its own, judge with the versions that are chosen."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import numpy as np

from unmask.config import ServeConfig
from unmask.deployment.examine import Examined, UnmeasurableError
from unmask.deployment.runtime import Bundle, Judgement
from unmask.deployment.verdict import Verdict
from unmask.errors import MediaError, StorageError
from unmask.fusion.apply import FLOW_ODDITY, artefact_factor, as_row, real_evidence
from unmask.serving.answers import Analysis, Timing, in_words, media_summary, shown_faces, suspicious_stretches
from unmask.serving.heatmap import draw_heatmap, occlusion_map
from unmask.serving.models import Arm, Choice, Models, Version
from unmask.serving.problems import RefusedError, refused_media
from unmask.serving.store import FeedbackStore, Record
from unmask.serving.telemetry import Telemetry
from unmask.serving.workers import DecoderPool, MediaLimits

logger = logging.getLogger(__name__)

# A file without a face is media like any other: it gets an answer, "not scored". What cannot be decoded is an error.
ANSWERED_CODES = ("no_face",)


@dataclass(frozen=True)
class Upload:
    """A file that somebody sent.

    Attributes:
        path: Where it lies until it is deleted.
        name: What the sender calls it; goes back in the answer and nowhere else.
        caller: Name of the API key.
        client: Decides which version answers; the same for all requests of one person.
        keep: Whether the sender agrees that it is kept for the next retraining.
    """

    path: Path
    name: str
    caller: str
    client: str
    keep: bool = False


@dataclass
class Kept:
    """What heat maps and reports need after an answer; lives in memory for a while.

    Attributes:
        analysis: The answer.
        jpegs: Index of a crop to its bytes.
        bundle: That judged.
        caller: Who may ask for it.
        until: By the monotonic clock.
    """

    analysis: Analysis
    jpegs: dict[int, bytes]
    bundle: Bundle
    caller: str
    until: float


class Results:
    """Answers of the last minutes.

    Args:
        seconds: How long they are kept; 0 for not at all.
        largest: How many.
    """

    def __init__(self, seconds: float, largest: int) -> None:
        self._seconds = seconds
        self._largest = largest
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def add(self, analysis: Analysis, jpegs: dict[int, bytes], bundle: Bundle, caller: str) -> None:
        """Keep an answer."""
        self.expire()
        if self._seconds > 0:
            until = time.monotonic() + self._seconds
            self._kept[analysis.id] = Kept(analysis, jpegs, bundle, caller, until)
            while len(self._kept) > self._largest:
                self._kept.popitem(last=False)

    def find(self, analysis_id: str, caller: str) -> Kept:
        """Find an answer of a caller.

        Raises:
            RefusedError: 404, it is unknown, gone, or somebody else's.
        """
        self.expire()
        kept = self._kept.get(analysis_id)
        if kept is None or kept.caller != caller:
            raise RefusedError(
                HTTPStatus.NOT_FOUND,
                "unknown_analysis",
                "There is no such analysis, or it is no longer kept.",
                "Analyse the file again.",
            )
        return kept

    def expire(self) -> None:
        """Forget what is too old."""
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


class Analyst:
    """Answers uploads.

    Args:
        config: Limits.
        models: Who judges.
        pool: Who measures.
        store: Where judgements are recorded.
        telemetry: Where they are counted.
        keep_folder: Where uploads lie that may be kept.
    """

    def __init__(
        self,
        config: ServeConfig,
        models: Models,
        pool: DecoderPool,
        store: FeedbackStore,
        telemetry: Telemetry,
        keep_folder: Path,
    ) -> None:
        self._config = config
        self._models = models
        self._pool = pool
        self._store = store
        self._telemetry = telemetry
        self._keep_folder = keep_folder
        self._threads = ThreadPoolExecutor(config.workers, "unmask-judge")
        self._shadows: set[asyncio.Task[None]] = set()
        self.results = Results(config.keep_results_s, config.max_results)
        self.direct = MediaLimits(
            config.max_image_pixels, config.max_video_pixels, config.max_duration_s, config.timeout_s
        )
        self.patient = MediaLimits(
            config.max_image_pixels, config.max_video_pixels, config.max_job_duration_s, config.job_timeout_s
        )

    async def close(self) -> None:
        """Wait for judgements that nobody waits for, and stop."""
        if self._shadows:
            await asyncio.gather(*self._shadows, return_exceptions=True)
        self._threads.shutdown()

    async def analyse(
        self, upload: Upload, limits: MediaLimits, progress: Callable[[float], None] | None = None
    ) -> Analysis:
        """Answer an upload; the file is deleted by whoever wrote it.

        Args:
            upload: The file.
            limits: For it.
            progress: Told the share that is measured.

        Returns:
            The answer.

        Raises:
            RefusedError: It is no media, too large, broken, or nothing that this model can judge.
        """
        start = time.perf_counter()
        choice = self._models.choose(upload.client)
        bundle = choice.version.bundle
        taken = start

        def watch(share: float) -> None:
            nonlocal taken
            if share == 0:
                taken = time.perf_counter()
            if progress is not None:
                progress(share)

        try:
            examined: Examined | None = await self._pool.measure(upload.path, bundle.extract, limits, watch)
            problem = None
        except MediaError as error:
            if error.code not in ANSWERED_CODES:
                raise refused_media(error) from error
            examined, problem = None, error
        measured = time.perf_counter()
        judgement = await self._judge(bundle, examined, problem, upload.name, measured - start)
        verdict = judgement.verdict
        if verdict.probability is None and examined is not None and examined.facts.modality == "audio":
            raise _not_measurable(verdict)
        done = time.perf_counter()
        timing = Timing(waiting=taken - start, measuring=measured - taken, judging=done - measured, total=done - start)
        kept = await asyncio.to_thread(self._keep, upload)
        analysis = self._answer(judgement, examined, choice, timing, kept)
        if examined is not None:
            jpegs = {face.index: examined.measurement.crops[face.index].jpeg for face in analysis.faces}
            self.results.add(analysis, jpegs, bundle, upload.caller)
            self._count(analysis, choice)
        await self._record(analysis, judgement, examined, choice.version, choice.arm, upload)
        if choice.other is not None and choice.other_arm is not None and examined is not None:
            task = asyncio.create_task(self._shadow(analysis, examined, choice, upload))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        return analysis

    async def heatmap(self, analysis_id: str, index: int, caller: str) -> bytes:
        """Draw the heat map of a crop.

        Raises:
            RefusedError: 404, there is none.
        """
        kept, jpeg = self.crop(analysis_id, index, caller)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads,
            lambda: draw_heatmap(jpeg, occlusion_map(kept.bundle, jpeg, self._config.heatmap_cells)),
        )

    def crop(self, analysis_id: str, index: int, caller: str) -> tuple[Kept, bytes]:
        """Find a crop of an answer.

        Raises:
            RefusedError: 404, there is none.
        """
        kept = self.results.find(analysis_id, caller)
        if index not in kept.jpegs:
            raise RefusedError(HTTPStatus.NOT_FOUND, "unknown_face", f"The answer has no face {index}.")
        return kept, kept.jpegs[index]

    async def _judge(
        self, bundle: Bundle, examined: Examined | None, problem: MediaError | None, name: str, seconds: float
    ) -> Judgement:
        if examined is None:
            modality = problem.facts.modality if isinstance(problem, UnmeasurableError) else None
            return Judgement(bundle.refuse(name, modality, str(problem), seconds), np.empty(0), {})
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: bundle.judge(examined, name=name))

    def _answer(
        self, judgement: Judgement, examined: Examined | None, choice: Choice, timing: Timing, kept: str | None
    ) -> Analysis:
        verdict = judgement.verdict
        return Analysis(
            **{**dict(verdict), "seconds": timing.total},
            id=kept or secrets.token_urlsafe(18),
            arm=choice.arm,
            summary=in_words(verdict),
            media=None if examined is None else media_summary(examined),
            stretches=suspicious_stretches(verdict),
            faces=[] if examined is None else shown_faces(examined, judgement.crop_probabilities),
            timing=timing,
            kept=kept is not None,
        )

    def _keep(self, upload: Upload) -> str | None:
        """Copy an upload whose sender agrees; its name is the id of the answer."""
        if not (upload.keep and self._config.keep_uploads):
            return None
        analysis_id = secrets.token_urlsafe(18)
        self._keep_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(upload.path, self._keep_folder / analysis_id)
        return analysis_id

    def _count(self, analysis: Analysis, choice: Choice) -> None:
        modality = analysis.modality or "unknown"
        for stage, seconds in (("measuring", analysis.timing.measuring), ("judging", analysis.timing.judging)):
            self._telemetry.stage_seconds.labels(stage, modality).observe(seconds)
        self._telemetry.verdicts.labels(choice.version.name, choice.arm, analysis.verdict, "yes").inc()

    async def _shadow(self, analysis: Analysis, examined: Examined, choice: Choice, upload: Upload) -> None:
        """Let the other version judge the same measurement, for the records only."""
        version, arm = choice.other, choice.other_arm
        assert version is not None
        assert arm is not None
        if version.bundle.extract != choice.version.bundle.extract:
            logger.warning("%s measures otherwise than %s; it cannot be its shadow.", version.name, choice.version.name)
            return
        try:
            judgement = await self._judge(version.bundle, examined, None, "", 0.0)
            self._telemetry.verdicts.labels(version.name, arm, judgement.verdict.verdict, "no").inc()
            await self._record(analysis, judgement, examined, version, arm, upload, answered=False)
        except Exception:
            logger.exception("The shadow %s failed; the answer was given all the same.", version.name)

    async def _record(
        self,
        analysis: Analysis,
        judgement: Judgement,
        examined: Examined | None,
        version: Version,
        arm: Arm,
        upload: Upload,
        answered: bool = True,
    ) -> None:
        record = _record(analysis, judgement, examined, version, arm, upload, answered)
        try:
            await asyncio.to_thread(self._store.add, [record])
        except StorageError as error:
            # Who asks gets the answer even when it cannot be recorded.
            logger.error("%s", error)


def _not_measurable(verdict: Verdict) -> RefusedError:
    reason = (verdict.reason or "").partition(": ")[2] or verdict.reason
    return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "not_measurable", f"Not measurable by this model: {reason}.")


def _record(
    analysis: Analysis,
    judgement: Judgement,
    examined: Examined | None,
    version: Version,
    arm: Arm,
    upload: Upload,
    answered: bool,
) -> Record:
    verdict = judgement.verdict
    features = dict(examined.measurement.features) if examined is not None else {}
    capped, factor = _rules(version.bundle, features) if verdict.probability is not None else (None, None)
    return Record(
        analysis_id=analysis.id,
        version=version.name,
        arm=arm,
        answered=answered,
        at=time.time(),
        caller=upload.caller,
        modality=verdict.modality,
        verdict=verdict.verdict,
        reason=(verdict.reason or "").partition(": ")[0] or None,
        probability=verdict.probability,
        threshold=verdict.threshold,
        operating_point=verdict.operating_point,
        seconds=analysis.timing.total,
        features=features,
        pushes=dict(judgement.pushes),
        capped=capped,
        artefact_factor=factor,
        upload=analysis.id if analysis.kept and answered else None,
    )


def _rules(bundle: Bundle, features: dict[str, float | None]) -> tuple[bool | None, float | None]:
    """Say whether camera evidence was strong enough to cap, and how much traces counted; None without the rule."""
    rules, row = bundle.fusion.rules, as_row(features)
    capped = factor = None
    if rules.real_evidence is not None:
        capped = bool(real_evidence(rules.real_evidence, row, 1)[0] >= rules.real_evidence.count)
    if rules.artefact_scale is not None and FLOW_ODDITY in row:
        factor = float(artefact_factor(rules.artefact_scale, row[FLOW_ODDITY])[0])
    return capped, factor
