"""unmask: from folders of real and fake media to a deployed, calibrated deepfake detector."""

__version__ = "0.1.0"
