"""Writes the card of a saved records model in Markdown: how to compute a prediction, and what was measured of it.

Source: Collins et al. 2024, BMJ 385:e078378 (TRIPOD+AI), whose items are the numbers in headings.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from duplus_nnunet.survival.models.baselines import COX_PENALTY
from duplus_nnunet.survival.models.predictors import ProportionalHazards
from duplus_nnunet.survival.models.recalibration import SLOPE
from duplus_nnunet.survival.models.records_model import RecordsModel
from duplus_nnunet.survival.records.encoding import POOLED, ColumnCode
from duplus_nnunet.survival.records.table import COMPETING
from duplus_nnunet.survival.report.model_card import UNANSWERED
from duplus_nnunet.survival.report.records_evidence import read_value
from duplus_nnunet.survival.report.text import DIRECTIONS, escape, format_days, format_value, start_table
from duplus_nnunet.text_table import format_table

# Events for each parameter below which overfitting is likely. Source: Peduzzi et al. 1995.
_ENOUGH = 10


def write_records_card(model: RecordsModel) -> str:
    """Return the text of the card."""
    return "\n".join(_write(model)) + "\n"


def _write(model: RecordsModel) -> Iterator[str]:
    yield f"# Model card: prognosis from records, {model.development.name}, {model.method}"
    yield ""
    yield (
        "Written by `duplus survival fit`, or by `duplus survival validate --recalibrate`. Numbers in headings are "
        "items of TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378). For research: not for decisions about individual "
        "patients."
    )
    yield from _write_recalibrations(model)
    yield from _write_development(model)
    yield from _write_model(model)
    yield from _write_ratios(model.evidence.get("hazard_ratios", {}))
    yield from _write_performance(model.evidence)
    yield from _head("What data cannot answer")
    yield from (f"- {what} ({item})" for item, what in UNANSWERED)


def _head(text: str) -> Iterator[str]:
    yield from ("", f"## {text}", "")


def _write_recalibrations(model: RecordsModel) -> Iterator[str]:
    if not model.recalibrations:
        return
    yield from _head("This model was recalibrated (24)")
    for one in model.recalibrations:
        kind = "in the large and with its slope" if one.kind == SLOPE else "in the large"
        slope = f" and its calibration slope ({one.slope:.6g})" if one.kind == SLOPE else ""
        yield (
            f"- {kind}, on {escape(one.name)}: {one.patients} patients, {one.events} with the event within "
            f"{format_days(one.horizon)} days. The factor of the cumulative hazard ({one.factor:.6g}){slope} were "
            "estimated in these patients, in whom calibration is therefore no validation."
        )
    yield ""
    yield (
        "Survival S(t) becomes exp(-factor x H(t\\*)^(slope - 1) x H(t)), where H = -log S and t\\* is that horizon. "
        "Risks, risk groups and concordance are those before. Scores below are of the model before recalibration."
    )


def _write_development(model: RecordsModel) -> Iterator[str]:
    own, form = model.development, model.schema.event
    yield from _head("Patients and outcome (5a, 8, 10, 20)")
    endpoint = "" if model.schema.endpoint is None else f"Endpoint: {escape(model.schema.endpoint)}. "
    yield (
        f"{endpoint}Fitted to all {own.patients} patients of {escape(own.name)}: {own.events} with the event, "
        f"{own.competing} with a competing event; longest follow-up {format_days(own.follow_up)} days."
    )
    if own.parameters:
        ratio = own.events / own.parameters
        few = f", fewer than {_ENOUGH}: predictions are likely to be overfitted" if ratio < _ENOUGH else ""
        yield f"Events per parameter: {ratio:.3g} ({own.parameters} encoded parameters{few})."
    seen, censored = (", ".join(map(repr, codes)) for codes in (form.seen, form.censored))
    time = model.schema.time.describe()
    yield f"Event: column `{form.column}`, event: {seen}; censored: {censored}. Time: {time}."
    if own.competing and not any(COMPETING in note for note in model.notes):
        yield COMPETING
    yield from (f"- {note}" for note in model.notes)


def _write_model(model: RecordsModel) -> Iterator[str]:
    yield from _head("The model (9a, 12, 22)")
    penalty = f" ({COX_PENALTY})" if model.method == "Cox" else ""
    yield (
        f"Method: {model.method}{penalty}. Each covariate is encoded as numbers; a missing number becomes the mean, a "
        "missing or unknown category the most common one (an unknown one a rare one, where rare categories share a "
        "parameter)."
    )
    yield ""
    linear = model.predictor if isinstance(model.predictor, ProportionalHazards) else None
    yield from start_table("encoded number", "is", *(["coefficient"] if linear else []))
    weights = iter([] if linear is None else linear.coefficients.tolist())
    for column in model.encoder.columns:
        for name in column.names:
            cells = [escape(name), escape(_explain(column, name)), *([f"{next(weights):.6g}"] if linear else [])]
            yield f"| {' | '.join(cells)} |"
    yield ""
    if linear:
        yield (
            f"Risk = sum of coefficients times encoded numbers{f' - ({linear.offset:.6g})' if linear.offset else ''}. "
            "Survival at t = S0(t)^exp(risk), where S0(t) is the baseline survival, that of risk 0; all its steps are "
            "in records_model.json."
        )
    elif model.predictor.kind == "competing":
        yield "The models of the event and of competing events are in records_model.json."
    yield ""
    yield from _write_baseline(model, linear)
    cut = "none, as all patients have the same risk" if model.cut is None else f"{model.cut:.6g}"
    yield ""
    yield f"Cut-off of the high-risk group: {cut} (median risk of the patients above)."


def _write_baseline(model: RecordsModel, linear: ProportionalHazards | None) -> Iterator[str]:
    """Write survival at the horizons: of the baseline, and of the reference patient, all of whose numbers are 0."""
    times, reference = np.array(model.horizons), np.zeros((1, len(model.encoder.names)))
    survival = model.predict_survival(reference, times)[0]
    baseline = None if linear is None else np.exp(-_evaluate(linear, times))
    yield from start_table("days", *(["baseline survival S0"] if linear else []), "survival of the reference patient")
    for row, days in enumerate(model.horizons):
        own = [] if baseline is None else [f"{baseline[row]:.6f}"]
        yield f"| {' | '.join([format_days(days), *own, f'{survival[row]:.6f}'])} |"
    yield ""
    yield (
        "The reference patient has the mean of each number and the most common category, with nothing missing"
        + (", after recalibration." if model.recalibrations else ".")
    )


def _evaluate(linear: ProportionalHazards, times: Any) -> Any:
    return np.concatenate([[0.0], linear.hazards])[np.searchsorted(linear.times, times, side="right")]


def _explain(column: ColumnCode, name: str) -> str:
    if name == f"{column.name} is missing":
        return "1 if missing, else 0"
    if not column.categories:
        unit = "rank from 0" if column.type == "ordinal" else "value"
        return f"({unit} - {column.mean:.6g}) / {column.scale:.6g}" if column.scale > 0 else "0: it did not vary"
    if name == f"{column.name}={POOLED}":
        return f"1 for {', '.join(map(repr, column.pooled))} and unknown ones, else 0"
    return f"1 if it is this category, else 0; reference: {column.categories[0]!r}"


def _write_ratios(plain: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("Hazard ratios (22)")
    if not plain.get("ratios"):
        yield plain.get("reason") or "There are no covariates that vary."
        return
    yield (
        "Of a Cox model of all these patients without a penalty, with 95 % Wald intervals; numbers per standard "
        "deviation."
    )
    yield ""
    yield from start_table("covariate", "per", "hazard ratio", "95 % interval")
    for name, per, ratio, low, high in plain["ratios"]:
        cells = ["no finite estimate", ""] if ratio is None else [f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"]
        yield f"| {escape(name)} | {per} | {' | '.join(cells)} |"


def _write_performance(evidence: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("Performance (23a)")
    for name, where in evidence.get("measured_in", {}).items():
        yield f"- {name}: {where}"
    yield ""
    heading, *rows = _list_scores(evidence.get("performance", {}))
    yield from start_table(*heading)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
    yield f"{DIRECTIONS} O/E: observed by expected risk. Calibration slope: ideal 1."
    yield "No external validation is part of this card: see `duplus survival validate`."
    yield from (f"- {note}" for note in evidence.get("notes", ()))


def describe_performance(model: RecordsModel) -> Iterator[str]:
    """Format what was measured of a model as lines for the terminal."""
    yield from format_table(_list_scores(model.evidence["performance"]))
    yield ""
    yield (
        f"Fitted to {model.development.patients} patients, {model.development.events} with the event. Apparent scores, "
        "of these patients, are too good."
    )


def _list_scores(performance: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """List each score, a column for each way in which it was measured, heading first."""
    columns = list(performance)
    rows: list[tuple[str, ...]] = [("score", *columns)]
    for score in dict.fromkeys(score for name in columns for score in performance[name]):
        cells = [performance[name].get(score) for name in columns]
        rows.append((score, *("" if cell is None else format_value(read_value(cell)) for cell in cells)))
    return rows
