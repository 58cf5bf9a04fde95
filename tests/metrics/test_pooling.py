"""From frame logits to a video logit."""

import numpy as np
import pytest

from unmask.errors import ContractError
from unmask.metrics import MEAN, attention, pool_logits, top_k

LOGITS = [3.0, -1.0, 0.5, 2.0]


def test_mean_top_and_attention_by_hand():
    assert pool_logits(LOGITS, MEAN) == pytest.approx(4.5 / 4)
    assert pool_logits(LOGITS, top_k(0.5)) == pytest.approx(2.5)
    assert pool_logits(LOGITS, top_k(0.01)) == 3.0, "at least one frame"
    weights = np.exp(np.array(LOGITS) * 0.5)
    assert pool_logits(LOGITS, attention(0.5)) == pytest.approx(float(weights @ LOGITS / weights.sum()))


def test_attention_goes_from_mean_to_maximum():
    pooled = [pool_logits(LOGITS, attention(sharpness)) for sharpness in (0, 0.5, 2, 50)]
    assert pooled[0] == pytest.approx(pool_logits(LOGITS, MEAN))
    assert pooled == sorted(pooled)
    assert pooled[-1] == pytest.approx(3.0)
    assert np.isfinite(pool_logits([800.0, -800.0], attention(2)))


@pytest.mark.parametrize("aggregation", [MEAN, top_k(0.25), attention(1)])
def test_one_frame_is_its_own_pool(aggregation):
    assert pool_logits([0.7], aggregation) == pytest.approx(0.7)


def test_unknown_aggregations_are_refused():
    with pytest.raises(ContractError, match="median"):
        pool_logits(LOGITS, "median")
