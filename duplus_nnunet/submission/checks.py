"""Checks that trainings can run before they are sent as jobs."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from duplus_nnunet.command_checks import TrainingCall, check_training, is_our_trainer
from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.errors import DataError, HostError, PlansError, describe_unknown
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.settings import read_settings
from duplus_nnunet.submission.trainings import RESULTS, Training
from duplus_nnunet.text_files import load_json

PREPROCESSED = "nnUNet_preprocessed"
_RAW = "nnUNet_raw"
_SPLITS, _FOLDS = "splits_final.json", 5
# End of the file that nnU-Net writes last of a preprocessed case.
_LAST = ".pkl"


def require_folders() -> None:
    """Check that nnU-Net's folders of preprocessed data and of results are set, and exist.

    Raises:
        DataError: One of them is not set, or is not a folder.
    """
    for variable in (PREPROCESSED, RESULTS):
        value = os.environ.get(variable)
        if not value:
            raise DataError(f"{variable} is not set. Write `export {variable}=FOLDER`, as for nnU-Net.")
        if not Path(value).is_dir():
            raise DataError(f"{variable}={value} is not a folder. Create it, on a disk that all nodes see.")


def find_dataset(dataset: str) -> str:
    """Find nnU-Net's name of a preprocessed dataset.

    Args:
        dataset: Its number, its name, or its name without Dataset and number.

    Raises:
        DataError: It is not in nnUNet_preprocessed.
    """
    root = Path(os.environ[PREPROCESSED])
    names = sorted(folder.name for folder in root.glob("Dataset*_*") if folder.is_dir())
    for name in names:
        number, _, rest = name.removeprefix("Dataset").partition("_")
        if dataset in (name, rest) or (dataset.isdecimal() and number.isdecimal() and int(number) == int(dataset)):
            return name
    raise DataError(
        f"{describe_unknown('dataset', dataset, names)} Trainings need a dataset that is planned and preprocessed, in "
        f"{PREPROCESSED}={root}: nnUNetv2_plan_and_preprocess -d {dataset} -pl DuPLUSPlanner -c 3d_fullres."
    )


def list_source_datasets(dataset: str) -> list[str]:
    """List the datasets that a composed dataset was made of, by nnU-Net's names.

    Args:
        dataset: nnU-Net's name of the composed dataset.

    Raises:
        DataError: It is not a composed dataset.
    """
    for variable in (_RAW, PREPROCESSED):
        root = os.environ.get(variable)
        table = read_case_table(Path(root) / dataset) if root else None
        if table is not None:
            return sorted({source.dataset for source in table.sources.values()})
    raise DataError(
        f"{dataset} is not a composed dataset: it has no duplus_cases.json in {_RAW} or {PREPROCESSED}. Name a dataset "
        "that `duplus compose` wrote, or several datasets."
    )


def read_plans(dataset: str, name: str) -> dict[str, Any]:
    """Read plans of a preprocessed dataset.

    Raises:
        PlansError: There are none of that name, or the file is not plans.
    """
    folder = Path(os.environ[PREPROCESSED]) / dataset
    file = folder / f"{name}.json"
    if not file.is_file():
        known = sorted(path.stem for path in folder.glob("*Plans*.json"))
        raise PlansError(f"{describe_unknown('plans', name, known)} They were looked for in {folder}.")
    plans = load_json(file)
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), Mapping):
        raise PlansError(f"{file} holds no plans: it has no `configurations`. Plan the dataset again.")
    return plans


def load_trainer(name: str) -> type:
    """Find a trainer class as nnU-Net does.

    Raises:
        HostError: There is none of that name.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        trainer: type = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise HostError(f"Unknown trainer {name!r}: {error} DuPLUS has DuPLUSTrainer, DuPLUSLoRATrainer.") from error
    return trainer


def check_trainings(
    trainings: Iterable[Training], processes: int, find_trainer: Callable[[str], type] = load_trainer
) -> list[int | None]:
    """Check that trainings can run: trainer, plans, settings, configuration, preprocessed data, fold and batch size.

    Args:
        trainings: The trainings; their plans are in nnUNet_preprocessed.
        processes: GPUs of each training, over which its batch is divided.
        find_trainer: Returns the trainer class of a name.

    Returns:
        Number of epochs of each training; None if its trainer is not of this package, which sets them by itself.

    Raises:
        DuplusError: One of them cannot run; the message says which, and why.
    """
    epochs: list[int | None] = []
    for training in trainings:
        call = TrainingCall(training.dataset, training.configuration, training.fold, training.trainer, training.plans)
        ours = is_our_trainer(find_trainer(training.trainer))
        check_training(call, find_trainer)
        plans = read_plans(training.dataset, training.plans)
        configuration = _find_configuration(training, plans)
        _require_preprocessed(training, configuration)
        _require_fold(training)
        batch = configuration.get("batch_size", processes)
        if batch < processes:
            raise PlansError(
                f"{training.name}: its batch of {batch} cannot be divided over {processes} GPUs. Ask for {batch} at "
                f"most, or raise batch_size in {training.plans}.json."
            )
        epochs.append(read_settings(plans).epochs if ours and PLANS_KEY in plans else None)
    return epochs


def _find_configuration(training: Training, plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration of plans, with what it inherits."""
    known, name = plans["configurations"], training.configuration
    found: dict[str, Any] = {}
    if name not in known:
        raise PlansError(f"{training.name}: {describe_unknown('configuration', name, known)}")
    visited: set[str] = set()
    while isinstance(name, str) and name in known and name not in visited:
        visited.add(name)
        found = {**known[name], **found}
        name = known[name].get("inherits_from")
    return found


def _require_preprocessed(training: Training, configuration: Mapping[str, Any]) -> None:
    folder = Path(os.environ[PREPROCESSED]) / training.dataset
    data = folder / str(configuration.get("data_identifier"))
    done = sum(1 for file in data.glob(f"*{_LAST}")) if data.is_dir() else 0
    labels = folder / "gt_segmentations"
    expected = sum(1 for _ in labels.iterdir()) if labels.is_dir() else 0
    if not done or done < expected:
        raise DataError(
            f"{training.dataset} is not preprocessed for {training.configuration}: {data} has {done} of "
            f"{expected} cases. Run: nnUNetv2_preprocess -d {training.dataset} -plans_name {training.plans} -c "
            f"{training.configuration}."
        )


def _require_fold(training: Training) -> None:
    if training.fold == "all":
        return
    file = Path(os.environ[PREPROCESSED]) / training.dataset / _SPLITS
    count = len(load_json(file)) if file.is_file() else _FOLDS
    if not re.fullmatch(r"\d+", training.fold) or int(training.fold) >= count:
        where = f"{file} has" if file.is_file() else "nnU-Net makes"
        raise DataError(
            f"Fold {training.fold!r} of {training.dataset} does not exist: {where} the folds 0 to {count - 1}. "
            "Name some of these, or `all`."
        )
