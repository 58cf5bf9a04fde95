"""How a face crop becomes a detector's input."""

import numpy as np

from unmask.media.preprocessing import to_input
from unmask.schemas import Preprocessing


def test_the_middle_is_seen_and_nothing_else():
    image = np.zeros((100, 80, 3), np.uint8)
    image[25:75, 20:60] = 200
    plain = Preprocessing(size_px=32, mean=(0, 0, 0), std=(1, 1, 1))
    whole, middle = (to_input([image], plain.model_copy(update={"crop": share})) for share in (1.0, 0.5))
    assert whole.min() == 0
    assert np.allclose(middle, 200 / 255)
