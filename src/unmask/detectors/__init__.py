"""Detectors: a backbone and a head that turn a face crop into one logit; larger means more fake.

One file an architecture, registered by name with `register`. The preprocessing belongs to the detector and travels
with its weights.
"""

from unmask.detectors.base import Detector
from unmask.detectors.registry import build, names, register
from unmask.detectors.scoring import score_images
from unmask.detectors.storage import load_detector, load_weights, save_detector

__all__ = [
    "Detector",
    "build",
    "load_detector",
    "load_weights",
    "names",
    "register",
    "save_detector",
    "score_images",
]
