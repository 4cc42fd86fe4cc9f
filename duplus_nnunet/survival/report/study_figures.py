"""A study in pictures: in come its groups, out come kaplan_meier.png and calibration.png."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.survival.evaluation.cross_validation import HIGH, LOW
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroup, RiskGroups
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.records.outcome import require_sksurv
from duplus_nnunet.survival.report.text import format_days, format_value

if TYPE_CHECKING:
    from duplus_nnunet.survival.report.figures import GroupCurve, Panel

KAPLAN_MEIER_NAME, CALIBRATION_NAME = "kaplan_meier.png", "calibration.png"


def draw_study(study: Study, folder: Path) -> list[Path]:
    """Draw the first method's risk groups and calibration, of the first seed.

    Returns:
        The files: there are no risk groups of a method without a cut.
    """
    from duplus_nnunet.survival.report.figures import save_calibration, save_kaplan_meier

    files = []
    first = study.methods[0]
    if study.risk_groups and study.risk_groups[0].groups:
        files.append(folder / KAPLAN_MEIER_NAME)
        title = f"Held-out patients by predicted risk: {first}"
        curves = [_make_curve(group) for group in study.risk_groups[0].groups]
        save_kaplan_meier(files[-1], title, _caption_groups(study.risk_groups), curves)
    if study.calibration_groups:
        files.append(folder / CALIBRATION_NAME)
        seed = study.predictions[0].seed
        caption = (
            f"Folds of seed {seed}. Points: groups of patients of similar predicted survival, observed by Kaplan-Meier "
            "with 95 % intervals; strokes below: single patients; dashed: what is right. Slope 1 is right; below 1 "
            "predictions are too extreme, above 1 too much alike. Slopes compare "
            "patients within folds, and are means over seeds."
        )
        panels = list(_list_panels(study, seed))
        save_calibration(files[-1], f"Calibration in held-out patients: {first}", caption, panels)
    return files


def _make_curve(group: RiskGroup) -> "GroupCurve":
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    from duplus_nnunet.survival.report.figures import GroupCurve

    outcome = group.outcome
    times, survival, (low, high) = kaplan_meier_estimator(
        outcome.event, outcome.time, outcome.entry, conf_type="log-log"
    )
    events = int(outcome.event.sum())
    name = f"{group.name} risk ({len(outcome)} patients, {events} with the event)"
    return GroupCurve(name, times, survival, low, high, outcome.time, outcome.time[~outcome.event], outcome.entry)


def _caption_groups(groups: tuple[RiskGroups, ...]) -> str:
    tests = ", ".join(f"{_say_p(one)} (seed {one.seed})" for one in groups)
    ungrouped = f" {groups[0].ungrouped} patient(s) have no cut." if groups[0].ungrouped else ""
    return (
        f"Folds of seed {groups[0].seed}; cut by the risks of each fold's training patients; shaded: 95 % intervals; "
        f"strokes: end of follow-up. Log-rank {tests}. It describes: models of different folds share training "
        f"patients, so that it is no test of a hypothesis.{ungrouped}"
    )


def _say_p(found: RiskGroups) -> str:
    if found.p is not None:
        return "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    if any(group.outcome.entry is not None for group in found.groups):
        return "no p, as some entered late"
    if len(found.groups) < len((LOW, HIGH)):
        return "no p, as there is one group" if found.groups else "no p, as nobody has a cut"
    if not any(group.outcome.event.any() for group in found.groups):
        return "no p, as nobody had the event"
    return "no p, as no event sets one group apart from the other"


def _list_panels(study: Study, seed: int) -> "Iterator[Panel]":
    from duplus_nnunet.survival.report.figures import Panel, Point

    first = study.methods[0]
    own = [one for one in study.predictions if one.method == first and one.seed == seed]
    for place, (horizon, groups) in enumerate(study.calibration_groups.items()):
        found = study.calibration[first][place]
        points = [
            Point(group.predicted, group.observed, group.interval, group.patients)
            for group in groups
            if group.observed is not None and group.interval is not None
        ]
        title = f"{format_days(horizon)} days\nslope {format_value(found.slope, digits=2)}"
        yield Panel(title, points, [one.survival[place] for one in own])
