"""`duplus plan-report`: show what was planned for each source, and why."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  duplus plan-report 501                     DuPLUSPlans of dataset 501 in nnUNet_preprocessed
  duplus plan-report 501 -p DuPLUSResEncUNetLPlans --json
  duplus plan-report MODEL_FOLDER            the plans of a trained model
"""
_VARIABLE = "nnUNet_preprocessed"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "plan-report",
        description="Show the patch size and batch size of each configuration, and for each source its context, target "
        "spacing, median shape after resampling and the share of it that a patch covers, its normalisation, the share "
        "of drawn cases, and the number of annotated cases of each target.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", help="number or name of a dataset, or a folder with plans")
    parser.add_argument(
        "-p", "--plans", metavar="NAME", default="DuPLUSPlans", help="name of the plans (default: %(default)s)"
    )
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
        dataset: Number or name of a dataset, or a folder with plans.
        name: Name of the plans; ignored for a model folder, which has one plans.json.

    Raises:
        DataError: There is no such dataset.
        PlansError: The plans do not exist or cannot be read.
    """
    from duplus_nnunet.errors import PlansError
    from duplus_nnunet.text_files import load_json

    folder = Path(dataset) if Path(dataset).is_dir() else _find_folder(dataset)
    files = [file for file in (folder / f"{name}.json", folder / "plans.json") if file.is_file()]
    if not files:
        listed = ", ".join(sorted(file.stem for file in folder.glob("*Plans.json"))) or "none"
        raise PlansError(
            f"{folder} has no plans {name!r}; available: {listed}. Name others with -p, or plan the dataset: "
            f"nnUNetv2_plan_and_preprocess -d {dataset} -pl DuPLUSPlanner -c 3d_fullres."
        )
    try:
        plans: dict[str, Any] = load_json(files[0])
    except (OSError, ValueError) as error:
        raise PlansError(f"{files[0]} cannot be read: {error}. Plan the dataset again.") from error
    return plans


def _find_folder(dataset: str) -> Path:
    from duplus_nnunet.errors import DataError, describe_unknown

    root = os.environ.get(_VARIABLE)
    if not root:
        raise DataError(f"{dataset!r} is not a folder, and {_VARIABLE} is not set. Set it as for nnU-Net.")
    folders = {folder.name: folder for folder in sorted(Path(root).glob("Dataset*_*"))}
    for name, folder in folders.items():
        number, _, rest = name.removeprefix("Dataset").partition("_")
        if dataset in (name, rest) or (dataset.isdigit() and number.isdigit() and int(number) == int(dataset)):
            return folder
    from duplus_nnunet.prompt_registry.raw_dataset import has_raw_dataset

    if has_raw_dataset(dataset):
        raise DataError(
            f"The dataset {dataset!r} has not been planned: it is not in {_VARIABLE}={root}. Plan it: "
            f"nnUNetv2_plan_and_preprocess -d {dataset} -pl DuPLUSPlanner -c 3d_fullres."
        )
    raise DataError(f"{describe_unknown('dataset', dataset, folders)} It was looked for in {_VARIABLE}={root}.")
