"""Several detectors on the same evidence: calibrated, weighed, combined."""
