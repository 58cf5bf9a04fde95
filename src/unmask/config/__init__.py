"""The configuration of all stages: typed once, read from YAML, all errors reported together."""

from unmask.config.loading import commented_defaults, load_config
from unmask.config.models import (
    AttackName,
    AugmentationConfig,
    BundleConfig,
    EnsembleConfig,
    EvaluateConfig,
    ExtractConfig,
    FusionConfig,
    IngestConfig,
    PromoteConfig,
    RetrainingConfig,
    ServeConfig,
    SplitFractions,
    StorageConfig,
    TrainConfig,
    TrainOverrides,
    UnmaskConfig,
)

__all__ = [
    "AttackName",
    "AugmentationConfig",
    "BundleConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FusionConfig",
    "IngestConfig",
    "PromoteConfig",
    "RetrainingConfig",
    "ServeConfig",
    "SplitFractions",
    "StorageConfig",
    "TrainConfig",
    "TrainOverrides",
    "UnmaskConfig",
    "commented_defaults",
    "load_config",
]
