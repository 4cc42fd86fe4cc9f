"""`duplus cohort`: a table over a folder of label maps, without segmenting again."""

import argparse
import json
import sys
from pathlib import Path

_DESCRIPTION = """\
Measure the targets in all label maps of a folder, without segmenting again, and write a table with a row an image: for
each target volume, presence, number of connected components, the largest of them, whether the target touches the edge
of the image, and with --images mean, standard deviation and percentiles of the intensities (HU in CT, SUV in PET if the
image is in SUV, else the image's own unit).

The folder may hold predictions of this package, label maps of any program in nnU-Net's format, or annotations. What is
implausible within the cohort is flagged: volumes far from the median, targets that are absent in one image and present
in nearly all others, left and right exchanged or on one side, and warnings of the prediction. A flag asks somebody to
look; it does not say that a segmentation is wrong.
"""
_EPILOG = """\
examples:
  duplus cohort PREDICTIONS
  duplus cohort PREDICTIONS -o cohort.csv --images nnUNet_raw/Dataset007_Pancreas/imagesTs
  duplus cohort OTHER_PROGRAM --labels classes.json --images IMAGES
  duplus cohort nnUNet_raw/Dataset007_Pancreas/labelsTr
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "cohort",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of label maps")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help="CSV file of the table; a JSON file with everything is written beside it (default: FOLDER/cohort.csv)",
    )  # fmt: skip
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path,
        help="folder of the images, named as nnU-Net does: measure intensities too",
    )  # fmt: skip
    parser.add_argument(
        "--labels", metavar="FILE", type=Path,
        help="labels of another program: a JSON file of names and values, of values and names, or a dataset.json "
        "(default: the dataset.json in the folder, or in the one above)",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", metavar="FOLDER", type=Path,
        help="folder of the model or dataset, whose duplus_cases.json gives patients and contexts (default: that of "
        "the images)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the content of the JSON file instead of a summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure a folder, write the table and print its summary; 1 if an image could not be measured."""
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.files import require_writable_file
    from duplus_nnunet.saved_predictions.cohort import measure_cohort
    from duplus_nnunet.saved_predictions.cohort_files import CSV_NAME, format_cohort, to_plain, write_cohort
    from duplus_nnunet.saved_predictions.folder import open_label_folder

    output = args.output or args.folder / CSV_NAME
    if output.suffix.lower() == ".json":
        raise DataError(f"-o {output}: the JSON file is written beside the CSV file. Give the name of the latter.")
    folder = open_label_folder(args.folder, args.labels, args.model, args.images)
    require_writable_file(output, "Choose another file with -o.")
    cohort = measure_cohort(folder)
    written = write_cohort(cohort, output)
    for note in folder.notes:
        print(note, file=sys.stderr)
    if args.json:
        print(json.dumps(to_plain(cohort), indent=1))
    else:
        for line in format_cohort(cohort):
            print(line)
        print(f"Wrote {written[0]} and {written[1]}.")
    for case, reason in cohort.failed.items():
        print(f"{case} was not measured: {reason}", file=sys.stderr)
    if cohort.failed:
        print(f"error: {len(cohort.failed)} of {len(folder.cases)} images were not measured.", file=sys.stderr)
    return 1 if cohort.failed else 0
