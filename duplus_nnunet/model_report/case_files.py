"""Finds the cases of a model whose images can be shown, and the files of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.contexts import read_contexts
from duplus_nnunet.model_report.fold_files import ALL
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.plans_form import PlansForm
from duplus_nnunet.prompt_registry.raw_dataset import RAW_VARIABLE, list_images
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.predicted_values import read_region
from duplus_nnunet.reporting.score_files import read_case_scores
from duplus_nnunet.text_files import load_json

# What a case was to the model, the most telling first.
HELD_OUT, TEST, OTHER = "held out", "test image", "other image"
TRAINING, UNUSED = "used in training", "training image"
ORIGINS = (HELD_OUT, TEST, OTHER, TRAINING, UNUSED)
UNSEEN = (HELD_OUT, TEST, OTHER)


@dataclass(frozen=True)
class OtherImages:
    """Images that are not of the model's dataset.

    Attributes:
        folder: Folder of images named as for a prediction.
        labels: Folder of their reference label maps, CASE plus the file ending; None if there are none.
        context: Name of their context, or a file with the context of each, as for `--context`; None is possible with
            one context only.
    """

    folder: Path
    labels: Path | None = None
    context: str | None = None


@dataclass(frozen=True)
class ShownCase:
    """One case that can be shown.

    Attributes:
        name: nnU-Net's case identifier.
        context: Key of its context.
        origin: One of `ORIGINS`.
        images: Its files, one a channel.
        truth: Its reference label map; None if there is none.
        prediction: Its predicted label map; None if it has to be predicted.
        fold: Fold that the prediction is of, or that did not see the case; None: all folds.
        case: Its entry in the table of cases; None if every target counts as annotated.
    """

    name: str
    context: str
    origin: str
    images: tuple[Path, ...]
    truth: Path | None = None
    prediction: Path | None = None
    fold: str | None = None
    case: Case | None = None

    def is_annotated(self, target: str) -> bool:
        """Report whether a target was annotated in the case."""
        return self.truth is not None and (self.case is None or target in self.case.annotated)


@dataclass(frozen=True)
class ModelCases:
    """The cases of a model that can be shown, and what is needed to read them.

    Attributes:
        source: The model or dataset.
        form: The section `duplus` of its plans.
        reader: Name of nnU-Net's image reader.
        regions: Label values of each target in label maps of the dataset, by name of the target.
        ignore: Label value of voxels that are not scored; None if there is none.
        cases: The cases.
        scores: Scores by identifier: of held-out cases, and those of the file that was given.
        notes: Why some cannot be shown, a sentence each.
    """

    source: ReportSource
    form: PlansForm
    reader: str
    regions: Mapping[str, tuple[int, ...]]
    ignore: int | None
    cases: tuple[ShownCase, ...]
    scores: Mapping[str, CaseScore] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_cases(source: ReportSource, other: OtherImages | None = None, scores: Path | None = None) -> ModelCases:
    """Find the cases of a model or a planned dataset that can be shown: those of its dataset, or other images.

    Args:
        source: The model or the dataset, with prompts.
        other: Images that are shown instead of those of the dataset.
        scores: scores.json of `duplus evaluate`. The label maps beside it are the predictions of its cases.

    Raises:
        DataError: A file of the dataset, of the other images or of the scores is damaged.
        PromptError: The context of the other images is unknown.
    """
    if source.bank is None:
        raise DataError(
            source.missing.get("prompts", f"{source.name} has no prompts. {source.missing.get('plans', '')}")
        )
    form, labels = source.bank.form, source.dataset_json["labels"]
    cases = _list_own(source, form) if other is None else _list_other(other, form, source.dataset_json["file_ending"])
    notes = []
    if other is None and source.raw is None:
        notes.append(f"{source.missing.get('raw', '')} Give other images with --images, or set {RAW_VARIABLE}.".strip())
    known = dict(source.held_out) if other is None else {}
    if scores is not None:
        known |= read_case_scores(scores)[0]
        cases, more = _add_predictions(source, cases, scores)
        notes += more
    return ModelCases(
        source=source,
        form=form,
        reader=source.plans["image_reader_writer"],
        regions={target.name: read_region(labels[target.label]) for target in form.targets if target.label in labels},
        ignore=None if labels.get("ignore") is None else int(labels["ignore"]),
        cases=tuple(cases),
        scores=known,
        notes=tuple(notes),
    )


def _add_predictions(source: ReportSource, cases: Sequence[ShownCase], file: Path) -> tuple[list[ShownCase], list[str]]:
    """Add the label maps beside scores.json to cases that have no prediction; notes say so."""
    ending, folder = source.dataset_json["file_ending"], file.parent
    found = {
        case.name: folder / f"{case.name}{ending}"
        for case in cases
        if case.prediction is None and case.origin in UNSEEN and (folder / f"{case.name}{ending}").is_file()
    }
    if not found:
        return list(cases), []
    if not _has_labels(folder, source.dataset_json["labels"]):
        note = f"The label maps beside {file} are not shown: the dataset.json there has not the labels of this model."
        return list(cases), [note]
    note = f"The predictions of {len(found)} case(s) are the label maps beside {file.name}, and were not made again."
    return [replace(case, prediction=found.get(case.name, case.prediction)) for case in cases], [note]


def _has_labels(folder: Path, labels: Mapping[str, Any]) -> bool:
    """Report whether the dataset.json of predictions gives all labels the values of the model's."""
    try:
        declared = load_json(folder / "dataset.json")["labels"]
        return all(read_region(declared[name]) == read_region(value) for name, value in labels.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _list_own(source: ReportSource, form: PlansForm) -> list[ShownCase]:
    """List test and training cases of the dataset whose context is known."""
    ending, cases = source.dataset_json["file_ending"], []
    for part in ("Ts", "Tr") if source.raw is not None else ():
        raw = Path(str(source.raw))
        for name, channels in list_images(raw / f"images{part}", ending, skip_unnumbered=True).items():
            entry, context = _find_context(source, form, name)
            if context is None:
                continue
            truth = raw / f"labels{part}" / f"{name}{ending}"
            origin, fold, prediction = (TEST, None, None) if part == "Ts" else _find_fold(source, name, ending)
            files = tuple(file for _, file in sorted(channels.items()))
            known = truth if truth.is_file() else None
            cases.append(ShownCase(name, context, origin, files, known, prediction, fold, entry))
    return cases


def _find_context(source: ReportSource, form: PlansForm, name: str) -> tuple[Case | None, str | None]:
    """Find the entry of a case in the table, and its context; None if it is not known, or not one of the model's."""
    table = source.table
    entry = None if table is None else {**table.tests, **table.cases}.get(name)
    if table is not None and entry is not None:
        context = table.sources[entry.source].context
        return entry, context if context in form.contexts else None
    return None, form.default_context if len(form.contexts) == 1 else None


def _find_fold(source: ReportSource, name: str, ending: str) -> tuple[str, str | None, Path | None]:
    """Find the fold that held a training case out, and its prediction of it if there is one."""
    if not source.is_model:
        return UNUSED, None, None
    folds = [fold for fold in source.folds if fold.name != ALL]
    for fold in folds:
        if (fold.validation / f"{name}{ending}").is_file():
            return HELD_OUT, fold.name, fold.validation / f"{name}{ending}"
    for fold in folds:
        known = fold.training_cases
        if known is not None and known.is_known and all(name not in each.cases for each in known.lineage):
            return HELD_OUT, fold.name, None
    return TRAINING, None, None


def _list_other(other: OtherImages, form: PlansForm, ending: str) -> list[ShownCase]:
    if not other.folder.is_dir():
        raise DataError(f"The folder of images {other.folder} does not exist. Name another one with --images.")
    found = list_images(other.folder, ending)
    if not found:
        raise DataError(f"{other.folder} has no image CASE_0000{ending}. Name another folder with --images.")
    contexts = _read_contexts(other, form, list(found))
    cases = []
    for name, channels in found.items():
        truth = None if other.labels is None else other.labels / f"{name}{ending}"
        if truth is not None and not truth.is_file():
            raise DataError(f"{truth} does not exist. Give a folder of label maps of all images, or none.")
        files = tuple(file for _, file in sorted(channels.items()))
        cases.append(ShownCase(name, contexts[name], OTHER, files, truth))
    return cases


def _read_contexts(other: OtherImages, form: PlansForm, names: Sequence[str]) -> dict[str, str]:
    if other.context is None:
        if len(form.contexts) > 1:
            raise DataError(
                f"The model was trained in {len(form.contexts)} contexts, and that of the images is not known. Name it "
                f"with --context, or give a table of cases: {', '.join(form.contexts)}."
            )
        return dict.fromkeys(names, form.default_context)
    choice = read_contexts(other.context, list(form.contexts))
    choice.check_cases(names)
    return {name: choice.of(name) for name in names}


def mean_dice(score: Any) -> float:
    """Return the mean Dice, 0 to 1, of the targets that a case contains; NaN if there is none."""
    values = [each.dice for each in score.targets.values() if each.dice == each.dice]
    return sum(values) / len(values) if values else float("nan")
