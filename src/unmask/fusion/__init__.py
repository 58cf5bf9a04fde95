"""Detectors and forensic features together: one calibrated probability and the thresholds that verdicts use."""
