"""Net benefit, hazard ratios and permutation importance are those of their definitions."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.cross_validation import CrossValidation, choose_times, cross_validate
from duplus_nnunet.survival.evaluation.decision import DecisionCurve, measure_net_benefit
from duplus_nnunet.survival.evaluation.hazard_ratios import HazardRatio, estimate_hazard_ratios, fit_cox
from duplus_nnunet.survival.evaluation.importance import Importance
from duplus_nnunet.survival.evaluation.intervals import estimate_score
from duplus_nnunet.survival.evaluation.record_importance import measure_record_importance
from duplus_nnunet.survival.models.methods import forecast
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import Outcome, read_outcome
from duplus_nnunet.survival.report.evidence_figures import save_decision_curves, save_forest_plot, save_importance

from ..cohorts import SCHEMA, make_records


def test_without_censoring_the_net_benefit_counts_patients() -> None:
    outcome = Outcome(np.array([True, True, False, False]), np.array([1.0, 2.0, 9.0, 9.0]))
    risk = np.array([0.9, 0.2, 0.6, 0.1])
    benefit = measure_net_benefit(outcome, risk, 5.0, np.array([0.5, 0.15]))
    assert benefit.tolist() == pytest.approx([1 / 4 - 1 / 4 * 1, 2 / 4 - 1 / 4 * 0.15 / 0.85])


def test_a_competing_event_is_a_treatment_in_vain() -> None:
    competing = np.array([False, True, False, False])
    outcome = Outcome(np.array([True, False, False, False]), np.array([1.0, 2.0, 9.0, 9.0]), None, competing)
    assert measure_net_benefit(outcome, np.ones(4), 5.0, np.array([0.5]))[0] == pytest.approx(1 / 4 - 3 / 4)


def test_who_was_not_followed_has_no_net_benefit_and_nobody_has_none() -> None:
    outcome = Outcome(np.array([False, True]), np.array([1.0, 9.0]))
    assert math.isnan(measure_net_benefit(outcome, np.array([0.9, 0.1]), 5.0, np.array([0.5]))[0])
    assert measure_net_benefit(outcome, np.zeros(2), 5.0, np.array([0.5]))[0] == 0


def test_a_hazard_ratio_is_the_closed_form_of_a_binary_covariate() -> None:
    # One event at a time with both groups at risk: the score is solved by hand, 1/(1+2r)... = 0 at r below.
    x = np.array([[1.0], [0.0], [0.0]])
    outcome = Outcome(np.array([True, True, False]), np.array([2.0, 1.0, 3.0]))
    # l(b) = b - log(2 + e^b) - log(1 + e^b), maximal where e^(2b) = 2.
    coefficients, errors = fit_cox(x, outcome)
    assert coefficients[0] == pytest.approx(math.log(2) / 2, abs=1e-6)
    r = math.sqrt(2)
    assert errors[0] == pytest.approx((2 * r / (2 + r) ** 2 + r / (1 + r) ** 2) ** -0.5, rel=1e-6)


def test_hazard_ratios_find_the_planted_effect_and_nothing_else() -> None:
    records = make_records(200, effect=1.0, seed=2)
    ratios = {ratio.name: ratio for ratio in estimate_hazard_ratios(records, SCHEMA)}
    assert ratios["age"].low < math.e < ratios["age"].high
    assert ratios["age"].low > 1
    assert ratios["grade"].low < 1 < ratios["grade"].high


def test_too_few_events_have_no_hazard_ratios() -> None:
    with pytest.raises(DataError, match="events"):
        estimate_hazard_ratios(make_records(20)[:3], SCHEMA)


def test_only_the_planted_column_is_important() -> None:
    records = make_records(60)
    outcome, folds = read_outcome(records), make_folds(records, 3, 0)
    times = choose_times(outcome, folds, [float(np.median(outcome.time[outcome.event]))])
    cv = CrossValidation(records, outcome, SCHEMA, folds, [None] * 3, 0, times, SurvivalSettings())
    found = measure_record_importance(partial(forecast, "Cox"), cv, repeats=5, name="Cox")
    assert (found.method, found.repeats) == ("Cox", 5)
    assert found.concordance > 0.75
    first, *others = found.columns
    assert first.input == "age"
    assert first.interval is not None
    assert 0.1 < first.interval[0] < first.drop < first.interval[1]
    for other in others:
        assert abs(other.drop) < 0.05
        assert other.interval is not None
        assert other.interval[0] < 0 < other.interval[1]


def test_the_importance_is_the_drop_of_the_concordance_of_that_cross_validation() -> None:
    records = make_records(60)
    outcome, folds = read_outcome(records), make_folds(records, 3, 0)
    times = choose_times(outcome, folds, [float(np.median(outcome.time[outcome.event]))])
    cv = CrossValidation(records, outcome, SCHEMA, folds, [None] * 3, 0, times, SurvivalSettings())
    found = measure_record_importance(partial(forecast, "Cox"), cv, repeats=1)
    (plain,) = [estimate_score(sums, [fold.test for fold in folds], 60, cv.ratio) for sums in
                [cross_validate("Cox", partial(forecast, "Cox"), cv).sums["Harrell's C"]]]  # fmt: skip
    assert found.concordance == pytest.approx(plain.value)


def test_figures_are_drawn(tmp_path: Path) -> None:
    levels = np.array([0.1, 0.5])
    save_decision_curves(tmp_path / "a.png", [DecisionCurve("Cox", 100.0, levels, np.array([0.2, math.nan]), levels)])
    save_forest_plot(
        tmp_path / "b.png", [HazardRatio("age", "10", 2.0, 1.5, 2.5), HazardRatio("x", "", *[math.nan] * 3)]
    )
    save_importance(tmp_path / "c.png", [Importance("age", "record", 0.1, 0.01, (0.05, 0.15))])
    assert all(imread(tmp_path / name).std() > 0.01 for name in ("a.png", "b.png", "c.png"))
