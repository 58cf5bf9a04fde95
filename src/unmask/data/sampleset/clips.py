"""One job of the generator: a person's clip and the forgery made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from unmask.data.sampleset.encode import ClipWriter
from unmask.data.sampleset.forgery import MANIPULATIONS, Forger, Shot, tanned
from unmask.data.sampleset.identity import Identity, draw_identity
from unmask.data.sampleset.painting import Floats, look_up
from unmask.data.sampleset.performance import Performance, perform
from unmask.data.sampleset.render import Actor, Framing, lay_over, shifted
from unmask.data.sampleset.scene import Camera, Light, draw_light, paint_background, paint_torso
from unmask.data.sampleset.truth import ClipTruth
from unmask.data.sampleset.voice import resynthesise, speak
from unmask.schemas import sha256_file

# The clips are far smaller than those of FaceForensics++, so a factor of 40 would leave no face to look at.
CRF = {"c23": 23, "c40": 29}
BACKGROUND_MARGIN = 0.15  # on each side, of the picture's side
TORSO_FOLLOWS = (0.35, 0.3)  # share of the head's movement that the shoulders make, right and down


@dataclass(frozen=True)
class Job:
    """A person's clip and the forgery made of it.

    Attributes:
        seed: Of the sample set.
        group: Index of the reciprocal pair.
        member: 0 or 1: which of the pair is the target.
        size_px: Width and height.
        fps: Frames per second.
        duration_s: Length of the clip.
    """

    seed: int
    group: int
    member: int
    size_px: int
    fps: int
    duration_s: float

    @property
    def target(self) -> int:
        """Number of the person in the clip."""
        return 2 * self.group + self.member

    @property
    def source(self) -> int:
        """Number of the partner, whose face the forgery shows."""
        return 2 * self.group + 1 - self.member

    @property
    def manipulation(self) -> str:
        """How it is forged; the two of a pair differ, and three pairs in a row use each kind twice."""
        return tuple(MANIPULATIONS)[(2 * self.group + self.member) % len(MANIPULATIONS)]

    @property
    def compression(self) -> str:
        """All clips of a pair are compressed alike."""
        return tuple(CRF)[self.group % len(CRF)]

    @property
    def real_path(self) -> str:
        """Where the clip goes, below the sample set."""
        return f"real/{self.compression}/{self.target:03d}.mp4"

    @property
    def fake_path(self) -> str:
        """Where the forgery goes, below the sample set."""
        return f"fake/{self.manipulation}/{self.compression}/{self.target:03d}_{self.source:03d}.mp4"

    def generator(self, person: int, purpose: int) -> np.random.Generator:
        """Return a generator that depends on nothing but seed, person and purpose."""
        return np.random.default_rng((self.seed, person, purpose))


_IDENTITY, _SCENE, _PERFORMANCE, _SOUND, _CAMERA, _EXPOSURE, _FORGERY = range(7)


class _Set:
    """The place where a clip is shot: person, framing, light, background, clothes and camera."""

    def __init__(self, job: Job) -> None:
        rng = job.generator(job.target, _SCENE)
        side = job.size_px
        self.framing = Framing(
            side, (side * rng.uniform(0.46, 0.54), side * rng.uniform(0.44, 0.48)), side * rng.uniform(0.27, 0.31)
        )
        self.person = identity_of(job, job.target)
        self.actor = Actor(self.person, self.framing)
        self.light: Light = draw_light(rng)
        # Painted with a margin, into which the camera sways.
        self._margin = round(side * BACKGROUND_MARGIN)
        self._background, self.place = paint_background(rng, side + 2 * self._margin)
        self._torso = paint_torso(self.person, self.light, rng, side, self.framing.centre, self.framing.px_per_unit)
        self.camera = Camera(job.generator(job.target, _CAMERA), side)
        n_frames = round(job.duration_s * job.fps)
        rng = job.generator(job.target, _PERFORMANCE)
        self.performance: Performance = perform(self.person, n_frames, job.fps, self.framing.px_per_unit, rng)
        self._exposure = job.generator(job.target, _EXPOSURE)

    def shoot(self, index: int) -> tuple[Floats, Shot]:
        """Take one frame; frames are taken in order."""
        pose, expression = self.performance.poses[index], self.performance.expressions[index]
        warp = self.actor.warp_map(pose, self.framing, expression.mouth_open)
        texture = self.actor.light_up(expression, pose, self.light, float(self.performance.pulse[index]))
        head = look_up(texture, warp)
        moved = [pose.camera[i] + TORSO_FOLLOWS[i] * pose.shift[i] * self.framing.px_per_unit for i in (0, 1)]
        behind = (pose.camera[0] - self._margin, pose.camera[1] - self._margin)
        background = shifted(self._background, behind, self.framing.side_px)
        picture = lay_over(background, shifted(self._torso, (moved[0], moved[1])))
        return self.camera.expose(lay_over(picture, head), self._exposure), Shot(pose, expression, warp)


def identity_of(job: Job, person: int) -> Identity:
    """Draw a person of the sample set."""
    return draw_identity(job.generator(person, _IDENTITY))


def render(job: Job, folder: Path) -> tuple[ClipTruth, ClipTruth]:
    """Render a person's clip and the forgery made of it.

    Args:
        job: Which.
        folder: The sample set.

    Returns:
        What is true of the real clip and of the fake.
    """
    cv2.setNumThreads(1)
    stage = _Set(job)
    rng = job.generator(job.target, _FORGERY)
    partner = Actor(tanned(identity_of(job, job.source), stage.person), stage.framing)
    forger = Forger(stage.actor, partner, stage.framing, stage.light, stage.camera, rng)
    manipulation = MANIPULATIONS[job.manipulation]
    real, fake = folder / job.real_path, folder / job.fake_path
    for path in (real, fake):
        path.parent.mkdir(parents=True, exist_ok=True)
    sound_rng = job.generator(job.target, _SOUND)
    voice = speak(stage.person, stage.performance.syllables, job.duration_s, sound_rng)
    with (
        ClipWriter(real, job.size_px, job.fps, CRF[job.compression]) as real_writer,
        ClipWriter(fake, job.size_px, job.fps, CRF[job.compression]) as fake_writer,
    ):
        for index in range(len(stage.performance.poses)):
            frame, shot = stage.shoot(index)
            real_writer.add_picture(frame)
            fake_writer.add_picture(forger.forge(frame, shot, manipulation))
        real_writer.add_sound(voice)
        fake_writer.add_sound(resynthesise(voice, sound_rng))
    return _real_truth(job, stage, real), _fake_truth(job, stage, fake)


def _real_truth(job: Job, stage: _Set, path: Path) -> ClipTruth:
    return ClipTruth(
        path=job.real_path,
        sha256=sha256_file(path),
        label=0,
        group=job.group,
        identity=job.target,
        face_identity=job.target,
        camera=job.target,
        manipulation=None,
        compression=job.compression,
        background=stage.place,
        voice="natural",
        pulse_bpm=round(stage.person.pulse_bpm, 2),
        blink_times_s=stage.performance.blink_times_s,
        mouth_moves=True,
    )


def _fake_truth(job: Job, stage: _Set, path: Path) -> ClipTruth:
    frozen = job.manipulation == "FrozenFace"
    return ClipTruth(
        path=job.fake_path,
        sha256=sha256_file(path),
        label=1,
        group=job.group,
        identity=job.target,
        face_identity=job.source,
        camera=job.target,
        manipulation=job.manipulation,
        compression=job.compression,
        background=stage.place,
        voice="resynthesised",
        pulse_bpm=None,
        blink_times_s=() if frozen else stage.performance.blink_times_s,
        mouth_moves=not frozen,
    )
