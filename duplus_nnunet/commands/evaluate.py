"""`duplus evaluate`: score predictions against reference label maps, on annotated targets only."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Score predicted label maps against reference label maps, separately for each target and source, with 95 % confidence
intervals by patient bootstrap. Predictions may come from any program that writes label maps on the grid of the images.

Scores: Dice, normalised surface distance (NSD), sensitivity and precision, 0 to 1, higher is better; HD95 and ASSD in
mm, lower is better; difference of the volumes in ml and percent; and for lesions, counted as connected components
(26-connectivity), F1 and sensitivity, 0 to 1, higher is better, and false lesions an image. A lesion is found if at
least one of its voxels is predicted.

A target is scored only in cases in which it was annotated, as recorded in duplus_cases.json. Where it is annotated and
absent, a prediction of it scores 0 (false positive), and an empty prediction has no score. Where only one of reference
and prediction has it, HD95 and ASSD are the diagonal of the image. Means weight all targets of a source equally, and
all sources equally. If only some targets were predicted, only these are scored.
"""
_EPILOG = """\
examples:
  duplus evaluate -p PREDICTIONS -r labelsTs -m MODEL_FOLDER
  duplus evaluate -p PREDICTIONS -r Dataset007_Pancreas/labelsTr -o SCORES --tolerance 3 "pancreas tumor=1"
  duplus evaluate -p PREDICTIONS -r labelsTs -m MODEL_FOLDER --compare OTHER/scores.json
  duplus evaluate -p PREDICTIONS -r labelsTs -m MODEL_FOLDER --worst 5 --calibration
  duplus evaluate -p OTHER_PROGRAM -r labelsTs -m DATASET_FOLDER --labels classes.json
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
        "-m", "--model", metavar="FOLDER", type=Path,
        help="folder of the model or dataset, which defines the target of each label and the annotated targets "
        "(default: the dataset that the references lie in)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path,
        help="folder for scores.json and scores.csv (default: that of the predictions)",
    )  # fmt: skip
    parser.add_argument(
        "--labels", metavar="FILE", type=Path,
        help="labels of predictions of another program: a JSON file of names and values, of values and names, or a "
        "dataset.json (default: the dataset.json beside the predictions)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", metavar="MM", nargs="+", default=[],
        help="tolerance of the NSD in mm, largest distance at which surfaces agree: one for all targets, or TARGET=MM "
        "(default: those of the registry, else 2)",
    )  # fmt: skip
    parser.add_argument(
        "--lesions", metavar="TARGET", nargs="+", default=[],
        help="targets whose lesions are counted, or none (default: those with names such as tumor or lesion)",
    )  # fmt: skip
    _add_report_options(parser)
    parser.add_argument("--allow-missing", action="store_true", help="ignore references without a prediction")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON instead of a table")
    parser.add_argument(
        "-np", "--num-processes", metavar="N", type=int, help="number of parallel processes (default: nnU-Net's)"
    )
    parser.set_defaults(run=run)


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    """Declare what is printed, and what else is measured."""
    from duplus_nnunet.reporting.metrics import NAMES

    parser.add_argument(
        "--metrics", metavar="METRIC", nargs="+",
        help="columns of the table that is printed: " + ", ".join(NAMES) + " (default: dice nsd hd95_mm, and those "
        "of lesions); the files hold all",
    )  # fmt: skip
    parser.add_argument(
        "--compare", metavar="SCORES_JSON", type=Path,
        help="another scores.json of the same cases: print the differences to it, with paired intervals and p-values "
        "(Wilcoxon, corrected for the number of targets by Holm's method)",
    )  # fmt: skip
    parser.add_argument(
        "--worst", metavar="N", type=int,
        help="also print the N worst cases of each target, by the first of --metrics (default: by Dice)",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", action="store_true",
        help="also compare predicted probabilities with the references (expected calibration error, Brier score), and "
        "the predicted presence of targets; needs predictions made with --probabilities, --statistics or both, or with "
        "nnU-Net's --save_probabilities; writes calibration.json and calibration.csv",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Score predictions, write the scores and print them."""
    from duplus_nnunet.files import require_writable
    from duplus_nnunet.reporting import calibration_files, comparison, score_files
    from duplus_nnunet.reporting.metrics import find_metrics
    from duplus_nnunet.saved_predictions.calibration import measure_calibration

    output = args.output or args.predictions
    shown = None if args.metrics is None else find_metrics(args.metrics)
    _check_worst(args.worst)
    evaluation = _prepare(args)
    other = _read_other(args.compare, evaluation.settings) if args.compare else None
    require_writable(output, "Choose another folder for the scores with -o.")
    calibration = measure_calibration(evaluation) if args.calibration else None
    scores = evaluation.score(_count_processes(args.num_processes))
    compared = comparison.compare(scores.cases, other) if other is not None else None
    output.mkdir(parents=True, exist_ok=True)
    score_files.write_scores(scores, output)
    written = [output / score_files.JSON_NAME, output / score_files.CSV_NAME]
    written += calibration_files.write_calibration(calibration, output) if calibration else []
    notes = comparison.compare_questions(args.predictions, args.compare.parent) if args.compare else []
    for note in [*evaluation.notes, *(calibration.notes if calibration else ()), *notes]:
        print(note, file=sys.stderr)
    if args.json:
        plain = score_files.to_plain(scores)
        plain |= {"comparison": {**comparison.to_plain(compared), "notes": notes}} if compared else {}
        plain |= {"calibration": calibration_files.to_plain(calibration)} if calibration else {}
        print(json.dumps(plain, indent=1))
        return 0
    for line in _format(args, scores, shown, compared, calibration):
        print(line)
    print(f"Wrote {', '.join(map(str, written[:-1]))} and {written[-1]}.")
    return 0


def _prepare(args: argparse.Namespace) -> Any:
    from duplus_nnunet.reporting.evaluation import Request, prepare_evaluation

    tolerance, tolerances = _read_tolerances(args.tolerance)
    return prepare_evaluation(
        Request(
            predictions=args.predictions,
            references=args.references,
            home=args.model,
            labels=args.labels,
            tolerance=tolerance,
            tolerances=tolerances,
            lesions=args.lesions,
            allow_missing=args.allow_missing,
        )
    )


def _format(args: argparse.Namespace, scores: Any, shown: Any, compared: Any, calibration: Any) -> Iterator[str]:
    """Yield what is printed: scores, worst cases, differences and calibration."""
    from duplus_nnunet.reporting.calibration_files import format_calibration
    from duplus_nnunet.reporting.metrics import METRICS
    from duplus_nnunet.reporting.score_text import format_comparison, format_scores
    from duplus_nnunet.reporting.worst_cases import format_worst

    yield from format_scores(scores, shown)
    if args.worst is not None:
        yield from format_worst(scores.cases, (shown or METRICS)[0], args.worst)
    if compared:
        yield from format_comparison(compared, args.compare, shown)
    if calibration:
        yield from format_calibration(calibration)


def _check_worst(number: int | None) -> None:
    from duplus_nnunet.errors import DataError

    if number is not None and number < 1:
        raise DataError(f"--worst is {number}; expected 1 or more.")


def _read_tolerances(words: list[str]) -> tuple[float | None, dict[str, float]]:
    """Read the tolerance of all targets, None if it is not given, and those of single targets, in mm."""
    from duplus_nnunet.errors import DataError

    common: list[float] = []
    single: dict[str, float] = {}
    for word in words:
        name, separator, text = word.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            message = f"--tolerance {word!r}: expected a number of mm, such as 3, or TARGET=MM, such as liver=5."
            raise DataError(message) from None
        if separator:
            single[name.strip()] = value
        else:
            common.append(value)
    if len(common) > 1:
        raise DataError(f"--tolerance has {len(common)} numbers without a target; expected one at most.")
    return (common[0] if common else None), single


def _read_other(file: Path, settings: Any) -> Any:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.reporting.score_files import read_case_scores

    cases, tolerances = read_case_scores(file)
    for target in settings.regions:
        ours = settings.tolerances.get(target, settings.tolerance)
        theirs = tolerances.by_target.get(target, tolerances.mm)
        if not math.isclose(ours, theirs):
            raise DataError(
                f"{file} has the NSD of {target!r} at {theirs:g} mm, but it is scored at {ours:g} mm here. Give "
                f'--tolerance "{target}={theirs:g}", or score those predictions again.'
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
