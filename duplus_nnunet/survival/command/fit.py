"""`duplus survival fit`: fits a model of clinical records to all patients, and saves it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.models.records_model import RecordsModel
    from duplus_nnunet.survival.records.cohort import Cohort

EXAMPLE = """\
  duplus survival fit --table clinical.csv -o model     writes model/records_model.json and model/model_card.md
  duplus survival fit 62 --method Coxnet -o model
  duplus survival predict -m model --clinical new.csv -o predicted

The model is saved without images, patients' records or IDs: JSON (of large models also tensors), of IDs only salted
hashes that tell whether a new patient was among those fitted. Someone who tries all IDs of a short form can find them,
so name patients by pseudonyms. The card says how to compute a prediction by hand.
"""
BEST = "best by cross-validation"
_METHODS = ("Cox", "Coxnet", "random survival forest", "logistic hazard", "ICARE", "Kaplan-Meier", BEST)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are those of this sub-command alone."""
    add = parser.add_argument
    add("-o", "--output", metavar="FOLDER", type=Path, required=True, help="new model folder")
    add("--method", default="Cox", help=f"{', '.join(_METHODS)} (default: %(default)s)")
    add("--seed", type=int, default=0, help="random seed of the fit (default: %(default)s)")
    add("--folds", type=int, default=5, help="folds of the cross-validation of the card (default: %(default)s)")
    add("--seeds", type=int, default=3, help="repetitions of the cross-validation of the card; 0: none, and the card "
        "says so (default: %(default)s)")  # fmt: skip


def fit(cohort: "Cohort", notes: tuple[str, ...], args: argparse.Namespace) -> int:
    """Fit, measure and save a model.

    Args:
        cohort: Patients with outcomes.
        notes: Warnings of the check of their table.
        args: Options.
    """
    from dataclasses import replace

    from duplus_nnunet.errors import DataError
    from duplus_nnunet.files import require_writable
    from duplus_nnunet.survival.models.records_model import fit_records_model
    from duplus_nnunet.survival.models.records_model_files import require_new_folder, write_records_model
    from duplus_nnunet.survival.records.outcome import require_sksurv
    from duplus_nnunet.survival.report.records_card import write_records_card
    from duplus_nnunet.survival.report.records_evidence import gather_evidence

    require_sksurv()
    if args.seeds < 0:
        raise DataError(f"--seeds is {args.seeds}; expected 0 or more.")
    require_new_folder(args.output)
    require_writable(args.output)
    chosen_by = BEST if args.method == BEST else ""
    method, choice = _choose(cohort, args.seed) if chosen_by else (args.method, ())
    model = fit_records_model(cohort.name, method, cohort.records, cohort.schema, args.seed)
    model = replace(model, notes=(*notes, *choice, *model.notes))
    model = replace(model, evidence=gather_evidence(model, cohort.records, args.folds, args.seeds, chosen_by))
    files = write_records_model(model, write_records_card(model), args.output)
    _report(model, files)
    return 0


def _choose(cohort: "Cohort", seed: int) -> tuple[str, tuple[str, ...]]:
    """Choose a method by cross-validation; returns it, and what the card says of it."""
    import numpy as np

    from duplus_nnunet.survival.evaluation.choosing import choose_method
    from duplus_nnunet.survival.models.forecasts import Task

    ordered = sorted(cohort.records, key=lambda record: record.patient)
    choice = choose_method(Task(ordered, ordered, cohort.schema, np.array([max(r.time for r in ordered)]), seed))
    scores = ", ".join(f"{name} {score:.3f}" for name, score in choice.scores.items())
    notes = [
        f"The method {choice.method} was chosen by Harrell's C in cross-validation ({scores}). The C of the "
        "chosen one is too high; for the cross-validated scores of this card it was chosen in each fold again."
    ]
    notes += [f"{name!r} could not be fitted and was not chosen: {error}" for name, error in choice.errors.items()]
    return choice.method, tuple(notes)


def _report(model: "RecordsModel", files: list[Path]) -> None:
    from duplus_nnunet.survival.report.records_card import describe_performance

    for note in (*model.notes, *model.evidence["notes"]):
        print(f"note: {note}", file=sys.stderr)
    for file in files:
        print(f"Wrote {file}.", file=sys.stderr)
    print("\n".join(describe_performance(model)))
