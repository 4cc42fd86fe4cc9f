"""Runs nnU-Net's planning commands for the DuPLUS planners, with early checks and the option `--from-model`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duplus_nnunet.adaptation.planning_base import PlanningBase, use_base
from duplus_nnunet.errors import DataError, DuplusError, HostError, PlansError, describe_unknown
from duplus_nnunet.planners.planner import DuPLUSPlanner, check_dataset, name_plans, require_folders
from duplus_nnunet.planners.preprocessing_record import is_preprocessed
from duplus_nnunet.planners.stock_base import read_planning_base
from duplus_nnunet.planners.survey import limit_processes
from duplus_nnunet.plans_section import NOT_PLANNED, refuse_unplanned

BASE_OPTION = "--from-model"
_PREPROCESSED = "nnUNet_preprocessed"
# What -preprocessor_name may say: nnU-Net's default, which our planners replace, and ours.
_PREPROCESSORS = ("DefaultPreprocessor", "DuPLUSPreprocessor")
HELP = f"""
DuPLUS option (for the DuPLUS planners):
  {BASE_OPTION} FOLDER   Plan for the weights of this trained model: with its spacing, patch, network and normalisation.
                        A model of DuPLUS: for an adapter, trained with -tr DuPLUSLoRATrainer. A model of stock nnU-Net:
                        for a training of all weights with -tr DuPLUSTrainer. The command line to type is shown.
                        -gpu_memory_target, -preprocessor_name and, with a stock model, -overwrite_target_spacing are
                        refused, since the model decides; -pl then only names the plans.
With a DuPLUS planner, dataset.json, the list of files, the headers and all label values are checked first, and all
problems are listed. The DuPLUS survey of cases uses the processes of -npfp, else the fewest of -np.
"""


def plan(original: Callable[[], Any], ours: bool) -> Any:
    """Run one of nnU-Net's planning commands.

    Errors that would stop the planners are reported before the fingerprint is extracted, which can take an hour.
    nnU-Net's parser does not receive `--from-model`.

    Args:
        original: The command, which reads its arguments from sys.argv.
        ours: Whether the command is to run a DuPLUS planner.

    Raises:
        DuplusError: The dataset, its labels, prompts or embeddings, or the base are invalid, an option contradicts the
            base, or nnU-Net itself stopped.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(BASE_OPTION, dest="base")
    typed, rest = parser.parse_known_args()
    if {"-h", "--help"} & set(rest):
        try:
            return original()
        finally:
            sys.stdout.write(HELP)
    if not ours:
        raise PlansError(f"{BASE_OPTION} is an option of the DuPLUS planners: add -pl DuPLUSPlanner.")
    before = sys.argv
    options = _read_options(rest)
    base = None if typed.base is None else read_planning_base(typed.base)
    if base is not None:
        _check_base_options(options, base)
    with use_base(base), limit_processes(_count_processes(options)):
        _check(options)
        sys.argv = [before[0], *rest]
        try:
            result = run_host(original)
        finally:
            sys.argv = before
    if base is not None:
        sys.stdout.write(_describe_next(options, base))
    return result


def _check_base_options(options: argparse.Namespace, base: PlanningBase) -> None:
    """Refuse options that planning for a model would ignore, or write a note on stderr where they count in part.

    Raises:
        PlansError: There is such an option, or a configuration that the model lacks.
    """
    for name in options.c:
        if name not in base.configurations and name not in NOT_PLANNED:
            problem = describe_unknown("configuration", name, base.configurations)
            raise PlansError(f"{problem} The plans have those of the model {base.name}. Name one of these with -c.")
    if options.gpu_memory_target is not None:
        raise PlansError(
            f"-gpu_memory_target {options.gpu_memory_target} was given, but network, patch and batch size are those of "
            f"the model {base.name}. Leave it out; for another GPU, change batch_size and patch_size in the new plans."
        )
    if options.preprocessor_name not in _PREPROCESSORS:
        raise PlansError(
            f"-preprocessor_name {options.preprocessor_name} was given, but images are preprocessed as those of the "
            f"model {base.name}. Leave it out."
        )
    if options.overwrite_target_spacing and base.shares_spacing:
        raise PlansError(
            f"-overwrite_target_spacing {' '.join(options.overwrite_target_spacing)} was given, but the weights of "
            f"{base.name} expect images at its own spacing. Leave it out, or plan without {BASE_OPTION}."
        )
    if options.overwrite_target_spacing:
        sys.stderr.write(
            "note: -overwrite_target_spacing counts for those contexts alone that have no counterpart in the model "
            f"{base.name}; the others have its spacing.\n"
        )
    if options.pl != DuPLUSPlanner.__name__ and name_plans(options.pl, base) is not None:
        sys.stderr.write(
            f"note: -pl {options.pl} gives the plans their name alone; network, patch and batch size are those of the "
            f"model {base.name}.\n"
        )


def _describe_next(options: argparse.Namespace, base: PlanningBase) -> str:
    """Write the command lines of the trainings for which a base was planned."""
    plans_name = options.overwrite_plans_name or name_plans(options.pl, base)
    planned = [name for name in options.c if name not in NOT_PLANNED]
    configuration = base.configuration if base.configuration in planned or not planned else planned[0]
    if plans_name is None:  # a planner of the user's own
        return ""
    lines = ["", f"To train fold 0 from the weights of {base.name}:"]
    for dataset in options.d:
        if not _is_preprocessed(dataset, plans_name, configuration):
            lines.append(f"  nnUNetv2_preprocess -d {dataset} -plans_name {plans_name} -c {configuration}")
        lines.append(f"  {base.write_training(dataset, configuration, plans_name)}")
    if configuration != base.configuration:
        lines.append(f"note: these weights were trained in {base.configuration}, not in {configuration}.")
    return "\n".join([*lines, ""])


def _is_preprocessed(dataset: str, plans_name: str, configuration: str) -> bool:
    """Report whether a dataset's images are known to be preprocessed as its plans call for."""
    root = Path(os.environ.get(_PREPROCESSED, "."))
    folders = root.glob(f"Dataset{int(dataset):03d}_*") if dataset.isdigit() else ()
    return any(is_preprocessed(folder, plans_name, configuration) for folder in folders)


def run_host(original: Callable[[], Any]) -> Any:
    """Run a planning command of nnU-Net, and turn what it raises into an error with a message.

    Raises:
        HostError: It stopped; with `--verbose`, the original error is raised instead.
    """
    try:
        return original()
    except DuplusError:
        raise
    except (AssertionError, RuntimeError, OSError, ValueError, LookupError) as error:
        if "--verbose" in sys.argv:
            raise
        reason = " ".join(str(error).split()) or "no details"
        raise HostError(
            f"nnU-Net stopped with {type(error).__name__}: {reason} Its output above may say more; --verbose shows "
            "where it stopped."
        ) from error


def _read_options(arguments: list[str]) -> argparse.Namespace:
    """Read the options of nnU-Net's parser that matter here, without refusing what it would refuse."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-pl")
    parser.add_argument("-overwrite_plans_name")
    parser.add_argument("-overwrite_target_spacing", nargs="+", default=[])
    parser.add_argument("-gpu_memory_target")
    parser.add_argument("-preprocessor_name", default=_PREPROCESSORS[0])
    parser.add_argument("-c", nargs="+", default=[])
    parser.add_argument("-d", nargs="+", default=[])
    parser.add_argument("-np", nargs="+", default=[])
    parser.add_argument("-npfp", default="")
    parser.add_argument("--verify_dataset_integrity", action="store_true", dest="strict")
    return parser.parse_known_args(arguments)[0]


def _count_processes(options: argparse.Namespace) -> int | None:
    """Return how many processes the survey may use; None: no option says so."""
    counts = [int(text) for text in options.np if text.isdigit()]
    return int(options.npfp) if options.npfp.isdigit() else min(counts, default=None)


def _check(options: argparse.Namespace) -> None:
    """Check the datasets that the options name."""
    refuse_unplanned(options.c, f"the plans of {options.pl}")
    require_folders()
    if not options.d:
        raise DataError("No dataset is named. Give its number with -d, such as -d 501.")
    for number in filter(str.isdigit, options.d):
        check_dataset(int(number), options.strict)
