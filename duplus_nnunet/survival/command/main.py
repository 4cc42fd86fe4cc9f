"""The command `duplus survival`: drafts and checks a clinical table, and evaluates survival models."""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.command_map import CommandMap, Group
from duplus_nnunet.survival.command.coverage import add_coverage, group_cases, list_cases
from duplus_nnunet.survival.command.endpoint import add_endpoint, describe_endpoint, require_same
from duplus_nnunet.survival.command.features import add_action as add_features
from duplus_nnunet.survival.command.fit import EXAMPLE as FIT_EXAMPLE
from duplus_nnunet.survival.command.fit import add_options as add_fit_options
from duplus_nnunet.survival.command.fit import fit
from duplus_nnunet.survival.command.left_out import (
    OPTION,
    find_test_patients,
    leave_out_test_patients,
    mention_test_patients,
)
from duplus_nnunet.survival.command.masks import add_finding, add_mask_options, draft_masks
from duplus_nnunet.survival.command.predict import add_action as add_predict
from duplus_nnunet.survival.command.split import add_action as add_split
from duplus_nnunet.survival.command.trained_models import arrange, check_options, write_importance
from duplus_nnunet.survival.command.validate import add_action as add_validate

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset
    from duplus_nnunet.survival.evaluation.study import Design, Study
    from duplus_nnunet.survival.records.checking import TableReport
    from duplus_nnunet.survival.records.cohort import Cohort
    from duplus_nnunet.survival.records.schema import ClinicalSchema
    from duplus_nnunet.survival.records.table import Rows

_DESCRIPTION = """\
Predict survival from clinical records and images. A dataset for survival analysis is a raw nnU-Net dataset with a
clinical table, clinical.csv, beside its dataset.json: one row for each patient, with the time to the event or to the
end of follow-up, the event status, and covariates known before treatment. clinical.yaml describes the columns.
"""
GROUPS = (
    Group(
        "Prepare",
        {
            "draft": "draft clinical.yaml from clinical.csv",
            "check": "check clinical.csv against clinical.yaml",
            "features": "write measurements of lesions (volumes, distances, uptake) as a table",
            "split": "draw folds by patient, for segmentation and survival models",
        },
    ),
    Group(
        "Train: nnU-Net's own command, from the weights of a segmentation model of the same dataset",
        host={
            "nnUNetv2_train 62 3d_fullres 0 -tr DuPLUSSurvivalTrainer -p DuPLUSPlans "
            "-pretrained_weights ...": "train a survival model"
        },
    ),
    Group(
        "Evaluate and predict",
        {
            "evaluate": "cross-validate DuPLUS survival models beside Cox models and a random survival forest",
            "fit": "fit a model of clinical records, and save it",
            "predict": "predict new patients by a trained or saved model",
            "validate": "validate a saved model in other patients, and recalibrate it",
        },
    ),
)
_EPILOG = """\
examples:
  duplus survival draft 62             write clinical.yaml beside clinical.csv, to be corrected by hand
  duplus survival check 62             check the table
  duplus survival evaluate 62 -o evaluation     cross-validate prognosis from the clinical table alone
"""
_MODEL = "nnUNet_results/Dataset062_Sarcoma/DuPLUSSurvivalTrainer__DuPLUSPlans__3d_fullres"
_EXAMPLES = {
    "draft": """\
  duplus survival draft 62
  duplus survival draft --table clinical.csv     a table alone, without images
  duplus survival draft --table clinical.csv --join endpoints.csv     two tables of the same patients
  duplus survival draft --table clinical.csv --start diagnosis --end death --otherwise last_contact     dates
  duplus survival draft 62 --masks-from nnUNet_results/Dataset062_Sarcoma/DuPLUSTrainer__DuPLUSPlans__3d_fullres

The meaning of columns is guessed from their names and values. Columns that seem to encode the outcome, such as the
event or time of another endpoint, are left out with the reason. Several endpoints are drafted together; --endpoint
drafts one of them. With --masks-from, label files are
predicted for images without one.
""",
    "check": """\
  duplus survival check 62
  duplus survival check 62 60 61 --json     with images of the same patients in two more datasets

Exit code 1 if there are errors; no row is dropped silently.
""",
    "evaluate": f"""\
  duplus survival evaluate 62 -o evaluation     from the clinical table alone
  duplus survival evaluate 62 -o evaluation --importance \\
      -m {_MODEL}
""",
    "fit": FIT_EXAMPLE,
}
_WIDEST = 60
_NAMED = ("patient", "time", "event", "centre", "unit", "start", "end", "otherwise", "format", "endpoint")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-commands."""
    parser = subparsers.add_parser("survival", description=_DESCRIPTION, epilog=_EPILOG)
    commands = CommandMap(parser, GROUPS)
    for name, action in (("draft", _draft), ("check", _check), ("evaluate", _evaluate), ("fit", _fit)):
        added = commands.add(name, _EXAMPLES[name])
        added.add_argument(
            "dataset", metavar="DATASET", nargs="?", help="raw dataset with the clinical table: number, name or folder"
        )
        added.add_argument("--table", metavar="FILE", type=Path, help="a clinical table alone, instead of a dataset; "
            "its schema is the file beside it with the ending .yaml")  # fmt: skip
        added.add_argument("more", nargs="*", metavar="MORE", help="further datasets with images of the same patients")
        add_endpoint(added)
        added.set_defaults(run=action)
        if name == "draft":
            _add_draft_options(added)
            continue
        if name == "fit":
            add_fit_options(added)
            continue
        added.add_argument("--json", action="store_true", help="print the result as JSON")
        if name == "evaluate":
            _add_study_options(added)
    add_features(commands)
    add_split(commands)
    add_predict(commands)
    add_validate(commands)


def _add_draft_options(parser: argparse.ArgumentParser) -> None:
    for column in ("patient", "time", "event", "centre"):
        parser.add_argument(f"--{column}", metavar="COLUMN", help="name of this column, if the draft cannot guess it")
    parser.add_argument("--unit", choices=("days", "weeks", "months", "years"), help="unit of the time, if in doubt")
    for column, meaning in (
        ("start", "start date, if the time is given by dates"),
        ("end", "date of the event or of the end of follow-up"),
        ("otherwise", "date that is read where the end is empty, such as the last contact of the living"),
    ):
        parser.add_argument(f"--{column}", metavar="COLUMN", help=meaning)
    parser.add_argument("--format", metavar="FORMAT", help="format of the dates, such as %%d.%%m.%%Y, if in doubt")
    for kind, status in (("seen", "with the event"), ("censored", "censored without the event")):
        help_text = f"codes of patients {status}, if the draft cannot guess them"
        parser.add_argument(f"--{kind}", metavar="CODE", nargs="+", default=(), help=help_text)
    parser.add_argument("--join", metavar="FILE", type=Path, nargs="+", default=(), help="further tables in the same "
        "folder, joined by the patient ID and written as `tables`")  # fmt: skip
    add_mask_options(parser)


def _add_study_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        help="output folder for metrics.json, tables, figures and a model card",
    )
    add("-m", "--model", metavar="FOLDER", type=Path, help="model folder of DuPLUSSurvivalTrainer, "
        "evaluated on the held-out patients of its folds, with the other methods on the same folds")  # fmt: skip
    add("--importance", action="store_true", help="with -m and -o: also write the permutation importance of columns "
        "and images in held-out patients (importance.csv)")  # fmt: skip
    add("--methods", metavar="NAME", nargs="+", default=(), help="methods to evaluate; the others are compared with "
        "the first (default: all for which there is data); 'best by cross-validation' chooses Cox, Coxnet, random "
        "survival forest or logistic hazard within the training patients of each fold")  # fmt: skip
    add("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    add("--seeds", type=int, default=3, help="number of repetitions of the cross-validation, each with its own folds "
        "(default: %(default)s)")  # fmt: skip
    add("--horizons", metavar="DAYS", type=float, nargs="+", default=(), help="times of pooled AUC, calibration and "
        "predicted survival (default: `horizons` of clinical.yaml, or else 1, 2, 3 and 5 years, where enough patients "
        "are followed, or else quartiles of the event times)")  # fmt: skip
    add(OPTION, action="store_true", help="also evaluate patients whose images are all in imagesTs (default: they are "
        "test patients and left out)")  # fmt: skip


def _draft(args: argparse.Namespace) -> int:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.files import write_text
    from duplus_nnunet.survival.records.drafted_tables import read_tables
    from duplus_nnunet.survival.records.drafting import NamedColumns, draft
    from duplus_nnunet.survival.records.schema import read_schemas

    if (args.start is None) != (args.end is None):
        raise DataError("--start and --end name two columns of dates: give both, or neither.")
    if args.start is not None and (args.time or args.unit):
        raise DataError("--time and --unit are of a column of numbers; with --start and --end leave them out.")
    if args.start is None and (args.otherwise or args.format):
        raise DataError("--otherwise and --format are of dates: give --start and --end, too.")
    datasets = _open(args)
    table, schema = _find_files(args, datasets)
    if args.masks_from is not None and args.table is not None:
        raise DataError("--masks-from predicts masks of the images of a dataset: name the dataset instead of --table.")
    if args.masks_from is not None and schema.exists():
        draft_masks(datasets[0], args)
        return 0
    if schema.exists():
        raise DataError(f"{schema} already exists and is not overwritten. Edit it, or remove it first.")
    cases = list_cases(datasets)
    rows, tables = read_tables(table, args.join, cases, args.patient)
    named = NamedColumns(
        **{key: getattr(args, key) for key in _NAMED},
        seen=tuple(args.seen),
        censored=tuple(args.censored),
        tables=tables,
    )
    text = draft(rows, cases, named)
    write_text(schema, text)
    print(text)
    source = args.dataset if args.table is None else f"--table {args.table}"
    choice = " --endpoint NAME" if len(read_schemas(schema)) > 1 else ""
    print(f"Wrote {schema}. Check and correct it, then run: duplus survival check {source}{choice}")
    if args.masks_from is not None:
        draft_masks(datasets[0], args)
    return 0


def _check(args: argparse.Namespace) -> int:
    datasets = _open(args)
    rows, schema, report = _examine(args, datasets)
    report = mention_test_patients(report, find_test_patients(report, schema, datasets))
    if args.json:
        plain = {key: value for key, value in asdict(report).items() if key != "records"}
        counts = {
            "endpoint": schema.endpoint,
            "rows": len(rows.rows),
            "patients": len(report.records),
            "events": report.events,
        }
        print(json.dumps({**counts, **plain}, indent=1))
    else:
        sys.stdout.write(_head(schema) + _describe(report, len(rows.rows)))
    return 0 if report.is_usable else 1


def _examine(args: argparse.Namespace, datasets: "list[RawDataset]") -> "tuple[Rows, ClinicalSchema, TableReport]":
    """Read and check a clinical table and its schema."""
    from duplus_nnunet.survival.records.checking import check
    from duplus_nnunet.survival.records.joined_tables import read_clinical

    table, file = _find_files(args, datasets)
    rows, schema = read_clinical(table, file, args.endpoint)
    groups = group_cases(datasets)
    report = add_coverage(check(rows, schema, sorted({*chain(*groups.values())})), schema, groups)
    return rows, schema, add_finding(report, datasets) if datasets else report


def _find_files(args: argparse.Namespace, datasets: "list[RawDataset]") -> tuple[Path, Path]:
    """Return the clinical table and its schema, of a dataset or of a table alone."""
    from duplus_nnunet.survival.records.schema import SCHEMA_NAME, TABLE_NAME

    if args.table is not None:
        return args.table, args.table.with_suffix(".yaml")
    return datasets[0].folder / TABLE_NAME, datasets[0].folder / SCHEMA_NAME


def _evaluate(args: argparse.Namespace) -> int:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.evaluation.implausible import note_implausible
    from duplus_nnunet.survival.evaluation.record_importance import REPEATS
    from duplus_nnunet.survival.evaluation.study import Design, run_study
    from duplus_nnunet.survival.records.cohort import Cohort
    from duplus_nnunet.survival.records.outcome import require_sksurv
    from duplus_nnunet.survival.records.schema import SCHEMA_NAME

    require_sksurv()
    check_options(args.importance, args.model, args.output)
    if args.seeds < 1:
        raise DataError(f"--seeds is {args.seeds}; expected 1 or more.")
    design = Design(args.folds, tuple(range(args.seeds)), tuple(sorted(args.horizons)), tuple(args.methods))
    if args.output is not None:
        design = replace(design, importance=REPEATS)
    datasets = _open(args)
    rows, schema, report = _examine(args, datasets)
    if not report.is_usable:
        sys.stderr.write(_head(schema) + _describe(report, len(rows.rows)))
        return 1
    test_patients = find_test_patients(report, schema, datasets)
    report = leave_out_test_patients(report, test_patients, args.with_test_patients)
    if not schema.covariates and args.model is None:
        raise DataError(f"{SCHEMA_NAME} has no covariates: there is nothing to predict from. Add `covariates` to it.")
    warnings = tuple(finding.text for finding in report.findings if finding.severity == "warning")
    records, features = report.records, None
    if args.model is not None:
        arranged = arrange(args.model, records, design)
        require_same(arranged.schema, schema)
        records, design, features = arranged.records, arranged.design, arranged.features
        warnings += arranged.notes
    study = run_study(records, schema, design, features)
    study = replace(study, notes=(*warnings, *note_implausible(study, records, schema), *study.notes))
    _report(study, design, Cohort(datasets[0].folder.name if datasets else args.table.stem, records, schema), args)
    if args.importance:
        print(write_importance(args.model, records, args.output), file=sys.stderr)
    return 0


def _fit(args: argparse.Namespace) -> int:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.records.cohort import Cohort

    datasets = _open(args)
    rows, schema, report = _examine(args, datasets)
    if not report.is_usable:
        sys.stderr.write(_describe(report, len(rows.rows)))
        return 1
    report = leave_out_test_patients(report, find_test_patients(report, schema, datasets), False)
    if not schema.covariates:
        raise DataError("The schema has no covariates: there is nothing to predict from. Add `covariates` to it.")
    warnings = tuple(finding.text for finding in report.findings if finding.severity == "warning")
    return fit(Cohort(datasets[0].folder.name if datasets else args.table.stem, report.records, schema), warnings, args)


def _report(study: "Study", design: "Design", cohort: "Cohort", args: argparse.Namespace) -> None:
    """Print the results of a study, and write its files if an output folder is given."""
    from duplus_nnunet.survival.report.metrics_json import to_plain
    from duplus_nnunet.survival.report.text import describe_study

    for note in study.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.output is not None:
        from duplus_nnunet.survival.report.files import write_study

        for file in write_study(study, design, cohort, args.output):
            print(f"Wrote {file}.", file=sys.stderr)
    if args.json:
        print(json.dumps(to_plain(study, design, cohort.schema), indent=1))
    else:
        print(_head(cohort.schema) + "\n".join(describe_study(study)))


def _open(args: argparse.Namespace) -> "list[RawDataset]":
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

    if (args.dataset is None) == (args.table is None):
        raise DataError("Name either a dataset or a table: duplus survival ... DATASET, or --table clinical.csv.")
    return [] if args.dataset is None else [open_raw_dataset(name) for name in (args.dataset, *args.more)]


def _head(schema: "ClinicalSchema") -> str:
    """Return a line on the endpoint, if it has a name."""
    return f"Endpoint: {describe_endpoint(schema)}.\n" if schema.endpoint else ""


def _describe(report: "TableReport", rows: int) -> str:
    lines = [f"{rows} rows, {len(report.records)} usable patients, {report.events} with the event."]
    if report.records:
        times = [record.time for record in report.records]
        lines.append(f"Time: {min(times):,.0f} to {max(times):,.0f} days, median {statistics.median(times):,.0f}.")
    if set(report.centres) - {""}:
        width = min(_WIDEST, max(map(len, report.centres)))
        lines += [f"  {centre or '(no centre)':<{width}}  {count[0]} patients, {count[1]} with the event"
                  for centre, count in report.centres.items()]  # fmt: skip
    lines += [f"{finding.severity}: {finding.text}" for finding in report.findings]
    lines.append(
        "The table can be used." if report.is_usable else "The table cannot be used: correct the errors above."
    )
    return "\n".join(lines) + "\n"
