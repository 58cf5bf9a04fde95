"""What an evaluation found, in the form that sentences, charts and files are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unmask.evaluation.attack_study import AttackStudy
from unmask.evaluation.compare import AgainstHeadline
from unmask.evaluation.figures import if_unscored_were_wrong, unresolved
from unmask.evaluation.inputs import Inputs, SystemScores
from unmask.evaluation.robustness import Robustness
from unmask.schemas import Estimate, OperatingPoint

HEADLINE = "fusion"


@dataclass(frozen=True)
class Results:
    """The findings on test.

    Attributes:
        inputs: What was evaluated.
        systems: Each detector, the ensemble, fusion.
        video: System to figure to estimate, one score a sample.
        frame: Detector, or ``ensemble`` applied frame by frame, to figure to estimate, one score a frame.
        parts: System to part of test to figure to estimate.
        confusion: ``((TN, FP), (FN, TP))`` of the headline at the default operating point.
        points: The operating points, as measured on test.
        unscored: Reason to number of test samples without a figure.
        comparisons: Every other system against the headline.
        robustness: What is left after damage.
        attacks: What is left under attack.
    """

    inputs: Inputs
    systems: list[SystemScores]
    video: dict[str, dict[str, Estimate]]
    frame: dict[str, dict[str, Estimate]]
    parts: dict[str, dict[str, dict[str, Estimate]]]
    confusion: tuple[tuple[int, int], tuple[int, int]]
    points: list[OperatingPoint]
    unscored: dict[str, int]
    comparisons: list[AgainstHeadline]
    robustness: Robustness
    attacks: AttackStudy

    @property
    def slices(self) -> dict[str, dict[str, Estimate]]:
        """Part of test to figure to estimate, of the headline system."""
        return self.parts[HEADLINE]

    @property
    def unresolved(self) -> dict[str, str]:
        """Figure to why the number of reals cannot support it."""
        return unresolved(self.n_reals)

    @property
    def unscored_by_system(self) -> dict[str, int]:
        """System to labelled test samples that it did not score."""
        labelled = len(self.inputs.labelled_test)
        return {system.name: labelled - len(system.labels) for system in self.systems}

    @property
    def if_unscored_were_wrong(self) -> dict[str, dict[str, Estimate]]:
        """System to figures in which every labelled test sample without a score is a mistake."""
        rows, threshold = self.inputs.labelled_test, self.inputs.operating_point.threshold
        return {system.name: if_unscored_were_wrong(system, rows, threshold) for system in self.systems}

    @property
    def headline(self) -> SystemScores:
        """The system whose figures lead."""
        return next(system for system in self.systems if system.name == HEADLINE)

    @property
    def point(self) -> OperatingPoint:
        """The default operating point, as measured on test."""
        return next(point for point in self.points if point.name == self.inputs.fusion.default_operating_point)

    @property
    def n_reals(self) -> int:
        """Scored reals of test."""
        return int(np.sum(self.headline.labels == 0))

    @property
    def n_fakes(self) -> int:
        """Scored fakes of test."""
        return int(np.sum(self.headline.labels == 1))

    @property
    def n_groups(self) -> int:
        """Independent groups among the scored samples of test."""
        return len(set(self.headline.groups))
