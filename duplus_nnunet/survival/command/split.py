"""`duplus survival split`: folds by patient, the same ones for segmentation and for prognosis."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset

SPLITS_NAME = "splits_final.json"
_PREPROCESSED = "nnUNet_preprocessed"
_DESCRIPTION = """\
Write nnU-Net's splits_final.json, by patient and with the same share of events and centres in every fold, into the
preprocessed dataset. Train the segmentation on it first: fold k of the segmentation and fold k of the prognosis then
hold out the same patients, so that no prognosis is tested on images whose masks were learned.
"""


def add_action(actions: "argparse._SubParsersAction[argparse.ArgumentParser]", **looks: Any) -> None:
    """Declare the action."""
    parser = actions.add_parser("split", help="write folds by patient for nnU-Net", description=_DESCRIPTION, **looks)
    parser.add_argument("dataset", metavar="DATASET", help="planned dataset with the table: its number, name or folder")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=1, help="number of times that folds are drawn, numbered on: of "
        "5 folds, 5 to 9 are the second draw (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the first draw (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the folds and write them; folds that are there and differ are not overwritten."""
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.outputs.files import write_text
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

    raw = open_raw_dataset(args.dataset)
    file = _find_preprocessed(raw.name) / SPLITS_NAME
    if args.repeats < 1:
        raise DataError(f"--repeats is {args.repeats}; expected 1 or more.")
    folds, lines = _make(raw, args.folds, range(args.seed, args.seed + args.repeats))
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) == folds:
            print(f"{file} holds these {len(folds)} folds already.")
            return 0
        raise DataError(
            f"{file} holds other folds. Models may have been trained on them, so it is not overwritten: take it away "
            "first (and the one beside dataset.json, which nnU-Net copies), then train the segmentation anew."
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
            f"{name} is not planned: there is no folder of that name in {_PREPROCESSED}. Run "
            "`nnUNetv2_plan_and_preprocess -d DATASET -pl DuPLUSPlanner -c 3d_fullres` first."
        )
    return folder


def _make(raw: "RawDataset", count: int, seeds: range) -> tuple[list[dict[str, list[str]]], list[str]]:
    """Deal the imaged patients once a seed; returns nnU-Net's folds, and a line for each and for what is in none.

    Raises:
        DataError: The clinical table cannot be used, or there are too few events.
    """
    from duplus_nnunet.survival.records.folds import make_folds
    from duplus_nnunet.survival.records.table import SEEN
    from duplus_nnunet.survival.training.data import read_clinical_data

    table = _read_table(raw.name)
    clinic, cases = read_clinical_data(raw.name, table), sorted(table.cases)
    patients = {case: clinic.find_patient(case) for case in cases}
    records = [record for name, record in clinic.records.items() if name in set(patients.values())]
    folds, lines = [], []
    for number, fold in enumerate(fold for seed in seeds for fold in make_folds(records, count, seed)):
        held = {records[place].patient for place in fold.test}
        validation = [case for case in cases if patients[case] in held]
        folds.append({"train": [case for case in cases if case not in set(validation)], "val": validation})
        events = sum(records[place].event == SEEN for place in fold.test)
        lines.append(f"fold {number}: {len(held)} patients held out, {events} with the event, {len(validation)} cases")
    alone = [case for case, patient in patients.items() if patient is None]
    if alone:
        lines.append(f"{len(alone)} case(s) without a record are in the training part of every fold: {alone[0]} ...")
    return folds, lines


def _read_table(name: str) -> Any:
    from duplus_nnunet.data.case_table import read_case_table
    from duplus_nnunet.errors import DataError

    table = read_case_table(_find_preprocessed(name))
    if table is None:
        raise DataError(f"{name} was not planned by a DuPLUS planner. Plan it: -pl DuPLUSPlanner.")
    return table
