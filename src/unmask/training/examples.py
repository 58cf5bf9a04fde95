"""A sheet of val crops, or of spectra of val sounds, with what the detector says of them: wrong ones first."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask.media.crops import encode_crop
from unmask.media.preprocessing import decode_item, resize_crop
from unmask.media.sound import spectrogram
from unmask.schemas import SoundPreprocessing, rows_for_choice
from unmask.training.loader import CropLoader

Image = NDArray[np.uint8]
CELL_PX, CAPTION_PX, COLUMNS = 144, 22, 6
CONFUSION_ROW_PX = 48
QUALITY = 88
INK, PAPER = (30, 30, 30), 250
WRONG_INK = (176, 32, 32)


@dataclass(frozen=True)
class Row:
    """One row of the sheet.

    Attributes:
        label: 0 real, 1 fake.
        wrong: The crops that are called wrongly with most certainty, or those called rightly.
    """

    label: int
    wrong: bool


ROWS = (Row(1, True), Row(0, True), Row(1, False), Row(0, False))


def example_sheet(loader: CropLoader, scores: pd.DataFrame) -> bytes:
    """Draw crops of val with the truth and P(fake) below each: fakes and reals called wrongly, then rightly.

    A video gives one crop to a row at most. Rows without such crops are left out.

    Args:
        loader: Holds the val crops.
        scores: Rows of FRAME_SCORES of val ``(N,)``.

    Returns:
        A JPEG file.

    Raises:
        LeakError: A row is not of val.
    """
    rows_for_choice(scores, {"val"}, "the sheet of examples")
    keys = ["sample_id", "face_index", "frame_index"]
    places = loader.index.frame[keys].assign(place=np.arange(len(loader.index.frame)))
    crops = scores.merge(places, on=keys).assign(
        probability=lambda frame: 1 / (1 + np.exp(-frame["logit"].clip(-40, 40)))
    )
    drawn = [_row(loader, picked, row.wrong) for row in ROWS if len(picked := _pick(crops, row))]
    sheet = np.concatenate(drawn) if drawn else np.full((CAPTION_PX, CELL_PX, 3), PAPER, np.uint8)
    return encode_crop(sheet, QUALITY)


def confusion_sheet(confusion: tuple[tuple[int, int], tuple[int, int]]) -> bytes:
    """Draw a confusion matrix: rows are the truth, columns what the detector says.

    Args:
        confusion: ``((TN, FP), (FN, TP))``.

    Returns:
        A JPEG file.
    """
    sheet = np.full((3 * CONFUSION_ROW_PX, 3 * CELL_PX, 3), PAPER, np.uint8)
    for column, text in enumerate(("val videos", "called real", "called fake")):
        _write(sheet, text, (column * CELL_PX, 0), INK)
    for row, (truth, counts) in enumerate(zip(("real", "fake"), confusion, strict=True), start=1):
        _write(sheet, truth, (0, row * CONFUSION_ROW_PX), INK)
        for column, count in enumerate(counts, start=1):
            ink = INK if row == column else WRONG_INK
            _write(sheet, str(count), (column * CELL_PX, row * CONFUSION_ROW_PX), ink)
    return encode_crop(sheet, QUALITY)


def _write(sheet: Image, text: str, corner_px: tuple[int, int], ink: tuple[int, int, int]) -> None:
    place = (corner_px[0] + 12, corner_px[1] + CONFUSION_ROW_PX // 2 + 6)
    cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, ink, 1, cv2.LINE_AA)


def _pick(crops: pd.DataFrame, row: Row) -> pd.DataFrame:
    """Choose the crops of a row: the most certain ones, one a video."""
    called = crops["probability"] >= 0.5
    fitting = crops[(crops["label"] == row.label) & ((called == (crops["label"] == 1)) != row.wrong)]
    certainty = (fitting["probability"] - 0.5).abs()
    return (
        fitting.assign(certainty=certainty)
        .sort_values("certainty", ascending=False)
        .drop_duplicates("sample_id")[:COLUMNS]
    )


def _row(loader: CropLoader, picked: pd.DataFrame, wrong: bool) -> Image:
    cells = [_cell(loader, place, label, p, wrong) for place, label, p in _facts(picked)]
    empty = np.full((CELL_PX + CAPTION_PX, CELL_PX, 3), PAPER, np.uint8)
    return np.concatenate([*cells, *[empty] * (COLUMNS - len(cells))], axis=1)


def _facts(picked: pd.DataFrame) -> list[tuple[int, int, float]]:
    return list(zip(picked["place"].tolist(), picked["label"].tolist(), picked["probability"].tolist(), strict=True))


def _picture(loader: CropLoader, place: int) -> Image:
    item = decode_item(loader.encoded(place), loader.preprocessing)
    return spectrogram(item) if isinstance(loader.preprocessing, SoundPreprocessing) else item


def _cell(loader: CropLoader, place: int, label: int, probability: float, wrong: bool) -> Image:
    cell = np.full((CELL_PX + CAPTION_PX, CELL_PX, 3), PAPER, np.uint8)
    cell[:CELL_PX] = resize_crop(_picture(loader, place), CELL_PX)
    text = f"{'fake' if label else 'real'}, P(fake) {probability:.2f}"
    ink = WRONG_INK if wrong else INK
    cv2.putText(cell, text, (4, CELL_PX + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)
    return cell
