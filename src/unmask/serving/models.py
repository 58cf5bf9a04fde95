"""Which versions of the detector answer: loading, self-test, following, and routing between two of them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from unmask.config import ExtractConfig
from unmask.deployment.bundle import MANIFEST
from unmask.deployment.examine import Examined
from unmask.deployment.example import check_example
from unmask.deployment.runtime import Bundle
from unmask.errors import ContractError, UnmaskError
from unmask.features import CATALOGUE, Crop, Measurement, Window
from unmask.media.crops import encode_crop
from unmask.media.probe import MediaFacts
from unmask.media.sound import WINDOW_SAMPLES
from unmask.schemas import sha256_file

logger = logging.getLogger(__name__)

Arm = Literal["champion", "challenger"]
SHARE_STEPS = 10_000


@dataclass(frozen=True)
class Found:
    """What a source says is current.

    Attributes:
        key: Changes when another version is current.
        name: What answers call it, for example ``unmask-detector version 3``.
    """

    key: str
    name: str


class ModelSource(Protocol):
    """Where a version of the detector comes from; called from threads, may be slow, may raise `UnmaskError`."""

    def current(self) -> Found:
        """Say what is current, without fetching it."""

    def fetch(self, found: Found) -> Path:
        """Bring the bundle of a version to a folder of this machine."""


class FolderSource:
    """A bundle folder; a new bundle written in its place is followed.

    Args:
        folder: That `unmask bundle` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Found:
        """See `ModelSource`."""
        manifest = self._folder / MANIFEST
        if not manifest.is_file():
            raise ContractError(manifest, "file", "does not exist", "Give the folder that `unmask bundle` wrote.")
        digest = sha256_file(manifest)
        return Found(digest, digest[:12])

    def fetch(self, found: Found) -> Path:
        """See `ModelSource`."""
        return self._folder


@dataclass(frozen=True)
class Version:
    """A version that answers.

    Attributes:
        key: Of its source.
        name: In answers.
        bundle: Loaded and tested.
        since: Seconds since the epoch when it began to answer.
    """

    key: str
    name: str
    bundle: Bundle
    since: float


def self_test(bundle: Bundle) -> None:
    """Prove that a bundle gives sane answers before it answers anybody.

    The example that travels in the bundle must give the scores that were written when it was made. Besides, drawn
    crops must give probabilities, the same twice.

    Args:
        bundle: Just loaded.

    Raises:
        ContractError: It does not.
    """
    check_example(bundle)
    examined = _drawn(bundle.extract)
    first, second = (bundle.judge(examined, name="self-test") for _ in range(2))
    probability = first.verdict.probability
    problem = ""
    if probability is None or not math.isfinite(probability):
        problem = f"gives no probability for a drawn picture ({first.verdict.reason})"
    elif probability != second.verdict.probability:
        problem = f"gives {probability} and then {second.verdict.probability} for the same picture"
    elif any(detector.probability is None for detector in first.verdict.detectors):
        silent = [detector.name for detector in first.verdict.detectors if detector.probability is None]
        problem = f"has detectors that say nothing: {', '.join(silent)}"
    if problem:
        raise ContractError(bundle.folder, "self-test", problem, "Do not serve it; bundle anew.")


def _drawn(extract: ExtractConfig) -> Examined:
    """Four crops of seeded noise over a gradient, a window of noise, and no features: fusion must do without."""
    rng = np.random.default_rng(0)
    side = extract.crop_size_px
    shade = np.linspace(40, 200, side)[None, :, None] + np.linspace(-30, 30, side)[:, None, None]
    crops = []
    for index in range(4):
        image = np.clip(shade + rng.normal(0, 12, (side, side, 3)), 0, 255).astype(np.uint8)
        jpeg = encode_crop(image, extract.jpeg_quality)
        crops.append(Crop(0, index, index * 0.5, 0.0, 0.0, float(side), float(side), 1.0, 0.0, jpeg))
    facts = MediaFacts("video", "mov", 1, side, side, 25.0, 2.0, 50, "h264", 1e6, None, False, 0)
    nulls = dict.fromkeys(CATALOGUE, "undefined")
    noise = Window(0, 0.0, rng.normal(0, 3000, WINDOW_SAMPLES).astype("<i2").tobytes())
    return Examined(facts, Measurement(dict.fromkeys(CATALOGUE), nulls, crops, 50, 50, 1.0, [noise]))


class Follower:
    """Keeps the current version of one source; a version that fails to load or its self-test changes nothing.

    Args:
        source: What is followed.
        threads: Of each detector.
        timeline_crops: See `Bundle.load`.
        prepare: Changes a tested bundle before it answers, for example by users' feedback.
        providers: See `Bundle.load`.
    """

    def __init__(
        self,
        source: ModelSource,
        threads: int,
        timeline_crops: int,
        prepare: Callable[[Bundle], Bundle] = lambda bundle: bundle,
        providers: Sequence[str] = ("cpu",),
    ) -> None:
        self._source = source
        self._threads = threads
        self._timeline_crops = timeline_crops
        self._prepare = prepare
        self._providers = providers
        self._version: Version | None = None
        self._refused: str | None = None
        self.problem: str | None = None
        self.checked_at: float | None = None
        self.n_swaps = 0

    @property
    def version(self) -> Version | None:
        """The version that answers now; whoever holds it keeps it until done, also after a swap."""
        return self._version

    def check(self) -> bool:
        """Look at the source once, and swap if another version is current and passes its test.

        Returns:
            Whether a new version answers now.

        Raises:
            UnmaskError: There is no version at all yet, and none can be had.
        """
        self.checked_at = time.time()
        self._prepare_again()
        try:
            found = self._source.current()
            if self._version is not None and found.key == self._version.key:
                self.problem = self._refused = None
                return False
            if found.key == self._refused:
                return False  # it failed before, and is still the same
            bundle = self._load(found)
        except UnmaskError as error:
            self.problem = str(error)
            if self._version is None:
                raise
            logger.warning("The model could not be followed; %s goes on answering. %s", self._version.name, error)
            return False
        before = self._version
        self._version = Version(found.key, found.name, self._prepare(bundle), time.time())
        self.problem = self._refused = None
        self.n_swaps += 1
        if before is not None:
            logger.info("%s answers from now on, before it was %s.", found.name, before.name)
        return True

    def _prepare_again(self) -> None:
        """Change the bundle that answers anew, for example after more feedback."""
        version = self._version
        if version is None:
            return
        prepared = self._prepare(version.bundle)
        if prepared is not version.bundle:
            self._version = replace(version, bundle=prepared)

    def _load(self, found: Found) -> Bundle:
        folder = self._source.fetch(found)
        try:
            bundle = Bundle.load(
                folder,
                version=found.name,
                threads=self._threads,
                timeline_crops=self._timeline_crops,
                providers=self._providers,
            )
            self_test(bundle)
        except UnmaskError:
            self._refused = found.key
            raise
        except Exception as error:
            # ONNX Runtime has its own kinds of errors; whatever it is, the old version must go on answering.
            self._refused = found.key
            raise ContractError(folder, "bundle", f"does not load or run ({error})", "Bundle anew.") from error
        return bundle


@dataclass(frozen=True)
class Choice:
    """Who answers one request.

    Attributes:
        version: Whose answer the caller gets.
        arm: Its role.
        other: Who judges besides, only for the records; None for nobody.
        other_arm: Its role.
    """

    version: Version
    arm: Arm
    other: Version | None = None
    other_arm: Arm | None = None


class Models:
    """The champion and, if there is one, its challenger.

    Args:
        champion: Answers.
        challenger: Answers a share of the callers; None for nobody.
        share: That share, from 0 to 1.
        shadow: Let whoever does not answer judge too.
    """

    def __init__(self, champion: Follower, challenger: Follower | None, share: float, shadow: bool) -> None:
        self.champion = champion
        self.challenger = challenger
        self.share = share
        self.shadow = shadow

    @property
    def followers(self) -> dict[Arm, Follower]:
        """Role to who is followed there."""
        roles: dict[Arm, Follower] = {"champion": self.champion}
        if self.challenger is not None:
            roles["challenger"] = self.challenger
        return roles

    def choose(self, caller: str) -> Choice:
        """Route a caller, the same way every time.

        Args:
            caller: Any text that stays the same for a caller.

        Returns:
            Who answers.

        Raises:
            UnmaskError: No version has been loaded yet.
        """
        champion = self.champion.version
        challenger = self.challenger.version if self.challenger is not None else None
        if champion is None:
            raise UnmaskError("No model is loaded yet.", "Try again in a moment.")
        if challenger is None:
            return Choice(champion, "champion")
        if in_share(caller, self.share):
            other = champion if self.shadow else None
            return Choice(challenger, "challenger", other, "champion" if other else None)
        other = challenger if self.shadow else None
        return Choice(champion, "champion", other, "challenger" if other else None)

    async def follow(self, poll_s: float, on_check: Callable[[], None] = lambda: None) -> None:
        """Look at the sources again and again, until cancelled.

        Args:
            poll_s: Time between two looks.
            on_check: Called after each look.
        """
        while True:
            await asyncio.sleep(poll_s)
            for follower in self.followers.values():
                try:
                    await asyncio.to_thread(follower.check)
                except UnmaskError as error:
                    logger.warning("%s", error)
                except Exception:
                    # A poller that has died follows nothing any more and nobody notices.
                    logger.exception("Following the model failed; it is tried again.")
            on_check()


def in_share(caller: str, share: float) -> bool:
    """Whether a caller belongs to a share of all callers; growing the share keeps everybody who was in it.

    Args:
        caller: Any text.
        share: From 0 to 1.

    Returns:
        The same for the same caller on every machine.
    """
    digest = hashlib.sha256(b"unmask-ab:" + caller.encode()).digest()
    return int.from_bytes(digest[:8], "big") % SHARE_STEPS < share * SHARE_STEPS
