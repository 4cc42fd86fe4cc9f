"""Checks what nnU-Net's commands are asked for before they begin: names of classes, the device, and trainings' plans.

Trainings that have nothing to do with this package are left to nnU-Net, whatever may be wrong with them.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError, HostError, PlansError, describe_unknown
from duplus_nnunet.plans_section import BASE_KEY, PLANS_KEY
from duplus_nnunet.text_files import load_json

_PREPROCESSED, _RESULTS = "nnUNet_preprocessed", "nnUNet_results"
_PLAN = "nnUNetv2_plan_and_preprocess -d {} -pl DuPLUSPlanner -c 3d_fullres"

Plans = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingCall:
    """What a training is asked for, as nnU-Net's `run_training` takes it."""

    dataset: str
    configuration: str
    fold: str
    trainer: str
    plans: str

    def suggest(self, trainer: str, plans: str) -> str:
        """Return the command line of the same training with another trainer and other plans."""
        return f"nnUNetv2_train {self.dataset} {self.configuration} {self.fold} -tr {trainer} -p {plans}"


def refuse_misspelt(words: Sequence[str], option: str, known: Iterable[str]) -> None:
    """Refuse the name of a class that differs from one of this package in upper and lower case only.

    Args:
        words: A command line.
        option: The option that the name follows.
        known: Names of this package's classes.

    Raises:
        HostError: There is such a name; the right one is shown.
    """
    by_small = {name.casefold(): name for name in known}
    for before, name in zip(words, words[1:], strict=False):  # noqa: RUF007
        right = by_small.get(name.casefold(), name)
        if before == option and right != name:
            raise HostError(describe_unknown("class", name, by_small.values()))


def with_device(original: Callable[[], Any], *without: str) -> Callable[[], Any]:
    """Give a command of nnU-Net, whose default is `-device cuda`, a device that is available.

    Args:
        original: The command, which reads its arguments from sys.argv.
        without: Options with which it needs no device.
    """

    @functools.wraps(original)
    def run() -> Any:
        from duplus_nnunet.inference.devices import add_device

        before = sys.argv
        if "-d" in before and not os.environ.get(_RESULTS):
            raise DataError(f"{_RESULTS} is not set. Write `export {_RESULTS}=FOLDER`, as for nnU-Net.")
        if not set(without) & set(before):
            sys.argv = [before[0], *add_device(before[1:])]
        try:
            return original()
        finally:
            sys.argv = before

    return run


def check_training_first(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let nnU-Net's `run_training` check first what it is asked for; see `check_training`."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def run_training(*args: Any, **kwargs: Any) -> Any:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        names = ("dataset_name_or_id", "configuration", "fold", "trainer_class_name", "plans_identifier")
        check_training(
            TrainingCall(*(str(call.arguments[name]) for name in names)), recursive_find_trainer_class_by_name
        )
        return original(*args, **kwargs)

    return run_training


def check_training(call: TrainingCall, find_trainer: Callable[[str], type]) -> None:
    """Check that the plans of a training exist, and that its trainer can use them; nothing is written.

    Args:
        call: What is asked for.
        find_trainer: Returns the trainer class of a name.

    Raises:
        DataError: A trainer of this package is asked for, and a folder of nnU-Net is not set or the dataset has not
            been planned.
        PlansError: Trainer and plans do not belong together, or there are no such plans while there are DuPLUS plans.
    """
    ours = is_our_trainer(find_trainer(call.trainer))
    if ours:
        _require_folders()
    folder = _find_preprocessed(call.dataset)
    if folder is None:
        if ours:
            raise DataError(_describe_unplanned(call.dataset))
        return
    asked = _read_plans(folder / f"{call.plans}.json")
    if asked is not None and (PLANS_KEY in asked) == ours:
        return
    if asked is not None and not ours:
        raise PlansError(
            f"{call.plans!r} are DuPLUS plans, and {call.trainer} is not a trainer of DuPLUS: it would ignore the "
            "prompts, and learn what is not annotated as background. Type: "
            f"{call.suggest(_choose_trainer(asked), call.plans)}"
        )
    plans = _read_all(folder)
    prompted = {name: content for name, content in plans.items() if PLANS_KEY in content}
    if ours or prompted:
        raise PlansError(_describe_plans(call, folder, plans, prompted))


def is_our_trainer(trainer: type) -> bool:
    """Report whether a trainer is one of this package, or derived from one."""
    return any(kind.__module__.partition(".")[0] == "duplus_nnunet" for kind in trainer.__mro__)


def _require_folders() -> None:
    for variable in (_PREPROCESSED, _RESULTS):
        if not os.environ.get(variable):
            raise DataError(f"{variable} is not set. Write `export {variable}=FOLDER`, as for nnU-Net.")


def _list_folders() -> dict[str, Path]:
    root = os.environ.get(_PREPROCESSED)
    found = sorted(Path(root).glob("Dataset*_*")) if root else []
    return {folder.name: folder for folder in found if folder.is_dir()}


def _find_preprocessed(dataset: str) -> Path | None:
    """Find the folder of preprocessed data of a dataset by its name or number."""
    for name, folder in _list_folders().items():
        number = name.removeprefix("Dataset").partition("_")[0]
        if dataset == name or (dataset.isdigit() and number.isdigit() and int(number) == int(dataset)):
            return folder
    return None


def _describe_unplanned(dataset: str) -> str:
    return (
        f"{describe_unknown('dataset', dataset, _list_folders())} Trainings need a dataset that is planned and "
        f"preprocessed, in {_PREPROCESSED}={os.environ[_PREPROCESSED]}: {_PLAN.format(dataset)}."
    )


def _read_all(folder: Path) -> dict[str, Plans]:
    """Read all plans of a dataset, by name; files that cannot be read are left out."""
    read = ((file.stem, _read_plans(file)) for file in sorted(folder.glob("*.json")))
    return {name: plans for name, plans in read if plans is not None}


def _read_plans(file: Path) -> Plans | None:
    """Read plans; None if the file does not hold any, which nnU-Net reports if it needs them."""
    try:
        content = load_json(file)
    except (OSError, DataError):
        return None
    return content if isinstance(content, dict) and "configurations" in content else None


def _describe_plans(call: TrainingCall, folder: Path, plans: Mapping[str, Plans], prompted: Mapping[str, Plans]) -> str:
    """Describe which plans there are instead of the ones asked for, and what to type."""
    if not plans:
        return f"{folder} has no plans. Plan the dataset: {_PLAN.format(call.dataset)}."
    listed = ", ".join(plans)
    problem = f"are not DuPLUS plans, which {call.trainer} needs" if call.plans in plans else "do not exist"
    message = f"The plans {call.plans!r} {problem}; {folder} has {listed}."
    if not prompted:
        return f"{message} Plan for DuPLUS: {_PLAN.format(call.dataset)}."
    name, content = next(iter(prompted.items()))
    return f"{message} Type: {call.suggest(_choose_trainer(content), name)}"


def _choose_trainer(plans: Plans) -> str:
    """Name the trainer that DuPLUS plans were made for: the one for adapters if they name a base model."""
    section = plans[PLANS_KEY]
    return "DuPLUSLoRATrainer" if isinstance(section, Mapping) and BASE_KEY in section else "DuPLUSTrainer"
