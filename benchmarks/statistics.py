"""How fast and how right the statistics are: run `python benchmarks/statistics.py [speed|coverage|gate|imbalance]`.

speed     bootstrap over 100,000 videos of 9 systems, 100 Bayesian trials over 7 detectors and 20,000 samples
coverage  share of 95 % intervals that hold the truth, for several numbers of groups
gate      how often the gates for weights and for fusion open by luck, and what they cost or gain on fresh samples
imbalance a detector trained on unequal classes: what accuracy hides, and what a threshold chosen on calib gives back
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from unmask.config import EnsembleConfig, FusionConfig
from unmask.ensemble.apply import combine, sigmoid
from unmask.ensemble.selection import choose_weights
from unmask.ensemble.weights import bayesian_weights, logistic_weights
from unmask.fusion.apply import apply_fusion
from unmask.fusion.fit import fit_fusion
from unmask.fusion.thresholds import choose_operating_points
from unmask.metrics import (
    Metric,
    accuracy,
    bootstrap_estimate,
    bootstrap_estimates,
    bootstrap_values,
    brier,
    calibration_error_if_perfect,
    calibration_intercept,
    calibration_slope,
    clopper_pearson,
    delong,
    equal_error_rate,
    expected_calibration_error,
    f1,
    negative_log_likelihood,
    paired_difference,
    pr_auc,
    precision,
    recall,
    roc_auc,
)


def _timed(what: str, work: Callable[[], object]) -> None:
    start, busy = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    print(f"  {wall:7.2f} s  {cpu:7.2f} s  {what}", flush=True)


def speed() -> None:
    """Time what issue-sized evaluations need."""
    print("speed on one core: wall, processor (the wall time of an idle machine)")
    rng = np.random.default_rng(0)
    n = 100_000
    labels = rng.integers(0, 2, n)
    scores = sigmoid(np.stack([labels * (1 + 0.1 * k) + rng.standard_normal(n) for k in range(9)], axis=1))
    for name, groups in (("each its own group", np.arange(n)), ("10,000 groups", np.arange(n) // 10)):
        draw = partial(bootstrap_values, [roc_auc], labels, scores, groups, resamples=2000)
        _timed(f"AUC, 2,000 resamples x 100,000 videos x 9 systems, {name}", partial(draw, rng=rng))
    every = [roc_auc, pr_auc, equal_error_rate, brier, negative_log_likelihood, expected_calibration_error, f1]
    some = slice(0, 2000)
    draw = partial(bootstrap_values, every, labels[some], scores[some], np.arange(n)[some] // 4, resamples=2000)
    _timed("7 figures, 2,000 resamples x 2,000 videos x 9 systems", partial(draw, rng=rng))
    _timed("DeLong, 100,000 videos", lambda: delong(labels, scores[:, 0], scores[:, 1], np.arange(n) // 4))
    n = 20_000
    rows = _detector_rows(n, 0, [1.6, 1.3, 1.1, 0.9, 0.7, 0.4, 0.2])
    z, y = rows[list("abcdefg")].to_numpy(), rows["label"].to_numpy()
    _timed("non-negative logistic fit, 7 detectors, 20,000 samples", lambda: logistic_weights(z, y, rng))
    _timed("100 Bayesian trials, 7 detectors, 20,000 samples", lambda: bayesian_weights(z, y, rng, trials=100))
    whole = partial(choose_weights, rows, list("abcdefg"), EnsembleConfig(trials=100, folds=5), rng)
    _timed("the whole choice: 5 folds x 7 ways, 100 trials each, gate", whole)


def _detector_rows(n: int, seed: int, shifts: list[float]) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label, shared = np.arange(n) % 2, rng.standard_normal(n)
    names = "abcdefg"[: len(shifts)]
    logits = {
        name: shift * (2 * label - 1) + 0.7 * shared + 1.1 * rng.standard_normal(n)
        for name, shift in zip(names, shifts, strict=True)
    }
    keys = {"sample_id": [f"{k:06d}" for k in range(n)], "label": label, "group_id": np.arange(n) // 2}
    return pd.DataFrame(keys | {"split": "calib"} | logits)


def coverage() -> None:
    """Simulate data with correlated groups and count how often the interval holds the truth."""
    print("coverage of the 95 % interval, 600 simulations each, groups of 4 with a shared effect")
    figures: dict[str, Metric] = {
        "AUC": roc_auc,
        "PR-AUC": pr_auc,
        "Brier": brier,
        "NLL": negative_log_likelihood,
        "EER": equal_error_rate,
        "TPR@.6": partial(recall, threshold=0.6),
        "slope": calibration_slope,
        "intercept": calibration_intercept,
    }
    y, p, better, _ = _grouped(1, 50_000)
    truth = {name: metric(y, p) or 0.0 for name, metric in figures.items()}
    truth["by sample"], truth["AUC B-A"] = truth["AUC"], (roc_auc(y, better) or 0.0) - truth["AUC"]
    names = [*figures, "AUC B-A", "by sample"]
    print("  groups  " + "  ".join(f"{name:>9}" for name in names))
    for n_groups in (10, 20, 40, 100):
        held = dict.fromkeys(names, 0)
        for seed in range(600):
            y, p, better, groups = _grouped(100 + seed, n_groups)
            rng = np.random.default_rng(seed)
            found = bootstrap_estimates(figures, y, {"system": p}, groups, rng=rng, resamples=500)["system"]
            found["AUC B-A"] = paired_difference(roc_auc, y, p, better, groups, rng=rng, resamples=500)
            found["by sample"] = bootstrap_estimate(roc_auc, y, p, np.arange(len(y)), rng=rng, resamples=500)
            for name, estimate in found.items():
                low = -np.inf if estimate.low is None else estimate.low
                high = np.inf if estimate.high is None else estimate.high
                held[name] += low <= truth[name] <= high
        print(f"  {n_groups:6d}  " + "  ".join(f"{held[name] / 600:9.1%}" for name in names), flush=True)
    print("  by sample: AUC with samples drawn instead of groups; B-A: paired difference of two systems")
    print("ECE of probabilities that are exactly right, against its band under perfect calibration, 300 simulations")
    for n in (30, 100, 600, 2000):
        inside, mean = 0, 0.0
        for seed in range(300):
            rng = np.random.default_rng(seed)
            p = sigmoid(rng.normal(0, 1.5, n))
            observed = expected_calibration_error((rng.random(n) < p).astype(int), p) or 0.0
            band = calibration_error_if_perfect(p, rng=rng)
            inside += (band.low or 0.0) <= observed <= (band.high or 1.0)
            mean += observed / 300
        print(f"  n = {n:5d}: mean ECE {mean:.3f}, inside the band {inside / 300:.1%}", flush=True)
    print("exact intervals of TPR and FPR (Clopper-Pearson), 3,000 simulations")
    for n, rate in ((20, 0.9), (60, 0.05), (300, 0.01)):
        hits = np.random.default_rng(0).binomial(n, rate, 3000)
        bounds = {k: clopper_pearson(int(k), n) for k in set(hits.tolist())}
        held = np.mean([(bounds[k].low or 0.0) <= rate <= (bounds[k].high or 1.0) for k in hits.tolist()])
        print(f"  n = {n:4d}, true rate {rate:.2f}: {held:.1%}", flush=True)


def _grouped(seed: int, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels, the probabilities of a system and of a better one, and groups that share an effect on both."""
    rng = np.random.default_rng(seed)
    groups, labels = np.repeat(np.arange(n_groups), 4), np.tile([0, 1, 0, 1], n_groups)
    effect = rng.standard_normal((n_groups, 2))[groups, labels]
    first = 2 * labels - 1 + 0.8 * effect + 0.6 * rng.standard_normal(len(labels))
    second = 2.6 * labels - 1.3 + 0.8 * effect + 0.6 * rng.standard_normal(len(labels))
    return labels, sigmoid(first), sigmoid(second), groups


def gate() -> None:
    """Open the gates on simulated calib sets and judge what came out on 4,000 fresh samples."""
    print("weights: Bayesian against equal, 40 simulations each")
    cases = {
        "three alike": [0.8, 0.8, 0.8],
        "two good, one noise": [0.8, 0.8, 0.0],
        "one strong, three copies": [1.4, 0.4, 0.4, 0.4],
    }
    for name, shifts in cases.items():
        for n in (60, 300):
            opened, gained = 0, []
            for seed in range(40):
                rows, fresh = (_detector_rows(m, s, shifts) for m, s in ((n, seed), (4000, 9000 + seed)))
                names = list("abcdefg"[: len(shifts)])
                choice = choose_weights(rows, names, EnsembleConfig(trials=25, folds=5), np.random.default_rng(seed))
                temperatures = [temperature.value for temperature in choice.temperatures]
                z = fresh[names].to_numpy() / temperatures
                equal = np.full(len(names), 1 / len(names))
                aucs = [roc_auc(fresh["label"], combine(z, weights)) or 0.0 for weights in (choice.weights, equal)]
                opened += choice.method == "bayesian"
                gained.append(aucs[0] - aucs[1])
            print(f"  {name:26s} n = {n:3d}: opened {opened / 40:4.0%}, AUC on fresh samples {np.mean(gained):+.4f}")
    print("fusion: out-of-fold choice against the ensemble alone, 17 useless features and one of the given strength")
    for strength in (0.0, 0.4, 0.8):
        for n in (20, 40, 150):
            used, change = 0, []
            for seed in range(30):
                rows, fresh = _feature_rows(n, seed, strength), _feature_rows(4000, 7000 + seed, strength)
                names = [name for name in rows if name.startswith("temp.")]
                fit = fit_fusion(rows, names, 1.0, FusionConfig(), np.random.default_rng(seed))
                p = apply_fusion(fit.info, fresh["logit"], {name: fresh[name] for name in names})
                alone = negative_log_likelihood(fresh["label"], sigmoid(fresh["logit"])) or 0.0
                change.append((negative_log_likelihood(fresh["label"], p) or 0.0) - alone)
                used += fit.info.used
            outcome = f"used {used / 30:4.0%}, NLL on fresh samples {np.mean(change):+.4f}"
            print(f"  strength {strength:.1f}, n = {n:3d}: {outcome}", flush=True)


def _feature_rows(n: int, seed: int, strength: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    sign = 2 * label - 1
    features = {f"temp.f{k}": rng.standard_normal(n) + (strength * sign if k == 0 else 0) for k in range(18)}
    keys = {"sample_id": [f"{k:06d}" for k in range(n)], "label": label, "group_id": np.arange(n) // 2}
    logit = 2 * 0.7 * (0.7 * sign + rng.standard_normal(n))
    return pd.DataFrame(keys | {"split": "calib", "logit": logit} | features)


def imbalance() -> None:
    """Play through mild, moderate and severe imbalance with fakes in the minority."""
    print("imbalance, 30 simulations, 4,000 test videos; threshold 0.5 → threshold of the best F1 on calib")
    print("  reals per fake   AUC   accuracy       precision      recall         F1             always real: accuracy")
    for ratio in (1.5, 3.5, 8.0):
        rows = []
        for seed in range(30):
            calib, test = _unequal(600, ratio, seed), _unequal(4000, ratio, 500 + seed)
            tuned = choose_operating_points(calib, 0.05)["max_f1"].threshold
            y, p = test["label"], test["probability"]
            figures = [metric(y, p, t) or 0.0 for metric in (accuracy, precision, recall, f1) for t in (0.5, tuned)]
            rows.append([roc_auc(y, p) or 0.0, *figures, 1 - y.mean()])
        auc, *pairs, trivial = np.mean(rows, axis=0)
        told = "  ".join(f"{a:.1%} → {b:.1%}" for a, b in zip(pairs[::2], pairs[1::2], strict=True))
        print(f"  {ratio:14.1f}  {auc:.3f}  {told}  {trivial:.1%}", flush=True)


def _unequal(n: int, ratio: float, seed: int) -> pd.DataFrame:
    """Probabilities of a detector that learnt from classes in this ratio, and so leans towards the majority."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 1 / (1 + ratio)).astype(int)
    evidence = 2 * 0.9 * (0.9 * (2 * label - 1) + rng.standard_normal(n))
    return pd.DataFrame({"label": label, "probability": sigmoid(evidence - np.log(ratio)), "split": "calib"})


def main() -> None:
    """Run the parts that are named on the command line, or all."""
    parts = {"speed": speed, "coverage": coverage, "gate": gate, "imbalance": imbalance}
    for name in sys.argv[1:] or parts:
        if name not in parts:
            raise SystemExit(f"{name!r} is not one of {', '.join(parts)}")
        parts[name]()


if __name__ == "__main__":
    main()
