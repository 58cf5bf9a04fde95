"""How shares read."""

from __future__ import annotations

from unmask.ensemble.phrases import share_of
from unmask.metrics import clopper_pearson
from unmask.schemas import Estimate


def test_a_share_has_its_interval_and_what_it_is_of() -> None:
    assert share_of(clopper_pearson(1, 10), "real") == "10% [0.3%, 45%] of 10 reals"
    assert share_of(clopper_pearson(6, 6), "fake") == "100% [54%, 100%] of 6 fakes"
    assert share_of(clopper_pearson(0, 1), "real").endswith("of 1 real")
    assert share_of(clopper_pearson(0, 0), "fake") == "none of 0 fakes"
    assert share_of(Estimate(value=0.5, n=4), "sample") == "50% of 4 samples"
