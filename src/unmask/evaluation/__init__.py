"""The numbers that people decide on: figures on test with intervals, robustness, and the report."""
