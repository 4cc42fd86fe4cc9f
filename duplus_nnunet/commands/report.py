"""`duplus report`: one HTML file that shows what a model or a dataset is, and what the model predicts."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.model_report.report import ReportOptions

_DESCRIPTION = """\
Write a report on a trained model or a dataset: one HTML file for a browser, which needs no network, and reads on paper
and on a phone as well.

It shows sources, contexts, targets and plans, training curves, scores with intervals, and images whose slices a reader
scrolls and whose targets a reader chooses. What is not known, such as the scores of a model that was not validated, is
named with the reason.

The images are those of the model's dataset in nnUNet_raw, or those of --images. Where the folds have no predicted label
map of them, up to --cases of them are predicted.
"""
_EPILOG = """\
examples:
  duplus report MODEL_FOLDER -o report.html
  duplus report MODEL_FOLDER -o report.html --figures figures
  duplus report MODEL_FOLDER -o report.html --images imagesTs --labels labelsTs --context contexts.csv
  duplus report 4 -o dataset.html
  duplus report --prognosis evaluation -o prognosis.html     a prognosis from clinical records alone
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL|DATASET", nargs="?",
        help="model folder, or number, name or folder of a raw dataset; not needed with --prognosis")  # fmt: skip
    add("-o", "--output", metavar="FILE", type=Path, default=Path("report.html"),
        help="the report (default: %(default)s)")  # fmt: skip
    add("--figures", metavar="FOLDER", type=Path,
        help="also write each chart as PNG and SVG with its numbers as CSV, each table as CSV, and each group of "
        "images as PNG")  # fmt: skip
    add("--images", metavar="FOLDER", type=Path, help="show these images, named CASE_0000 plus the file ending")
    add("--labels", metavar="FOLDER", type=Path, help="annotated label maps of --images")
    add("--context", metavar="NAME|FILE", help="context of --images: a name, or a table of cases (.csv or .json)")
    add("--cases", metavar="N", type=int, default=6, help="predict this many cases at most (default: %(default)s)")
    add(
        "-device", "--device", choices=("cpu", "cuda", "mps"), help="device of predictions (default: cuda if available)"
    )
    more = parser.add_argument_group("more sections")
    add = more.add_argument
    add("--feature-map", action="store_true",
        help="show how the network separates targets and contexts; runs it on some windows of the images")  # fmt: skip
    add("--scores", metavar="FILE", type=Path,
        help="scores.json of duplus evaluate, such as of a test set (default: those of the validation)")  # fmt: skip
    add("--wording", metavar="FILE", type=Path, help="JSON file of duplus prompts sensitivity")
    add("--calibration", metavar="FILE", type=Path, help="calibration.json of duplus evaluate --calibration")
    add("--prognosis", metavar="FOLDER", type=Path, help="folder that duplus survival evaluate wrote")
    add("--adapters", metavar="FOLDER", type=Path, nargs="+", default=[], help="adapters of this model")
    add("--ablations", metavar="FILE", type=Path, help="JSON file of a benchmark with ablations")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report, and print where it is."""
    from duplus_nnunet.files import require_writable, require_writable_file
    from duplus_nnunet.model_report.figure_files import write_figures
    from duplus_nnunet.model_report.page import write_page
    from duplus_nnunet.model_report.report import make_prognosis_report, make_report

    options = _read_options(args)
    require_writable_file(args.output, "Name another file with -o.")
    if args.figures is not None:
        require_writable(args.figures, "Name another folder with --figures.")
    report = make_prognosis_report(args.prognosis) if args.model is None else make_report(args.model, options)
    for note in write_page(args.output, report):
        print(f"note: {note}", file=sys.stderr)
    print(f"Wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB).")
    if args.figures is not None:
        files = write_figures(args.figures, report.sections)
        print(f"Wrote {len(files)} files to {args.figures}.")
    return 0


def _read_options(args: argparse.Namespace) -> "ReportOptions":
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.model_report.case_files import OtherImages
    from duplus_nnunet.model_report.report import ReportOptions
    from duplus_nnunet.model_report.sections import SectionOptions

    beside = (args.images, args.scores, args.wording, args.calibration, args.ablations, *args.adapters)
    if args.model is None and (args.prognosis is None or args.feature_map or any(beside)):
        raise DataError(
            "Name a model folder or a dataset. Without one, only a prognosis is shown: --prognosis FOLDER, alone."
        )
    if args.cases < 0:
        raise DataError(f"--cases is {args.cases}; expected 0 or more.")
    if args.images is None and (args.labels is not None or args.context is not None):
        raise DataError("--labels and --context belong to other images. Name their folder with --images.")
    other = None if args.images is None else OtherImages(args.images, args.labels, args.context)
    sections = SectionOptions(
        feature_map=args.feature_map,
        device=args.device,
        scores=args.scores,
        wording=args.wording,
        calibration=args.calibration,
        prognosis=args.prognosis,
        adapters=args.adapters,
        ablations=args.ablations,
    )
    return ReportOptions(sections, other, args.cases)
