"""Paired tests against definitions, against numbers of other packages, and in simulation."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest

from unmask.metrics import brier, f1, roc_auc
from unmask.metrics.compare import (
    compare_systems,
    delong,
    delong_covariance,
    effect_size,
    holm,
    mcnemar,
    paired_difference,
)


def _by_definition(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong et al., 1988, equations 3 to 6, with every pair written out."""
    fakes, reals = scores[y == 1], scores[y == 0]
    kernel = (fakes[:, None] > reals[None]) + 0.5 * (fakes[:, None] == reals[None])
    v10, v01 = kernel.mean(axis=1), kernel.mean(axis=0)
    return kernel.mean(axis=(0, 1)), np.cov(v10.T) / len(fakes) + np.cov(v01.T) / len(reals)


def _two(seed: int, n: int, better: float = 0.0, decimals: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, shared = np.arange(n) % 2, rng.standard_normal(n)
    a, b = ((shift * y + 0.8 * shared + 0.6 * rng.standard_normal(n)).round(decimals) for shift in (1.0, 1.0 + better))
    return y, a, b


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("n", [9, 60, 301])
def test_delong_is_its_definition(n: int, decimals: int) -> None:
    y, a, b = _two(n, n, 0.3, decimals)
    table = np.stack([a, b, -a], axis=1)
    aucs, covariance = delong_covariance(y, table)
    expected_aucs, expected = _by_definition(y, table)
    assert aucs == pytest.approx(expected_aucs, abs=1e-12)
    assert covariance == pytest.approx(expected, abs=1e-12)


def test_delong_gives_the_numbers_of_another_package() -> None:
    """Computed once with pauc 0.2.2 (`pauc.compare`) for these 60 scores with ties."""
    rng = np.random.default_rng(20240)
    y, s = np.arange(60) % 2, rng.standard_normal(60)
    a = np.round(1.0 * y + 0.8 * s + 0.6 * rng.standard_normal(60), 1)
    b = np.round(1.6 * y + 0.8 * s + 0.6 * rng.standard_normal(60), 1)
    test = delong(y, a, b)
    assert delong_covariance(y, np.stack([a, b], 1))[1][0, 0] == pytest.approx(0.002290974882928906, abs=1e-12)
    assert test.difference / test.standard_error == pytest.approx(0.2778, abs=5e-5)
    assert test.p_value == pytest.approx(0.7812, abs=5e-5)


def test_groups_of_one_are_independent_samples() -> None:
    y, a, b = _two(3, 80, 0.2)
    table = np.stack([a, b], axis=1)
    alone = delong_covariance(y, table, np.arange(80))[1]
    assert alone == pytest.approx(delong_covariance(y, table)[1], abs=1e-12)


def _grouped(seed: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Three reals and three fakes a group; each system is thrown off in its own way by each group."""
    rng = np.random.default_rng(seed)
    group, y = np.repeat(np.arange(groups), 6), np.tile(np.arange(6) % 2, groups)
    a, b = (y + 0.8 * rng.standard_normal((groups, 2))[group, y] + 0.5 * rng.standard_normal(len(y)) for _ in range(2))
    return y, a, b, group


def test_groups_keep_the_false_alarms_down(capsys: pytest.CaptureFixture[str]) -> None:
    """Two equally good systems: 5 % of tests should reject, and do only if the groups are known."""
    rejected = np.zeros(3)
    for seed in range(400):
        y, a, b, group = _grouped(seed, 40)
        rejected[0] += delong(y, a, b, group).p_value < 0.05
        rejected[1] += delong(y, a, b).p_value < 0.05
        if seed < 200:
            e = paired_difference(roc_auc, y, a, b, group, rng=np.random.default_rng(seed), resamples=200)
            rejected[2] += not e.low <= 0 <= e.high
    with_groups, without, bootstrap = rejected / [400, 400, 200]
    with capsys.disabled():
        sys.stdout.write(
            f"\nequal systems rejected at 5 %: DeLong by group {with_groups:.1%}, by sample {without:.1%}, "
            f"bootstrap by group {bootstrap:.1%}\n"
        )
    assert 0.02 <= with_groups <= 0.085
    assert without > 0.1
    assert bootstrap <= 0.12  # the percentile interval is a little short at 40 groups


def test_a_better_system_is_found() -> None:
    y, a, b = _two(5, 800, 0.5)
    groups = np.arange(800) // 2
    result = compare_systems(y, a, b, groups, rng=np.random.default_rng(0), thresholds=(0.5, 0.75))
    assert result.difference.low > 0
    assert result.delong.p_value < 0.01
    assert result.difference.value == pytest.approx(roc_auc(y, b) - roc_auc(y, a), abs=1e-12)
    assert result.effect == pytest.approx(0.5, abs=0.2)
    assert result.mcnemar.only_b > result.mcnemar.only_a
    back = compare_systems(y, b, a, groups, rng=np.random.default_rng(0))
    assert back.delong.difference == pytest.approx(-result.delong.difference)
    assert back.mcnemar is None


def test_equal_rankings() -> None:
    y, a, _ = _two(7, 50)
    test = delong(y, a, 3 * a + 1, np.arange(50) // 2)
    assert (test.difference, test.standard_error, test.p_value) == (0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="1 with reals"):
        delong([0, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])


def test_holm_by_hand_and_as_statsmodels() -> None:
    """Reference computed once with statsmodels 0.15.0 (`multipletests`)."""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert holm([0.4, 0.8]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"), [(7, 1, 0.0703125), (5, 5, 1.0), (0, 9, 0.00390625), (0, 0, 1.0)]
)
def test_mcnemar_by_hand_and_as_statsmodels(only_a: int, only_b: int, p_value: float) -> None:
    """Reference computed once with statsmodels 0.15.0 (`mcnemar(exact=True)`); 7 to 1 is 2 (8 + 1) / 2⁸."""
    right = [(True, True)] * 4 + [(True, False)] * only_a + [(False, True)] * only_b + [(False, False)] * 3
    y = np.arange(len(right)) % 2
    called = np.array(right) == (y == 1)[:, None]
    test = mcnemar(y, called[:, 0], called[:, 1])
    assert (test.only_a, test.only_b) == (only_a, only_b)
    assert test.p_value == pytest.approx(p_value)


def test_paired_difference_of_other_figures() -> None:
    y, a, b = _two(8, 200, 1.0)
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    groups = np.arange(200) // 2
    for metric in (brier, partial(f1, threshold=0.6)):
        e = paired_difference(metric, y, p, q, groups, rng=np.random.default_rng(0), resamples=300)
        assert e.value == pytest.approx(metric(y, q) - metric(y, p), abs=1e-12)
        assert e.low < e.value < e.high
    ones = np.ones(4, dtype=int)
    undefined = paired_difference(roc_auc, ones, p[:4], q[:4], groups[:4], rng=np.random.default_rng(0), resamples=10)
    assert undefined.value is None


def test_effect_size_in_standard_deviations() -> None:
    assert effect_size(0.5, 0.76024994) == pytest.approx(1.0, abs=1e-6)  # one standard deviation apart
    assert effect_size(0.8, 0.8) == 0
    assert effect_size(0.8, 1.0) is None


def test_a_handful_of_groups_makes_nothing_certain() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(300):
        group = np.repeat(np.arange(5), 8)
        y = np.tile([0, 1], 20)
        shared = rng.normal(0, 1.0, (5, 2))[group]  # of a group, for each system
        a, b = (y * 1.5 + rng.normal(size=40) + y * shared[:, k] for k in (0, 1))
        rejected += delong(y, a, b, group).p_value < 0.05
    assert rejected / 300 < 0.08  # against the normal distribution 0.10


def test_groups_that_agree_to_the_last_bit_are_a_sign_test() -> None:
    y = np.tile([0, 0, 1, 1], 4)
    group = np.repeat(np.arange(4), 4)
    good, bad = np.tile([0.1, 0.2, 0.8, 0.9], 4), np.tile([0.1, 0.8, 0.2, 0.9], 4)
    test = delong(y, good, bad, group)
    assert test.difference == pytest.approx(-0.25)
    assert test.p_value == pytest.approx(2 / 2**4)
