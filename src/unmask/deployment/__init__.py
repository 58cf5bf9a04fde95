"""From trained parts to a deployed detector: ONNX export, the bundle, scoring without torch, the promotion gate.

Importing this room, or scoring with it, imports neither torch nor any fitting library; only `onnx_export` does.
"""

from pathlib import Path


def mlflow_model_path() -> Path:
    """Return the path of the file that MLflow runs inside a registered model."""
    return Path(__file__).with_name("mlflow_model.py")
