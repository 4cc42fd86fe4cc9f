"""The model card of a study: in come what it found and its patients, out come lines of Markdown.

Numbers in headings are the items of TRIPOD+AI. What data can answer is answered; the other items are named, for people
to fill in. Source: Collins et al. 2024, BMJ 385:e078378.
"""

import math
from collections.abc import Iterator

from duplus_nnunet.reporting.bootstrap import DRAWS
from duplus_nnunet.survival.evaluation.study import Design, Study
from duplus_nnunet.survival.models.methods import IMAGE_METHODS
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.report.limits import list_limits
from duplus_nnunet.survival.report.text import DIRECTIONS, escape, format_days, format_value, start_table, tabulate

_UNANSWERED = (
    ("2", "abstract"),
    ("3", "medical context, existing models, known inequalities between groups of patients"),
    ("5b", "dates of recruitment and of the end of follow-up"),
    ("6a-c", "setting, criteria of eligibility, treatments"),
    ("8a-c", "how and by whom the outcome was assessed, and whether blinded"),
    ("9b-c", "how and when predictors were measured, and by whom"),
    ("10", "why as many patients as these"),
    ("14", "fairness: no group of patients other than centres was looked at"),
    ("17", "ethical approval and consent"),
    ("18a-f", "funding, conflicts of interest, protocol, registration, availability of data"),
    ("19", "involvement of patients and the public"),
    ("27b-c", "who uses it, with what expertise, and what has to be studied next"),
)
_BOTH = "images and records"


def write_card(study: Study, design: Design, cohort: Cohort) -> Iterator[str]:
    """Write the card."""
    yield f"# Model card: prognosis, {cohort.name}"
    yield ""
    yield (
        "Written by `duplus survival evaluate`. Numbers in headings are items of TRIPOD+AI (Collins et al. 2024, "
        "BMJ 385:e078378); those that data cannot answer are listed at the end."
    )
    inputs = _name_inputs(study, design)
    yield from _write_purpose(study, inputs)
    yield from _write_participants(cohort)
    yield from _write_outcome(cohort)
    yield from _write_predictors(inputs, cohort)
    yield from _write_methods(study, design)
    yield from _write_performance(study)
    yield from _write_calibration(study)
    yield from _write_risk_groups(study)
    yield from _write_centres(study)
    yield from _head("Limitations (26)")
    yield from (f"- {text}" for text in list_limits(study, cohort))
    yield from _head("What data cannot answer")
    yield "To be filled in by those who gathered the patients:"
    yield ""
    yield from (f"- {what} ({item})" for item, what in _UNANSWERED)


def _head(text: str) -> Iterator[str]:
    yield from ("", f"## {text}", "")


def _name_inputs(study: Study, design: Design) -> str:
    first = study.methods[0]
    imaged = first in IMAGE_METHODS or getattr(design.forecasts.get(first), "uses_images", False)
    return _BOTH if imaged else "the records of patients"


def _write_purpose(study: Study, inputs: str) -> Iterator[str]:
    yield from _head("What was done, and what it is for (1, 4, 25, 27a)")
    yield (
        f"An internal evaluation by cross-validation of what {inputs} foretell. Models were developed in each fold and "
        f"tested on its held-out patients; the first method is *{study.methods[0]}*."
    )
    yield ""
    yield (
        "Intended use: research on prognosis, and a first estimate of what a model of such patients may be worth. Not "
        "intended: decisions about a patient. Nobody outside of this dataset was foretold."
    )


def _write_participants(cohort: Cohort) -> Iterator[str]:
    yield from _head("Source of data and participants (5a, 6a, 20)")
    count, follow = len(cohort.records), cohort.median_follow_up()
    reached = "is not reached" if follow is None else f"{format_days(follow)} days"
    yield (
        f"The clinical table of {cohort.name}: {count} patients that could be used, {cohort.events} with the event, "
        f"{cohort.competing} with a competing event. Median follow-up by reverse Kaplan-Meier: {reached}."
    )
    centres = cohort.count_centres()
    yield ""
    if not centres:
        yield "The table names no centres."
        return
    yield from start_table("centre", "patients", "with the event")
    for name, (patients, events) in centres.items():
        yield f"| {escape(name)} | {patients} | {events} |"


def _write_outcome(cohort: Cohort) -> Iterator[str]:
    form, time = cohort.schema.event, cohort.schema.time
    yield from _head("Outcome (8)")
    seen, censored = (", ".join(map(repr, codes)) for codes in (form.seen, form.censored))
    yield (
        f"Event: column `{form.column}`, seen: {seen}; censored: {censored}. Time: `{'` to `'.join(time.columns)}`"
        + (f", in {time.unit}." if time.column is not None else ".")
    )
    if form.competing:
        listed = ", ".join(map(repr, form.competing))
        yield f"Competing events ({listed}) count as the end of follow-up: risks are cause-specific."
    if cohort.schema.entry is not None:
        yield f"Patients enter at `{cohort.schema.entry}`."


def _write_predictors(inputs: str, cohort: Cohort) -> Iterator[str]:
    yield from _head("Predictors, sample size and missing data (9a, 10, 11)")
    covariates = cohort.schema.covariates
    if covariates:
        yield from start_table("covariate", "type", "values (numbers: median and quartiles)", "missing")
        for name, form in covariates.items():
            values, missing = cohort.describe_covariate(name)
            yield f"| {escape(name)} | {form.type} | {escape(values)} | {missing} |"
        yield ""
        yield f"{cohort.events / len(covariates):.1f} patients with the event a covariate."
    if inputs == _BOTH:
        yield "Beside them, features of images as a network gives them and, if it segments a lesion, measures of it."
        yield (
            "Spacings, patch size and the scaling of intensities were planned from all images of the dataset, those of "
            "held-out patients among them, as nnU-Net plans; no outcome enters there."
        )
    yield (
        "A missing number counts as the mean of the training patients, a missing category as their commonest one; "
        "where some of them lacked the value too, a further number says that it is missing. No patient was left out "
        "for a covariate that is missing."
    )
    for name, why in cohort.schema.ignored.items():
        yield f"- not used: {escape(name)} ({escape(why)})"


def _write_methods(study: Study, design: Design) -> Iterator[str]:
    yield from _head("Analytical methods (7, 12, 13, 15, 16, 21, 22)")
    split = (
        f"Given folds ({', '.join(str(len(folds)) for folds in design.given)})"
        if design.given
        else f"{design.folds} folds with the same share of events and of each centre"
    )
    yield (
        f"{split}, for {len(design.seeds)} seed(s). Methods: {', '.join(study.methods)}. Scalers, categories, time "
        "bins, strengths of penalties, the moment to stop and the cut of risk groups come from training patients "
        "alone; choices between models are made on inner parts of them. Classes were not balanced."
    )
    if design.forecasts:
        yield f"Learned elsewhere and scored here: {', '.join(design.forecasts)}."
    yield (
        "Output: a risk (higher is worse) and the probability to be free of the event at "
        f"{', '.join(format_days(horizon) for horizon in study.horizons)} days. Patients are compared within a fold. "
        f"Intervals of 95 % are by patient bootstrap ({DRAWS} draws); they tell how results vary with "
        "who is foretold, and not how they vary with who is learned from."
    )


def _write_performance(study: Study) -> Iterator[str]:
    yield from _head("Performance (23a)")
    yield from tabulate("method", study.scores)
    yield ""
    yield DIRECTIONS
    if study.differences:
        yield ""
        yield from tabulate(f"{study.methods[0]} less", study.differences, signed=True)


def _write_calibration(study: Study) -> Iterator[str]:
    yield from _head("Calibration (23a)")
    yield from start_table("method", "horizon (days)", "observed less predicted survival", "slope (1 is right)")
    for name, found in study.calibration.items():
        for one in found:
            yield (
                f"| {escape(name)} | {format_days(one.horizon)} | {format_value(one.excess, signed=True)} | "
                f"{format_value(one.slope, digits=2)} |"
            )


def _write_risk_groups(study: Study) -> Iterator[str]:
    if not any(found.groups for found in study.risk_groups):
        return
    yield from _head("Risk groups")
    horizons = [f"free of the event at {format_days(horizon)} days" for horizon in study.horizons]
    yield from start_table("seed", "risk", "patients", "with the event", *horizons, "log-rank p (descriptive)")
    for found in study.risk_groups:
        for group in found.groups:
            cells = [_say_share(*share) for share in group.survival]
            p = "" if found.p is None or group is not found.groups[0] else f"{found.p:.2g}"
            events = int(group.outcome.event.sum())
            yield f"| {found.seed} | {group.name} | {len(group.outcome)} | {events} | {' | '.join(cells)} | {p} |"
    yield ""
    yield "Held-out patients, by a cut of the training patients' risks in each fold."


def _say_share(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or math.isnan(value):
        return "nobody followed"
    return f"{value:.2f}" if interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _write_centres(study: Study) -> Iterator[str]:
    yield from _head("Centres foretold by the others (14, 23b)")
    if study.centres is None:
        yield "There are not two centres with enough events, so that none was left out."
        return
    yield from tabulate("all centres that were left out", study.centres.scores)
    for centre in study.centres.centres:
        yield ""
        yield f"{centre.name}: {centre.patients} patients, {centre.events} with the event."
        yield ""
        yield from tabulate("method", centre.scores)
