"""The parts of the sample set: movements, voice, camera, forgeries, each against what it claims."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from unmask.data.sampleset.clips import Job, identity_of
from unmask.data.sampleset.expression import Expression
from unmask.data.sampleset.forgery import MANIPULATIONS, Forger, Shot, tanned
from unmask.data.sampleset.identity import draw_identity
from unmask.data.sampleset.painting import look_up
from unmask.data.sampleset.performance import Pose, perform
from unmask.data.sampleset.render import Actor, Framing, lay_over
from unmask.data.sampleset.scene import Camera, draw_light
from unmask.data.sampleset.voice import (
    FRAME,
    HOP,
    LEVEL_RMS,
    SAMPLE_RATE_HZ,
    _sound,
    _spectra,
    mouth_track,
    plan_speech,
    resynthesise,
    speak,
)

SIDE = 192
FRAMING = Framing(SIDE, (96.0, 88.0), 58.0)
AT_REST = Expression()
STRAIGHT = Pose(0.0, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0))


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def pitch_hz(voice):
    """Median over loud pieces of 64 ms of the lag at which the piece is most like itself."""
    pieces = voice[: len(voice) // 1024 * 1024].reshape(-1, 1024)
    loud = pieces[pieces.std(1) > np.median(pieces.std(1))]
    found = []
    for piece in loud:
        lags = np.correlate(piece, piece, "full")[1023:]
        start = np.flatnonzero(lags < 0)[0]  # past the first fall, where every sound is like itself
        found.append(SAMPLE_RATE_HZ / (start + lags[start : int(SAMPLE_RATE_HZ / 70)].argmax()))
    return float(np.median(found))


@pytest.fixture(scope="module")
def people():
    return [draw_identity(np.random.default_rng(seed)) for seed in (3, 8)]


@pytest.fixture(scope="module")
def stage(people):
    """A target and a coloured partner in one light, in front of grey, with a camera."""
    rng = np.random.default_rng(5)
    target = Actor(people[0], FRAMING)
    partner = Actor(tanned(people[1], people[0]), FRAMING)
    return target, partner, draw_light(rng), Camera(rng, SIDE)


def picture(actor, light, expression=AT_REST, pose=STRAIGHT, pulse=0.0):
    head = look_up(actor.light_up(expression, pose, light, pulse), actor.warp_map(pose, FRAMING, expression.mouth_open))
    return lay_over(np.full((SIDE, SIDE, 3), 120, np.float32), head)


def test_people_differ_and_one_person_is_always_the_same():
    assert draw_identity(np.random.default_rng(1)) == draw_identity(np.random.default_rng(1))
    skins = {draw_identity(np.random.default_rng(seed)).skin for seed in range(20)}
    assert len(skins) == 20


def test_the_pulse_beats_at_the_rate_of_the_person(people):
    person = replace(people[0], pulse_bpm=72.0)
    pulse = perform(person, 1000, 25, 58.0, np.random.default_rng(0)).pulse
    spectrum = np.abs(np.fft.rfft(pulse))
    assert 60 * np.fft.rfftfreq(1000, 1 / 25)[spectrum.argmax()] == pytest.approx(72, abs=1.5)
    assert 0.003 < np.abs(pulse).max() < 0.012  # below one per cent or so


def test_the_pulse_shows_on_the_skin_most_in_green_and_nowhere_else(stage):
    target, _, light, _ = stage
    bright, plain = picture(target, light, pulse=0.05), picture(target, light)
    change = bright / plain - 1
    forehead = change[60:66, 90:102].mean((0, 1))
    assert forehead[1] > forehead[2] > forehead[0] > 0.005
    assert np.abs(change[150:, :40]).max() < 1e-6


def test_blinks_come_at_the_rate_of_the_person_and_shut_the_eyes(people):
    person = replace(people[0], blinks_per_min=18.0)
    acts = [perform(person, 1500, 25, 58.0, np.random.default_rng(seed)) for seed in range(8)]
    assert np.mean([len(act.blink_times_s) for act in acts]) == pytest.approx(18, rel=0.2)
    for act in acts:
        closed = np.array([expression.eyes_closed for expression in act.expressions])
        for start_s in act.blink_times_s:
            assert closed[int((start_s + 0.07) * 25) : int((start_s + 0.16) * 25) + 1].max() > 0.8
        open_share = np.mean(closed == 0)
        assert 0.85 < open_share < 0.97


def test_the_mouth_opens_with_the_voice_and_rests_in_pauses(people):
    rng = np.random.default_rng(2)
    syllables = plan_speech(8.0, rng)
    voice = speak(people[0], syllables, 8.0, rng)
    times_s = np.arange(0, 8, 0.04)
    opening, rounding = mouth_track(syllables, times_s)
    loudness = np.sqrt((voice.reshape(200, -1) ** 2).mean(1))
    assert correlation(opening, loudness) > 0.55
    assert opening.max() > 0.1
    assert opening.min() < 0.01
    assert np.abs(rounding).max() <= 1


def test_the_voice_has_the_pitch_of_the_person_and_a_fixed_level(people):
    for hertz in (110.0, 210.0):
        person = replace(people[0], voice_hz=hertz)
        rng = np.random.default_rng(4)
        voice = speak(person, plan_speech(4.0, rng), 4.0, rng)
        assert pitch_hz(voice) == pytest.approx(hertz, rel=0.12)
        assert np.sqrt(np.mean(voice**2)) == pytest.approx(LEVEL_RMS, rel=0.02)


def test_spectra_and_sound_are_inverse_and_agree_with_scipy():
    sound = np.random.default_rng(0).standard_normal(5000)
    spectra = _spectra(sound)
    assert np.allclose(_sound(spectra, 5000), sound)
    theirs = signal.ShortTimeFFT(signal.windows.hann(FRAME, sym=False), HOP, 1.0).stft(sound).T
    # Theirs begin one hop later.
    assert np.allclose(np.abs(spectra[5:35]), np.abs(theirs[4:34]))


def test_a_vocoder_keeps_the_spectrum_and_the_level_but_not_the_waveform(people):
    rng = np.random.default_rng(6)
    voice = speak(people[0], plan_speech(3.0, rng), 3.0, rng)
    copy = resynthesise(voice, rng)
    assert len(copy) == len(voice)
    assert np.sqrt(np.mean(copy**2)) == pytest.approx(LEVEL_RMS, rel=0.02)
    bands = [np.log(np.abs(np.fft.rfft(x))[:24000].reshape(-1, 300).mean(1) + 1e-3) for x in (voice, copy)]
    assert correlation(*bands) > 0.9
    assert abs(correlation(voice, copy)) < 0.5


def test_the_fixed_pattern_of_a_camera_is_found_in_its_pictures_and_in_no_others():
    cameras = [Camera(np.random.default_rng(seed), SIDE) for seed in (1, 2)]
    rng = np.random.default_rng(3)
    flat = np.full((SIDE, SIDE, 3), 150, np.float32)
    mean = np.mean([cameras[0].expose(flat, rng) for _ in range(60)], axis=0).mean(2)
    assert correlation(mean, cameras[0].pattern) > 0.8
    assert abs(correlation(mean, cameras[1].pattern)) < 0.05


def test_eyes_close_and_the_mouth_opens_where_they_are(stage, people):
    target, _, light, _ = stage
    rest = picture(target, light)
    for expression, height in (
        (Expression(eyes_closed=1.0), people[0].eye_y),
        (Expression(mouth_open=0.15), people[0].mouth_y),
    ):
        change = np.abs(picture(target, light, expression) - rest).mean(2)
        rows = np.arange(SIDE) @ change.sum(1) / change.sum()
        assert rows == pytest.approx(FRAMING.centre[1] + height * FRAMING.px_per_unit, abs=14)


def test_turning_the_head_moves_the_nose_further_than_the_ears(stage):
    target = stage[0]
    warp = target.warp_map(replace(STRAIGHT, yaw=0.2), FRAMING, 0.0) - target.warp_map(STRAIGHT, FRAMING, 0.0)
    row = round(FRAMING.centre[1] + 0.25 * FRAMING.px_per_unit)
    nose, ear = warp[row, 96, 0], warp[row, 96 + 40, 0]
    assert nose < 2 * ear < 0


@pytest.mark.parametrize("name", MANIPULATIONS)
def test_a_forgery_changes_the_inner_face_and_leaves_the_rest(stage, name):
    target, partner, light, camera = stage
    forger = Forger(target, partner, FRAMING, light, camera, np.random.default_rng(1))
    frame = camera.expose(picture(target, light), np.random.default_rng(2))
    before = frame.copy()
    shot = Shot(STRAIGHT, Expression(), target.warp_map(STRAIGHT, FRAMING, 0.0))
    forged = forger.forge(frame, shot, MANIPULATIONS[name])
    assert np.array_equal(frame, before)
    outside = np.ones((SIDE, SIDE), bool)
    outside[55:145, 60:132] = False
    assert np.array_equal(forged[outside], frame[outside])
    assert np.abs(forged - frame)[75:120, 80:112].mean() > 3
    # Colours are matched: the mean of the face moves by a few levels only.
    assert np.abs((forged - frame)[75:120, 75:117].mean((0, 1))).max() < 25


@pytest.mark.parametrize("name", MANIPULATIONS)
def test_a_forged_face_does_not_carry_the_pattern_of_the_camera(stage, name):
    target, partner, light, camera = stage
    forger = Forger(target, partner, FRAMING, light, camera, np.random.default_rng(1))
    scene, rng = picture(target, light), np.random.default_rng(2)
    shot = Shot(STRAIGHT, Expression(), target.warp_map(STRAIGHT, FRAMING, 0.0))
    frames = [camera.expose(scene, rng) for _ in range(30)]
    fakes = [forger.forge(frame, shot, MANIPULATIONS[name]) for frame in frames]
    cheeks = (slice(96, 110), slice(78, 114))

    def trace(pictures, still):
        return correlation((np.mean(pictures, axis=0) - still)[cheeks].mean(2), (camera.pattern - 1)[cheeks])

    without = Camera(np.random.default_rng(99), SIDE)
    without.lens_px, without.noise = camera.lens_px, 0.0
    without.pattern = np.ones_like(camera.pattern)
    assert trace(frames, without.expose(scene, rng)) > 0.5
    still = np.mean(fakes, axis=0)
    smooth = np.dstack([np.full_like(still[..., 0], still[..., c][cheeks].mean()) for c in range(3)])
    assert abs(trace(fakes, smooth)) < 0.2


def test_a_frozen_face_does_not_follow_the_expression(stage):
    target, partner, light, camera = stage
    talking = Expression(eyes_closed=1.0, mouth_open=0.15)
    moved = {}
    for name in ("FaceBlend", "FrozenFace"):
        forger = Forger(target, partner, FRAMING, light, camera, np.random.default_rng(1))
        means = []
        for expression in (Expression(), talking):
            shot = Shot(STRAIGHT, expression, target.warp_map(STRAIGHT, FRAMING, 0.0))
            frames = [forger.forge(picture(target, light), shot, MANIPULATIONS[name]) for _ in range(12)]
            means.append(np.mean(frames, axis=0))
        moved[name] = np.abs(means[1] - means[0])[70:130, 75:117].mean()
    assert moved["FrozenFace"] < 0.4 * moved["FaceBlend"]


def test_the_grid_leaves_peaks_in_the_spectrum_that_a_blend_does_not(stage):
    target, partner, light, camera = stage
    shot = Shot(STRAIGHT, Expression(), target.warp_map(STRAIGHT, FRAMING, 0.0))
    peaks = {}
    for name in ("FaceBlend", "GridUpsample"):
        forger = Forger(target, partner, FRAMING, light, camera, np.random.default_rng(1))
        forged = np.mean([forger.forge(picture(target, light), shot, MANIPULATIONS[name]) for _ in range(8)], axis=0)
        patch = forged[72:120, 72:120].mean(2)
        window = np.hanning(48)
        power = np.abs(np.fft.fft2((patch - patch.mean()) * np.outer(window, window))) ** 2
        # Periods of 8 and 4 pixels are the frequencies 6 and 12 of 48; compare with their neighbours.
        peaks[name] = max(power[6, 6] / np.median(power[4:9, 4:9]), power[12, 12] / np.median(power[10:15, 10:15]))
    assert peaks["GridUpsample"] > 5 * peaks["FaceBlend"]


def test_jobs_are_balanced_and_named_in_reciprocal_pairs():
    jobs = [Job(1, group, member, 320, 25, 4.0) for group in range(12) for member in (0, 1)]
    assert {job.manipulation for job in jobs[:8]} == set(MANIPULATIONS)
    for kind in MANIPULATIONS:
        assert sum(job.manipulation == kind for job in jobs) == 8
        assert {job.compression for job in jobs if job.manipulation == kind} == {"c23", "c40"}
    assert jobs[2].real_path == "real/c40/002.mp4"
    assert jobs[2].fake_path == f"fake/{jobs[2].manipulation}/c40/002_003.mp4"
    assert jobs[3].fake_path == f"fake/{jobs[3].manipulation}/c40/003_002.mp4"
    assert identity_of(jobs[2], 3) == identity_of(jobs[3], 3) != identity_of(jobs[3], 2)
