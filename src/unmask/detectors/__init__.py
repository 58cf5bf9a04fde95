"""Detectors: a backbone and a head that turn a face crop, or a window of sound, into one logit; larger means more fake.

One file an architecture, registered by name with `register`. The preprocessing belongs to the detector and travels
with its weights.
"""

from unmask.detectors.base import Detector
from unmask.detectors.registry import build, modality_of, names, register, register_audio
from unmask.detectors.scoring import score_images
from unmask.detectors.storage import load_detector, load_weights, save_detector
from unmask.detectors.weights import WeightSource, weights_from

__all__ = [
    "Detector",
    "WeightSource",
    "build",
    "load_detector",
    "load_weights",
    "modality_of",
    "names",
    "register",
    "register_audio",
    "save_detector",
    "score_images",
    "weights_from",
]
