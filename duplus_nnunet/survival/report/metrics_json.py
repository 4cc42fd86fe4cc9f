"""A study as plain data: in comes what a cross-validation found, out comes the content of metrics.json."""

import math
from collections.abc import Mapping
from typing import Any

from duplus_nnunet.reporting.bootstrap import DRAWS, SEED
from duplus_nnunet.survival.evaluation.calibration import Group, SurvivalCalibration
from duplus_nnunet.survival.evaluation.centres import Centres
from duplus_nnunet.survival.evaluation.intervals import SCORES, Value
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroups
from duplus_nnunet.survival.evaluation.study import Design, Study

VERSION = 3


def to_plain(study: Study, design: Design) -> dict[str, Any]:
    """Return everything but the predictions as plain data."""
    return {
        "version": VERSION,
        "folds": [len(folds) for folds in design.given] if design.given else design.folds,
        "folds_were": "given" if design.given else "drawn",
        "seeds": list(design.seeds),
        "interval": {"level": 0.95, "by": "patient bootstrap", "draws": DRAWS, "seed": SEED},
        "horizons_days": list(study.horizons),
        "higher_is_better": SCORES,
        "scores": _turn(study.scores),
        "first_method": next(iter(study.methods), None),
        "first_less_others": _turn(study.differences),
        "calibration": {name: [_turn_calibration(one) for one in found] for name, found in study.calibration.items()},
        "calibration_groups": [
            {"horizon_days": horizon, "groups": [_turn_group(one) for one in groups]}
            for horizon, groups in study.calibration_groups.items()
        ],
        "risk_groups": [_turn_risk_groups(one) for one in study.risk_groups],
        "centres": None if study.centres is None else _turn_centres(study.centres),
        "notes": list(study.notes),
    }


def _turn(values: Mapping[str, Mapping[str, Value]]) -> dict[str, Any]:
    return {name: {score: _turn_value(one) for score, one in found.items()} for name, found in values.items()}


def _turn_value(one: Value) -> dict[str, Any]:
    """JSON has no NaN, which says that there was nothing to compare."""
    return {"value": None if math.isnan(one.value) else one.value, "interval": one.interval}


def _turn_calibration(one: SurvivalCalibration) -> dict[str, Any]:
    return {
        "horizon_days": one.horizon,
        "observed_less_predicted": _turn_value(one.excess),
        "slope": _turn_value(one.slope),
    }


def _turn_group(one: Group) -> dict[str, Any]:
    return {
        "patients": one.patients,
        "predicted": one.predicted,
        "observed": one.observed,
        "interval": one.interval,
    }


def _turn_risk_groups(one: RiskGroups) -> dict[str, Any]:
    groups = [
        {
            "name": group.name,
            "patients": len(group.outcome),
            "events": int(group.outcome.event.sum()),
            "survival_at_horizons": [{"value": value, "interval": interval} for value, interval in group.survival],
        }
        for group in one.groups
    ]
    return {"seed": one.seed, "groups": groups, "log_rank_p_descriptive": one.p, "without_a_cut": one.ungrouped}


def _turn_centres(found: Centres) -> dict[str, Any]:
    return {
        "scores": _turn(found.scores),
        "first_less_others": _turn(found.differences),
        "each": [
            {"name": one.name, "patients": one.patients, "events": one.events, "scores": _turn(one.scores)}
            for one in found.centres
        ],
        "notes": list(found.notes),
    }
