"""`duplus survival`: what a clinical table means, whether prognosis can be learned from it, and what it foretells."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.survival.command.importance import check_options, write_importance
from duplus_nnunet.survival.command.masks import add_finding, add_options, draft_masks
from duplus_nnunet.survival.command.models import arrange
from duplus_nnunet.survival.command.predict import add_action as add_predict
from duplus_nnunet.survival.command.split import add_action as add_split

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset
    from duplus_nnunet.survival.evaluation.study import Design, Study
    from duplus_nnunet.survival.records.checking import TableReport
    from duplus_nnunet.survival.records.cohort import Cohort
    from duplus_nnunet.survival.records.schema import ClinicalSchema
    from duplus_nnunet.survival.records.table import Rows

_DESCRIPTION = """\
A dataset for prognosis is a raw nnU-Net dataset with clinical.csv beside its dataset.json: a row a patient, with the
time to the event or the end of follow-up, what happened then, and what was known before treatment. clinical.yaml says
what its columns mean.
"""
_EPILOG = """\
examples:
  duplus survival draft 62             writes clinical.yaml beside clinical.csv, for you to correct
  duplus survival draft 62 --masks-from MODEL_FOLDER   and label files, predicted, for images without
  duplus survival check 62 60 61       with the images of the same patients in two more datasets
  duplus survival check 62 --json
  duplus survival evaluate 62 -o OUT   what the records alone foretell, by cross-validation
  duplus survival split 62             folds by patient, for segmentation and prognosis alike
  duplus survival evaluate 62 -m MODEL_FOLDER -o OUT   trained prognoses beside all of that
  duplus survival predict -m MODEL_FOLDER -i IMAGES --clinical clinical.csv -o OUT   new patients

draft guesses from names and values of columns, never from how well one predicts. check ends with exit code 1 if there
are errors; nothing is dropped silently.
"""
_WIDEST = 60


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-commands."""
    looks: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = subparsers.add_parser(
        "survival",
        help="draft and check a clinical table, and cross-validate what records alone foretell",
        description=_DESCRIPTION,
        **looks,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    what = {
        "draft": (_draft, "write a first clinical.yaml from clinical.csv"),
        "check": (_check, "check clinical.csv by clinical.yaml"),
        "evaluate": (_evaluate, "cross-validate what the records alone foretell, beside Cox models and a forest"),
    }
    for name, (action, summary) in what.items():
        added = actions.add_parser(name, help=summary, description=summary.capitalize() + ".", **looks)
        added.add_argument("dataset", metavar="DATASET", help="raw dataset with the table: its number, name or folder")
        added.add_argument("more", nargs="*", metavar="MORE", help="datasets with more images of the same patients")
        added.set_defaults(run=action)
        if name == "draft":
            for column in ("patient", "time", "event", "centre"):
                added.add_argument(f"--{column}", metavar="COLUMN", help="where the name does not tell")
            for kind, who in (("seen", "had the event"), ("censored", "were followed without it")):
                added.add_argument(f"--{kind}", metavar="CODE", nargs="+", default=(), help=f"of those who {who}")
            add_options(added)
            continue
        added.add_argument("--json", action="store_true", help="print JSON")
        if name == "evaluate":
            _add_study_options(added)
    add_split(actions, **looks)
    add_predict(actions)


def _add_study_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        help="for tables, metrics.json, pictures, a model card",
    )
    add("-m", "--model", metavar="FOLDER", type=Path, help="model folder of DuPLUSSurvivalTrainer: "
        "what its folds say of whom they held out, beside all other methods on the same folds and images")  # fmt: skip
    add("--importance", action="store_true", help="with -m and -o: what each column and the images are worth to whom "
        "the folds held out (importance.csv)")  # fmt: skip
    add("--folds", type=int, default=5, help="default: %(default)s")
    add("--seeds", type=int, default=3, help="number of times that folds are drawn (default: %(default)s)")
    add("--horizons", metavar="DAYS", type=float, nargs="+", default=(), help="times of the pooled AUC and of survival "
        "(default: when a quarter, half and three quarters of all events had happened)")  # fmt: skip


def _draft(args: argparse.Namespace) -> int:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.outputs.files import write_text
    from duplus_nnunet.survival.records.drafting import NamedColumns, draft
    from duplus_nnunet.survival.records.schema import SCHEMA_NAME, TABLE_NAME
    from duplus_nnunet.survival.records.table import read_rows

    datasets = _open(args)
    folder = datasets[0].folder
    if args.masks_from is not None and (folder / SCHEMA_NAME).exists():
        draft_masks(datasets[0], args)
        return 0
    if (folder / SCHEMA_NAME).exists():
        raise DataError(f"{folder / SCHEMA_NAME} exists; it is not overwritten. Edit it, or take it away first.")
    named = NamedColumns(args.patient, args.time, args.event, args.centre, tuple(args.seen), tuple(args.censored))
    text = draft(read_rows(folder / TABLE_NAME), _list_cases(datasets), named)
    write_text(folder / SCHEMA_NAME, text)
    print(text)
    print(f"Wrote {folder / SCHEMA_NAME}. Correct it, then run: duplus survival check {args.dataset}")
    if args.masks_from is not None:
        draft_masks(datasets[0], args)
    return 0


def _check(args: argparse.Namespace) -> int:
    rows, _, report = _examine(_open(args))
    if args.json:
        plain = {key: value for key, value in asdict(report).items() if key != "records"}
        counts = {"rows": len(rows.rows), "patients": len(report.records), "events": report.events}
        print(json.dumps({**counts, **plain}, indent=1))
    else:
        sys.stdout.write(_describe(report, len(rows.rows)))
    return 0 if report.is_usable else 1


def _examine(datasets: "list[RawDataset]") -> "tuple[Rows, ClinicalSchema, TableReport]":
    """Read a table and its schema, and check them."""
    from duplus_nnunet.survival.records.checking import check
    from duplus_nnunet.survival.records.schema import SCHEMA_NAME, TABLE_NAME, read_schema
    from duplus_nnunet.survival.records.table import read_rows

    folder = datasets[0].folder
    rows, schema = read_rows(folder / TABLE_NAME), read_schema(folder / SCHEMA_NAME)
    return rows, schema, add_finding(check(rows, schema, _list_cases(datasets)), datasets)


def _evaluate(args: argparse.Namespace) -> int:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.evaluation.study import Design, run_study
    from duplus_nnunet.survival.records.cohort import Cohort
    from duplus_nnunet.survival.records.outcome import require_sksurv

    require_sksurv()
    check_options(args.importance, args.model, args.output)
    if args.seeds < 1:
        raise DataError("--seeds must be 1 or more.")
    design = Design(args.folds, tuple(range(args.seeds)), tuple(sorted(args.horizons)))
    datasets = _open(args)
    rows, schema, report = _examine(datasets)
    if not report.is_usable:
        sys.stderr.write(_describe(report, len(rows.rows)))
        return 1
    if not schema.covariates and args.model is None:
        raise DataError("The schema has no covariates, so that there is nothing to foretell from. Add some.")
    warnings = tuple(found.text for found in report.findings if found.severity == "warning")
    records, features = report.records, None
    if args.model is not None:
        arranged = arrange(args.model, records, design)
        records, design, features = arranged.records, arranged.design, arranged.features
        warnings += arranged.notes
    study = run_study(records, schema, design, lambda line: print(f"done: {line}", file=sys.stderr), features)
    study = replace(study, notes=(*warnings, *study.notes))
    _tell(study, design, Cohort(datasets[0].folder.name, records, schema), args)
    if args.importance:
        print(write_importance(args.model, records, args.output), file=sys.stderr)
    return 0


def _tell(study: "Study", design: "Design", cohort: "Cohort", args: argparse.Namespace) -> None:
    """Print what a study found, and write its files where they are asked for."""
    from duplus_nnunet.survival.report.files import write_study
    from duplus_nnunet.survival.report.metrics_json import to_plain
    from duplus_nnunet.survival.report.text import describe_study

    for note in study.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.output is not None:
        for file in write_study(study, design, cohort, args.output):
            print(f"Wrote {file}.", file=sys.stderr)
    print(json.dumps(to_plain(study, design), indent=1) if args.json else "\n".join(describe_study(study)))


def _open(args: argparse.Namespace) -> "list[RawDataset]":
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

    return [open_raw_dataset(name) for name in (args.dataset, *args.more)]


def _list_cases(datasets: "list[RawDataset]") -> list[str]:
    """List the cases that have an image, to train on or to test on."""
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.prompt_registry.raw_dataset import list_images, require_file_ending

    cases: set[str] = set()
    for dataset in datasets:
        ending = require_file_ending(dataset.dataset_json, dataset.folder / "dataset.json")
        folders = [dataset.folder / part for part in ("imagesTr", "imagesTs")]
        images = [list_images(folder, ending, skip_unnumbered=True) for folder in folders]
        identifiers = {case for listed in images for case, channels in listed.items() if 0 in channels}
        if not identifiers:
            raise DataError(f"{dataset.folder} has no image *_0000{ending} in imagesTr or imagesTs. Images are needed.")
        cases |= identifiers
    return sorted(cases)


def _describe(report: "TableReport", rows: int) -> str:
    lines = [f"{rows} rows, {len(report.records)} patients that can be used, {report.events} with the event."]
    if set(report.centres) != {""}:
        width = min(_WIDEST, max(map(len, report.centres)))
        lines += [f"  {centre or '(no centre)':<{width}}  {count[0]} patients, {count[1]} with the event"
                  for centre, count in report.centres.items()]  # fmt: skip
    lines += [f"{finding.severity}: {finding.text}" for finding in report.findings]
    lines.append("The table can be used." if report.is_usable else "The table cannot be used: see the errors.")
    return "\n".join(lines) + "\n"
