"""Every setting of every stage, with its type, range and default.

The field descriptions are the documentation: `unmask config init` writes them as comments, and pipeline parameters
take their defaults from here.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A group of settings: unknown names are refused, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StorageConfig(Section):
    """Object store behind `s3://` addresses; credentials come from the environment, never from here."""

    endpoint: str = Field(
        default="", description="e.g. https://minio.example:9000; empty: AWS_ENDPOINT_URL_S3 from the environment"
    )
    region: str = Field(default="us-east-1", min_length=1, description="region of the buckets")
    ca_file: str | None = Field(default=None, description="certificates to trust besides the system's; null: none")
    path_style: bool = Field(default=True, description="bucket in the path, not in the host name; MinIO wants it")
    media: str = Field(
        default="",
        description="s3://bucket/media or a folder, where ingest keeps each media file once, under its hash; empty: "
        "files stay where they are",
    )
    # Seven wait for a minute in all: a server that is away for half of it also has to start.
    attempts: int = Field(default=7, ge=1, le=20, description="tries of a request before it fails")
    timeout_s: float = Field(default=60, gt=0, description="without an answer for so long, a try has failed")


class DownloadConfig(Section):
    """Sources that are fetched: archives behind https://, Kaggle, the FaceForensics++ server."""

    folder: str = Field(
        default="", description="where fetched sources are kept; empty: below the store, or .unmask if that is a bucket"
    )
    connections: int = Field(default=4, ge=1, le=32, description="files that are fetched at the same time")
    attempts: int = Field(default=6, ge=1, le=20, description="tries without progress before a download fails")
    timeout_s: float = Field(default=60, gt=0, description="without an answer for so long, a try has failed")
    max_unpacked_gib: float = Field(default=1000, gt=0, description="an archive that unpacks to more is refused")
    max_unpacked_ratio: float = Field(
        default=200, ge=2, description="an archive that unpacks to more than so many times its size is refused"
    )
    max_unpacked_files: int = Field(default=5_000_000, ge=1, description="an archive with more entries is refused")


class SplitFractions(Section):
    """Shares of groups that go to each split; they must sum to 1."""

    train: float = Field(default=0.5, gt=0, lt=1, description="fits weights")
    val: float = Field(default=0.1, gt=0, lt=1, description="picks checkpoints and stops training")
    calib: float = Field(default=0.2, gt=0, lt=1, description="fits temperature, ensemble weights, fusion, thresholds")
    test: float = Field(default=0.2, gt=0, lt=1, description="is only ever reported")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.calib + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + calib + test is {total:g}; make it 1")
        return self


class IngestConfig(Section):
    """`unmask ingest`."""

    fractions: SplitFractions = SplitFractions()
    min_duration_s: float = Field(default=2.0, ge=0, description="shorter videos and audio files fail as too_short")
    min_fps: float = Field(default=15.0, ge=0, description="slower videos fail as too_slow")
    max_failed_share: float = Field(default=0.5, ge=0, le=1, description="stop when more of the files than this fail")
    metadata_auc_limit: float = Field(
        default=0.7, ge=0.5, le=1, description="warn when file metadata alone tell the classes apart better than this"
    )
    layouts: dict[str, str] = Field(
        default_factory=dict,
        description="source name to layout (folders, metadata, table, faceforensics, celeb_df, dfd, deeperforensics, "
        "asvspoof, wavefake); the others are recognised",
    )
    official_splits: Literal["ignore", "honour"] = Field(
        default="ignore", description="divisions that data sets come with; honour: calib is taken from their train"
    )
    relate: Literal["all", "target"] = Field(
        default="all",
        description="all: files that share a person share a split; target: only by whose body is seen, where swaps "
        "join everybody",
    )
    near_duplicates: bool = Field(default=True, description="find files that show or say the same, and group them")


class ExtractConfig(Section):
    """`unmask extract`."""

    crops_per_video: int = Field(default=32, ge=1, le=1000, description="face crops, evenly spaced over the clip")
    more_crops_of_rare_class: bool = Field(
        default=False,
        description="training videos of the rarer class get as many more crops as there are fewer of them",
    )
    crop_size_px: int = Field(default=256, ge=32, le=1024, description="side of a crop")
    crop_scale: float = Field(default=1.3, ge=1, le=3, description="face box is enlarged by this before cropping")
    jpeg_quality: int = Field(default=95, ge=50, le=100, description="of the crops")
    min_decoded_share: float = Field(
        default=0.9, ge=0, le=1, description="videos of which fewer frames decode than this fail as truncated"
    )
    min_face_share: float = Field(
        default=0.1, ge=0, le=1, description="videos with a face in fewer of the examined frames fail as no_face"
    )
    sound_windows: int = Field(
        default=4, ge=0, le=100, description="windows of four seconds of sound, evenly spaced over the clip; 0: none"
    )
    workers: int = Field(default=0, ge=0, description="processes; 0 is one per core")
    timeout_s: float = Field(
        default=300, gt=0, description="a file on which nothing advances for so long fails as timeout"
    )
    stop_on_critical: bool = Field(default=True, description="stop when the health of a feature is critical")
    max_failed_share: float = Field(default=0.5, ge=0, le=1, description="stop when more samples than this fail")


class AugmentationConfig(Section):
    """Chances of each damage to a training crop or window of sound; never used on val, calib or test."""

    flip: float = Field(default=0.5, ge=0, le=1, description="horizontal flip")
    affine: float = Field(default=0.0, ge=0, le=1, description="rotation up to 10 degrees, zoom and shift up to 8 %")
    crop: float = Field(default=0.0, ge=0, le=1, description="a square of 80 to 100 % of the side, enlarged again")
    light: float = Field(default=0.5, ge=0, le=1, description="brightness and contrast")
    colour: float = Field(default=0.0, ge=0, le=1, description="saturation and hue")
    downscale: float = Field(default=0.1, ge=0, le=1, description="shrink and enlarge again")
    blur: float = Field(default=0.1, ge=0, le=1, description="Gaussian blur")
    dct_noise: float = Field(default=0.0, ge=0, le=1, description="noise on the coefficients of 8x8 cosine blocks")
    jpeg: float = Field(default=0.2, ge=0, le=1, description="a second JPEG compression")
    gridmask: float = Field(default=0.0, ge=0, le=1, description="a grid of blanked squares (GridMask)")
    sound_shift: float = Field(default=0.5, ge=0, le=1, description="a window of sound begins elsewhere")
    sound_noise: float = Field(default=0.3, ge=0, le=1, description="stationary noise of any colour, 12 to 45 dB below")
    sound_overdrive: float = Field(default=0.1, ge=0, le=1, description="peaks cut off by up to 9 dB")
    sound_band: float = Field(default=0.2, ge=0, le=1, description="only a band is left, up to 3 to 8 kHz")
    sound_codec: float = Field(default=0.1, ge=0, le=1, description="telephone coding (8 bits, mu-law)")
    minority_factor: float = Field(default=1.0, ge=1, le=4, description="chances of the rarer class times this")
    mixup: float = Field(default=0.0, ge=0, le=1, description="a batch is blended with itself shuffled (MixUp)")
    cutmix: float = Field(default=0.0, ge=0, le=1, description="boxes are swapped within a batch of crops (CutMix)")
    self_blend: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="a real crop becomes a self-blended fake (SBI); half of all crops are then compressed alike",
    )


class TrainOverrides(Section):
    """Settings of `TrainConfig` that one detector may set for itself."""

    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=2)
    accumulate: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    optimizer: Literal["adamw", "adam", "sgd"] | None = None
    scheduler: Literal["cosine", "constant", "step", "plateau", "one_cycle"] | None = None
    strategy: Literal["full", "frozen", "staged", "quick"] | None = None
    loss: Literal["bce", "focal"] | None = None
    label_smoothing: float | None = Field(default=None, ge=0, lt=0.5)
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    early_stopping_patience: int | None = Field(default=None, ge=1)
    warmup_share: float | None = Field(default=None, ge=0, lt=1)
    gradient_norm: float | None = Field(default=None, gt=0)
    class_balance: Literal["auto", "weights", "sampler", "none"] | None = None
    max_samples_per_class: int | None = Field(default=None, ge=1)
    train_frames_per_video: int | None = Field(default=None, ge=1)
    eval_frames_per_video: int | None = Field(default=None, ge=1)
    augment: bool | None = None
    augmentation: AugmentationConfig | None = None
    compile: bool | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    pretrained: str | None = None
    input_size_px: int | None = Field(default=None, ge=32, le=1024)
    input_crop: float | None = Field(default=None, gt=0, le=1)


class TrainConfig(Section):
    """`unmask train`."""

    epochs: int = Field(default=10, ge=1, description="passes over the training crops")
    batch_size: int = Field(default=32, ge=2, description="crops a forward pass; halved when memory runs out")
    accumulate: int = Field(default=1, ge=1, description="batches an optimiser step")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak of the schedule")
    weight_decay: float = Field(default=1e-4, ge=0, description="decoupled with adamw")
    optimizer: Literal["adamw", "adam", "sgd"] = Field(default="adamw", description="optimiser")
    scheduler: Literal["cosine", "constant", "step", "plateau", "one_cycle"] = Field(
        default="cosine",
        description="step: a tenth after each third; plateau: a half after plateau_patience epochs without gain",
    )
    warmup_share: float = Field(default=0.1, ge=0, lt=1, description="share of steps with a rising learning rate")
    plateau_patience: int = Field(default=2, ge=1, description="of the scheduler plateau, in epochs")
    gradient_norm: float = Field(default=1.0, gt=0, description="gradients are scaled down to this norm")
    strategy: Literal["full", "frozen", "staged", "quick"] = Field(
        default="full",
        description="full: all layers at once; frozen: the pretrained part stays as it is; staged: the new layers for "
        "half of the epochs, then the pretrained part third by third from the top; quick: new layers, then all",
    )
    stage_factors: tuple[float, float, float] = Field(
        default=(0.1, 0.05, 0.02), description="learning rate of the three stages of unfreezing, times learning_rate"
    )
    loss: Literal["bce", "focal"] = Field(default="bce", description="binary cross-entropy, or focal loss")
    focal_gamma: float = Field(default=2.0, ge=0, description="how much focal loss neglects what is easy")
    focal_fake_weight: float | None = Field(
        default=None, gt=0, lt=1, description="weight of fakes against reals in focal loss; null: class_balance decides"
    )
    label_smoothing: float = Field(default=0.05, ge=0, lt=0.5, description="0 and 1 become this much softer")
    class_balance: Literal["auto", "weights", "sampler", "none"] = Field(
        default="auto",
        description="weights: in the loss; sampler: the rarer class is drawn as often; auto: weights from 1.1:1 on, "
        "the sampler above 5:1",
    )
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="keep a moving average of the weights; 0 keeps none")
    checkpoint_metric: Literal["auc", "pr_auc", "f1", "loss"] = Field(
        default="auc",
        description="figure of val videos that chooses the checkpoint; loss does among AUCs within a standard error",
    )
    early_stopping_patience: int = Field(default=5, ge=1, description="epochs without a better val figure that stop it")
    max_samples_per_class: int | None = Field(
        default=None, ge=1, description="train on at most so many samples of each class; null: all"
    )
    train_sources: tuple[str, ...] = Field(
        default=(), description="only samples of these sources teach and choose the checkpoint; empty: all"
    )
    exclude_manipulations: tuple[str, ...] = Field(
        default=(), description="fakes of these kinds neither teach nor choose the checkpoint"
    )
    train_frames_per_video: int = Field(
        default=8, ge=1, description="crops, or windows of sound, a sample and epoch, drawn anew each epoch"
    )
    eval_frames_per_video: int = Field(default=8, ge=1, description="evenly spaced crops a video on val, calib, test")
    aggregation: Literal["auto", "mean", "top_k", "attention"] = Field(
        default="auto",
        description="of frame logits to a video logit; auto: the mean, unless another is surely better on val",
    )
    augment: bool = Field(default=True, description="damage the training crops as `augmentation` says")
    augmentation: AugmentationConfig = AugmentationConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 on a GPU that has it, fp16 on an older one"
    )
    compile: bool = Field(default=False, description="torch.compile; pays on long trainings on a GPU")
    pretrained: str = Field(default="none", description="imagenet, none, or the path or s3:// address of a weight file")
    input_size_px: int | None = Field(default=None, ge=32, le=1024, description="input side; null: the detector's own")
    input_crop: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the face crop that is seen, its middle; null: the detector's own",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1")
    processes: int = Field(default=0, ge=0, description="one a GPU when 0; more than 1 train together (DDP)")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 is one per core")
    tensorboard: str | None = Field(default=None, description="folder for TensorBoard logs, written while it trains")
    models: dict[str, TrainOverrides] = Field(
        # The two default detectors are there to be quick on a CPU, on little data: small batches give them more steps.
        # The backbone sees the middle of the face as sharp as the crop has it: shrunk as a whole it loses the traces.
        # AASIST needs 0.6 GB a window in training.
        default_factory=lambda: {
            "meso4": TrainOverrides(batch_size=16),
            "timm:resnet10t": TrainOverrides(batch_size=16, input_size_px=128, input_crop=0.5),
            "aasist": TrainOverrides(batch_size=8),
            "aasist_l": TrainOverrides(batch_size=8),
        },
        description="detector name to its own settings",
    )

    def resolved_for(self, name: str) -> TrainConfig:
        """Apply the overrides of one detector; the result has no overrides left."""
        own = self.models.get(name, TrainOverrides())
        overrides = {field: value for field in type(own).model_fields if (value := getattr(own, field)) is not None}
        return self.model_copy(update={**overrides, "models": {}})


class TuneConfig(Section):
    """`unmask tune`."""

    trials: int = Field(default=20, ge=2, le=1000, description="trainings, the first with the settings as they are")
    epochs: int | None = Field(default=None, ge=1, description="of each; null: as train.epochs says")
    learning_rate: tuple[float, float] = Field(default=(1e-5, 1e-2), description="lowest and highest tried")
    weight_decay: tuple[float, float] = Field(default=(1e-6, 1e-2), description="lowest and highest tried")
    label_smoothing: tuple[float, float] = Field(default=(0.0, 0.15), description="lowest and highest tried")
    batch_sizes: tuple[int, ...] = Field(default=(16, 32, 64), min_length=1, description="those tried")
    optimizers: tuple[Literal["adamw", "adam", "sgd"], ...] = Field(
        default=("adamw",), min_length=1, description="those tried"
    )

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name in ("learning_rate", "weight_decay", "label_smoothing"):
            low, high = getattr(self, name)
            if not 0 <= low < high or (low == 0 and name != "label_smoothing"):
                raise ValueError(f"{name} is {low} to {high}; give a low and a higher value, both positive")
        return self


class EnsembleConfig(Section):
    """`unmask ensemble`."""

    trials: int = Field(default=100, ge=1, le=10_000, description="trials of the Bayesian weight search")
    folds: int = Field(default=5, ge=2, le=20, description="group folds on calib; fewer when there are fewer groups")
    agreement_threshold: float = Field(default=0.8, ge=0.5, le=1, description="less agreement is called uncertain")
    method: Literal["auto", "equal", "bayesian", "confidence", "attention", "stacking"] = Field(
        default="auto", description="how detectors are combined; auto: bayesian if its gain over equal weights is real"
    )
    calibration: Literal["auto", "temperature", "platt", "isotonic"] = Field(
        default="auto", description="of each detector; auto: by likelihood out of fold, a temperature on little data"
    )


class FusionConfig(Section):
    """`unmask fuse`."""

    inverse_regularisation: float = Field(default=0.1, gt=0, description="C of the logistic regression")
    folds: int = Field(default=3, ge=2, le=10, description="group folds of calib")
    smote: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="fit features with synthetic rows of the rarer class; auto: above 10:1",
    )
    target_fpr: float = Field(default=0.05, gt=0, lt=1, description="false alarms allowed at that operating point")
    target_precision: float = Field(
        default=0.95, gt=0, lt=1, description="share of right alarms wanted at the operating point fixed_precision"
    )
    operating_point: Literal["max_f1", "youden", "target_fpr", "fixed_precision"] = Field(
        default="max_f1", description="the threshold that verdicts use"
    )
    fallback: Literal["average", "ensemble"] = Field(
        default="average",
        description="when calib is too small to fit fusion: ensemble and features averaged by written weights, or the "
        "ensemble alone",
    )
    rules: tuple[Literal["real_evidence", "artefact_scale"], ...] = Field(
        default=(), description="rules on top of fusion: cap by camera evidence, frame traces count less in calm motion"
    )
    real_evidence_count: int = Field(default=3, ge=1, description="strong camera signs that the cap needs")
    real_evidence_cap: float = Field(default=0.4, ge=0, le=1, description="largest probability when they are there")


PerturbationName = Literal[
    "jpeg", "h264", "gaussian_blur", "gaussian_noise", "salt_pepper", "resize", "brightness", "contrast", "gamma"
]
AttackName = Literal["fgsm", "pgd", "apgd", "square"]


class EvaluateConfig(Section):
    """`unmask evaluate`."""

    resamples: int = Field(default=2000, ge=100, description="bootstrap resamples, drawn by group")
    perturbations: tuple[PerturbationName, ...] = Field(
        default=("jpeg", "gaussian_blur"), description="damages of the robustness table"
    )
    severities: tuple[int, ...] = Field(default=(1, 3, 5), description="of 1 to 5")
    max_robustness_samples: int = Field(default=200, ge=2, description="test videos used for robustness")
    attacks: tuple[AttackName, ...] = Field(
        default=("fgsm", "pgd"), description="of fgsm, pgd, apgd, square; they know the weights, square only the scores"
    )
    epsilons: tuple[int, ...] = Field(
        default=(1, 4), min_length=1, max_length=5, description="most that an attack may change a pixel, of 255 levels"
    )
    attack_steps: int = Field(default=5, ge=1, le=1000, description="of pgd and apgd; square asks 20 times as often")
    attack_frames_per_video: int = Field(default=2, ge=1, description="frames of each test video that are attacked")
    max_attack_samples: int = Field(default=200, ge=2, description="test videos that are attacked on a GPU")
    max_attack_samples_cpu: int = Field(default=20, ge=2, description="the same on a CPU, which takes 50 times as long")

    @model_validator(mode="after")
    def _severities_in_range(self) -> Self:
        if any(not 1 <= severity <= 5 for severity in self.severities):
            raise ValueError(f"severities {self.severities} must lie in 1 to 5")
        if any(not 1 <= epsilon <= 255 for epsilon in self.epsilons):
            raise ValueError(f"epsilons {self.epsilons} must lie in 1 to 255")
        if sorted(set(self.epsilons)) != list(self.epsilons):
            raise ValueError(f"epsilons {self.epsilons} must rise, each once")
        return self


class BundleConfig(Section):
    """`unmask bundle`."""

    parity_tolerance: float = Field(
        default=1e-3, gt=0, description="largest difference of probability between torch and ONNX that is accepted"
    )
    quantise: Literal["none", "static", "auto"] = Field(
        default="none", description="8-bit weights and activations; auto also tries dynamic and keeps what is quicker"
    )
    prune: float = Field(
        default=0, ge=0, lt=1, description="share of the smallest weights of each convolution to set to 0; 0 is off"
    )
    distil: bool = Field(
        default=False, description="ship one small student of the ensemble alone, if it is good enough; see distill"
    )
    max_auc_loss: float = Field(
        default=0.01, ge=0, le=0.5, description="an optimised detector that loses more AUC on val than this is dropped"
    )
    calibration_crops: int = Field(default=128, ge=8, description="crops of train that set the ranges of 8-bit values")


class DistillConfig(Section):
    """`unmask distill` and bundle.distil; how the student is trained stands in `train`."""

    student: str = Field(
        default="timm:mobilenetv3_small_050", min_length=1, description="small detector that learns from the ensemble"
    )
    teacher_share: float = Field(
        default=0.7, gt=0, le=1, description="of the ensemble's probability in what is taught; the rest is the label"
    )
    max_auc_loss: float = Field(
        default=0.02, ge=0, le=0.5, description="AUC that the student may lose against the ensemble on val"
    )


class PromoteConfig(Section):
    """`unmask promote`."""

    registered_model: str = Field(default="unmask-detector", min_length=1, description="name in the MLflow registry")
    experiment: str = Field(default="unmask", min_length=1, description="MLflow experiment")
    alias: str = Field(default="challenger", pattern=r"^[a-z][a-z0-9_-]*$", description="alias of the new version")
    min_auc: float = Field(default=0.5, ge=0, le=1, description="test AUC below this gets no alias")
    mode: Literal["wait", "automatic"] = Field(
        default="wait", description="a version that passes the gate waits for a person, or becomes champion at once"
    )
    champion_alias: str = Field(
        default="champion", pattern=r"^[a-z][a-z0-9_-]*$", description="alias of the version that serves"
    )
    margin_auc: float = Field(
        default=0.02, ge=0, le=0.5, description="a challenger may rank worse than the champion by less than this"
    )
    max_fpr: float = Field(
        default=0.1, gt=0, le=1, description="false alarms at the operating point; the interval must lie below"
    )
    margin_ece: float = Field(
        default=0.05, ge=0, le=1, description="calibration error allowed beyond what chance explains"
    )
    margin_brier: float = Field(default=0.02, ge=0, le=1, description="Brier score may be worse by less than this")
    margin_robustness: float = Field(
        default=0.05, ge=0, le=0.5, description="AUC on damaged media may fall by less than this"
    )
    max_slice_drop: float = Field(
        default=0.1, ge=0, le=1, description="AUC of one source or manipulation may fall by less than this"
    )
    min_groups: int = Field(
        default=20, ge=2, description="independent groups with reals, and with fakes, below which nothing is decided"
    )
    min_slice_groups: int = Field(default=5, ge=2, description="groups of each class below which a slice is not judged")
    metadata_auc_limit: float = Field(
        default=0.7, ge=0.5, le=1, description="file metadata alone must not tell the classes apart better than this"
    )
    resamples: int = Field(default=2000, ge=100, description="bootstrap resamples of the gate, drawn by group")
    lock_timeout_s: float = Field(default=900, gt=0, description="how long to wait for another promotion to end")


class ServeConfig(Section):
    """`unmask serve`."""

    workers: int = Field(default=2, ge=1, le=64, description="processes that decode; each can be killed and replaced")
    decoder_threads: int = Field(
        default=4, ge=1, le=16, description="threads of the decoder of one file; they decode ahead of the measuring"
    )
    detector_threads: int = Field(default=1, ge=1, le=64, description="threads of one detector's run")
    providers: tuple[Literal["tensorrt", "cuda", "cpu"], ...] = Field(
        default=("cpu",), description="where detectors run, the first choice first; what is not there is passed over"
    )
    queue: int = Field(default=16, ge=0, le=1000, description="requests that may wait; a further one is answered 503")
    timeout_s: float = Field(default=60, gt=0, description="longest measuring of one file; then its worker is killed")
    job_timeout_s: float = Field(default=900, gt=0, description="the same for a job")
    upload_timeout_s: float = Field(default=120, gt=0, description="longest time that a body may take to arrive")
    max_upload_mib: int = Field(default=200, ge=1, le=4096, description="largest body")
    max_image_pixels: int = Field(default=50_000_000, ge=1, description="width times height of an image")
    max_video_pixels: int = Field(default=9_500_000, ge=1, description="width times height of a video; 4K fits")
    max_duration_s: float = Field(default=60, gt=0, description="longest video or sound; longer ones are for jobs")
    max_job_duration_s: float = Field(default=1800, gt=0, description="the same for a job")
    max_jobs: int = Field(default=16, ge=1, le=1000, description="jobs waiting or running; further ones get 503")
    max_batch_files: int = Field(default=16, ge=1, le=256, description="files of one batch")
    worker_memory_mib: int = Field(default=3072, ge=512, description="address space of a worker; more ends its job")
    keep_results_s: float = Field(
        default=900, ge=0, description="how long answer and face crops stay in memory for heat map and report"
    )
    max_results: int = Field(default=100, ge=1, le=10_000, description="answers kept so")
    keep_uploads: bool = Field(default=False, description="keep uploads whose sender agrees, for the next retraining")
    timeline_crops: int = Field(
        default=32, ge=1, le=1000, description="face crops for the course over a video, at most one a second"
    )
    heatmap_cells: int = Field(default=8, ge=2, le=32, description="cells of a heat map along a side")
    poll_s: float = Field(default=15, gt=0, description="how often the model's alias or folder is looked at")
    challenger_share: float = Field(default=0, ge=0, le=1, description="share of callers answered by the challenger")
    shadow: bool = Field(default=False, description="let the other version judge too, only for the records")
    requests_per_minute: float = Field(default=120, gt=0, description="of one API key, unless its entry says otherwise")
    feedback_weights: bool = Field(default=False, description="weigh fusion's inputs by what users said of verdicts")
    drift_window_days: float = Field(default=7, gt=0, description="recent time that is compared with the time before")


class RetrainingConfig(Section):
    """`unmask decide-retraining`: when the scheduled pipeline trains anew."""

    min_new_samples: int = Field(default=20, ge=1, description="fewer new samples than this never ask for training")
    min_new_share: float = Field(default=0.1, gt=0, le=10, description="new samples, as a share of those known before")
    drift_psi: float = Field(default=0.25, gt=0, description="population stability index from which a feature drifted")
    drift_p: float = Field(default=0.01, gt=0, lt=1, description="KS test, Holm-corrected, that must fail as well")
    min_drift_groups: int = Field(
        default=30, ge=10, description="independent new groups of a class below which drift is not judged"
    )
    max_age_days: float = Field(default=90, gt=0, description="an older model is trained anew if there are new samples")


class UnmaskConfig(Section):
    """The whole configuration file."""

    seed: int = Field(default=42, ge=0, description="of every random choice")
    detectors: tuple[str, ...] = Field(
        default=("meso4", "timm:resnet10t"),
        min_length=1,
        description="see `unmask detectors`",
    )
    storage: StorageConfig = StorageConfig()
    download: DownloadConfig = DownloadConfig()
    ingest: IngestConfig = IngestConfig()
    extract: ExtractConfig = ExtractConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    fusion: FusionConfig = FusionConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    bundle: BundleConfig = BundleConfig()
    distill: DistillConfig = DistillConfig()
    promote: PromoteConfig = PromoteConfig()
    serve: ServeConfig = ServeConfig()
    retraining: RetrainingConfig = RetrainingConfig()

    @model_validator(mode="after")
    def _detectors_once(self) -> Self:
        repeated = sorted({name for name in self.detectors if self.detectors.count(name) > 1})
        if repeated:
            raise ValueError(f"detectors named twice: {', '.join(repeated)}")
        return self

    def dump(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        return self.model_dump(mode="json")
