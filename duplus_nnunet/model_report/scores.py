"""Shows the scores of held-out cases: by source and target with intervals, worst cases first, and fold by fold."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import MOST_ROWS, Estimate, describe_cut, draw_estimates
from duplus_nnunet.model_report.fold_files import ALL, FoldSource
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.reporting.aggregate import Aggregate, Mean, ScoreRow, aggregate
from duplus_nnunet.reporting.case_scores import TOLERANCE, CaseScore
from duplus_nnunet.reporting.metrics import METRICS, SHOWN, SHOWN_OF_LESIONS, find_metrics
from duplus_nnunet.reporting.score_files import Tolerances, read_case_scores

ANCHOR = "scores"
_WORST = 20
_CASES_NAMED = 10


@dataclass(frozen=True)
class LowScore:
    """A target of a case with a low score.

    Attributes:
        case: nnU-Net's case identifier.
        source: Name of the source.
        target: Name of the target.
        dice: Dice, 0 to 1, higher is better.
        nsd: Normalised surface distance, 0 to 1, higher is better; NaN if undefined.
        what: "missed", "false positive" or empty.
    """

    case: str
    source: str
    target: str
    dice: float
    nsd: float
    what: str = ""


@dataclass(frozen=True)
class _Scored:
    """Scores that a section shows, with the tolerances of their NSD."""

    cases: Mapping[str, CaseScore]
    tolerances: Tolerances
    origin: str


def find_worst(cases: Mapping[str, CaseScore], n: int) -> list[LowScore]:
    """Find the cases with the lowest Dice of a target, the lowest first.

    Args:
        cases: Scores by case identifier.
        n: Largest number of cases; a case is listed once, with its worst target.
    """
    listed = {each.case: each for each in reversed(list_worst(cases))}
    return sorted(listed.values(), key=_rank)[:n]


def list_worst(cases: Mapping[str, CaseScore]) -> list[LowScore]:
    """List all targets of all cases that have a Dice, the lowest first."""
    found = []
    for name, case in cases.items():
        for target, score in case.targets.items():
            if math.isnan(score.dice):
                continue
            what = "missed" if not score.predicted else "" if score.present else "false positive"
            found.append(LowScore(name, case.source, target, score.dice, score.nsd, what))
    return sorted(found, key=_rank)


def _rank(each: LowScore) -> tuple[float, float, str, str]:
    return each.dice, each.nsd if each.nsd == each.nsd else 0.0, each.case, each.target


def make_scores(source: ReportSource, file: Path | None = None) -> Section:
    """Show the scores of the held-out cases of all folds, or those in a file.

    Args:
        source: The model.
        file: scores.json of `duplus evaluate`; None: the scores of the validation.

    Raises:
        DataError: The file cannot be read.
    """
    blocks: list[Block] = list(_list_gaps(source)) if file is None else []
    scored = _read_file(file) if file is not None else _gather(source, blocks)
    if scored is None or not scored.cases:
        if not any(isinstance(block, Paragraph) and block.kind == "absent" for block in blocks):
            blocks.append(Paragraph(source.missing.get("folds", "No case was scored."), "absent"))
        return Section(ANCHOR, "Scores", blocks)
    scores = aggregate(scored.cases, scored.tolerances.mm, scored.tolerances.by_target)
    blocks += [Paragraph(text, "warning") for text in _list_warnings(source, scored.cases)]
    blocks += [Paragraph(_describe(scores, scored.origin)), *_show_dice(scores), _list_all(scores)]
    blocks += [*_show_worst(scored.cases), *([] if file is not None else _compare_folds(source))]
    return Section(ANCHOR, "Scores", blocks)


def _read_file(file: Path) -> _Scored:
    cases, tolerances = read_case_scores(file)
    return _Scored(cases, tolerances, f"Scores of {file.name}.")


def _gather(source: ReportSource, blocks: list[Block]) -> _Scored | None:
    """Join the scores of all folds; those of other tolerances than the first fold's are named."""
    folds = [fold for fold in source.folds if fold.name != ALL and fold.scores]
    if not folds:
        return None
    known = [fold.tolerances for fold in folds if fold.tolerances is not None]
    if any(other != known[0] for other in known):
        blocks.append(Paragraph("The folds were scored with different tolerances of the NSD.", "warning"))
    names = ", ".join(fold.name for fold in folds)
    origin = f"Validation of fold {names}" if len(folds) == 1 else f"Validation of folds {names}"
    twice = sum(len(fold.scores) for fold in folds) - len(source.held_out)
    if twice:
        blocks.append(Paragraph(f"{twice} case(s) were validated in several folds; the last one counts.", "warning"))
    trained = "by a network that was not trained on it" if len(folds) == 1 else "by the fold that was not trained on it"
    return _Scored(source.held_out, known[0] if known else Tolerances(TOLERANCE), f"{origin}: each case {trained}.")


def _list_gaps(source: ReportSource) -> Iterator[Block]:
    """List folds without scores, and validation cases that have none."""
    for fold in source.folds:
        if "scores" in fold.missing:
            yield Paragraph(fold.missing["scores"], "absent")
        if fold.name == ALL and fold.scores:
            yield Paragraph(
                'Fold "all" is trained on all cases and validated on the same ones, so its scores are not shown.',
                "absent",
            )
    missing = find_missing(source)
    if missing:
        yield Paragraph(
            f"{len(missing)} training case(s) were not scored in any fold: {', '.join(missing[:_CASES_NAMED])}"
            f"{' and more' if len(missing) > _CASES_NAMED else ''}. The means are of the others.",
            "warning",
        )


def find_missing(source: ReportSource) -> list[str]:
    """Find the cases that some fold held out and that have no score, sorted.

    A fold held out the cases of the table that it was not trained on. Without a table of cases, or a record of the
    cases that a fold was trained on, none is known to be missing.
    """
    if source.table is None:
        return []
    held: set[str] = set()
    for fold in source.folds:
        if fold.name != ALL and fold.training_cases is not None and fold.scores:
            held |= set(source.table.cases) - set(fold.training_cases.cases)
    return sorted(held - set(source.held_out))


def _list_warnings(source: ReportSource, cases: Mapping[str, CaseScore]) -> Iterator[str]:
    known = set(source.targets)
    unknown = sorted({target for case in cases.values() for target in case.targets} - known)
    if known and unknown:
        yield f"The scores have targets that are not the model's: {', '.join(unknown[:_CASES_NAMED])}."
    scored = {target for case in cases.values() for target in case.targets}
    unscored = [target for target in source.targets if target not in scored]
    if unscored:
        shown = ", ".join(unscored[:_CASES_NAMED]) + (" and more" if len(unscored) > _CASES_NAMED else "")
        yield (
            f"{len(unscored)} target(s) of the model have no score: {shown}. They were not requested in the "
            "prediction, or are annotated in none of its cases."
        )
    seen = _find_seen(source)
    if seen:
        yield (
            f"{len(seen)} scored case(s) were used in training, by the same fold or by the weights that it started "
            f"from, so their scores are too high: {', '.join(seen[:_CASES_NAMED])}."
        )
    alone = [name for name, patients in _list_patients(cases).items() if len(patients) < 2]
    if alone:
        yield (
            f"Only one patient was scored of {', '.join(alone)}: it has no interval, and the intervals of means are "
            "too narrow."
        )


def _find_seen(source: ReportSource) -> list[str]:
    """Find scored cases that the network of their fold was trained on, or the weights that its training started from.

    A fold without a record of its training cases was split by nnU-Net, which holds its validation cases out.
    """
    seen = []
    for fold in source.folds:
        if fold.name == ALL or fold.training_cases is None:
            continue
        lineage = [each for each in fold.training_cases.lineage if each.dataset == source.dataset]
        seen += [name for name in fold.scores if any(name in each.cases for each in lineage)]
    return sorted(set(seen))


def _list_patients(cases: Mapping[str, CaseScore]) -> dict[str, set[str]]:
    patients: dict[str, set[str]] = {}
    for case in cases.values():
        patients.setdefault(case.source, set()).add(case.patient)
    return patients


def _describe(scores: Aggregate, origin: str) -> str:
    cases, patients = len(scores.cases), len({case.patient for case in scores.cases.values()})
    counted = f"{cases} case" + ("" if cases == 1 else "s") + f" of {patients} patient" + ("" if patients == 1 else "s")
    tolerance = f"{scores.tolerance:g} mm"
    if scores.tolerances:
        tolerance += " (" + ", ".join(f"{name} {mm:g} mm" for name, mm in scores.tolerances.items()) + ")"
    return (
        f"{origin} {counted}. Mean Dice over sources {_format_mean(scores.mean['dice'])}, over all targets "
        f"{_format_mean(scores.over_targets['dice'])}. Intervals are 95 %, by patient bootstrap. A target that a case "
        "holds and that is not predicted scores 0, and so does one that is predicted and not in the case; a case with "
        f"neither has no score. Tolerance of the NSD: {tolerance}."
    )


def _show_dice(scores: Aggregate) -> Iterator[Block]:
    """Draw the Dice of each target of each source, the lowest first."""
    rows = sorted(scores.rows, key=lambda row: (math.isnan(row.dice.value), row.dice.value))
    several = len(scores.sources) > 1
    estimates = [
        Estimate(f"{row.target} ({row.source})" if several else row.target, row.dice.value, row.dice.interval)
        for row in rows
    ]
    if all(math.isnan(row.dice.value) for row in rows):
        yield Paragraph("No scored case holds any target, and none is predicted: there is no Dice.", "absent")
        return
    yield Chart(
        "dice",
        "Dice of each target",
        "Mean over held-out cases with its 95 % interval, the lowest first; higher is better."
        + describe_cut(len(estimates), MOST_ROWS, "targets"),
        _describe_ends(estimates),
        draw_estimates("Dice", estimates, (-0.02, 1.02)),
        [_to_numbers(row) for row in rows],
    )  # fmt: skip


def _describe_ends(estimates: Sequence[Estimate]) -> str:
    known = [f"{each.name} {each.value:.3f}" for each in estimates if not math.isnan(each.value)]
    highest = f" Highest: {', '.join(known[3:][-3:])}." if known[3:] else ""
    return f"Lowest: {', '.join(known[:3])}.{highest}"


def _to_numbers(row: ScoreRow) -> dict[str, Cell]:
    low, high = row.dice.interval or (None, None)
    return {
        "source": row.source,
        "target": row.target,
        "cases": row.annotated,
        "cases that hold it": row.present,
        "Dice": _plain(row.dice.value),
        "low": low,
        "high": high,
    }


def _list_all(scores: Aggregate) -> Table:
    """List every shown metric of each target of each source, and the means."""
    names = [*SHOWN, *(SHOWN_OF_LESIONS if _has_lesions(scores) else ())]
    metrics = find_metrics(names)
    counts = ("cases", "hold it", "missed", "false positives")
    headings = ("source", "target", *counts, *(metric.title for metric in metrics))
    rows: list[tuple[Cell, ...]] = [
        (
            row.source, row.target, row.annotated, row.present, row.missed, row.false_positives,
            *(_format_mean(row.means[metric.name], metric.digits) for metric in metrics),
        )
        for row in scores.rows
    ]  # fmt: skip
    blank: tuple[Cell, ...] = ("",) * len(counts)  # cases of several targets are not added up
    for source, means in scores.sources.items():
        rows.append((source, "(mean over targets)", *blank, *_format_means(means, names)))
    rows.append(("(mean over sources)", "(mean over targets)", *blank, *_format_means(scores.mean, names)))
    return Table("scores", "Scores by source and target, with 95 % intervals", headings, rows, 40)


def _has_lesions(scores: Aggregate) -> bool:
    return any(not math.isnan(row.means[SHOWN_OF_LESIONS[-1]].value) for row in scores.rows)


def _format_means(means: Mapping[str, Mean], names: Sequence[str]) -> list[str | None]:
    digits = {metric.name: metric.digits for metric in METRICS}
    return [_format_mean(means[name], digits[name]) for name in names]


def _format_mean(mean: Mean, digits: int = 3) -> str | None:
    if math.isnan(mean.value):
        return None
    if mean.interval is None:
        return f"{mean.value:.{digits}f}"
    return f"{mean.value:.{digits}f} ({mean.interval[0]:.{digits}f} to {mean.interval[1]:.{digits}f})"


def _show_worst(cases: Mapping[str, CaseScore]) -> Iterator[Block]:
    worst = list_worst(cases)
    if not worst:
        return
    rows: list[tuple[Cell, ...]] = [
        (each.case, each.source, each.target, round(each.dice, 3), _plain(each.nsd, 3), each.what) for each in worst
    ]
    headings = ("case", "source", "target", "Dice", "NSD", "remark")
    yield Table("worst_cases", "Every target of every case, the lowest Dice first", headings, rows, _WORST)


def _compare_folds(source: ReportSource) -> Iterator[Block]:
    """Compare the mean Dice of folds, which hold out different cases."""
    folds = [fold for fold in source.folds if fold.scores and fold.name != ALL]
    if len(folds) < 2:
        return
    means = {fold.name: _average_fold(fold) for fold in folds}
    headings = ("fold", "cases", "Dice", "NSD")
    yield Table("folds", "Folds", headings, [
        (name, len(scores.cases), *_format_means(scores.mean, ("dice", "nsd"))) for name, scores in means.items()
    ])  # fmt: skip
    yield Chart(
        "dice_by_fold",
        "Dice of each fold",
        "Mean over sources with its 95 % interval. Each fold holds out other cases, so folds differ by their cases as "
        "well as by their training.",
        ", ".join(f"fold {name} {_format_mean(scores.mean['dice'])}" for name, scores in means.items()) + ".",
        draw_estimates(
            "Dice, mean over sources",
            [
                Estimate(f"fold {name}", scores.mean["dice"].value, scores.mean["dice"].interval)
                for name, scores in means.items()
            ],
            (-0.02, 1.02),
        ),
        [
            {"fold": name, "source": row.source, "target": row.target, "Dice": _plain(row.dice.value)}
            for name, scores in means.items()
            for row in scores.rows
        ],
    )


def _average_fold(fold: FoldSource) -> Aggregate:
    tolerances = fold.tolerances or Tolerances(TOLERANCE)
    return aggregate(fold.scores, tolerances.mm, tolerances.by_target)


def _plain(value: float, digits: int | None = None) -> float | None:
    if math.isnan(value):
        return None
    return value if digits is None else round(value, digits)
