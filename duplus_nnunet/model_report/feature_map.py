"""Shows a map of the network's features: one target in several contexts, and several targets in one context.

Source: DuPLUS, arXiv 2510.03483, Figure 5 (what is compared).
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import choose_look, draw_legend, escape, make_figure, shorten, style_axes
from duplus_nnunet.model_report.embedding import FEWEST, Features, GroupTest, arrange, compare_groups, standardise
from duplus_nnunet.model_report.feature_points import PlannedCase, Point, compute_points
from duplus_nnunet.model_report.fold_files import FoldSource
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.prompt_registry.raw_dataset import list_images

ANCHOR = "feature-map"
_TITLE = "Feature map"
# Bounds of the cost: an image is read and preprocessed once, and each of its targets needs one window.
MOST_CASES, MOST_TARGETS, MOST_CONTEXTS = 12, 8, 6
_SEED = 20251003
_LAYERS = {"bottleneck": "bottleneck", "decoder": "the decoder's last map"}


@dataclass(frozen=True)
class FeatureSet:
    """Points that are compared.

    Attributes:
        name: "a" for one target in several contexts, "b" for several targets in one context.
        title: Such as "liver in 3 contexts".
        fixed: The target, or the context.
        by_context: Whether groups are contexts; else they are targets.
        cases: The cases.
    """

    name: str
    title: str
    fixed: str
    by_context: bool
    cases: Sequence[PlannedCase]

    def choose(self, points: Sequence[Point]) -> list[Point]:
        """Choose the points of the set."""
        names = {(case.name, target) for case in self.cases for target in case.targets}
        return [point for point in points if (point.case, point.target) in names]

    def find_group(self, point: Point) -> str:
        """Return the group of a point."""
        return point.context if self.by_context else point.target


def make_feature_map(source: ReportSource, wanted: bool, device: str | None = None) -> Section:
    """Show how features of targets lie, if that is wanted; it runs the network.

    Args:
        source: The model.
        wanted: Whether to compute it.
        device: As for nnU-Net's `-device`; None: CUDA if there is one.

    Returns:
        The section; if the model cannot be loaded, or its images are not there, with the reason alone.
    """
    fold = _choose_fold(source)
    reason = _find_reason(source, fold)
    if reason or fold is None:
        return Section(ANCHOR, _TITLE, [Paragraph(reason, "absent")])
    cases = list_usable_cases(source, fold)
    sets, notes = plan_sets(source, cases)
    joined = _join_cases(sets)
    windows = sum(len(case.targets) for case in joined)
    cost = f"It preprocesses {len(joined)} image(s) and runs the network on {windows} window(s)"
    if not sets:
        return Section(ANCHOR, _TITLE, [Paragraph(note, "absent") for note in notes])
    if not wanted:
        text = f"The feature map is computed on request, with --feature-map. {cost}."
        return Section(ANCHOR, _TITLE, [Paragraph(text, "absent")])
    try:
        found = compute_points(source, fold.name, joined, device)
    except DuplusError as error:
        return Section(ANCHOR, _TITLE, [Paragraph(f"The feature map could not be computed: {error}", "absent")])
    blocks: list[Block] = [Paragraph(_describe(source, fold, cost))]
    blocks += [Paragraph(note, "absent") for note in notes]
    blocks += [Paragraph(f"Case {name} is left out: {why}", "warning") for name, why in found.failures.items()]
    return Section(ANCHOR, _TITLE, [*blocks, *_show_sets(sets, found.points)])


def _choose_fold(source: ReportSource) -> FoldSource | None:
    return next((fold for fold in source.folds if fold.checkpoint), None)


def _find_reason(source: ReportSource, fold: FoldSource | None) -> str:
    """Return why there can be no feature map; empty if there can."""
    if source.bank is None:
        return source.missing.get("prompts", "The feature map needs a model with prompts.")
    if fold is None:
        return source.missing.get("folds", "The feature map needs a trained fold.")
    if source.raw is None:
        return (
            f"The feature map needs the images and label maps of the dataset. {source.missing.get('raw', '')}".strip()
        )
    return ""


def list_usable_cases(source: ReportSource, fold: FoldSource) -> list[PlannedCase]:
    """List the cases that have image and label map, held-out ones first, in an order drawn by a fixed seed."""
    raw, bank = source.raw, source.bank
    if raw is None or bank is None:
        return []
    ending = str(source.dataset_json.get("file_ending", ""))
    labelled = [
        name
        for name in list_images(raw / "imagesTr", ending, skip_unnumbered=True)
        if (raw / "labelsTr" / f"{name}{ending}").is_file()
    ]
    cases = []
    for name in labelled:
        case = None if source.table is None else source.table.cases.get(name)
        if case is not None and source.table is not None:
            context = source.table.sources[case.source].context
            cases.append(PlannedCase(name, case.patient, context, tuple(case.present or case.annotated)))
        elif len(bank.contexts) == 1:
            cases.append(PlannedCase(name, name, bank.default_context, tuple(bank.names_in(bank.default_context))))
    random.Random(_SEED).shuffle(cases)  # noqa: S311
    trained = set() if fold.training_cases is None else set(fold.training_cases.cases)
    known = [case for case in cases if case.context in bank.contexts]
    return sorted(known, key=lambda case: case.name in trained)


def plan_sets(source: ReportSource, cases: Sequence[PlannedCase]) -> tuple[list[FeatureSet], list[str]]:
    """Plan both sets; returns them with notes on a set that cannot be.

    Set A has the target that most contexts share, set B the context with most targets; of several, the one with most
    cases.
    """
    sets, notes = [], []
    pairs = {(case.context, target) for case in cases for target in case.targets}
    contexts = Counter(target for _, target in pairs)
    sizes = Counter(target for case in cases for target in case.targets)
    target = max(contexts, key=lambda name: (contexts[name], sizes[name], name), default="")
    if contexts.get(target, 0) > 1:
        sets.append(_plan_a(cases, target))
    else:
        notes.append("No target is annotated in two contexts, so one target cannot be compared across contexts.")
    targets = Counter(context for context, _ in pairs)
    counts = Counter(case.context for case in cases)
    context = max(targets, key=lambda name: (targets[name], counts[name], name), default="")
    if targets.get(context, 0) > 1:
        sets.append(_plan_b(cases, context))
    else:
        notes.append("No context has two annotated targets, so targets cannot be compared in one context.")
    return sets, notes


def _plan_a(cases: Sequence[PlannedCase], target: str) -> FeatureSet:
    chosen: dict[str, list[PlannedCase]] = {}
    for case in cases:
        if target in case.targets and (case.context in chosen or len(chosen) < MOST_CONTEXTS):
            chosen.setdefault(case.context, []).append(PlannedCase(case.name, case.patient, case.context, (target,)))
    listed = [case for of_context in chosen.values() for case in of_context[:MOST_CASES]]
    return FeatureSet("a", f"{target} in {len(chosen)} contexts", target, True, listed)


def _plan_b(cases: Sequence[PlannedCase], context: str) -> FeatureSet:
    own = [case for case in cases if case.context == context]
    counts = Counter(target for case in own for target in case.targets)
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_TARGETS]
    listed = [
        PlannedCase(case.name, case.patient, context, tuple(name for name in case.targets if name in kept))
        for case in own[:MOST_CASES]
    ]
    return FeatureSet("b", f"{len(kept)} targets in the context {context}", context, False, listed)


def _join_cases(sets: Sequence[FeatureSet]) -> list[PlannedCase]:
    """Join the cases of all sets, each once with all of its targets, so that no image is read twice."""
    joined: dict[str, PlannedCase] = {}
    for case in (case for each in sets for case in each.cases):
        before = joined.get(case.name)
        targets = case.targets if before is None else tuple(dict.fromkeys((*before.targets, *case.targets)))
        joined[case.name] = PlannedCase(case.name, case.patient, case.context, targets)
    return list(joined.values())


def _describe(source: ReportSource, fold: FoldSource, cost: str) -> str:
    known = fold.training_cases is not None
    which = "Cases that this fold was not trained on are used first." if known else "Some may be training cases."
    return (
        f"Features are means over the annotated voxels of a target, in the window around it, by the network of fold "
        f"{fold.name} bound to the context prompt and target prompt of the case. Neither the bottleneck nor the "
        "decoder's map depends on the target prompt: targets of one context differ by where features are averaged, and "
        f"contexts by image and context prompt together. {cost.replace('It preprocesses', 'This preprocessed')}. "
        f"{which}"
    ).replace(" and runs the network", " and ran the network")


def _show_sets(sets: Sequence[FeatureSet], points: Sequence[Point]) -> Iterator[Block]:
    rows: list[tuple[Cell, ...]] = []
    charts: list[Block] = []
    for each in sets:
        own = each.choose(points)
        for layer, name in _LAYERS.items():
            features = standardise(np.array([getattr(point, layer) for point in own]).reshape(len(own), -1))
            groups = [each.find_group(point) for point in own]
            test = compare_groups(features, groups, [point.patient for point in own]) if own else None
            rows.append(_list_test(each, name, own, groups, test))
            charts.append(_draw_set(each, layer, own, groups, features, test))
    headings = (
        "set", "features", "groups", "points", "silhouette", "silhouette of shuffled groups", "p", "shuffled"
    )  # fmt: skip
    yield Table("feature_groups", "Whether groups lie apart, in the original space", headings, rows)
    yield Paragraph(
        "The silhouette is between -1 and 1: near 1, groups lie apart; near 0, they do not. It is computed from all "
        "standardised features, not from the picture. p is the share of shuffled groups with a silhouette as high."
    )
    yield from charts


def _list_test(
    each: FeatureSet, layer: str, own: Sequence[Point], groups: Sequence[str], test: GroupTest | None
) -> tuple[Cell, ...]:
    found: tuple[Cell, ...] = (None, None, None, None)
    if test is not None:
        how = "groups within each patient" if test.within else "patients between groups"
        found = (round(test.silhouette, 3), round(test.expected, 3), round(test.p, 4), how)
    return (each.title, layer, len(set(groups)), len(own), *found)


def _draw_set(
    each: FeatureSet,
    layer: str,
    own: Sequence[Point],
    groups: Sequence[str],
    features: Features,
    test: GroupTest | None,
) -> Block:
    arranged = arrange(features)
    title = f"{each.title[:1].upper()}{each.title[1:]}: {_LAYERS[layer]}"
    if arranged is None:
        return Paragraph(f"{title}: {len(own)} point(s) are too few for a map; {FEWEST} are needed.", "absent")
    kind = "context" if each.by_context else "target"
    measured = (
        "The silhouette is not defined."
        if test is None
        else (f"Silhouette in the original space {test.silhouette:.2f} (p = {test.p:.3g} by {test.shuffles} shuffles).")
    )
    counts = ", ".join(f"{name} {groups.count(name)}" for name in dict.fromkeys(groups))
    return Chart(
        f"feature_map_{each.name}_{layer}",
        title,
        f"{arranged.method}; one point a case and target, grouped by {kind}. {measured} Axes have no unit, and such "
        "pictures show clusters in noise too, so judge by the silhouette.",
        f"Scatter of {len(own)} points in {len(set(groups))} groups: {counts}. {measured}",
        _draw_points(arranged.points, groups),
        [
            {"case": point.case, "context": point.context, "target": point.target, "x": float(x), "y": float(y)}
            for point, (x, y) in zip(own, arranged.points, strict=True)
        ],
    )


def _draw_points(points: Features, groups: Sequence[str]) -> Figure:
    names = list(dict.fromkeys(groups))
    figure = make_figure(3.9 + 0.18 * len(names))
    axes = figure.subplots()
    for number, name in enumerate(names):
        look, rows = choose_look(number), [row for row, group in enumerate(groups) if group == name]
        axes.plot(
            points[rows, 0], points[rows, 1], look.marker, color=look.colour, markersize=6.5, alpha=0.85,
            markeredgecolor="white", markeredgewidth=0.5, linestyle="none", label=escape(shorten(name, 40)),
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    style_axes(axes)
    draw_legend(figure, axes)
    return figure
