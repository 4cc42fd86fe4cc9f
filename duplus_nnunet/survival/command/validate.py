"""`duplus survival validate`: validates a saved model in other patients, and recalibrates it."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.command_map import CommandMap

if TYPE_CHECKING:
    from duplus_nnunet.survival.evaluation.validation import Predictions, Validation
    from duplus_nnunet.survival.models.records_model import RecordsModel
    from duplus_nnunet.survival.records.table import Record
    from duplus_nnunet.survival.records.validation_table import ValidationTable
    from duplus_nnunet.survival.report.validation_files import Subject

_DESCRIPTION = """\
Validate a saved model in patients of another table, whose outcomes are known: concordance, AUC, Brier score,
calibration (O/E, slope, curve), Kaplan-Meier curves of the risk groups that were fixed at development, and decision
curves, with bootstrap confidence intervals.
"""
# Fewer bootstrap samples give no percentiles; a follow-up so many times as long may have another unit.
_LEAST_SAMPLES, _UNLIKE = 20, 5
_EXAMPLE = """\
  duplus survival validate -m model --clinical other.csv -o validation
  duplus survival validate -m model --clinical other.csv --recalibrate slope -o recalibrated
  duplus survival validate --predictions predicted -o validation     of a model with images: what `predict` wrote of
                                                                     patients whose outcomes are in the table

The table has the columns of the one that the model was fitted to; if its outcome has other columns or codes, a schema
beside it (other.yaml) says so. With --recalibrate, the output folder also holds the recalibrated model: `large` matches
the mean predicted risk at the last horizon, `slope` also the spread of the predictions.
"""


def add_action(commands: CommandMap) -> None:
    """Add the sub-command."""
    parser = commands.add("validate", _EXAMPLE, _DESCRIPTION)
    add = parser.add_argument
    add("-m", "--model", metavar="FOLDER", type=Path, help="model folder of `duplus survival fit`")
    add("--clinical", metavar="FILE", type=Path, help="clinical table with the outcomes of the patients")
    add("--predictions", metavar="FOLDER", type=Path, help="instead of both: output folder of `duplus survival "
        "predict`, of patients with outcomes")  # fmt: skip
    add("-o", "--output", metavar="FOLDER", type=Path, help="output folder of report, tables and figures")
    add("--horizons", metavar="DAYS", type=float, nargs="+", default=(), help="days at which the model is validated "
        "(default: those of the model, within the follow-up)")  # fmt: skip
    add("--recalibrate", choices=("large", "slope"), help="save a recalibrated model in the output folder")
    add("--bootstrap", metavar="N", type=int, default=500, help="bootstrap samples of patients for the intervals; 0: "
        "no intervals (default: %(default)s)")  # fmt: skip
    add("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate, write the results, and recalibrate if asked for."""
    from duplus_nnunet.survival.evaluation.validation import validate
    from duplus_nnunet.survival.records.outcome import require_sksurv
    from duplus_nnunet.survival.report.validation_files import write_validation

    require_sksurv()
    _check(args)
    model: RecordsModel | None = None
    if args.predictions is None:
        model, predictions, subject = _predict(args)
    else:
        from duplus_nnunet.survival.report.prediction_files import read_predictions

        predictions, subject = read_predictions(args.predictions, args.horizons)
    validation = validate(subject.model, predictions, args.bootstrap)
    updated = None if model is None or not args.recalibrate else _recalibrate(model, predictions, subject, args)
    if args.output is not None:
        for file in write_validation(validation, subject, args.output):
            print(f"Wrote {file}.", file=sys.stderr)
    if updated is not None:
        _save(updated, args.output)
    _report(validation, subject, args.json)
    return 0


def _check(args: argparse.Namespace) -> None:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.files import require_writable
    from duplus_nnunet.survival.models.records_model_files import require_new_folder

    given = args.predictions is not None
    if given == (args.model is not None or args.clinical is not None) or (args.model is None) != (
        args.clinical is None
    ):
        raise DataError("Give a model and a table (-m FOLDER --clinical FILE), or predictions (--predictions FOLDER).")
    if args.bootstrap < 0 or 0 < args.bootstrap < _LEAST_SAMPLES:
        raise DataError(f"--bootstrap is {args.bootstrap}; expected 0, or {_LEAST_SAMPLES} or more.")
    if args.recalibrate and (given or args.output is None):
        raise DataError("--recalibrate saves a model of clinical records: give -m FOLDER, --clinical FILE, -o FOLDER.")
    if args.output is not None:
        require_new_folder(args.output)
        require_writable(args.output)


def _predict(args: argparse.Namespace) -> "tuple[RecordsModel, Predictions, Subject]":
    """Read model and table, and predict the patients."""
    from duplus_nnunet.survival.models.methods import WITHOUT_ENTRY
    from duplus_nnunet.survival.models.records_model_files import read_records_model
    from duplus_nnunet.survival.prediction.records_run import choose_horizons_within, describe_recalibrations
    from duplus_nnunet.survival.records.schema import ROW_NUMBER
    from duplus_nnunet.survival.records.table import join_names
    from duplus_nnunet.survival.records.unlike_values import require_same_units
    from duplus_nnunet.survival.records.validation_table import describe_overlap, read_validation_table
    from duplus_nnunet.survival.report.records_evidence import predict_outcomes
    from duplus_nnunet.survival.report.validation_files import Subject

    model = read_records_model(args.model)
    table = read_validation_table(args.clinical, model.schema)
    require_same_units(table.records, model.encoder, model.development.ranges)
    predictions, left_out = predict_outcomes(model, table.records, choose_horizons_within(model, args.horizons))
    notes = [*_describe_follow_up(model, table, args.clinical)]
    if model.method in WITHOUT_ENTRY and any(record.entry for record in table.records):
        notes.append(f"{model.method} does not take delayed entry into account: it overestimates survival.")
    known = model.development.find_known(predictions.patients)
    notes += [describe_overlap(known, len(predictions.patients), (model.schema.patient, table.patient))]
    numbered = ROW_NUMBER in (model.schema.patient, table.patient)
    recalibrated = () if numbered else model.find_recalibrated(predictions.patients)
    if recalibrated:
        notes.append(
            f"The model was recalibrated in {len(recalibrated)} of the patients, so that its calibration is too good: "
            f"{join_names(sorted(recalibrated))}."
        )
    notes += [*table.notes, *_list_unlike(model, table.records), *model.encoder.encode(table.records)[1]]
    if left_out:
        listed = ", ".join(f"{horizon:g}" for horizon in left_out)
        notes.append(f"Not validated at {listed} days, which are not within the events and the follow-up.")
    notes += describe_recalibrations(model)
    unique = tuple(dict.fromkeys(note for note in notes if note))
    subject = Subject(args.model.resolve().name, model.method, table.name, unique, model.schema.endpoint)
    return model, predictions, subject


def _describe_follow_up(model: "RecordsModel", table: "ValidationTable", file: Path) -> list[str]:
    """Say where the follow-up is so unlike that of training that its unit may be another one."""
    longest, trained = max(record.time for record in table.records), model.development.follow_up
    if trained / _UNLIKE <= longest <= trained * _UNLIKE:
        return []
    return [
        f"The longest follow-up is {longest:g} days, that of the patients whom the model was fitted to {trained:g} "
        f"days. If the times are in another unit, say so in {file.with_suffix('.yaml')} (`time: unit`)."
    ]


def _list_unlike(model: "RecordsModel", records: "tuple[Record, ...]") -> list[str]:
    """List the warnings of values unlike those of training, each with its patients."""
    from duplus_nnunet.survival.records.table import join_names
    from duplus_nnunet.survival.records.unlike_values import find_unlike_values

    patients: dict[str, list[str]] = {}
    for record in records:
        for warning in find_unlike_values(record, model.encoder, model.development.ranges):
            patients.setdefault(warning, []).append(f"{record.patient} (row {record.row})")
    return [f"{warning}: {join_names(names)}." for warning, names in patients.items()]


def _recalibrate(
    model: "RecordsModel", predictions: "Predictions", subject: "Subject", args: argparse.Namespace
) -> "RecordsModel":
    from duplus_nnunet.survival.evaluation.updating import estimate_recalibration

    change = estimate_recalibration(args.recalibrate, subject.table, predictions)
    return replace(model, recalibrations=(*model.recalibrations, change))


def _save(model: "RecordsModel", folder: Path) -> None:
    from duplus_nnunet.survival.models.records_model_files import write_records_model
    from duplus_nnunet.survival.report.records_card import write_records_card

    change = model.recalibrations[-1]
    for file in write_records_model(model, write_records_card(model), folder):
        print(f"Wrote {file}.", file=sys.stderr)
    print(
        f"Recalibrated ({change.kind}) at {change.horizon:g} days in {change.patients} patients, {change.events} with "
        f"the event by then: slope {change.slope:.3f}, factor of the cumulative hazard {change.factor:.3f}.",
        file=sys.stderr,
    )


def _report(validation: "Validation", subject: "Subject", as_json: bool) -> None:
    from duplus_nnunet.survival.report.validation_files import describe_for_terminal, list_remarks, to_plain

    for note in list_remarks(validation, subject):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(to_plain(validation, subject), indent=1))
    else:
        print("\n".join(describe_for_terminal(validation)))
