"""A JPEG that was compressed twice is told from one that was compressed once."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from leaves import dead_leaves
from PIL import Image
from scipy.fft import dctn
from sklearn.metrics import roc_auc_score

from unmask.features.double_jpeg import double_quantisation, levels
from unmask.features.observation import Null
from unmask.media.jpeg import ZIGZAG, coded_jpeg, luma_table
from unmask.media.video import read_image

QUALITIES = (60, 75, 85, 95)


def encoded(luma: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def twice(luma: np.ndarray, first: int, second: int) -> bytes:
    return encoded(cv2.imdecode(np.frombuffer(encoded(luma, first), np.uint8), cv2.IMREAD_GRAYSCALE), second)


def test_single_and_double_compression_are_told_apart():
    scenes = [dead_leaves(seed, discs=2000) for seed in range(5)]
    once = [double_quantisation(coded_jpeg(encoded(luma, q))) for luma in scenes for q in QUALITIES]
    again = [
        double_quantisation(coded_jpeg(twice(luma, first, second)))
        for luma in scenes
        for first in QUALITIES
        for second in QUALITIES
        if first != second
    ]
    auc = roc_auc_score([0] * len(once) + [1] * len(again), once + again)
    assert auc >= 0.9, auc
    assert np.abs(np.median(once)) < 0.3
    assert np.median(again) > 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [50, 90])
def test_the_table_is_the_one_in_the_file(progressive, quality):
    image = Image.fromarray(np.repeat(dead_leaves(0, 96, 128, 200)[..., None], 3, axis=2))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, progressive=progressive)
    expected = Image.open(stream).quantization[0]  # in natural order since Pillow 8.3
    table = luma_table(stream.getvalue())
    assert table[0, 0] == expected[0]
    np.testing.assert_array_equal(table.ravel(), expected)
    assert coded_jpeg(stream.getvalue()).luma.shape == (96, 128)


def test_levels_are_quantised_coefficients():
    luma = dead_leaves(1, 64, 72, 200)
    steps = np.array([3.0, 5.0, 7.0, 9.0])
    found = levels(luma, steps)
    block = dctn(luma[8:16, 16:24].astype(float), norm="ortho")
    number = 1 * 9 + 2
    for k, (y, x) in enumerate(ZIGZAG[1:5]):
        assert found[k, number] == pytest.approx(block[y, x] / steps[k], abs=0.501)


@pytest.mark.parametrize("turned", [False, True])
def test_a_turned_picture_is_looked_at_as_it_was_coded(tmp_path: Path, turned):
    image = Image.fromarray(cv2.imdecode(np.frombuffer(encoded(dead_leaves(2), 60), np.uint8), 0))
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    image.save(tmp_path / "a.jpg", quality=90, exif=exif)
    frame = read_image(tmp_path / "a.jpg")
    assert frame.luma.shape == ((512, 384) if turned else (384, 512))
    assert double_quantisation(frame.jpeg) > 1


def test_what_is_no_jpeg_or_too_small_has_no_value(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), dead_leaves(0, 80, 80, 100))
    assert read_image(tmp_path / "a.png").jpeg is None
    assert double_quantisation(coded_jpeg(encoded(dead_leaves(0, 40, 80, 100), 90))) == Null("too_small")
    assert luma_table(b"\xff\xd8\xff\xdb") is None
    assert coded_jpeg(encoded(dead_leaves(0, 80, 80, 100), 90)[:40]) is None
