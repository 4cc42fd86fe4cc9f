"""Converts a study to plain data, the content of metrics.json."""

import math
from collections.abc import Mapping
from typing import Any

from duplus_nnunet.reporting.bootstrap import LEVEL
from duplus_nnunet.survival.evaluation.calibration import STEEPEST, Group, SurvivalCalibration
from duplus_nnunet.survival.evaluation.centres import Centres
from duplus_nnunet.survival.evaluation.claims import Claims
from duplus_nnunet.survival.evaluation.horizon_scores import HorizonScores
from duplus_nnunet.survival.evaluation.intervals import METHOD, METHOD_OF_CENTRES, SCORES, Value
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroups
from duplus_nnunet.survival.evaluation.study import Design, Study
from duplus_nnunet.survival.records.schema import ClinicalSchema

# 4: intervals by the corrected resampled t test; `at_horizons`, `integrated_brier_days`, `uno_tau_days`, `claims`.
VERSION = 4


def to_plain(study: Study, design: Design, schema: ClinicalSchema | None = None) -> dict[str, Any]:
    """Return all results of a study except the predictions; with a schema, also which endpoint they are of."""
    return {
        "version": VERSION,
        "endpoint": None if schema is None else _convert_endpoint(schema),
        "folds": [len(folds) for folds in design.given] if design.given else design.folds,
        "folds_were": "given" if design.given else "drawn",
        "seeds": list(design.seeds),
        "scored": {"patients": study.patients, "events": study.events},
        "interval": {"level": LEVEL, "by": METHOD, "of_centres": METHOD_OF_CENTRES},
        "claims": _convert_claims(study.claims),
        "censoring_weights": "1 / G(t-): just before the event; events come before censorings of the same time",
        "horizons_days": list(study.horizons),
        "integrated_brier_days": [None if math.isnan(day) else day for day in study.brier_days],
        "uno_tau_days": study.horizons[-1] if study.horizons else None,
        "higher_is_better": SCORES,
        "scores": _convert_scores(study.scores),
        "at_horizons": {name: [_convert_horizon(row) for row in rows] for name, rows in study.at_horizons.items()},
        "first_method": next(iter(study.methods), None),
        "first_less_others": _convert_scores(study.differences),
        "chosen_in_folds": {name: [list(seed) for seed in seeds] for name, seeds in study.chosen.items()},
        "calibration": {name: [_convert_calibration(row) for row in rows] for name, rows in study.calibration.items()},
        "calibration_groups": [
            {"horizon_days": horizon, "groups": [_convert_group(group) for group in groups]}
            for horizon, groups in study.calibration_groups.items()
        ],
        "risk_groups": [_convert_risk_groups(split) for split in study.risk_groups],
        "centres": None if study.centres is None else _convert_centres(study.centres),
        "notes": list(study.notes),
    }


def _convert_endpoint(schema: ClinicalSchema) -> dict[str, Any]:
    return {"name": schema.endpoint, "time": list(schema.time.columns), "event": schema.event.model_dump()}


def _convert_scores(values: Mapping[str, Mapping[str, Value]]) -> dict[str, Any]:
    return {name: {score: _convert_value(value) for score, value in scores.items()} for name, scores in values.items()}


def _convert_value(value: Value) -> dict[str, Any]:
    """Return a value with its interval; None instead of NaN, which JSON lacks, where it is not defined."""
    return {"value": None if math.isnan(value.value) else value.value, "interval": value.interval}


def _convert_claims(claims: Claims) -> dict[str, Any]:
    return {
        "events": claims.events,
        "encoded_parameters": claims.parameters,
        "events_per_parameter": claims.events_per_parameter,
        "methods_that_support_no_claim": list(claims.unsupported),
        "comparisons_are_supported": claims.compares,
    }


def _convert_horizon(scores: HorizonScores) -> dict[str, Any]:
    return {
        "horizon_days": scores.horizon,
        "AUC": _convert_value(scores.auc),
        "Brier": _convert_value(scores.brier),
    }


def _convert_calibration(calibration: SurvivalCalibration) -> dict[str, Any]:
    return {
        "horizon_days": calibration.horizon,
        "observed_less_predicted": _convert_value(calibration.excess),
        "slope": _convert_slope(calibration.slope),
    }


def _convert_slope(slope: Value) -> dict[str, Any]:
    """Return a slope; None where it diverges, so that its estimate is at its bound."""
    if abs(slope.value) >= STEEPEST:
        return {"value": None, "interval": None, "at_bound": slope.value}
    return {**_convert_value(slope), "at_bound": None}


def _convert_group(group: Group) -> dict[str, Any]:
    return {
        "patients": group.patients,
        "predicted": group.predicted,
        "observed": group.observed,
        "interval": group.interval,
    }


def _convert_risk_groups(split: RiskGroups) -> dict[str, Any]:
    groups = [
        {
            "name": group.name,
            "patients": len(group.outcome),
            "events": int(group.outcome.event.sum()),
            "survival_at_horizons": [{"value": value, "interval": interval} for value, interval in group.survival],
        }
        for group in split.groups
    ]
    return {"seed": split.seed, "groups": groups, "log_rank_p_descriptive": split.p, "without_a_cut": split.ungrouped}


def _convert_centres(result: Centres) -> dict[str, Any]:
    return {
        "scores": _convert_scores(result.scores),
        "first_less_others": _convert_scores(result.differences),
        "each": [
            {
                "name": centre.name,
                "patients": centre.patients,
                "events": centre.events,
                "scores": _convert_scores(centre.scores),
            }
            for centre in result.centres
        ],
        "notes": list(result.notes),
    }
