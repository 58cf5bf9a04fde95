"""What fusion, its rules and the agreement of the detectors do on test, for the report; nothing is chosen here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import metrics
from unmask.evaluation.inputs import Inputs, groups_of
from unmask.fusion.apply import apply_fusion
from unmask.fusion.rules import USUAL_FREQUENCY, rule_changes
from unmask.metrics.intervals import group_codes
from unmask.schemas import Ablation, Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AblationFinding:
    """Fusion without some of its inputs.

    Attributes:
        name: As in `unmask.schemas.Ablation`.
        removed: What was taken away.
        calib: ROC AUC out of fold on calib.
        test: ROC AUC on test.
        change: ROC AUC on test minus that of the full fusion, paired; None for the full one.
    """

    name: str
    removed: list[str]
    calib: Estimate
    test: Estimate
    change: Estimate | None


@dataclass(frozen=True)
class RuleFinding:
    """What a rule on top of fusion does.

    Attributes:
        rule: feedback, artefact_scale or real_evidence.
        reals: Share of test reals whose probability it changes.
        fakes: Share of test fakes whose probability it changes.
        largest: Largest change of a probability on test, signed; None when it changes none.
        calib_reals: Share of calib reals that real_evidence applies to; None for other rules.
    """

    rule: str
    reals: Estimate
    fakes: Estimate
    largest: float | None
    calib_reals: Estimate | None

    @property
    def unusual(self) -> bool:
        """Whether the cap applies to fewer or more calib reals than is usual where it is set well."""
        low, high = USUAL_FREQUENCY
        share = self.calib_reals.value if self.calib_reals else None
        return share is not None and not low <= share <= high


@dataclass(frozen=True)
class CertaintyFinding:
    """Test samples on which the detectors agree, or do not.

    Attributes:
        certain: Whether they agree enough for a verdict.
        share: Of the scored test samples.
        right: Share that lies on the right side of the threshold in use, of those with a label.
    """

    certain: bool
    share: Estimate
    right: Estimate


def measure_ablations(inputs: Inputs, resamples: int, seed: int) -> list[AblationFinding]:
    """Score test with fusion as it was fitted on calib without families of inputs.

    Args:
        inputs: With the analysis of fusion.
        resamples: Drawn by group; the same for all of them.
        seed: Of the resamples.

    Returns:
        The full fusion first; empty without an analysis or without both classes in test.
    """
    rows, columns = _test_table(inputs)
    known = rows.dropna(subset=["label", "logit"])
    ablations = inputs.analysis.ablations if inputs.analysis else []
    if not ablations or known["label"].nunique() < 2:
        return []
    columns = {name: values[known.index] for name, values in columns.items()}
    labels, groups = known["label"].to_numpy(np.int64), groups_of(known)
    scores = np.stack([apply_fusion(one.model, known["logit"], columns) for one in ablations], axis=1)
    rng = np.random.default_rng([seed, 6])
    drawn = metrics.bootstrap_values([metrics.roc_auc], labels, scores, groups, rng=rng, resamples=resamples)[:, :, 0]
    n_groups = group_codes(groups)[1]
    found = [metrics.roc_auc(labels, column) or 0.0 for column in scores.T]

    def estimate(value: float, values: Floats) -> Estimate:
        return metrics.percentile_estimate(value, values, len(labels), "drawn by group", n_groups=n_groups)

    return [
        AblationFinding(
            one.name,
            one.removed,
            one.auc,
            estimate(found[k], drawn[:, k]),
            estimate(found[k] - found[0], drawn[:, k] - drawn[:, 0]) if k else None,
        )
        for k, one in enumerate(ablations)
    ]


def without_quality(ablations: list[Ablation]) -> Ablation | None:
    """Find the fit without measures of quality if calib is surely ranked worse by it; None otherwise."""
    for one in ablations:
        if one.name == "without_quality" and one.change and one.change.high is not None and one.change.high < 0:
            return one
    return None


def measure_rules(inputs: Inputs) -> list[RuleFinding]:
    """Count what the rules do on test.

    Args:
        inputs: With the fitted fusion.

    Returns:
        One finding a rule, in the order in which they apply; empty without rules.
    """
    rows, columns = _test_table(inputs)
    findings = []
    for rule, change in rule_changes(inputs.fusion, rows["logit"].to_numpy(np.float64), columns).items():
        scored = ~np.isnan(change)
        touched = scored & (change != 0)
        reals, fakes = (
            metrics.clopper_pearson(int((touched & of).sum()), int((scored & of).sum()))
            for of in ((rows["label"] == 0).to_numpy(), (rows["label"] == 1).to_numpy())
        )
        largest = float(change[touched][np.argmax(np.abs(change[touched]))]) if touched.any() else None
        evidence = inputs.fusion.rules.real_evidence
        calib = evidence.reals if rule == "real_evidence" and evidence else None
        findings.append(RuleFinding(rule, reals, fakes, largest, calib))
    return findings


def measure_certainty(inputs: Inputs) -> list[CertaintyFinding]:
    """Count the samples on which the detectors agree too little for a verdict, and how often either kind is right.

    Args:
        inputs: With the scores of fusion.

    Returns:
        The certain ones and the uncertain ones; empty with one detector or without scored samples.
    """
    rows = inputs.fusion_rows.dropna(subset=["probability", "agreement"])
    if len(inputs.ensemble.detectors) < 2 or rows.empty:
        return []
    certain = (rows["agreement"] >= inputs.ensemble.agreement_threshold).to_numpy()
    right = ((rows["probability"] >= inputs.operating_point.threshold) == (rows["label"] == 1)).to_numpy()
    labelled = rows["label"].notna().to_numpy()
    return [
        CertaintyFinding(
            bool(of_kind[0]),
            metrics.clopper_pearson(int(of_kind[1].sum()), len(rows)),
            metrics.clopper_pearson(int((right & labelled & of_kind[1]).sum()), int((labelled & of_kind[1]).sum())),
        )
        for of_kind in ((True, certain), (False, ~certain))
    ]


def _test_table(inputs: Inputs) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """Put the ensemble's logits and the features of the test samples side by side."""
    names = [name for name in inputs.features.columns if "." in name]
    measured = inputs.features.loc[inputs.features["split"] == "test", ["sample_id", *names]]
    rows = inputs.ensemble_rows[["sample_id", "label", "group_id", "logit"]].merge(measured, on="sample_id", how="left")
    scored = set(inputs.fusion_rows.dropna(subset=["probability"])["sample_id"])
    rows["logit"] = rows["logit"].where(rows["sample_id"].isin(scored))
    return rows, {name: rows[name].to_numpy(np.float64) for name in names}
