"""`duplus evaluate`: score predictions against reference label maps, on annotated targets only."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Score predicted label maps against reference label maps: Dice and normalised surface distance (NSD) of every annotated
target, separately for each source. Both range from 0 to 1, higher is better. Intervals are 95 % confidence intervals by
patient bootstrap.

A target is scored only in cases in which it was annotated, as recorded in duplus_cases.json. Where it is annotated and
absent, a prediction of it scores 0 (false positive), and an empty prediction has no score. Means weight all targets of
a source equally, and all sources equally. If only some targets were predicted, only these are scored.
"""
_EPILOG = """\
examples:
  duplus evaluate -p PREDICTIONS -r labelsTs -m MODEL_FOLDER
  duplus evaluate -p PREDICTIONS -r labelsTs -m DATASET_FOLDER -o SCORES --tolerance 3 --json
  duplus evaluate -p PREDICTIONS -r labelsTs -m MODEL_FOLDER --compare OTHER/scores.json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "evaluate",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-p", "--predictions", metavar="FOLDER", type=Path, required=True, help="predicted label maps")
    parser.add_argument("-r", "--references", metavar="FOLDER", type=Path, required=True, help="reference label maps")
    parser.add_argument(
        "-m", "--model", metavar="FOLDER", type=Path, required=True,
        help="folder of the model or dataset, which defines the target of each label and the annotated targets",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path,
        help="folder for scores.json and scores.csv (default: that of the predictions)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", metavar="MM", type=float, default=2.0,
        help="tolerance of the NSD: largest distance at which surfaces agree (default: %(default)s mm)",
    )  # fmt: skip
    parser.add_argument(
        "--compare", metavar="SCORES_JSON", type=Path,
        help="another scores.json of the same cases: print the differences to it, with paired intervals",
    )  # fmt: skip
    parser.add_argument("--allow-missing", action="store_true", help="ignore references without a prediction")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON instead of a table")
    parser.add_argument(
        "-np", "--num-processes", metavar="N", type=int, help="number of parallel processes (default: nnU-Net's)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score predictions, write the scores and print them."""
    from duplus_nnunet.files import require_writable
    from duplus_nnunet.reporting import comparison, score_files
    from duplus_nnunet.reporting.evaluation import prepare_evaluation
    from duplus_nnunet.reporting.score_text import format_comparison, format_scores

    output = args.output or args.predictions
    other = _read_other(args.compare, args.tolerance) if args.compare else None
    evaluation = prepare_evaluation((args.predictions, args.references, args.model), args.tolerance, args.allow_missing)
    require_writable(output, "Choose another folder for the scores with -o.")
    scores = evaluation.score(_count_processes(args.num_processes))
    compared = comparison.compare(scores.cases, other) if other is not None else None
    output.mkdir(parents=True, exist_ok=True)
    score_files.write_scores(scores, output)
    notes = comparison.compare_questions(args.predictions, args.compare.parent) if args.compare else []
    for note in [*evaluation.notes, *notes]:
        print(note, file=sys.stderr)
    if args.json:
        plain = score_files.to_plain(scores)
        print(
            json.dumps(
                plain | ({"comparison": {**comparison.to_plain(compared), "notes": notes}} if compared else {}),
                indent=1,
            )
        )
        return 0
    for line in format_scores(scores):
        print(line)
    for line in format_comparison(compared, args.compare) if compared else ():
        print(line)
    print(f"Wrote {output / score_files.JSON_NAME} and {output / score_files.CSV_NAME}.")
    return 0


def _read_other(file: Path, tolerance: float) -> Any:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.reporting.score_files import read_case_scores

    cases, other_tolerance = read_case_scores(file)
    if not math.isclose(other_tolerance, tolerance):
        raise DataError(
            f"{file} contains the NSD at {other_tolerance:g} mm, but --tolerance is {tolerance:g} mm. Give "
            f"--tolerance {other_tolerance:g}, or score those predictions again."
        )
    return cases


def _count_processes(number: int | None) -> int:
    from duplus_nnunet.errors import DataError

    if number is None:
        from nnunetv2.configuration import default_num_processes

        return int(default_num_processes)
    if number < 1:
        raise DataError(f"-np is {number}; expected 1 or more.")
    return number
