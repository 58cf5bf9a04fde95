"""JSON documents that pass between stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmask.errors import ContractError
from unmask.schemas.files import write_atomically

# What a detector looks at or listens to.
DetectorModality = Literal["face", "audio"]
AGGREGATION = r"^(mean_logit|(top_k|attention):\d+(\.\d+)?)$"


class Document(BaseModel):
    """A JSON document with a schema: unknown fields are refused, values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")

    def save(self, path: Path) -> None:
        """Write the document atomically, indented, keys in the order of the schema."""
        with write_atomically(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a document.

        Raises:
            ContractError: The file is missing, is not JSON, or breaks the schema; names file and field.
        """
        if not path.is_file():
            raise ContractError(path, cls.__name__, "does not exist", "Run the stage that writes it first.")
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise ContractError(path, f"line {error.lineno}", f"is not JSON ({error.msg})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or cls.__name__
            raise ContractError(path, where, f"{first['msg']} ({error.error_count()} errors in all)") from error


class Estimate(Document):
    """A figure with its uncertainty.

    Attributes:
        value: The estimate; null when it is undefined (for example AUC with one class).
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of samples that it rests on.
        confidence: Coverage of the interval.
        method: How the interval was made.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    method: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined (n = {self.n})"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (n = {self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


class Balance(Document):
    """How many there are of each class.

    Attributes:
        ratio: Of the larger class to the smaller one, over all splits.
        level: mild below 2, moderate up to 5, severe above; balanced below 1.1.
        advice: What to do about it, in a sentence.
        class_balance: What ``train.class_balance`` should be; what its default, auto, comes to.
        by_source: Source to label name to number of ok samples.
        by_manipulation: Manipulation to number of ok fakes.
        by_split: Split to the ratio of the classes in it; null where one class is missing.
    """

    ratio: float
    level: Literal["balanced", "mild", "moderate", "severe"]
    advice: str
    class_balance: Literal["none", "weights", "sampler"]
    by_source: dict[str, dict[str, int]]
    by_manipulation: dict[str, int]
    by_split: dict[str, float | None]


class DatasetInfo(Document):
    """``dataset.json``: what `unmask ingest` found.

    Attributes:
        name: Names of the sources, joined.
        version: Content hash over sample ids, hashes of bytes, labels, groups and splits.
        counts: Split to label name (real, fake, unknown) to number of ok samples.
        failed: Reason code to number of failed samples.
        groups: Split to number of groups.
        metadata_audit_auc: AUC of a classifier that sees only file metadata, cross-validated by group.
        warnings: Sentences for the report.
        sources: Source name to where it lies.
        layouts: Source name to the layout that it was read by.
        metadata_audit_fields: Field to the AUC of a classifier that sees only this field.
        metadata_audit_by_source: Source to the AUC of the metadata audit within it.
        near_duplicates: Pairs of files that are alike though their bytes differ.
        near_duplicates_across_labels: Those of them with two labels.
        largest_groups: The largest groups with their number of files.
        balance: Of the classes.
    """

    name: str
    version: str
    counts: dict[str, dict[str, int]]
    failed: dict[str, int]
    groups: dict[str, int]
    metadata_audit_auc: Estimate
    warnings: list[str] = []
    sources: dict[str, str]
    layouts: dict[str, str] = {}
    metadata_audit_fields: dict[str, float] = {}
    metadata_audit_by_source: dict[str, Estimate] = {}
    near_duplicates: int = 0
    near_duplicates_across_labels: int = 0
    largest_groups: dict[str, int] = {}
    balance: Balance | None = None


class ReferenceDrift(Document):
    """How far the values of a feature are from those of a reference.

    Attributes:
        n_reference: Values of the reference.
        psi: Population stability index over the tenths of the reference.
        ks: Kolmogorov–Smirnov distance.
        p_value: Of that distance, corrected for the number of features (Holm).
    """

    n_reference: int
    psi: float
    ks: float
    p_value: float


class FeatureHealth(Document):
    """State of one feature over the training and calibration rows.

    Attributes:
        name: Feature name.
        n: Rows looked at.
        null_share: Share of rows without a value.
        mean: Mean of the values.
        std: Standard deviation of the values.
        low: Smallest value.
        high: Largest value.
        level: ok, warning or critical.
        problems: What is wrong, with cause and fix.
        null_reasons: Reason code to number of rows.
        drift: How far the values are from those of a reference; null without one.
    """

    name: str
    n: int
    null_share: float
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    level: Literal["ok", "warning", "critical"]
    problems: list[str] = []
    null_reasons: dict[str, int] = {}
    drift: ReferenceDrift | None = None


class ExtractionInfo(Document):
    """``extraction.json``: what `unmask extract` did.

    Attributes:
        extractor_version: Version of the extractor.
        dataset_version: Version of the data set.
        n_ok: Samples measured.
        n_failed: Samples that failed, here or in ingest.
        n_reused: Samples taken from the feature store.
        failed: Reason code to number of samples.
        n_crops: Face crops written.
        health: State of each feature.
        n_windows: Windows of sound written.
        without_sound: Reason code to number of samples of which there are none.
    """

    extractor_version: str
    dataset_version: str
    n_ok: int
    n_failed: int
    n_reused: int
    failed: dict[str, int]
    n_crops: int
    health: list[FeatureHealth]
    n_windows: int = 0
    without_sound: dict[str, int] = {}


class Preprocessing(Document):
    """How a crop becomes a detector's input; travels with the weights.

    The middle of the RGB crop, resized to ``size_px`` squared with area interpolation when shrinking and bilinear when
    enlarging, scaled to [0, 1], minus mean, divided by std, channels first.

    Attributes:
        size_px: Side of the square input.
        mean: Per channel, RGB.
        std: Per channel, RGB.
        crop: Share of the side that is kept, in the middle; 1 keeps all.
    """

    size_px: int = Field(ge=16, le=1024)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float = Field(default=1.0, gt=0, le=1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: ``(3, size_px, size_px)``."""
        return (3, self.size_px, self.size_px)

    @property
    def modality(self) -> DetectorModality:
        """What it is made of."""
        return "face"

    def __str__(self) -> str:
        return (
            f"{self.size_px} px"
            if self.crop == 1
            else f"{self.size_px} px of the middle {self.crop:.0%} of the face crop"
        )


class SoundPreprocessing(Document):
    """How a window of sound becomes a detector's input; travels with the weights.

    Mono 16-bit samples at ``sample_rate_hz``, repeated until there are ``n_samples`` and cut there, and brought to the
    level ``rms``, because how loud a recording is tells data sets apart and nothing about forgery.

    Attributes:
        n_samples: Length of the input.
        sample_rate_hz: Of the sound.
        rms: Root mean square of the input, of full scale.
    """

    n_samples: int = Field(ge=1000)
    sample_rate_hz: int = Field(default=16_000, ge=1000)
    rms: float = Field(default=0.05, gt=0, le=1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: ``(n_samples,)``."""
        return (self.n_samples,)

    @property
    def modality(self) -> DetectorModality:
        """What it is made of."""
        return "audio"

    def __str__(self) -> str:
        return f"{self.n_samples / self.sample_rate_hz:.1f} s at {self.sample_rate_hz / 1000:g} kHz"


AnyPreprocessing = Preprocessing | SoundPreprocessing


class TrainingCurvePoint(Document):
    """One epoch.

    Attributes:
        epoch: 1-based.
        train_loss: Mean training loss.
        val_loss: Mean loss over val frames; null without val rows of both classes.
        val_auc: Video-level AUC on val.
        learning_rate: At the end of the epoch.
        seconds: Wall time.
    """

    epoch: int
    train_loss: float
    val_loss: float | None
    val_auc: float | None
    learning_rate: float
    seconds: float

    def figures(self) -> dict[str, float]:
        """Name the figures as logs of trainings do; undefined ones are left out."""
        figures = {
            "train/loss": self.train_loss,
            "val/loss": self.val_loss,
            "val/auc": self.val_auc,
            "train/learning_rate": self.learning_rate,
            "train/epoch_seconds": self.seconds,
        }
        return {name: value for name, value in figures.items() if value is not None}


class TuningTrial(Document):
    """One training of a search.

    Attributes:
        number: From 0; 0 has the settings as they were.
        settings: What was tried.
        value: Best figure of `checkpoint_metric` on val; null when it was given up.
        epochs: That were trained.
        state: ``complete``, ``pruned`` (behind the others) or ``failed``.
        reason: Of a failure.
    """

    number: int
    settings: dict[str, Any]
    value: float | None
    epochs: int
    state: str
    reason: str = ""


class TuningInfo(Document):
    """A search for training settings; everything in it was chosen on val, and is optimistic therefore.

    Attributes:
        detector: Its name.
        metric: The figure on val videos that was made large.
        trials: All of them, in order.
        best: Number of the best one.
        dataset_version: Of the data set.
        seed: Of the search; every training has the same.
    """

    detector: str
    metric: str
    trials: list[TuningTrial]
    best: int
    dataset_version: str
    seed: int


class DetectorInfo(Document):
    """``detector.json``: everything but the weights.

    Attributes:
        name: Name given to this detector, for example ``meso4`` or ``timm:resnet10t``.
        architecture: Name in the registry.
        n_parameters: Trainable parameters.
        preprocessing: Travels to scoring, ONNX and serving.
        aggregation: How frame logits become a video logit: ``mean_logit``, ``top_k:<share>`` or
            ``attention:<sharpness>``, chosen on val; see `unmask.metrics.pooling`.
        config: The resolved training configuration.
        curve: One point an epoch.
        best_epoch: Chosen on val.
        val_auc: Video-level AUC on val at that epoch; optimistic, because it was chosen on it.
        dataset_version: Version of the data set.
        extractor_version: Version of the extractor of the crops.
        weights_sha256: Hash of ``weights.safetensors``.
        versions: Package name to version.
        device: Where it was trained.
        train_seconds: Wall time of training.
        val_confusion: ``((TN, FP), (FN, TP))`` of val videos at a probability of one half, before calibration.
        resources: ``crops_per_s`` in training, ``peak_memory_mb`` of the process, ``gpu_peak_memory_mb`` if on a GPU.
        tracking_run: Id of the run that the training was logged to while it ran; null without a tracking server.
    """

    name: str
    architecture: str
    n_parameters: int
    preprocessing: AnyPreprocessing
    aggregation: str = Field(pattern=AGGREGATION)
    config: dict[str, Any]
    curve: list[TrainingCurvePoint]
    best_epoch: int
    val_auc: Estimate
    dataset_version: str
    extractor_version: str
    weights_sha256: str
    versions: dict[str, str]
    device: str
    train_seconds: float
    val_confusion: tuple[tuple[int, int], tuple[int, int]] | None = None
    resources: dict[str, float] = {}
    tracking_run: str | None = None


class OperatingPoint(Document):
    """A threshold with a name, chosen on calib.

    Attributes:
        name: max_f1, youden, target_fpr or fixed_precision.
        threshold: Fake if the calibrated probability is at least this.
        fpr: On calib, with Clopper-Pearson interval.
        tpr: On calib, with Clopper-Pearson interval.
        resolvable: Whether the number of calib reals suffices to claim the target.
        note: What a reader must know.
    """

    name: str
    threshold: float = Field(ge=0, le=1)
    fpr: Estimate
    tpr: Estimate
    resolvable: bool
    note: str = ""


class DetectorCalibration(Document):
    """How the logit of a detector becomes a calibrated logit.

    Attributes:
        kind: temperature: slope · logit; platt: slope · logit + offset; isotonic: along the knots.
        slope: Positive.
        offset: Zero unless the kind is platt.
        knots: Isotonic only: pairs of logit and calibrated logit, both rising; beyond the ends the last slope holds.
    """

    kind: Literal["temperature", "platt", "isotonic"]
    slope: float = Field(default=1.0, gt=0)
    offset: float = 0.0
    knots: list[tuple[float, float]] = []


class EnsembleInfo(Document):
    """``ensemble.json``: how detector logits become one calibrated probability.

    Attributes:
        detectors: Names, in the order of the following lists.
        temperatures: Per detector, fitted on calib; the calibrated logit is logit / temperature.
        weights: On the simplex; the combined logit is the weighted mean of calibrated logits.
        temperature: Of the combined logit.
        method: How the weights were found: bayesian (searched), equal, single; or confidence (surer detectors count
            more), attention (weights depend on certainty and on being alone in a view) or stacking.
        decision: Why these weights: the gain over equal weights, best single and logistic fit.
        candidates: Method name to cross-validated AUC on calib.
        agreement_threshold: With less agreement (see `unmask.ensemble.apply.agreement`) the verdict is uncertain.
        calibrations: Per detector, in place of ``temperatures``; empty when all are temperatures.
        certainty: How fast the weight of a detector grows with its certainty in a sample; 0 is not at all.
        deviation: How fast it falls with the distance to the other detectors; 0 is not at all.
        stacking: Coefficients of the calibrated logits, then the intercept, in place of ``weights``; empty when the
            combined logit is a weighted mean.
        gains: Method name to its cross-validated gain in AUC over equal weights on calib, paired.
        dataset_version: Version of the data set; empty when unknown.
    """

    detectors: list[str]
    temperatures: list[float]
    weights: list[float]
    temperature: float = Field(gt=0)
    method: Literal["bayesian", "equal", "single", "confidence", "attention", "stacking"]
    decision: str
    candidates: dict[str, Estimate]
    agreement_threshold: float
    calibrations: list[DetectorCalibration] = []
    certainty: float = 0.0
    deviation: float = 0.0
    stacking: list[float] = []
    gains: dict[str, Estimate] = {}
    dataset_version: str = ""


class RealEvidence(Document):
    """Rule: many strong signs of a camera cap the probability of being fake.

    Attributes:
        bounds: Feature to the value beyond which it is a strong sign; at most one in twenty calib fakes lies there.
        higher: Feature to whether large values are the sign.
        count: Signs needed.
        cap: The probability is at most this when they are there.
        reals: Share of calib reals with so many signs.
        fakes: Share of calib fakes with so many signs.
    """

    bounds: dict[str, float]
    higher: dict[str, bool]
    count: int = Field(ge=1)
    cap: float = Field(ge=0, le=1)
    reals: Estimate
    fakes: Estimate


class ArtefactScale(Document):
    """Rule: traces in single frames (``art.*``) count less when the motion looks natural.

    Attributes:
        quiet: Flow oddity up to which they count least: the median of calib reals.
        odd: Flow oddity from which they count fully: the 95th percentile of calib reals.
        least: Factor of their contributions at ``quiet``.
    """

    quiet: float
    odd: float
    least: float = Field(ge=0, le=1)


class FusionRules(Document):
    """Rules on top of fusion; none by default.

    Attributes:
        real_evidence: Cap by strong camera evidence.
        artefact_scale: Down-weighting of frame traces.
        feedback: Input to factor of its contribution, from users' feedback, in [0.3, 2.2].
    """

    real_evidence: RealEvidence | None = None
    artefact_scale: ArtefactScale | None = None
    feedback: dict[str, float] = {}


class FusionInfo(Document):
    """``fusion.json``: logistic fusion of ensemble logit and features, as plain coefficients.

    Probability = sigmoid(scale · (intercept + Σ coefficient · standardised input) + offset); a missing input is
    replaced by ``impute`` and flagged by its indicator.

    Attributes:
        inputs: Input names: ``ensemble`` and feature names, then ``missing:<feature>`` indicators.
        impute: Value for a missing input.
        center: Subtracted from each input.
        scale: Divides each input.
        coefficients: Of the standardised inputs.
        intercept: Of the linear predictor.
        calibration_slope: Of the final sigmoid calibration.
        calibration_offset: Of the final sigmoid calibration.
        operating_points: Name to threshold, chosen on out-of-fold calib probabilities.
        default_operating_point: The one that verdicts use.
        importance: Input to share of the absolute standardised coefficients.
        used: Whether fusion is used; false when calib is too small and the ensemble probability is passed through.
        decision: Why.
        rules: Applied after the formula above.
        method: How the probability is made. ``fusion``: ensemble and features by the fitted coefficients;
            ``recalibrated``: the ensemble with slope and offset fitted anew; ``ensemble``: the ensemble as it is;
            ``fallback``: no fusion could be fitted, so ensemble and features are averaged by written weights.
        averaged: The sum over the standardised inputs is divided by the sum of the sizes of the coefficients of those
            inputs that were measured, so that the others' weights grow where one is missing (``fallback``).
    """

    inputs: list[str]
    impute: list[float]
    center: list[float]
    scale: list[float]
    coefficients: list[float]
    intercept: float
    calibration_slope: float
    calibration_offset: float
    operating_points: dict[str, OperatingPoint]
    default_operating_point: str
    importance: dict[str, float]
    used: bool
    decision: str
    rules: FusionRules = FusionRules()
    method: Literal["fusion", "recalibrated", "ensemble", "fallback"] = "fusion"
    averaged: bool = False


class InputWeight(Document):
    """How much one input of fusion counts.

    Attributes:
        input: Its name.
        coefficient: Change of the logit of P(fake) for one standard deviation more of it; positive is towards fake.
        share: Of the absolute coefficients of all inputs.
        clear: Whether the interval of the coefficient leaves no doubt about its sign.
    """

    input: str
    coefficient: Estimate
    share: Estimate
    clear: bool


class Ablation(Document):
    """Fusion fitted without some of its inputs.

    Attributes:
        name: full, without_quality, without_detectors or without_features.
        removed: Inputs that were taken away.
        auc: Out-of-fold on calib.
        change: AUC of this minus AUC of the full fusion, on the same rows; null for the full one.
        model: To score other rows with, through `unmask.fusion.apply.apply_fusion`; it has no operating points.
    """

    name: str
    removed: list[str]
    auc: Estimate
    change: Estimate | None
    model: FusionInfo


class FusionAnalysis(Document):
    """``analysis.json``: what carries the fusion of ensemble and features, whether or not it is used.

    Attributes:
        weights: One an input, the largest first.
        ablations: The full fusion first.
    """

    weights: list[InputWeight]
    ablations: list[Ablation]


class EvaluationInfo(Document):
    """``metrics.json``: what `unmask evaluate` measured on test.

    Attributes:
        dataset_version: Version of the data set.
        headline: System whose figures lead (fusion).
        video: System to metric to figure, one score a sample.
        frame: Detector to metric to figure, one score a frame.
        slices: ``manipulation=…`` (against all reals), ``source=…`` or ``compression=…`` to metric to figure, of the
            headline system.
        confusion: ``[[TN, FP], [FN, TP]]`` of the headline at the default operating point.
        operating_point: The default operating point as measured on test.
        n_scored: Test samples with a score.
        n_unscored: Reason to test samples without one.
        warnings: Sentences for the reader.
        parts: System to part (as in ``slices``) to metric to figure, of every system.
        unresolved: Metric to why the number of reals cannot support it; absent when it can.
        unscored_policy: What became of samples without a score.
        unscored: System to labelled test samples that it did not score.
        if_unscored_were_wrong: System to ``accuracy``, ``tpr`` and ``fpr`` if each of those were a mistake.
    """

    dataset_version: str
    headline: str
    video: dict[str, dict[str, Estimate]]
    frame: dict[str, dict[str, Estimate]]
    slices: dict[str, dict[str, Estimate]]
    confusion: tuple[tuple[int, int], tuple[int, int]]
    operating_point: OperatingPoint
    n_scored: int
    n_unscored: dict[str, int]
    warnings: list[str] = []
    parts: dict[str, dict[str, dict[str, Estimate]]] = {}
    unresolved: dict[str, str] = {}
    unscored_policy: str = ""
    unscored: dict[str, int] = {}
    if_unscored_were_wrong: dict[str, dict[str, Estimate]] = {}


class CrossCell(Document):
    """One training tested on one part of test.

    Attributes:
        detector: Its name.
        trained_on: ``all``, ``source=…``, ``not source=…`` or ``not manipulation=…``.
        tested_on: ``source=…``, or ``manipulation=…``: its fakes against all reals of test.
        unseen: Whether nothing of what is tested on took part in training and calibration.
        n_reals: Reals tested on.
        n_fakes: Fakes tested on.
        n_groups: Independent groups tested on.
        figures: ``roc_auc``; of sources also ``brier``, ``ece``, ``ece_if_calibrated``, ``calibration_slope`` and
            ``calibration_intercept``.
        change: ROC AUC minus that of the training on all, on the same samples; null for that training itself.
        p_value: DeLong's test by group that both are equal, corrected (Holm) over the unseen cells of this detector;
            null where it is not one of them, or has too few groups.
    """

    detector: str
    trained_on: str
    tested_on: str
    unseen: bool
    n_reals: int
    n_fakes: int
    n_groups: int
    figures: dict[str, Estimate]
    change: Estimate | None = None
    p_value: float | None = None


class CrossDatasetInfo(Document):
    """``cross.json``: what `unmask cross-dataset` found.

    Attributes:
        dataset_version: Version of the data set.
        detectors: Names.
        trainings: What was trained on, in order; the rows of the matrices.
        sources: What was tested on, one kind of columns.
        manipulations: The other kind.
        cells: One a detector, training and part of test.
        skipped: ``detector, training`` to why it could not be trained.
        unmeasured: Part of test to why it has no AUC.
        summary: Sentences, the most important first.
    """

    dataset_version: str
    detectors: list[str]
    trainings: list[str]
    sources: list[str]
    manipulations: list[str]
    cells: list[CrossCell]
    skipped: dict[str, str] = {}
    unmeasured: dict[str, str] = {}
    summary: list[str] = []


class Manifest(Document):
    """``manifest.json`` of a bundle: what serving needs, with the hash of each file.

    Attributes:
        format_version: Of the bundle.
        unmask_version: That wrote it.
        detectors: Names, in the order of the ensemble.
        onnx: Detector name to file name.
        preprocessing: Detector name to preprocessing.
        parity: Detector name to the largest difference of probability between torch and ONNX.
        files: File name to SHA-256.
        dataset_version: Version of the training data.
        extractor_version: Version of the extractor that serving must match.
    """

    format_version: Literal[1] = 1
    unmask_version: str
    detectors: list[str]
    onnx: dict[str, str]
    preprocessing: dict[str, AnyPreprocessing]
    parity: dict[str, float]
    files: dict[str, str]
    dataset_version: str
    extractor_version: str


class Criterion(Document):
    """One line of a promotion decision.

    Attributes:
        name: What was looked at.
        value: What was found, with its interval where there is one.
        bound: What it must be.
        passed: Whether it does not stand in the way.
        verdict: passed; failed; undecided, when there are too few samples to tell; missing, when the evidence is not
            there; or not applicable.
        needed_for: The alias that this line decides about: ``trial`` or ``champion``.
        sentence: What it means, in plain words.
    """

    name: str
    value: str
    bound: str
    passed: bool
    verdict: Literal["passed", "failed", "undecided", "missing", "not applicable"] = "passed"
    needed_for: Literal["trial", "champion"] = "trial"
    sentence: str = ""


class PromotionDecision(Document):
    """``decision.json``: what `unmask promote` did and why.

    Attributes:
        model: Registered model name.
        version: Registered version.
        alias: Alias that the version has got: that of the champion, that of a version on trial, or none.
        run_id: Tracking run.
        tracking_uri: Where.
        criteria: What was checked.
        promoted: Whether the version got an alias.
        summary: One sentence.
        champion: Version that carried the champion's alias when this was decided; null without one.
        mode: ``automatic`` or ``wait``.
        ready: Whether every criterion passed, so that the version may become champion.
        decided_at: UTC, ISO 8601.
    """

    model: str
    version: str
    alias: str | None
    run_id: str
    tracking_uri: str
    criteria: list[Criterion]
    promoted: bool
    summary: str
    champion: str | None = None
    mode: Literal["automatic", "wait"] = "wait"
    ready: bool = False
    decided_at: str = ""


class FeatureDrift(Document):
    """How one feature of new samples differs from the samples that a registered version has seen.

    Attributes:
        name: Feature name, or ``score``.
        label: real or fake; the classes are compared apart, so that another mix of classes is no drift.
        n_known: Independent groups known before.
        n_new: Independent new groups.
        psi: Population stability index over the deciles of the known.
        ks: Kolmogorov-Smirnov statistic.
        p: Its p-value, Holm-corrected over all features and classes that were compared.
        drifted: Whether both bounds are passed.
    """

    name: str
    label: Literal["real", "fake"]
    n_known: int
    n_new: int
    psi: float
    ks: float
    p: float
    drifted: bool


class RetrainingDecision(Document):
    """``retraining.json``: whether the scheduled pipeline trains, and why.

    Attributes:
        retrain: Whether it does.
        reason: One sentence.
        model: Registered model name.
        reference_version: Version that the data are compared with; null if none is registered.
        reference_alias: champion or challenger.
        age_days: Since it was registered.
        dataset_version: Of the data at hand.
        n_known: Labelled samples that the reference has seen; null when it does not say.
        n_new: Labelled samples that it has not seen; null when it does not say.
        drift: Every comparison that was made, worst first.
        notes: What could not be judged, and why.
    """

    retrain: bool
    reason: str
    model: str
    reference_version: str | None
    reference_alias: str | None
    age_days: float | None
    dataset_version: str
    n_known: int | None
    n_new: int | None
    drift: list[FeatureDrift] = []
    notes: list[str] = []
