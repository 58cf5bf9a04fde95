"""The contracts between stages: tables (Parquet), documents (JSON), and how files are written.

Everything that passes from one stage to another is described here, typed, and checked both when it is written and
when it is read. This room imports neither torch nor cv2 nor any SDK.
"""

from unmask.schemas.documents import (
    DatasetInfo,
    DetectorInfo,
    Document,
    EnsembleInfo,
    Estimate,
    EvaluationInfo,
    ExtractionInfo,
    FeatureHealth,
    FusionInfo,
    Manifest,
    OperatingPoint,
    Preprocessing,
    PromotionDecision,
    TrainingCurvePoint,
)
from unmask.schemas.files import StageOutcome, new_directory, sha256_file, sha256_json, write_atomically
from unmask.schemas.tables import (
    FACES,
    FEATURES,
    FRAME_SCORES,
    ROBUSTNESS,
    SAMPLES,
    VIDEO_SCORES,
    Column,
    TableSpec,
    read_table,
    rows_for_choice,
    validate_table,
    write_table,
)

__all__ = [
    "FACES",
    "FEATURES",
    "FRAME_SCORES",
    "ROBUSTNESS",
    "SAMPLES",
    "VIDEO_SCORES",
    "Column",
    "DatasetInfo",
    "DetectorInfo",
    "Document",
    "EnsembleInfo",
    "Estimate",
    "EvaluationInfo",
    "ExtractionInfo",
    "FeatureHealth",
    "FusionInfo",
    "Manifest",
    "OperatingPoint",
    "Preprocessing",
    "PromotionDecision",
    "StageOutcome",
    "TableSpec",
    "TrainingCurvePoint",
    "new_directory",
    "read_table",
    "rows_for_choice",
    "sha256_file",
    "sha256_json",
    "validate_table",
    "write_atomically",
    "write_table",
]
