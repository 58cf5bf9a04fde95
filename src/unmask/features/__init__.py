"""The forensic features: one catalogue, one module a family, one pass over each file."""

from unmask.features.catalogue import CATALOGUE, EXTRACTOR_VERSION, NULL_REASONS, FeatureSpec
from unmask.features.measure import Measurement, measure
from unmask.media.crops import Crop
from unmask.media.sound import Window

__all__ = [
    "CATALOGUE",
    "EXTRACTOR_VERSION",
    "NULL_REASONS",
    "Crop",
    "FeatureSpec",
    "Measurement",
    "Window",
    "measure",
]
