"""External validation of fixed predictions, and recalibration: golden numbers of lifelines, and known answers."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.calibration_curve import fit_calibration_curve
from duplus_nnunet.survival.evaluation.cross_validation import HIGH, LOW, name_at
from duplus_nnunet.survival.evaluation.updating import estimate_recalibration
from duplus_nnunet.survival.evaluation.validation import (
    EXCESS,
    HARRELL,
    RATIO,
    SKILL,
    SLOPE,
    Predictions,
    choose_validation_times,
    measure,
    name_groups,
    validate,
)
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

pytest.importorskip("sksurv")

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "validation.json").read_text(encoding="utf-8"))
HORIZON = GOLDEN["horizon"]


def make_predictions(outcome: Outcome, risk: Numbers, survival: Numbers, horizon: float = HORIZON) -> Predictions:
    grid = np.linspace(float(outcome.time[outcome.event].min()), horizon, 5)
    on_grid = survival[:, None] ** (grid / horizon)
    patients = tuple(f"p{number}" for number in range(len(risk)))
    return Predictions(
        outcome, patients, risk, (horizon,), survival[:, None], grid, on_grid, name_groups(risk, float(np.median(risk)))
    )


@pytest.fixture
def golden() -> Predictions:
    outcome = Outcome(np.array(GOLDEN["event"], bool), np.array(GOLDEN["time"]))
    return make_predictions(outcome, np.array(GOLDEN["risk"]), np.array(GOLDEN["survival"]))


def test_scores_are_those_of_lifelines(golden: Predictions) -> None:
    measured = measure(golden)
    assert measured[HARRELL] == pytest.approx(GOLDEN["concordance"], abs=1e-9)
    assert measured[name_at(RATIO, HORIZON)] == pytest.approx(GOLDEN["ratio"], abs=1e-9)
    assert measured[name_at(SLOPE, HORIZON)] == pytest.approx(GOLDEN["slope"], abs=1e-6)


def test_the_calibration_curve_is_that_of_lifelines(golden: Predictions) -> None:
    curve = fit_calibration_curve(golden.outcome, golden.at_horizons[:, 0], HORIZON)
    assert curve is not None
    assert curve.index == pytest.approx(GOLDEN["ici"], abs=1e-6)
    assert (np.diff(curve.predicted) >= 0).all()


@pytest.mark.parametrize(("kind", "slope"), [("large", 1.0), ("slope", GOLDEN["slope"])])
def test_recalibration_is_that_of_lifelines(kind: str, slope: float, golden: Predictions) -> None:
    change = estimate_recalibration(kind, "b", golden)
    assert change.slope == pytest.approx(slope, abs=1e-6)
    assert change.factor == pytest.approx(GOLDEN[f"factor_{kind}"], rel=1e-5)
    assert change.patients == 120


@pytest.mark.parametrize("kind", ["large", "slope"])
@pytest.mark.parametrize("competing", [False, True])
def test_recalibrated_predictions_are_calibrated_where_they_were_recalibrated(
    kind: str, competing: bool, golden: Predictions
) -> None:
    outcome = golden.outcome
    if competing:
        ended = ~outcome.event & (np.arange(len(outcome)) % 2 == 0)
        outcome = dataclasses.replace(outcome, competing=ended)
    before = make_predictions(outcome, golden.risk, golden.at_horizons[:, 0])
    change = estimate_recalibration(kind, "b", before)
    after = make_predictions(outcome, golden.risk, change.apply(before.at_horizons, before.at_horizons[:, 0])[:, 0])
    measured = measure(after)
    assert measured[name_at(RATIO, HORIZON)] == pytest.approx(1, abs=1e-6)
    assert measured[name_at(EXCESS, HORIZON)] == pytest.approx(0, abs=1e-6)
    if kind == "slope":
        assert measured[name_at(SLOPE, HORIZON)] == pytest.approx(1, abs=1e-4)


def test_with_competing_events_the_observed_risk_is_the_cumulative_incidence() -> None:
    # Two of four patients have the event, one a competing event, all within 40 days: incidence 1/2.
    outcome = Outcome(np.array([True, False, True, False]), np.array([10.0, 20.0, 30.0, 90.0]), None,
                      np.array([False, True, False, False]))  # fmt: skip
    measured = measure(make_predictions(outcome, np.arange(4.0), np.full(4, 0.75), 40.0))
    assert measured[name_at(RATIO, 40.0)] == pytest.approx(0.5 / 0.25)


def test_intervals_come_from_a_bootstrap_of_patients(golden: Predictions) -> None:
    validation = validate("m", golden, replicates=60)
    for value in (*validation.scores.values(), *validation.at_horizons[0].values()):
        assert value.interval is not None
        assert value.interval[0] < value.value < value.interval[1]
    harrell = validation.scores[HARRELL]
    assert harrell.interval is not None
    # The standard error of the concordance of 120 patients is about 0.03.
    assert 0.06 < harrell.interval[1] - harrell.interval[0] < 0.2
    assert validate("m", golden, replicates=60).scores == validation.scores
    assert all(value.interval is None for value in validate("m", golden, replicates=0).scores.values())


def test_the_curve_of_kaplan_meier_has_no_skill() -> None:
    rng = np.random.default_rng(0)
    outcome = Outcome(np.ones(50, bool), rng.exponential(100, 50))
    grid = np.linspace(float(outcome.time.min()), 150.0, 5)
    curve = np.array([(outcome.time > time).mean() for time in grid])
    predictions = Predictions(
        outcome,
        ("p",) * 50,
        np.zeros(50),
        (150.0,),
        np.full((50, 1), curve[-1]),
        grid,
        np.tile(curve, (50, 1)),
        ("",) * 50,
    )
    measured = measure(predictions)
    assert measured[SKILL] == pytest.approx(0, abs=1e-12)
    assert measured[HARRELL] == 0.5


def test_risk_groups_are_those_of_the_development(golden: Predictions) -> None:
    assert name_groups(np.array([0.0, 2.0]), 1.0) == (LOW, HIGH)
    assert name_groups(np.array([0.0, 2.0]), None) == ("", "")
    groups = validate("m", golden, replicates=0).risk_groups
    assert [(group.name, len(group.outcome)) for group in groups.groups] == [(LOW, 60), (HIGH, 60)]
    assert groups.p is not None
    assert groups.p < 0.05


@pytest.mark.parametrize(("kind", "needed"), [("large", 10), ("slope", 20)])
def test_recalibration_with_too_few_events_is_refused(kind: str, needed: int, golden: Predictions) -> None:
    early = np.flatnonzero(golden.outcome.event & (golden.outcome.time <= HORIZON))
    rest = np.setdiff1d(np.arange(len(golden.risk)), early)
    enough = golden.take([*early[:needed], *rest])
    assert estimate_recalibration(kind, "b", enough).events == needed
    with pytest.raises(DataError, match=str(needed)):
        estimate_recalibration(kind, "b", golden.take([*early[: needed - 1], *rest]))


def test_a_slope_below_0_is_not_recalibrated(golden: Predictions) -> None:
    reversed_order = make_predictions(golden.outcome, golden.risk, 1 - golden.at_horizons[:, 0])
    with pytest.raises(DataError, match="slope"):
        estimate_recalibration("slope", "b", reversed_order)


def test_horizons_beyond_the_follow_up_of_model_or_patients_are_left_out() -> None:
    outcome = Outcome(np.array([True, True, False]), np.array([10.0, 20.0, 300.0]))
    kept, grid, left_out = choose_validation_times(outcome, (5.0, 50.0, 200.0, 400.0), 200.0)
    assert (kept, left_out) == ((50.0, 200.0), (5.0, 400.0))
    assert (grid[0], grid[-1]) == (10.0, 200.0)
    with pytest.raises(DataError, match="400"):
        choose_validation_times(outcome, (400.0,), 500.0)
    with pytest.raises(DataError, match="event"):
        choose_validation_times(outcome.take([0, 2]), (50.0,), 500.0)


def test_no_calibration_curve_of_few_events_or_equal_predictions(golden: Predictions) -> None:
    predicted = golden.at_horizons[:, 0]
    assert fit_calibration_curve(golden.outcome.take(range(20)), predicted[:20], HORIZON) is None
    assert fit_calibration_curve(golden.outcome, np.full_like(predicted, 0.5), HORIZON) is None
