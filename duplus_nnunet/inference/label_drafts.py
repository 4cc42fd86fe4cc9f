"""Predicts label files for training images that have none.

nnU-Net's fingerprint and preprocessing read one label file per case, and the prognosis needs a region. Predictions are
recorded as such before they are put in place; an existing file is never overwritten.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.errors import DataError, DuplusError, ModelError
from duplus_nnunet.files import write_text
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.folder_prediction import predict_files
from duplus_nnunet.inference.images import list_folder
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import ModelFiles, read_own_plans
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.locks import hold
from duplus_nnunet.outputs.manifest import hash_file
from duplus_nnunet.outputs.predicted_labels import PredictedLabels, read_predicted, write_predicted
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.dataset_labels import check_label_values
from duplus_nnunet.prompt_registry.raw_dataset import RawDataset, read_dataset_json

_LABELS = ("labels", "regions_class_order")


@dataclass(frozen=True)
class _Labels:
    """What is asked of the model, and what its label values become.

    Attributes:
        declared: What dataset.json is given; empty: it has labels already.
        targets: Names of the model's targets; empty is all.
        values: From the model's label values to the dataset's; empty: they are the same.
    """

    declared: dict[str, Any]
    targets: tuple[str, ...]
    values: dict[int, int]


def draft_labels(raw: RawDataset, model: Path, context: str | None, device: torch.device) -> list[str]:
    """Predict a label file of each training image that has none.

    Args:
        raw: The dataset; its dataset.json is given the model's labels if it has none.
        model: Folder of a DuPLUS segmentation model; all its folds are averaged.
        context: Of the images, or a table of contexts; None: the model has one only.
        device: Where the model runs.

    Returns:
        The cases that were predicted.

    Raises:
        ModelError: The folder holds no DuPLUS model.
        DataError: Labels or file endings of dataset and model differ, or images could not be predicted; those that
            could are in place.
    """
    plans = read_own_plans(model)
    if PLANS_KEY not in plans:
        raise ModelError(f"{model} is not the folder of a DuPLUS model, which --masks-from needs.")
    theirs, ending = read_dataset_json(model / "dataset.json"), str(raw.dataset_json.get("file_ending"))
    if theirs["file_ending"] != ending:
        raise DataError(f"{raw.name} has images {ending!r}, the model reads {theirs['file_ending']!r}. Convert them.")
    labels = _match(raw, theirs, PromptBank(plans))
    cases = _list_open_cases(raw.folder, ending)
    if labels.declared:
        _declare(raw.folder / "dataset.json", labels.declared)
    if not cases:
        return []
    with hold(raw.folder, "predicting label files for", "Wait until it ends."):
        bound = bind(_load(model, device), Selection(labels.targets, context))
        record = PredictedLabels(model.resolve().name, dict(bound.model.record.checkpoints), {})
        return _predict_in_place(raw.folder, bound, cases, labels.values, record)


def _predict_in_place(
    folder: Path, bound: BoundModel, cases: Mapping[str, list[str]], values: Mapping[int, int], record: PredictedLabels
) -> list[str]:
    ending, placed = read_dataset_json(folder / "dataset.json")["file_ending"], list[str]()
    with TemporaryDirectory(dir=folder, prefix=".predicting_") as aside:
        try:
            _predict(bound, cases, Path(aside))
        finally:  # what was predicted before something went wrong is worth keeping
            done = {case: Path(aside) / (case + ending) for case in cases if (Path(aside) / (case + ending)).is_file()}
            _renumber(bound.model.plans, list(done.values()), values)
            placed = _put_in_place(folder, done, record)
    return placed


def _list_open_cases(folder: Path, ending: str) -> dict[str, list[str]]:
    from duplus_nnunet.planners.preprocessor import read_identifier

    files = {read_identifier(images[0], ending): images for images in list_folder(folder / "imagesTr", ending)}
    return {case: own for case, own in files.items() if not (folder / "labelsTr" / (case + ending)).exists()}


def _match(raw: RawDataset, theirs: Mapping[str, Any], bank: PromptBank) -> _Labels:
    """Find out what the dataset's labels are to the model."""
    own = raw.dataset_json.get("labels")
    if not own:
        return _Labels({name: theirs[name] for name in _LABELS if name in theirs}, (), {})
    check_label_values(own, raw.dataset_json.get("regions_class_order"), raw.folder / "dataset.json")
    if all(raw.dataset_json.get(name) == theirs.get(name) for name in _LABELS):
        return _Labels({}, (), {})
    by_name = {target.name: theirs["labels"][target.label] for target in bank.targets}
    wanted = {label: value for label, value in own.items() if label != "background"}
    values, targets = {}, []
    for label, value in wanted.items():
        try:
            (name,) = bank.find_targets([label])
        except DuplusError as error:
            raise DataError(
                f"{raw.folder / 'dataset.json'} has the label {label!r}, which the model does not know: {error}"
            ) from error
        if not isinstance(value, int) or not isinstance(by_name[name], int):
            raise DataError(
                f"{raw.name} declares {label!r} as {value!r}, the model as {by_name[name]!r}: regions "
                "are drafted only where both declare the same labels. Take the labels out, to get the model's."
            )
        values[by_name[name]] = value
        targets.append(name)
    return _Labels({}, tuple(targets), values)


def _declare(file: Path, labels: Mapping[str, Any]) -> None:
    content = {**read_dataset_json(file), **labels}
    write_text(file, json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def _load(model: Path, device: torch.device) -> LoadedModel:
    predictor = WindowPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)
    return load_model(predictor, ModelFiles(model))


def _predict(bound: BoundModel, cases: Mapping[str, list[str]], folder: Path) -> None:
    """Predict cases into a folder; those that do not fail are written in any case."""
    predict_files(bound, PredictionCall(list(cases.values()), [str(folder / case) for case in cases]))


def _renumber(plans: PlansManager, files: Sequence[Path], values: Mapping[int, int]) -> None:
    """Replace the model's label values in files by the dataset's."""
    if all(before == after for before, after in values.items()):
        return
    io = plans.image_reader_writer_class()
    for file in files:
        label_map, properties = read_label_map(file, type(io))
        changed = np.zeros_like(label_map.labels[0])
        for before, after in values.items():
            changed[label_map.labels[0] == before] = after
        io.write_seg(changed, str(file), properties)


def _put_in_place(folder: Path, files: Mapping[str, Path], record: PredictedLabels) -> list[str]:
    """Record files as predicted, then move them to labelsTr, unless a file of that name exists there by now."""
    labels = folder / "labelsTr"
    open_cases = {case: file for case, file in files.items() if not (labels / file.name).exists()}
    if not open_cases:
        return []
    labels.mkdir(exist_ok=True)
    checksums = {case: hash_file(file) for case, file in open_cases.items()}
    write_predicted(folder, [*read_predicted(folder), replace(record, labels=checksums)])
    for file in open_cases.values():
        file.replace(labels / file.name)
    return list(open_cases)
