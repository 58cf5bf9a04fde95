"""Faces are found where they are, followed, and told apart; the networks are those that were tested."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest
from drawn_face import backdrop, draw_face, drawn

from unmask.errors import InputError
from unmask.media import faces
from unmask.media.faces import FaceDetector, FaceTracker, RgbPicture, find_faces, model_path, networks, overlap
from unmask.media.video import Frame


def scene(*places: tuple[float, float, float], size: int = 384) -> np.ndarray:
    """A wall with faces at x, y (centre) and scale, in shares of the picture."""
    picture = cv2.resize(backdrop(5), (size, size))
    for x, y, scale in places:
        side = round(size * scale)
        face = cv2.resize(drawn(), (side, side), interpolation=cv2.INTER_AREA)
        left, top = round(x * size - side / 2), round(y * size - side / 2)
        picture[top : top + side, left : left + side] = face
    return picture


def test_a_face_is_found_where_it_was_drawn():
    found = find_faces(draw_face(300, centre=(0.45, 0.5), scale=0.28))
    assert len(found) == 1
    x0, y0, x1, y1 = found[0].box
    assert (x0 + x1) / 2 == pytest.approx(0.45 * 300, abs=8)
    assert 0.9 * 0.28 * 300 < x1 - x0 < 1.7 * 0.28 * 300
    assert y0 < 0.5 * 300 < y1
    assert found[0].presence > 0.9
    assert abs(found[0].yaw_deg) < 8
    assert found[0].landmarks.shape == (468, 3)


def test_detector_gives_key_points_inside_its_box():
    (detection,) = FaceDetector().detect(drawn())
    x0, y0, x1, y1 = detection.box
    eyes = detection.keypoints[:2]
    assert (eyes[:, 0] > x0).all()
    assert (eyes[:, 0] < x1).all()
    assert eyes[0, 0] < eyes[1, 0]  # the person's right eye is on the left of the picture
    assert 0.5 < detection.confidence <= 1
    assert y0 < detection.keypoints[3, 1] < y1


@pytest.mark.parametrize("seed", range(4))
def test_no_face_where_none_is(seed):
    assert find_faces(backdrop(seed)) == []
    noise = np.random.default_rng(seed).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    assert find_faces(noise) == []


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (300, 8), (20, 20)])
def test_tiny_and_thin_pictures_have_no_face(shape):
    assert find_faces(np.full((*shape, 3), 128, np.uint8)) == []


def test_several_faces_come_largest_first():
    found = find_faces(scene((0.3, 0.35, 0.55), (0.75, 0.7, 0.42)))
    assert len(found) == 2
    assert found[0].area_px2 > found[1].area_px2
    assert found[0].landmarks[:, 0].mean() < found[1].landmarks[:, 0].mean()


def test_tracking_keeps_the_number_and_runs_the_detector_rarely(monkeypatch):
    calls = []
    detect = FaceDetector.detect
    monkeypatch.setattr(FaceDetector, "detect", lambda self, picture: calls.append(1) or detect(self, picture))
    tracker = FaceTracker()
    for step in range(34):
        result = tracker.update(RgbPicture(scene((0.35 + 0.006 * step, 0.5, 0.5))))
        assert list(result) == [0]
        assert result[0].landmarks[:, 0].mean() == pytest.approx((0.35 + 0.006 * step) * 384, abs=8)
    assert len(calls) == 2
    assert (tracker.n_examined, tracker.n_with_face) == (34, 34)


def test_a_lost_face_is_found_again_and_a_gone_one_is_not_made_up():
    here, there, nobody = (RgbPicture(scene(*place)) for place in ([(0.3, 0.4, 0.5)], [(0.7, 0.6, 0.5)], []))
    tracker = FaceTracker()
    assert list(tracker.update(here)) == [0]
    assert list(tracker.update(there)) == [1]  # a cut: looked for at once
    assert [len(tracker.update(nobody)) for _ in range(6)] == [0] * 6
    results = [list(tracker.update(here)) for _ in range(6)]
    assert results[-1] == [0]  # where it was: the same number
    assert tracker.n_with_face == 2 + sum(bool(result) for result in results)


def test_frames_and_arrays_give_the_same_landmarks():
    picture = drawn()
    luma, red, blue = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb))
    frame = Frame(0, 0.0, luma, (blue, red), "bt601", full_range=True)
    (by_frame,) = FaceTracker().update(frame).values()
    (by_array,) = find_faces(picture)
    assert np.abs(by_frame.landmarks - by_array.landmarks).max() < 1.5


def test_eyelids_are_followed():
    ratios = []
    for eyes in (1.0, 0.5, 0.0):
        picture = drawn(eyes=eyes)
        (face,) = find_faces(picture)
        ratios.append(networks().eyes.aspect_ratio(RgbPicture(picture), face))
    assert ratios[0] > 1.15 * ratios[1] > 2 * ratios[2]


@pytest.mark.parametrize("mirror", [False, True])
def test_the_eye_network_sees_either_eye_the_right_way_round(mirror):
    picture = np.ascontiguousarray(drawn()[:, ::-1]) if mirror else drawn()
    (face,) = find_faces(picture)
    for turned in (-1, 1):  # let it choose the one eye, then the other
        landmarks = face.landmarks.copy()
        landmarks[263, 2] += turned * 30
        posed = faces.Face(landmarks, 1.0)
        assert np.sign(posed.yaw_deg) == turned
        assert networks().eyes.aspect_ratio(RgbPicture(picture), posed) == pytest.approx(0.41, abs=0.06)


def test_overlap_of_boxes():
    assert overlap(np.array([0, 0, 2, 2]), np.array([1, 1, 3, 3])) == pytest.approx(1 / 7)
    assert overlap(np.array([0, 0, 1, 1]), np.array([2, 0, 3, 1])) == 0


def test_missing_networks_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"make setup"):
        model_path("face_landmark.tflite")


def test_other_networks_than_the_tested_are_refused(monkeypatch):
    monkeypatch.setitem(faces.MODEL_SHA256, "face_landmark.tflite", "0" * 64)
    with pytest.raises(InputError, match="SHA-256"):
        model_path("face_landmark.tflite")
