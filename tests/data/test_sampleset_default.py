"""A sample set of useful size: faces are found in it, and its files alone do not tell the classes apart."""

import av
import numpy as np
import pytest

from unmask.data.sampleset import TRUTH_FILE, SampleSetTruth, generate
from unmask.data.sampleset.clips import Job, identity_of
from unmask.data.sampleset.performance import perform
from unmask.media.faces import FaceDetector, FaceMesh, RgbPicture

pytestmark = pytest.mark.slow

INNER_LIPS, MOUTH_CORNERS = (13, 14), (61, 291)


@pytest.fixture(scope="module")
def default_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("default") / "sample"
    generate(out, videos=48, duration_s=4.0)
    return out, SampleSetTruth.load(out / TRUTH_FILE).clips


def frames_of(path, indices=None):
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if indices is None or index in indices:
                yield frame.to_ndarray(format="rgb24")


def test_a_face_is_found_in_nearly_every_frame(default_set):
    out, clips = default_set
    detector = FaceDetector()
    found = [bool(detector.detect(frame)) for clip in clips for frame in frames_of(out / clip.path, {5, 35, 65, 95})]
    assert len(found) == 4 * 48
    assert np.mean(found) > 0.97


def test_landmarks_follow_the_mouth_of_reals(default_set):
    out, clips = default_set
    detector, mesh = FaceDetector(), FaceMesh()
    correlations = []
    for clip in [clip for clip in clips if clip.label == 0][:6]:
        job = Job(42, clip.group, clip.identity % 2, 320, 25, 4.0)
        # The same draws as in the clip; only the movement of the camera depends on the size.
        act = perform(identity_of(job, clip.identity), 100, 25, 90.0, job.generator(clip.identity, 2))
        seen = []
        for frame in frames_of(out / clip.path, set(range(0, 100, 3))):
            picture = RgbPicture(frame)
            face = mesh.from_detection(picture, detector.detect(picture)[0])
            points = mesh.from_landmarks(picture, face.landmarks).landmarks[:, :2]
            gap, width = (np.linalg.norm(points[a] - points[b]) for a, b in (INNER_LIPS, MOUTH_CORNERS))
            seen.append(gap / width)
        correlations.append(np.corrcoef(seen, [e.mouth_open for e in act.expressions[::3]])[0, 1])
    assert np.median(correlations) > 0.7


def metadata_of(path):
    with av.open(str(path)) as container:
        sizes = {"video": 0, "audio": 0}
        for packet in container.demux():
            sizes[packet.stream.type] += packet.size
        return [path.stat().st_size, sizes["video"], sizes["audio"], container.bit_rate, container.duration]


def auc(labels, scores):
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(wins)


def test_metadata_do_not_tell_the_classes_apart(default_set):
    """Neighbours and a linear rule, each group judged by the others; 0.5 ± 2 standard errors is 0.33 to 0.67."""
    out, clips = default_set
    columns = np.log(np.array([metadata_of(out / clip.path) for clip in clips]))
    labels, groups = np.array([clip.label for clip in clips]), np.array([clip.group for clip in clips])
    columns = (columns - columns.mean(0)) / (columns.std(0) + 1e-9)
    linear, near = np.zeros(len(clips)), np.zeros(len(clips))
    for group in np.unique(groups):
        held, rest = groups == group, groups != group
        design = np.column_stack([columns, np.ones(len(clips))])
        ridge = design[rest].T @ design[rest] + np.eye(design.shape[1])
        linear[held] = design[held] @ np.linalg.solve(ridge, design[rest].T @ (2.0 * labels[rest] - 1))
        distance = np.linalg.norm(columns[held][:, None] - columns[rest][None], axis=2)
        near[held] = labels[rest][np.argsort(distance, axis=1)[:, :7]].mean(1)
    assert abs(auc(labels, columns[:, 0]) - 0.5) < 0.1
    assert auc(labels, linear) < 0.67
    assert auc(labels, near) < 0.67


def test_a_fake_is_as_often_larger_as_smaller_than_the_clip_it_was_made_of(default_set):
    out, clips = default_set
    sizes = {clip.path: (out / clip.path).stat().st_size for clip in clips}
    pairs = [(real, fake) for real in clips for fake in clips if real.label == 0 and fake.label == 1]
    ratios = [sizes[fake.path] / sizes[real.path] for real, fake in pairs if real.identity == fake.identity]
    assert len(ratios) == 24
    assert 0.25 <= np.mean(np.array(ratios) > 1) <= 0.75
    assert np.median(ratios) == pytest.approx(1, abs=0.05)
