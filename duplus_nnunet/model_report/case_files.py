"""Finds the cases of a model whose images can be shown, and the files of each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case, CaseTable, read_case_table
from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.contexts import read_contexts
from duplus_nnunet.inference.model_folder import CHECKPOINT_NAME, read_own_plans
from duplus_nnunet.plans_form import PlansForm, as_form
from duplus_nnunet.prompt_registry.raw_dataset import RAW_VARIABLE, list_images, read_dataset_json
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.folds import list_trained_folds
from duplus_nnunet.reporting.predicted_values import read_region
from duplus_nnunet.reporting.score_files import JSON_NAME, read_case_scores
from duplus_nnunet.trainers.training_cases import UNKNOWN, read_training_cases

_PREPROCESSED = "nnUNet_preprocessed"
# What a case was to the model, the most telling first.
HELD_OUT, TEST, OTHER = "held out", "test image", "other image"
TRAINING, UNUSED = "used in training", "training image"
ORIGINS = (HELD_OUT, TEST, OTHER, TRAINING, UNUSED)


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
        folder: The model folder; None for a dataset without a model.
        form: The section `duplus` of its plans.
        reader: Name of nnU-Net's image reader.
        regions: Label values of each target in label maps of the dataset, by name of the target.
        ignore: Label value of voxels that are not scored; None if there is none.
        cases: The cases.
        scores: Scores of held-out cases by identifier.
        notes: Why some cannot be shown, a sentence each.
    """

    folder: Path | None
    form: PlansForm
    reader: str
    regions: Mapping[str, tuple[int, ...]]
    ignore: int | None
    cases: tuple[ShownCase, ...]
    scores: Mapping[str, CaseScore] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_model_cases(folder: Path, other: OtherImages | None = None) -> ModelCases:
    """Find the cases of a model that can be shown: those of its dataset, or other images.

    Args:
        folder: The model folder.
        other: Images that are shown instead of those of the dataset.

    Raises:
        ModelError: The folder holds no model.
        DataError: A file of the dataset or of the other images is damaged.
        PromptError: The context of the other images is unknown.
    """
    plans, dataset_json = read_own_plans(folder), read_dataset_json(folder / "dataset.json")
    return _find_cases(folder, plans, dataset_json, other)


def find_dataset_cases(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> ModelCases:
    """Find the cases of a planned dataset that can be shown, without predictions.

    Args:
        plans: Content of its DuPLUS plans.
        dataset_json: Content of its dataset.json.

    Raises:
        DataError: The dataset is damaged.
    """
    return _find_cases(None, plans, dataset_json, None)


def _find_cases(
    folder: Path | None, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], other: OtherImages | None
) -> ModelCases:
    form, labels, ending = as_form(plans), dataset_json["labels"], dataset_json["file_ending"]
    notes: list[str] = []
    dataset = _Dataset(folder, form, ending, plans["dataset_name"])
    cases = _list_own(dataset, notes) if other is None else _list_other(other, form, ending)
    return ModelCases(
        folder=folder,
        form=form,
        reader=plans["image_reader_writer"],
        regions={target.name: read_region(labels[target.label]) for target in form.targets if target.label in labels},
        ignore=None if labels.get("ignore") is None else int(labels["ignore"]),
        cases=tuple(cases),
        scores={} if folder is None or other is not None else _read_scores(folder),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Dataset:
    """The dataset of a model, or one without a model."""

    model: Path | None
    form: PlansForm
    ending: str
    name: str

    @property
    def folds(self) -> tuple[str, ...]:
        return () if self.model is None else list_trained_folds(self.model, CHECKPOINT_NAME)

    def find_raw(self) -> Path | None:
        root = os.environ.get(RAW_VARIABLE)
        return Path(root) / self.name if root and (Path(root) / self.name).is_dir() else None

    def read_table(self, raw: Path) -> CaseTable | None:
        """Read the table of cases in the names of the plans, which planning writes."""
        preprocessed = os.environ.get(_PREPROCESSED)
        table = read_case_table(Path(preprocessed) / self.name) if preprocessed else None
        return table or read_case_table(raw)


def _list_own(dataset: _Dataset, notes: list[str]) -> list[ShownCase]:
    raw = dataset.find_raw()
    if raw is None:
        root = os.environ.get(RAW_VARIABLE)
        where = f"{RAW_VARIABLE}={root} has no {dataset.name}" if root else f"{RAW_VARIABLE} is not set"
        notes.append(
            f"No images are shown, since {where}. Set it to the folder of raw datasets, or give other images with "
            "--images."
        )
        return []
    table = dataset.read_table(raw)
    cases = []
    for part in ("Ts", "Tr"):
        for name, channels in list_images(raw / f"images{part}", dataset.ending, skip_unnumbered=True).items():
            files = tuple(file for _, file in sorted(channels.items()))
            truth = raw / f"labels{part}" / f"{name}{dataset.ending}"
            found = _describe(
                dataset, table, ShownCase(name, "", TEST, files, truth if truth.is_file() else None), part
            )
            if found is not None:
                cases.append(found)
    return cases


def _describe(dataset: _Dataset, table: CaseTable | None, case: ShownCase, part: str) -> ShownCase | None:
    """Complete a case of the dataset; None if its context is not one of the model's."""
    entry = None if table is None else ({**table.tests, **table.cases}).get(case.name)
    context = dataset.form.default_context if table is None or entry is None else table.sources[entry.source].context
    if context not in dataset.form.contexts or (entry is None and len(dataset.form.contexts) > 1):
        return None
    origin, fold, prediction = (TEST, None, None) if part == "Ts" else _find_fold(dataset, case.name)
    return ShownCase(case.name, context, origin, case.images, case.truth, prediction, fold, entry)


def _find_fold(dataset: _Dataset, name: str) -> tuple[str, str | None, Path | None]:
    """Find the fold that held a training case out, and its prediction of it if there is one."""
    if dataset.model is None:
        return UNUSED, None, None
    for fold in dataset.folds:
        file = dataset.model / f"fold_{fold}" / "validation" / f"{name}{dataset.ending}"
        if file.is_file():
            return HELD_OUT, fold, file
    for fold in dataset.folds:
        known = read_training_cases(dataset.model / f"fold_{fold}")
        if known != UNKNOWN and known.is_known and all(name not in each.cases for each in known.lineage):
            return HELD_OUT, fold, None
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


def _read_scores(folder: Path) -> dict[str, CaseScore]:
    """Read the scores of all validated folds."""
    scores: dict[str, CaseScore] = {}
    for fold in list_trained_folds(folder, CHECKPOINT_NAME):
        file = folder / f"fold_{fold}" / "validation" / JSON_NAME
        if file.is_file():
            scores |= read_case_scores(file)[0]
    return scores


def mean_dice(score: Any) -> float:
    """Return the mean Dice, 0 to 1, of the targets that a case contains; NaN if there is none."""
    values = [each.dice for each in score.targets.values() if each.dice == each.dice]
    return sum(values) / len(values) if values else float("nan")
