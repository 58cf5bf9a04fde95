"""`unmask cross-dataset`: train on some sources or manipulations, test on those that were never seen.

Within one data set a detector can score by what all of its files share. What is left on other files is what users
get, so every detector is trained once on all, once on each source alone (with more than two, also on all but each),
and once on all but each manipulation; and all of these trainings are tested on the same test samples.

Each training chooses its checkpoint on val and its temperature on calib, in both cases from what it may see only. The
test split is only reported on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import metrics
from unmask.config import TrainConfig
from unmask.ensemble.apply import sigmoid, video_logits
from unmask.ensemble.calibrate import fit_temperature
from unmask.errors import InputError
from unmask.evaluation.cross_table import cross_html, cross_markdown, cross_rows, cross_text
from unmask.evaluation.figures import ECE_BINS, bootstrap
from unmask.evaluation.inputs import groups_of
from unmask.objects import ObjectStore
from unmask.progress import track
from unmask.schemas import (
    CROSS_DATASET,
    FRAME_SCORES,
    SAMPLES,
    CrossCell,
    CrossDatasetInfo,
    DatasetInfo,
    DetectorInfo,
    Estimate,
    StageOutcome,
    new_directory,
    read_table,
    rows_for_choice,
    write_table,
)
from unmask.training.selection import teachers
from unmask.training.train_stage import run_train

logger = logging.getLogger(__name__)
ALL = "all"
DOCUMENT_FILE = "cross.json"
TABLE_FILE = "cross.parquet"
HTML_FILE = "cross.html"
SUMMARY_FILE = "cross.md"


@dataclass(frozen=True)
class Training:
    """What one training may see.

    Attributes:
        name: As in the table.
        sources: Samples of these only; empty means all.
        excluded: No fakes of these manipulations.
    """

    name: str
    sources: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def settings(self, config: TrainConfig) -> TrainConfig:
        """Restrict a training to what it may see."""
        return config.model_copy(update={"train_sources": self.sources, "exclude_manipulations": self.excluded})

    def may_see(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which rows with ``source`` and ``manipulation`` it may see."""
        return teachers(rows, self.sources, self.excluded)


@dataclass(frozen=True)
class Part:
    """A part of the test split that trainings are tested on.

    Attributes:
        name: ``source=…`` or ``manipulation=…``.
        column: ``source`` or ``manipulation``.
        value: Its value in that column.
    """

    name: str
    column: str
    value: str

    def rows(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Take the rows of this part; a manipulation has no reals of its own and meets all reals."""
        own = scored[self.column] == self.value
        return scored.loc[own | (scored["label"] == 0) if self.column == "manipulation" else own]

    def concerns(self, training: Training) -> bool:
        """Whether a training is to be tested on it: sources with sources, manipulations with manipulations."""
        return training.name == ALL or f"{self.column}=" in training.name

    def unseen_by(self, training: Training) -> bool:
        """Whether nothing of it took part in a training."""
        if self.column == "manipulation":
            return self.value in training.excluded
        return bool(training.sources) and self.value not in training.sources


def run_cross_dataset(
    dataset: Path,
    faces: Path,
    features: Path,
    detectors: Sequence[str],
    out: Path,
    config: TrainConfig,
    *,
    by: Sequence[str],
    resamples: int,
    seed: int,
    store: ObjectStore | None = None,
) -> StageOutcome:
    """Train on parts of a data set and test on the others.

    Args:
        dataset: Folder of `unmask ingest`.
        faces: Folder of face crops of `unmask extract`.
        features: Folder of features of `unmask extract`.
        detectors: Names, as `unmask train` takes them.
        out: Gets ``cross.json``, ``cross.parquet``, ``cross.html`` and ``cross.md``.
        config: Settings of every training.
        by: ``source``, ``manipulation``, or both.
        resamples: Of the bootstrap by group.
        seed: Of the trainings and the resamples.
        store: Keeps checkpoints: a training that was made before, also by `unmask train`, is not made again.

    Returns:
        The figures, and the matrices as text.

    Raises:
        InputError: The data have fewer than two sources with both classes and fewer than two manipulations.
        ContractError: A file of an earlier stage is missing or broken.
    """
    info = DatasetInfo.load(dataset / "dataset.json")
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    samples = samples.loc[samples["split"].notna() & samples["label"].notna()]
    trainings, parts = plan(samples, by)
    scored: dict[tuple[str, str], pd.DataFrame] = {}
    skipped: dict[str, str] = {}
    work = [(detector, training) for detector in detectors for training in trainings]
    for detector, training in track(work, len(work), "cross-dataset", "training"):
        try:
            scored[detector, training.name] = train_and_score(
                detector, training, (dataset, faces, features), samples, config, seed, store
            )
        except InputError as error:
            logger.warning("%s on %s is left out: %s", detector, training.name, error.problem)
            skipped[f"{detector}, {training.name}"] = error.problem
    cells = [
        cell
        for detector in detectors
        for cell in measure_cells(detector, trainings, parts, scored, resamples=resamples, seed=seed)
    ]
    found = CrossDatasetInfo(
        dataset_version=info.version,
        detectors=list(detectors),
        trainings=[training.name for training in trainings],
        sources=[part.name for part in parts if part.column == "source"],
        manipulations=[part.name for part in parts if part.column == "manipulation"],
        cells=cells,
        skipped=skipped,
        unmeasured=_unmeasured(cells),
        summary=_summary(cells),
    )
    with new_directory(out) as folder:
        found.save(folder / DOCUMENT_FILE)
        write_table(folder / TABLE_FILE, cross_rows(found), CROSS_DATASET)
        (folder / HTML_FILE).write_text(cross_html(found), encoding="utf-8")
        (folder / SUMMARY_FILE).write_text(cross_markdown(found), encoding="utf-8")
    return StageOutcome(metrics=_numbers(cells), messages=(*found.summary, cross_text(found)))


def plan(samples: pd.DataFrame, by: Sequence[str]) -> tuple[list[Training], list[Part]]:
    """Decide what to train on and what to test on.

    Args:
        samples: Labelled rows of SAMPLES with a split.
        by: ``source``, ``manipulation``, or both.

    Returns:
        Trainings, the one on all first, and parts of test.

    Raises:
        InputError: Nothing can be left out.
    """
    trainings, parts = [Training(ALL)], []
    sources = sorted(set(samples["source"]))
    if "source" in by and len(sources) > 1:
        teaching = samples.loc[samples["split"] == "train"]
        both = [name for name in sources if teaching.loc[teaching["source"] == name, "label"].nunique() == 2]
        trainings += [Training(f"source={name}", (name,)) for name in both]
        if len(sources) > 2:
            trainings += [
                Training(f"not source={name}", tuple(other for other in sources if other != name)) for name in sources
            ]
        parts += [Part(f"source={name}", "source", name) for name in sources]
    kinds = sorted(set(samples.loc[samples["label"] == 1, "manipulation"].dropna()))
    if "manipulation" in by and len(kinds) > 1:
        trainings += [Training(f"not manipulation={name}", excluded=(name,)) for name in kinds]
        parts += [Part(f"manipulation={name}", "manipulation", name) for name in kinds]
    if not parts:
        raise InputError(
            f"The data have {len(sources)} sources and {len(kinds)} named manipulations: nothing can be left out.",
            "Ingest two sources or more, or fakes with the name of their manipulation as a folder.",
        )
    return trainings, parts


def train_and_score(
    detector: str,
    training: Training,
    folders: tuple[Path, Path, Path],
    samples: pd.DataFrame,
    config: TrainConfig,
    seed: int,
    store: ObjectStore | None,
) -> pd.DataFrame:
    """Train a detector on what it may see, calibrate it on the same, and score the test split.

    Args:
        detector: Its name.
        training: What it may see.
        folders: Of the data set, the faces and the features.
        samples: Labelled rows of SAMPLES with a split.
        config: Settings, without restrictions.
        seed: Of the training.
        store: Keeps checkpoints.

    Returns:
        One row a test sample, sorted: ``sample_id``, ``label``, ``group_id``, ``source``, ``manipulation``,
        ``probability``.

    Raises:
        InputError: It has too little to learn from.
    """
    dataset, faces, features = folders
    with TemporaryDirectory() as temporary:
        trained = Path(temporary) / "trained"
        run_train(detector, dataset, faces, features, trained, training.settings(config), seed, store)
        frames = read_table(trained / "scores.parquet", FRAME_SCORES).to_pandas()
        aggregation = DetectorInfo.load(trained / "detector.json").aggregation
    scored = video_logits(frames.dropna(subset=["label"]), aggregation)
    scored = scored.merge(samples[["sample_id", "source", "manipulation"]], on="sample_id")
    seen = scored.loc[(scored["split"] == "calib") & training.may_see(scored)]
    calib = rows_for_choice(seen, {"calib"}, "calibration of a cross-dataset training")
    temperature = fit_temperature(calib["label"].astype(int), calib["logit"]).value
    test = scored.loc[scored["split"] == "test"].sort_values("sample_id", ignore_index=True)
    return test.assign(probability=sigmoid(test["logit"] / temperature))


def measure_cells(
    detector: str,
    trainings: Sequence[Training],
    parts: Sequence[Part],
    scored: dict[tuple[str, str], pd.DataFrame],
    *,
    resamples: int,
    seed: int,
) -> list[CrossCell]:
    """Measure every training of a detector on every part of test.

    Args:
        detector: Its name.
        trainings: In the order of the table.
        parts: In the order of the table.
        scored: Detector and training to what `train_and_score` gave; what could not be trained is absent.
        resamples: Of the bootstrap by group.
        seed: Of the resamples; every cell of a part meets the same.

    Returns:
        The cells.
    """
    reference = scored.get((detector, ALL))
    cells = []
    for training in trainings:
        rows = scored.get((detector, training.name))
        if rows is None:
            continue
        for part in (part for part in parts if part.concerns(training)):
            against = None if training.name == ALL or reference is None else part.rows(reference)
            cells.append(_cell(detector, training, part, part.rows(rows), against, resamples, seed))
    tested = [place for place, cell in enumerate(cells) if cell.p_value is not None]
    corrected = metrics.holm([cells[place].p_value or 0.0 for place in tested])
    for place, p_value in zip(tested, corrected, strict=True):
        cells[place] = cells[place].model_copy(update={"p_value": p_value})
    return cells


def _cell(
    detector: str,
    training: Training,
    part: Part,
    rows: pd.DataFrame,
    against: pd.DataFrame | None,
    resamples: int,
    seed: int,
) -> CrossCell:
    labels, groups = rows["label"].to_numpy(np.int64), groups_of(rows)
    probabilities = rows["probability"].to_numpy(np.float64)
    chosen: dict[str, metrics.Metric] = {"roc_auc": metrics.roc_auc}
    if part.column == "source":  # a manipulation against all reals has no natural share of fakes
        chosen |= {
            "brier": metrics.brier,
            "ece": partial(metrics.expected_calibration_error, bins=ECE_BINS),
            "calibration_slope": metrics.calibration_slope,
            "calibration_intercept": metrics.calibration_intercept,
        }
    figures = bootstrap(chosen, labels, probabilities, groups, np.random.default_rng([seed, 6]), resamples)
    if part.column == "source":
        rng = np.random.default_rng([seed, 7])
        figures["ece_if_calibrated"] = metrics.calibration_error_if_perfect(probabilities, rng=rng, bins=ECE_BINS)
    unseen = part.unseen_by(training)
    change, p_value = None, None
    if against is not None:
        before = against["probability"].to_numpy(np.float64)
        change = metrics.paired_difference(
            metrics.roc_auc,
            labels,
            before,
            probabilities,
            groups,
            rng=np.random.default_rng([seed, 6]),
            resamples=resamples,
        )
        p_value = _p_value(labels, before, probabilities, groups) if unseen else None
    return CrossCell(
        detector=detector,
        trained_on=training.name,
        tested_on=part.name,
        unseen=unseen,
        n_reals=int((labels == 0).sum()),
        n_fakes=int((labels == 1).sum()),
        n_groups=len(set(groups)),
        figures=figures,
        change=change,
        p_value=p_value,
    )


def _p_value(
    labels: NDArray[np.int64], before: NDArray[np.float64], after: NDArray[np.float64], groups: NDArray[np.object_]
) -> float | None:
    try:
        return metrics.delong(labels, before, after, groups).p_value
    except ValueError:  # too few groups of a class
        return None


def _unmeasured(cells: Sequence[CrossCell]) -> dict[str, str]:
    """Say why a part of test has no AUC."""
    out: dict[str, str] = {}
    for cell in cells:
        if cell.figures["roc_auc"].value is None:
            out[cell.tested_on] = f"test holds {cell.n_reals} reals and {cell.n_fakes} fakes of it with a score"
    return out


def _summary(cells: Sequence[CrossCell]) -> list[str]:
    """Say how much is lost on what was not seen, detector by detector."""
    sentences = []
    for detector in dict.fromkeys(cell.detector for cell in cells):
        unseen = [cell for cell in cells if cell.detector == detector and cell.unseen and _known(cell.change)]
        if not unseen:
            continue
        mean = float(np.mean([cell.change.value for cell in unseen if cell.change and cell.change.value is not None]))
        lost = [cell for cell in unseen if cell.change and cell.change.high is not None and cell.change.high < 0]
        sure = [cell for cell in lost if cell.p_value is not None and cell.p_value < 0.05]
        sentences.append(
            f"{detector}: on what a training had not seen, the ROC AUC is on average {mean:+.3f} away from that of the "
            f"training on all ({len(unseen)} comparisons; in {len(lost)} the interval lies below 0, "
            f"{len(sure)} hold after Holm's correction)."
        )
        worst = min(unseen, key=lambda cell: _value(cell.figures["roc_auc"]))
        sentences.append(
            f"{detector}: weakest on {worst.tested_on} when trained on {worst.trained_on}: "
            f"ROC AUC {worst.figures['roc_auc']}."
        )
    return sentences or ["No part of test that a training had not seen could be measured."]


def _known(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.value is not None


def _value(estimate: Estimate) -> float:
    return 1.0 if estimate.value is None else estimate.value


def _numbers(cells: Sequence[CrossCell]) -> dict[str, float]:
    """Name the AUC of each cell for tracking."""
    out = {}
    for cell in cells:
        value = cell.figures["roc_auc"].value
        if value is not None:
            name = f"{cell.detector}/{cell.trained_on}/{cell.tested_on}/roc_auc".replace("=", "-").replace(" ", "_")
            out[name] = value
    return out
