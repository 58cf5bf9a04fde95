"""Clips so small that their planes are used as they come, with the padding of the decoder at the end of each row."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from unmask.config import ExtractConfig
from unmask.data.sampleset.clips import Job, render
from unmask.features import measure


@pytest.mark.parametrize("width", [200, 232])
def test_a_width_that_is_no_multiple_of_the_alignment(width: int, tmp_path: Path) -> None:
    job = Job(seed=3, group=0, member=0, size_px=256, fps=25, duration_s=1.0)
    render(job, tmp_path)
    path = tmp_path / "narrow.mp4"
    with av.open(str(tmp_path / job.real_path)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, 256, "yuv420p"
        for frame in source.decode(video=0):
            picture = np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:, :width])
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        target.mux(stream.encode())
    measurement = measure(path, "video", ExtractConfig())
    assert measurement.crops
    assert measurement.null_reasons.get("temp.flow_oddity") in (None, "too_short", "static", "small_face")
