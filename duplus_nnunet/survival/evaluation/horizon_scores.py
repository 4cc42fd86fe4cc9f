"""Lists AUC and Brier score at each horizon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from duplus_nnunet.survival.evaluation.cross_validation import AUC, BRIER, name_at
from duplus_nnunet.survival.evaluation.intervals import SCORES, Estimate, Value


@dataclass(frozen=True)
class HorizonScores:
    """Scores of one method at one horizon.

    Attributes:
        horizon: In days.
        auc: Cumulative/dynamic AUC; higher is better, 0.5 is chance.
        brier: Brier score; lower is better.
    """

    horizon: float
    auc: Value
    brier: Value


def list_horizon_scores(estimates: Mapping[str, Estimate], horizons: Sequence[float]) -> tuple[HorizonScores, ...]:
    """List the scores of one method at each horizon (days)."""
    return tuple(
        HorizonScores(
            horizon,
            estimates[name_at(AUC, horizon)].summarise(is_share=True),
            estimates[name_at(BRIER, horizon)].summarise(least=0.0),
        )
        for horizon in map(float, horizons)
    )


def keep_overall_scores(estimates: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    """Keep the scores over all horizons, by method."""
    return {
        name: {score: estimate for score, estimate in scores.items() if score in SCORES}
        for name, scores in estimates.items()
    }
