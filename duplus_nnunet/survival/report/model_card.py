"""Writes the model card of a study in Markdown, following the items of TRIPOD+AI.

Items that cannot be answered from the data are listed at the end for the authors.
Source: Collins et al. 2024, BMJ 385:e078378.
"""

import math
from collections.abc import Iterator, Sequence

from duplus_nnunet.survival.evaluation.choosing import BEST
from duplus_nnunet.survival.evaluation.intervals import METHOD, METHOD_OF_CENTRES
from duplus_nnunet.survival.evaluation.study import Design, Study
from duplus_nnunet.survival.models.baselines import COX_PENALTY
from duplus_nnunet.survival.models.methods import IMAGE_METHODS, NETWORKS, PENALISED
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.records.encoding import LEAST_PATIENTS
from duplus_nnunet.survival.records.imputation import IMPUTED, LEAST_KNOWN
from duplus_nnunet.survival.records.table import COMPETING
from duplus_nnunet.survival.report.limits import list_limits
from duplus_nnunet.survival.report.text import (
    DIRECTIONS,
    describe_choices,
    escape,
    format_days,
    list_horizon_rows,
    start_table,
    tabulate,
)

UNANSWERED = (
    ("2", "abstract"),
    ("3", "healthcare context, existing models, known health inequalities between sociodemographic groups"),
    ("5b", "dates of accrual and of the end of follow-up"),
    ("6a-c", "setting, eligibility criteria, treatments received"),
    ("8a-c", "how and by whom the outcome was assessed, and whether the assessment was blinded"),
    ("9b-c", "how, when and by whom the predictors were measured"),
    ("10", "justification of the sample size"),
    ("14", "fairness: no subgroups other than centres were analysed"),
    ("17", "ethical approval and informed consent"),
    ("18a-f", "funding, conflicts of interest, protocol, registration, data and code availability"),
    ("19", "patient and public involvement"),
    ("27b-c", "intended users, required expertise, and next steps for research"),
)
_BOTH = "images and records"


def write_card(study: Study, design: Design, cohort: Cohort) -> Iterator[str]:
    """Write the model card line by line."""
    endpoint = f", endpoint {cohort.schema.endpoint}" if cohort.schema.endpoint else ""
    yield f"# Model card: prognosis, {cohort.name}{endpoint}"
    yield ""
    yield (
        "Written by `duplus survival evaluate`. Numbers in headings are items of TRIPOD+AI (Collins et al. 2024, "
        "BMJ 385:e078378); items that the data cannot answer are listed at the end."
    )
    inputs = _name_inputs(study, design)
    yield from _write_purpose(study, inputs)
    yield from _write_participants(study, cohort)
    yield from _write_outcome(cohort)
    yield from _write_predictors(inputs, cohort, study)
    yield from _write_methods(study, design)
    yield from _write_performance(study)
    yield from _write_calibration(study)
    yield from _write_risk_groups(study)
    yield from _write_centres(study)
    yield from _head("Limitations (26)")
    yield from (f"- {text}" for text in list_limits(study, cohort))
    yield from _head("What data cannot answer")
    yield "To be completed by the authors of the dataset:"
    yield ""
    yield from (f"- {what} ({item})" for item, what in UNANSWERED)


def _head(text: str) -> Iterator[str]:
    yield from ("", f"## {text}", "")


def _name_inputs(study: Study, design: Design) -> str:
    first = study.methods[0]
    imaged = first in IMAGE_METHODS or getattr(design.forecasts.get(first), "uses_images", False)
    return _BOTH if imaged else "clinical records"


def _write_purpose(study: Study, inputs: str) -> Iterator[str]:
    yield from _head("What was done, and what it is for (1, 4, 25, 27a)")
    yield (
        f"Internal validation, by cross-validation, of prognosis from {inputs}. In each fold, models were developed on "
        f"the training patients and evaluated on the held-out patients; the first method is *{study.methods[0]}*."
    )
    yield ""
    yield (
        "Intended use: prognosis research, and a first estimate of the performance of such a model. Not intended for "
        "decisions about individual patients. No patient from outside this dataset was included."
    )


def _write_participants(study: Study, cohort: Cohort) -> Iterator[str]:
    yield from _head("Source of data and participants (5a, 6a, 20)")
    count, follow = len(cohort.records), cohort.median_follow_up()
    reached = "not reached" if follow is None else f"{format_days(follow)} days"
    yield (
        f"Clinical table of {cohort.name}: {count} usable patients, {cohort.events} with the event, "
        f"{cohort.competing} with a competing event. Median follow-up by reverse Kaplan-Meier: {reached}."
    )
    yield ""
    yield (
        f"Scored: {study.patients} held-out patients, {study.events} with the event. All scores below are of these "
        "patients."
    )
    centres = cohort.count_centres()
    yield ""
    if not centres:
        yield "The table does not name centres."
        return
    yield from start_table("centre", "patients", "with the event")
    for name, (patients, events) in centres.items():
        yield f"| {escape(name)} | {patients} | {events} |"


def _write_outcome(cohort: Cohort) -> Iterator[str]:
    form, time = cohort.schema.event, cohort.schema.time
    yield from _head("Outcome (8)")
    seen, censored = (", ".join(map(repr, codes)) for codes in (form.seen, form.censored))
    yield f"Event: column `{form.column}`, event: {seen}; censored: {censored}. Time: {time.describe()}."
    if form.competing:
        listed = ", ".join(map(repr, form.competing))
        yield f"Competing events ({listed}): {COMPETING}"
    if cohort.schema.entry is not None:
        yield f"Delayed entry (left truncation): patients come under observation at `{cohort.schema.entry}`."


def _write_predictors(inputs: str, cohort: Cohort, study: Study) -> Iterator[str]:
    yield from _head("Predictors, sample size and missing data (9a, 10, 11)")
    covariates = cohort.schema.covariates
    if covariates:
        yield from start_table("covariate", "type", "values (numbers: median and quartiles)", "missing")
        for name, form in covariates.items():
            values, missing = cohort.describe_covariate(name)
            yield f"| {escape(name)} | {form.type} | {escape(values)} | {missing} |"
        yield ""
        ratio = study.claims.events_per_parameter
        if ratio is not None:
            yield (
                f"Events per parameter: {ratio:.3g} ({study.claims.events} patients with the event, "
                f"{study.claims.parameters} encoded parameters of {len(covariates)} covariates, after rare categories "
                "were pooled)."
            )
    if inputs == _BOTH:
        yield "In addition, image features of a network and, if it segments a lesion, measurements of that lesion."
        yield (
            "Spacing, patch size and intensity normalisation were planned by nnU-Net from all images of the dataset, "
            "including those of held-out patients; outcomes are not used in planning."
        )
    yield from _write_missing(cohort.schema.imputations)
    for name, why in cohort.schema.ignored.items():
        yield f"- not used: {escape(name)} ({escape(why)})"


def _write_missing(imputations: int) -> Iterator[str]:
    """Say how missing values are treated, with or without multiple imputation."""
    if imputations:
        yield (
            f"Missing values are imputed {imputations} times by chained equations in each training part, with the "
            f"outcome among the predictors. {IMPUTED} A covariate that is known in fewer than {LEAST_KNOWN} training "
            "patients is treated as follows."
        )
    yield (
        "Missing numeric values are replaced by the mean of the training patients, missing categories by their most "
        "frequent category; an indicator of missingness is added where training patients lack the value too."
    )
    yield (
        f"Where two or more categories have fewer than {LEAST_PATIENTS} training patients each, they share one "
        "parameter. No patient was excluded because of missing covariates."
    )


def _describe_fitting(methods: Sequence[str]) -> Iterator[str]:
    """Say what is learned from training patients alone, by these methods."""
    networks, penalised = not {*NETWORKS}.isdisjoint(methods), not {*PENALISED}.isdisjoint(methods)
    learned = ["standardisation", "categories"]
    learned += (["time bins", "early stopping"] if networks else []) + (["penalties"] if networks or penalised else [])
    yield f"Of the training patients only: {', '.join(learned)}, and the cut-off of the risk groups."
    if "Cox" in methods:
        yield f"Cox: {COX_PENALTY}."
    if networks or penalised or BEST in methods:
        yield "Penalties and models are chosen on inner splits of the training patients."


def _write_methods(study: Study, design: Design) -> Iterator[str]:
    yield from _head("Analytical methods (7, 12, 13, 15, 16, 21, 22)")
    split = (
        f"Predefined folds ({', '.join(str(len(folds)) for folds in design.given)})"
        if design.given
        else f"{design.folds} folds, stratified by event and centre"
    )
    yield (
        f"{split}, for {len(design.seeds)} seed(s). Methods: {', '.join(study.methods)}. "
        + " ".join(_describe_fitting(study.methods))
        + " Classes were not balanced."
    )
    yield from describe_choices(study)
    if design.forecasts:
        yield f"Trained separately and evaluated here: {', '.join(design.forecasts)}."
    yield (
        "Output: a risk (higher is worse) and the probability of event-free survival at "
        f"{', '.join(format_days(horizon) for horizon in study.horizons)} days. Patients are compared within folds. "
        f"The 95 % confidence intervals are by the {METHOD}: they reflect the sampling of evaluated patients and "
        f"of training patients. Of left-out centres: {METHOD_OF_CENTRES}. The Brier score is integrated from "
        f"{' to '.join(format_days(day) for day in study.brier_days)} days; Uno's C counts events up to "
        f"{format_days(study.horizons[-1])} days."
    )
    yield (
        "Weights by the inverse probability of censoring (Uno's C, AUC, Brier score) take that probability just before "
        "the time of an event, so that events come before censorings of the same time (Graf et al. 1999)."
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
    yield from _head("Performance and calibration at the horizons (23a)")
    heading, *rows = list_horizon_rows(study)
    yield from start_table(*heading)
    for name, *cells in rows:
        yield f"| {escape(name)} | {' | '.join(cells)} |"


def _write_risk_groups(study: Study) -> Iterator[str]:
    if not any(split.groups for split in study.risk_groups):
        return
    yield from _head("Risk groups")
    horizons = [f"event-free at {format_days(horizon)} days" for horizon in study.horizons]
    yield from start_table("seed", "risk", "patients", "with the event", *horizons, "log-rank p (descriptive)")
    for split in study.risk_groups:
        for group in split.groups:
            cells = [_format_share(*share) for share in group.survival]
            p = "" if split.p is None or group is not split.groups[0] else f"{split.p:.2g}"
            events = int(group.outcome.event.sum())
            yield f"| {split.seed} | {group.name} | {len(group.outcome)} | {events} | {' | '.join(cells)} | {p} |"
    yield ""
    yield "Held-out patients, grouped by a risk cut-off from the training patients of each fold."


def _format_share(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or math.isnan(value):
        return "no follow-up"
    return f"{value:.2f}" if interval is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _write_centres(study: Study) -> Iterator[str]:
    yield from _head("Leave-one-centre-out validation (14, 23b)")
    if study.centres is None:
        yield "Not done: fewer than two centres have enough events."
        return
    yield from tabulate("all left-out centres", study.centres.scores)
    for centre in study.centres.centres:
        yield ""
        yield f"{centre.name}: {centre.patients} patients, {centre.events} with the event."
        yield ""
        yield from tabulate("method", centre.scores)
