"""Shows what happened to the risk groups of a prognosis: Kaplan-Meier curves, or cumulative incidences."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph
from duplus_nnunet.model_report.drawing import choose_look, draw_legend, make_figure, style_axes
from duplus_nnunet.model_report.group_curves import GroupCurve, read_group_curves
from duplus_nnunet.model_report.prognosis_forms import (
    METRICS_NAME,
    PREDICTIONS_NAME,
    RiskGroupForm,
    SplitForm,
    StudyForm,
    list_cells,
)

_Curves = Mapping[str, GroupCurve]


def show_groups(study: StudyForm, folder: Path) -> Iterator[Block]:
    """Show the observed survival of the risk groups of the first method and seed; with competing events, incidences."""
    split = next((split for split in study.risk_groups if split.groups), None)
    if split is None:
        yield Paragraph("There are no risk groups: the first method has no risk cut-off.", "absent")
        return
    curves, reason = read_group_curves(folder / PREDICTIONS_NAME, study.first_method or "", split.seed)
    wrong = "" if curves is None else _find_difference(curves, split, study.horizons_days)
    if curves is None or wrong:
        yield Paragraph(reason or wrong, "absent")
    used = None if wrong else curves
    competing = any(curve.competing for curve in (used or {}).values())
    make = _make_incidence if competing else _make_kaplan_meier
    yield make(study, split, used or {})


def _make_kaplan_meier(study: StudyForm, split: SplitForm, curves: _Curves) -> Chart:
    return Chart(
        "kaplan_meier",
        f"Kaplan-Meier estimates by predicted risk: {study.first_method}",
        "Held-out patients, in groups by a risk cut-off from the training patients of each fold. Points with 95 % "
        "intervals are the estimates at the horizons; ticks are censored patients." + _describe_p(split),
        _describe_groups(split),
        _draw_groups(study, split, curves, False),
        [*_list_points(study, split), *_list_steps(curves)],
    )


def _make_incidence(study: StudyForm, split: SplitForm, curves: _Curves) -> Chart:
    return Chart(
        "cumulative_incidence",
        f"Cumulative incidence by predicted risk: {study.first_method}",
        "Estimates by Aalen and Johansen in held-out patients, in groups by a risk cut-off from the training patients "
        "of each fold. Thick lines are the event, with 95 % intervals at the horizons; thin lines without points are "
        "the competing events." + _describe_p(split),
        _describe_groups(split),
        _draw_groups(study, split, curves, True),
        [*_list_incidence_points(study, split), *_list_incidence_steps(curves)],
    )


def _describe_p(split: SplitForm) -> str:
    p = split.log_rank_p_descriptive
    return "" if p is None else f" Log-rank p = {p:.3g}, which is descriptive: folds share training patients."


def _describe_groups(split: SplitForm) -> str:
    ends = ", ".join(f"{group.name} {group.patients} ({group.events} with the event)" for group in split.groups)
    return f"Patients by risk group: {ends}."


def _find_difference(curves: _Curves, split: SplitForm, horizons: Sequence[float]) -> str:
    """Compare curves with the estimates at the horizons; delayed entry would make them differ."""
    for group in split.groups:
        for day, estimate in zip(horizons, group.survival_at_horizons, strict=True):
            curve = curves.get(group.name)
            if curve is None or (estimate.value is not None and abs(curve.at(day) - estimate.value) > 1e-6):
                return (
                    f"The curves are not drawn: by times and events in {PREDICTIONS_NAME}, the survival of the group "
                    f"{group.name!r} at {day:.0f} days differs from that in {METRICS_NAME}, as with delayed entry."
                )
    return ""


def _list_points(study: StudyForm, split: SplitForm) -> Iterator[dict[str, Cell]]:
    for group in split.groups:
        for day, estimate in zip(study.horizons_days, group.survival_at_horizons, strict=True):
            yield {"group": group.name, "days": day, "kind": "at the horizon", "at risk": None, **list_cells(estimate)}


def _list_steps(curves: _Curves) -> Iterator[dict[str, Cell]]:
    for name, curve in curves.items():
        for day, value, at_risk in zip(curve.days, curve.survival, curve.at_risk, strict=True):
            yield {
                "group": name, "days": day, "kind": "step", "at risk": at_risk, "value": value, "low": None,
                "high": None,
            }  # fmt: skip


def _list_incidence_points(study: StudyForm, split: SplitForm) -> Iterator[dict[str, Cell]]:
    for row in _list_points(study, split):
        value, low, high = (row[name] for name in ("value", "high", "low"))
        yield {
            **row, "kind": "event, at the horizon", "value": _invert(value), "low": _invert(low), "high": _invert(high),
        }  # fmt: skip


def _list_incidence_steps(curves: _Curves) -> Iterator[dict[str, Cell]]:
    for name, curve in curves.items():
        kinds = {"event": [1 - value for value in curve.survival], "competing event": curve.competing}
        for kind, values in kinds.items():
            for day, value, at_risk in zip(curve.days, values, curve.at_risk, strict=False):
                yield {
                    "group": name, "days": day, "kind": f"{kind}, step", "at risk": at_risk, "value": value,
                    "low": None, "high": None,
                }  # fmt: skip


def _invert(value: Cell) -> Cell:
    return 1 - value if isinstance(value, (int, float)) else None


def _draw_groups(study: StudyForm, split: SplitForm, curves: _Curves, incidence: bool) -> Figure:
    figure = make_figure(3.9)
    axes = figure.subplots()
    longest = max([*study.horizons_days, *(curve.last for curve in curves.values())], default=0.0)
    for number, group in enumerate(split.groups):
        look = choose_look(number)
        label = f"{group.name} risk ({group.patients}, {group.events} events)"
        curve = curves.get(group.name)
        if curve is not None:
            _draw_curve(axes, curve, number, label, incidence)
        # Groups are drawn beside one another, so that their intervals do not cover each other.
        shift = (number - (len(split.groups) - 1) / 2) * 0.015 * longest
        days = [day + shift for day in study.horizons_days]
        for day, estimate in zip(days, group.survival_at_horizons, strict=True):
            if estimate.interval is not None:
                ends = [1 - end if incidence else end for end in estimate.interval]
                axes.plot([day, day], ends, color=look.colour, linewidth=1.2)
        axes.plot(
            days, _list_values(group, incidence), look.marker, color=look.colour, markersize=6,
            label=None if curve is not None else label,
        )  # fmt: skip
    axes.set(xlabel="days", ylabel="cumulative incidence" if incidence else "free of the event", ylim=(-0.02, 1.03))
    axes.set_xlim(left=0)
    style_axes(axes)
    draw_legend(figure, axes, 1)
    return figure


def _list_values(group: RiskGroupForm, incidence: bool) -> list[float]:
    return [1 - each.number if incidence else each.number for each in group.survival_at_horizons]


def _draw_curve(axes: Axes, curve: GroupCurve, number: int, label: str, incidence: bool) -> None:
    look = choose_look(number)
    days = [0, *curve.days, curve.last]
    values = [1, *curve.survival, curve.at(curve.last)]
    if incidence:
        values = [1 - value for value in values]
    axes.step(
        days, values, where="post", color=look.colour, linestyle=look.line, linewidth=1.8, label=label
    )  # fmt: skip
    if not incidence:
        axes.plot(curve.censored, [curve.at(day) for day in curve.censored], "|", color=look.colour, markersize=7)
    elif curve.competing:
        others = [0, *curve.competing, curve.competing[-1]]
        axes.step(
            days, others, where="post", color=look.colour, linestyle=look.line, linewidth=0.8,
            label=label.partition(" risk")[0] + " risk, competing events",
        )  # fmt: skip
