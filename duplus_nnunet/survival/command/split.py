"""`duplus survival split`: draws folds by patient, shared by segmentation and survival models."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.command_map import CommandMap
from duplus_nnunet.survival.command.endpoint import add_endpoint

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset

SPLITS_NAME = "splits_final.json"
_PREPROCESSED = "nnUNet_preprocessed"
_DESCRIPTION = """\
Write nnU-Net's splits_final.json into the preprocessed dataset, with folds by patient that are stratified by event and
centre. Train the segmentation on it first: fold k of the segmentation and fold k of the survival model then hold out
the same patients, so that no survival model is evaluated on patients whose masks the segmentation was trained on.
"""


def add_action(commands: CommandMap) -> None:
    """Add the sub-command."""
    parser = commands.add("split", "  duplus survival split 62 --folds 5", _DESCRIPTION)
    parser.add_argument(
        "dataset", metavar="DATASET", help="planned dataset with the clinical table: number, name or folder"
    )
    add_endpoint(parser)
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="number of repetitions with new folds, numbered "
        "consecutively: with 5 folds, 5 to 9 are the second repetition (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the first repetition (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw and write the folds; existing folds that differ are not overwritten."""
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.files import write_text
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset
    from duplus_nnunet.table_files import read_json

    raw = open_raw_dataset(args.dataset)
    file = _find_preprocessed(raw.name) / SPLITS_NAME
    if args.repeats < 1:
        raise DataError(f"--repeats is {args.repeats}; expected 1 or more.")
    folds, lines = _draw(raw, args, range(args.seed, args.seed + args.repeats))
    if file.exists():
        if read_json(file, "Remove it.") == folds:
            print(f"{file} already has these {len(folds)} folds.")
            return 0
        raise DataError(
            f"{file} has different folds. It is not overwritten, as models may have been trained on it: remove it "
            "first (and the one beside dataset.json, which nnU-Net copies), then retrain the segmentation."
        )
    write_text(file, json.dumps(folds, indent=1) + "\n")
    print("\n".join(lines))
    print(f"Wrote {file}. Train the segmentation on it: nnUNetv2_train {args.dataset} 3d_fullres 0 -tr DuPLUSTrainer "
          "-p DuPLUSPlans")  # fmt: skip
    return 0


def _find_preprocessed(name: str) -> Path:
    from duplus_nnunet.errors import DataError

    folder = Path(os.environ.get(_PREPROCESSED, "")) / name
    if not os.environ.get(_PREPROCESSED) or not folder.is_dir():
        raise DataError(
            f"{name} is not planned: {_PREPROCESSED} has no folder of that name. Run "
            "`nnUNetv2_plan_and_preprocess -d DATASET -pl DuPLUSPlanner -c 3d_fullres` first."
        )
    return folder


def _draw(raw: "RawDataset", args: argparse.Namespace, seeds: range) -> tuple[list[dict[str, list[str]]], list[str]]:
    """Draw folds of the imaged patients for each seed; returns nnU-Net's folds, and lines that describe them.

    Raises:
        DataError: The clinical table cannot be used, or there are too few events.
    """
    from duplus_nnunet.survival.records.folds import make_folds
    from duplus_nnunet.survival.records.table import SEEN
    from duplus_nnunet.survival.training.data import read_clinical_data

    table = _read_table(raw.name)
    clinic, cases = read_clinical_data(raw.name, table, args.endpoint), sorted(table.cases)
    patients = {case: clinic.find_patient(case) for case in cases}
    records = [record for name, record in clinic.records.items() if name in set(patients.values())]
    folds, lines = [], []
    for number, fold in enumerate(fold for seed in seeds for fold in make_folds(records, args.folds, seed)):
        held = {records[row].patient for row in fold.test}
        validation = [case for case in cases if patients[case] in held]
        folds.append({"train": [case for case in cases if case not in set(validation)], "val": validation})
        events = sum(records[row].event == SEEN for row in fold.test)
        lines.append(f"fold {number}: {len(held)} patients held out, {events} with the event, {len(validation)} cases")
    unmatched = [case for case, patient in patients.items() if patient is None]
    if unmatched:
        lines.append(f"{len(unmatched)} case(s) without a record are training cases in every fold: {unmatched[0]} ...")
    return folds, lines


def _read_table(name: str) -> Any:
    from duplus_nnunet.data.case_table import read_case_table
    from duplus_nnunet.errors import DataError

    table = read_case_table(_find_preprocessed(name))
    if table is None:
        raise DataError(f"{name} was not planned by a DuPLUS planner. Plan it with -pl DuPLUSPlanner.")
    return table
