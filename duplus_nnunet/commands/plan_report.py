"""`duplus plan-report`: what the planner decided for each source, and why."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  duplus plan-report 501                     plans DuPLUSPlans of dataset 501, in nnUNet_preprocessed
  duplus plan-report 501 -p DuPLUSResEncUNetLPlans --json
  duplus plan-report MODEL_FOLDER            those of a trained model
"""
_VARIABLE = "nnUNet_preprocessed"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "plan-report",
        help="show what was planned for each source",
        description="Show patch and batch of each configuration, and for each source its context, target spacing, "
        "median shape after resampling, the share of it that a patch covers, its normalisation, how often its cases "
        "are drawn, and in how many cases each target is annotated.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", help="a dataset's number or name, or a folder with plans")
    parser.add_argument("-p", "--plans", metavar="NAME", default="DuPLUSPlans", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    from duplus_nnunet.planners.report import describe_plans, report_plans

    plans = read_plans(args.dataset, args.plans)
    print(json.dumps(report_plans(plans), indent=1) if args.json else describe_plans(plans).strip())
    return 0


def read_plans(dataset: str, name: str) -> dict[str, Any]:
    """Read a plans file.

    Args:
        dataset: A dataset's number or name, or a folder that holds plans.
        name: Name of the plans; a model folder has one plans.json.

    Raises:
        DataError: There is no such dataset.
        PlansError: There are no such plans, or they cannot be read.
    """
    from duplus_nnunet.errors import PlansError

    folder = Path(dataset) if Path(dataset).is_dir() else _find_folder(dataset)
    files = [file for file in (folder / f"{name}.json", folder / "plans.json") if file.is_file()]
    if not files:
        there = ", ".join(sorted(file.stem for file in folder.glob("*Plans.json"))) or "none"
        raise PlansError(
            f"{folder} has no plans {name!r}; there are: {there}. Name others with -p, or plan the dataset: "
            f"nnUNetv2_plan_and_preprocess -d {dataset} -pl DuPLUSPlanner -c 3d_fullres."
        )
    try:
        plans: dict[str, Any] = json.loads(files[0].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlansError(f"{files[0]} cannot be read: {error}. Plan the dataset again.") from error
    return plans


def _find_folder(dataset: str) -> Path:
    from duplus_nnunet.errors import DataError, describe_unknown

    root = os.environ.get(_VARIABLE)
    if not root:
        raise DataError(f"{dataset!r} is no folder, and {_VARIABLE} is not set. Set it as for nnU-Net.")
    folders = {folder.name: folder for folder in sorted(Path(root).glob("Dataset*_*"))}
    for name, folder in folders.items():
        number, _, rest = name.removeprefix("Dataset").partition("_")
        if dataset in (name, rest) or (dataset.isdigit() and number.isdigit() and int(number) == int(dataset)):
            return folder
    raise DataError(f"{describe_unknown('dataset', dataset, folders)} Looked for it in {_VARIABLE}={root}.")
