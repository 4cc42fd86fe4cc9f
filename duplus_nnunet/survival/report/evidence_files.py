"""Writes decision curves, hazard ratios and permutation importance of a study as CSV files and figures."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.decision import DecisionCurve
from duplus_nnunet.survival.evaluation.hazard_ratios import HazardRatio, estimate_hazard_ratios
from duplus_nnunet.survival.evaluation.record_importance import RecordImportance
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.report.evidence_figures import (
    DECISION_NAME,
    FOREST_NAME,
    IMPORTANCE_FIGURE,
    save_decision_curves,
    save_forest_plot,
    save_importance,
)
from duplus_nnunet.table_files import write_csv

DECISION_TABLE, RATIOS_TABLE = "decision_curves.csv", "hazard_ratios.csv"
IMPORTANCE_TABLE = "permutation_importance.csv"


def draw_evidence(study: Study, cohort: Cohort, folder: Path) -> list[Path]:
    """Write decision curves, importance, and hazard ratios where they can be estimated; returns the files."""
    files = []
    if study.decision_curves:
        write_csv(folder / DECISION_TABLE, list_decision_curves(study.decision_curves))
        save_decision_curves(folder / DECISION_NAME, study.decision_curves)
        files += [folder / DECISION_TABLE, folder / DECISION_NAME]
    try:
        ratios = estimate_hazard_ratios(cohort.records, cohort.schema)
    except DataError as error:
        ratios = ()
        write_csv(folder / RATIOS_TABLE, [["not estimated"], [str(error)]])
        files.append(folder / RATIOS_TABLE)
    if ratios:
        write_csv(folder / RATIOS_TABLE, list_hazard_ratios(ratios))
        save_forest_plot(folder / FOREST_NAME, ratios)
        files += [folder / RATIOS_TABLE, folder / FOREST_NAME]
    if study.importance is not None:
        write_csv(folder / IMPORTANCE_TABLE, list_importance(study.importance))
        save_importance(folder / IMPORTANCE_FIGURE, study.importance.columns)
        files += [folder / IMPORTANCE_TABLE, folder / IMPORTANCE_FIGURE]
    return files


def list_decision_curves(curves: Sequence[DecisionCurve]) -> Iterator[list[object]]:
    """List net benefits, heading first: a row for each method, horizon and threshold; empty: not defined."""
    yield ["method", "horizon (days)", "threshold of predicted risk", "net benefit", "net benefit of treating all"]
    for curve in curves:
        for threshold, own, everyone in zip(curve.thresholds, curve.net_benefit, curve.treat_all, strict=True):
            yield [curve.method, f"{curve.horizon:g}", f"{threshold:.2f}", _format(own), _format(everyone)]


def list_hazard_ratios(ratios: Sequence[HazardRatio]) -> Iterator[list[object]]:
    """List hazard ratios, heading first; empty: no finite estimate."""
    yield ["covariate", "per", "hazard ratio", "lower limit (95 %)", "upper limit (95 %)"]
    for ratio in ratios:
        yield [ratio.name, ratio.per, *(_format(value) for value in (ratio.ratio, ratio.low, ratio.high))]


def list_importance(importance: RecordImportance) -> Iterator[list[object]]:
    """List the permutation importance of columns, heading first; empty: no interval."""
    yield [
        *("method", "column", "drop of Harrell's C", "lower limit (95 %)", "upper limit (95 %)"),
        *("standard deviation over shuffles", "shuffles", "Harrell's C before"),
    ]
    for column in importance.columns:
        limits = (None, None) if column.interval is None else (f"{limit:.6f}" for limit in column.interval)
        yield [
            *(importance.method, column.input, f"{column.drop:.6f}", *limits, f"{column.spread:.6f}"),
            *(importance.repeats, f"{importance.concordance:.6f}"),
        ]


def _format(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.5f}"
