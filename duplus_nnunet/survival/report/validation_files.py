"""Writes an external validation as JSON, tables, figures and a report in Markdown, all or nothing."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.files import open_new_file
from duplus_nnunet.reporting.bootstrap import LEVEL
from duplus_nnunet.survival.evaluation.cross_validation import AUC, BRIER
from duplus_nnunet.survival.evaluation.validation import (
    EXCESS,
    RATIO,
    SLOPE,
    Predictions,
    Validation,
)
from duplus_nnunet.survival.report.evidence_figures import DECISION_NAME, save_decision_curves
from duplus_nnunet.survival.report.evidence_files import DECISION_TABLE, list_decision_curves
from duplus_nnunet.survival.report.figures import (
    CALIBRATION_NAME,
    KAPLAN_MEIER_NAME,
    Panel,
    Point,
    make_curve,
    name_estimate,
    save_calibration,
    save_kaplan_meier,
)
from duplus_nnunet.survival.report.records_evidence import list_validation
from duplus_nnunet.survival.report.text import (
    DIRECTIONS,
    escape,
    format_days,
    format_slope,
    format_value,
    start_table,
)
from duplus_nnunet.table_files import write_csv
from duplus_nnunet.text_table import format_table

VALIDATION_NAME, REPORT_NAME, PATIENTS_NAME = "validation.json", "validation.md", "validation_predictions.csv"
VERSION = 1
# Fewer events make a validation too imprecise. Source: Collins et al. 2016 (doi 10.1002/sim.6787).
ENOUGH_EVENTS = 100


@dataclass(frozen=True)
class Subject:
    """What was validated, and in whom.

    Attributes:
        model: Name of the model.
        method: Its method.
        table: Name of the table of the patients.
        notes: Remarks for the reader.
        endpoint: Name of the endpoint that the model predicts; None: it has none.
    """

    model: str
    method: str
    table: str
    notes: tuple[str, ...]
    endpoint: str | None = None


def write_validation(validation: Validation, subject: Subject, folder: Path) -> list[Path]:
    """Write all files; on an error none is written and earlier files are kept. Returns the files."""
    names = [REPORT_NAME, PATIENTS_NAME, DECISION_TABLE, DECISION_NAME, CALIBRATION_NAME]
    names += [KAPLAN_MEIER_NAME] if validation.risk_groups.groups else []
    with open_new_file(folder / VALIDATION_NAME) as file:
        temporary = file.parent
        write_csv(temporary / PATIENTS_NAME, list_patients(validation.predictions))
        write_csv(temporary / DECISION_TABLE, list_decision_curves(validation.decision_curves))
        save_decision_curves(temporary / DECISION_NAME, validation.decision_curves)
        _draw_calibration(validation, subject, temporary / CALIBRATION_NAME)
        if validation.risk_groups.groups:
            _draw_groups(validation, subject, temporary / KAPLAN_MEIER_NAME)
        report = "\n".join(describe_validation(validation, subject)) + "\n"
        (temporary / REPORT_NAME).write_text(report, encoding="utf-8", newline="\n")
        text = json.dumps(to_plain(validation, subject), indent=1, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
    return [folder / name for name in (VALIDATION_NAME, *names)]


def to_plain(validation: Validation, subject: Subject) -> dict[str, Any]:
    """Return all results but the predictions as plain data, the content of validation.json."""
    predictions = validation.predictions
    return {
        "version": VERSION,
        "model": subject.model,
        "method": subject.method,
        "endpoint": subject.endpoint,
        "table": subject.table,
        "patients": len(predictions.patients),
        "events": validation.events,
        "horizons_days": list(predictions.horizons),
        "integrated_brier_days": [float(predictions.grid[0]), float(predictions.grid[-1])],
        "interval": {"level": LEVEL, "by": "percentile bootstrap of patients", "samples": validation.replicates},
        "scores": list_validation(validation),
        "calibration": [
            {
                "horizon_days": horizon,
                "groups": [vars(group) for group in validation.groups[horizon]],
                "curve": None if curve is None else _summarise_curve(curve),
            }
            for horizon, curve in zip(predictions.horizons, validation.curves, strict=True)
        ],
        "risk_groups": [
            {
                "name": group.name,
                "patients": len(group.outcome),
                "events": int(group.outcome.event.sum()),
                "survival_at_horizons": [{"value": value, "interval": interval} for value, interval in group.survival],
            }
            for group in validation.risk_groups.groups
        ],
        "log_rank_p": validation.risk_groups.p,
        "notes": list(list_remarks(validation, subject)),
    }


def _summarise_curve(curve: Any) -> dict[str, float]:
    return {"ICI": curve.index, "E50": curve.median, "E90": curve.worst_tenth}


def list_patients(predictions: Predictions) -> Iterator[list[object]]:
    """List outcomes and predictions of all patients, heading first; the event is 2 for a competing event."""
    horizons = [f"survival at {horizon:g} days" for horizon in predictions.horizons]
    yield ["patient", "time (days)", "event", "risk", *horizons, "risk group"]
    causes = predictions.outcome.causes
    for row, patient in enumerate(predictions.patients):
        survival = [f"{value:.6f}" for value in predictions.at_horizons[row]]
        outcome = [f"{predictions.outcome.time[row]:g}", int(causes[row])]
        yield [patient, *outcome, f"{predictions.risk[row]:.6g}", *survival, predictions.groups[row]]


def list_remarks(validation: Validation, subject: Subject) -> Iterator[str]:
    """List the limits of a validation, and the remarks on its data."""
    if validation.events < ENOUGH_EVENTS:
        yield (
            f"{validation.events} of {len(validation.predictions.patients)} patients have the event; {ENOUGH_EVENTS} "
            "or more are recommended to validate a model (Collins et al. 2016)."
        )
    if any(curve is None for curve in validation.curves):
        yield (
            "No smooth calibration curve where fewer than 20 patients have the event by the horizon, events compete, "
            "entry is delayed, or predictions hardly differ; see the groups of patients."
        )
    if validation.predictions.outcome.entry is not None:
        yield "AUC, Brier score and their weights do not take delayed entry into account."
    yield from subject.notes


def list_score_rows(validation: Validation) -> list[tuple[str, ...]]:
    """List the scores over all horizons, heading first."""
    return [
        ("score", "value (95 % interval)"),
        *((name, format_value(value)) for name, value in validation.scores.items()),
    ]


def list_horizon_rows(validation: Validation) -> list[tuple[str, ...]]:
    """List the scores and the calibration at each horizon, heading first."""
    rows: list[tuple[str, ...]] = [("days", AUC, BRIER, f"{RATIO} (ideal: 1)", EXCESS, "slope (ideal: 1)", "ICI")]
    for horizon, values, curve in zip(
        validation.predictions.horizons, validation.at_horizons, validation.curves, strict=True
    ):
        own = [format_value(values[score]) for score in (AUC, BRIER, RATIO)]
        index = "none" if curve is None else f"{curve.index:.3f}"
        excess = format_value(values[EXCESS], signed=True)
        rows.append((format_days(horizon), *own, excess, format_slope(values[SLOPE]), index))
    return rows


def describe_for_terminal(validation: Validation) -> Iterator[str]:
    """Format the results as lines for the terminal."""
    yield from format_table(list_score_rows(validation))
    yield ""
    yield from format_table(list_horizon_rows(validation))
    yield ""
    count = len(validation.predictions.patients)
    yield f"Validated in {count} patients, {validation.events} with the event. {DIRECTIONS}"


def describe_validation(validation: Validation, subject: Subject) -> Iterator[str]:
    """Write the report line by line."""
    predictions = validation.predictions
    yield f"# Validation of {escape(subject.model)} ({escape(subject.method)}) in {escape(subject.table)}"
    yield ""
    endpoint = "" if subject.endpoint is None else f"Endpoint of the model: {escape(subject.endpoint)}. "
    yield (
        f"{endpoint}{len(predictions.patients)} patients, {validation.events} with the event. The model was taken as "
        "it is. "
        f"Intervals: {LEVEL:.0%}, percentiles of {validation.replicates} bootstrap samples of patients."
    )
    for title, rows in (("Scores", list_score_rows(validation)), ("At the horizons", list_horizon_rows(validation))):
        yield from ("", f"## {title}", "")
        yield from start_table(*rows[0])
        yield from (f"| {' | '.join(row)} |" for row in rows[1:])
    yield ""
    yield (
        f"{DIRECTIONS} Brier skill is beside Kaplan-Meier of these patients. O/E: observed by expected risk. ICI: mean "
        "distance of the smooth calibration curve from the predictions (Austin et al. 2020)."
    )
    yield from _describe_groups(validation)
    yield from ("", "## Remarks", "")
    yield from (f"- {remark}" for remark in list_remarks(validation, subject))


def _describe_groups(validation: Validation) -> Iterator[str]:
    yield from ("", "## Risk groups, fixed at development", "")
    groups = validation.risk_groups
    if not groups.groups:
        yield "The model has no cut-off, as all of its risks are equal."
        return
    heads = [f"event-free at {format_days(horizon)} days" for horizon in validation.predictions.horizons]
    yield from start_table("risk", "patients", "with the event", *heads)
    for group in groups.groups:
        cells = [_format_share(*share) for share in group.survival]
        yield f"| {group.name} | {len(group.outcome)} | {int(group.outcome.event.sum())} | {' | '.join(cells)} |"
    if groups.p is not None:
        yield ""
        yield f"Log-rank test: p = {groups.p:.2g}."


def _format_share(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "no follow-up"
    return f"{value:.2f}" if interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _draw_groups(validation: Validation, subject: Subject, path: Path) -> None:
    p = validation.risk_groups.p
    test = "no log-rank test" if p is None else f"log-rank test p = {p:.2g}"
    caption = (
        "Groups by the risk cut-off that was fixed when the model was fitted. Shaded: 95 % confidence intervals; "
        f"ticks: censored patients; {test}."
    )
    curves = [make_curve(group) for group in validation.risk_groups.groups]
    save_kaplan_meier(path, f"{subject.table} by predicted risk: {subject.model}", caption, curves)


def _draw_calibration(validation: Validation, subject: Subject, path: Path) -> None:
    predictions = validation.predictions
    panels = []
    for index, horizon in enumerate(predictions.horizons):
        points = [
            Point(group.predicted, group.observed, group.interval, group.patients)
            for group in validation.groups[horizon]
            if group.observed is not None and group.interval is not None
        ]
        curve, slope = validation.curves[index], format_slope(validation.at_horizons[index][SLOPE])
        line: Sequence[tuple[float, float]] = ()
        if curve is not None:
            line = tuple(zip(map(float, curve.predicted), map(float, curve.observed), strict=True))
        title = f"{format_days(horizon)} days\nslope {slope}"
        panels.append(Panel(title, points, [float(value) for value in predictions.at_horizons[:, index]], line))
    caption = (
        "Points: groups of patients with similar predicted survival, observed survival by "
        f"{name_estimate(predictions.outcome.competing is not None)} with 95 % confidence intervals. "
        + ("Solid line: smooth calibration curve. " if any(panel.line for panel in panels) else "")
        + "Ticks: individual patients. Dashed line: perfect "
        "calibration. The ideal slope is 1; below 1 predictions are too extreme, above 1 not extreme enough."
    )
    save_calibration(path, f"Calibration of {subject.model} in {subject.table}", caption, panels)
