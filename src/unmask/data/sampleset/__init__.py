"""The sample set: rendered talking faces, real and forged, to try the whole way on without anybody's pictures."""

from unmask.data.sampleset.generation import generate
from unmask.data.sampleset.truth import TRUTH_FILE, ClipTruth, SampleSetTruth

__all__ = ["TRUTH_FILE", "ClipTruth", "SampleSetTruth", "generate"]
