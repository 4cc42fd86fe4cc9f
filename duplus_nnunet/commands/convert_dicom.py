"""`duplus convert dicom`: make a raw dataset of nnU-Net from DICOM series and the structures drawn on them."""

import argparse
import sys
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.text_table import format_table

NAME = "dicom"
EXAMPLE = """\
  duplus convert dicom patients -d 301 -n Thorax        of series and the RTSTRUCT or SEG files beside them
  duplus convert dicom patient/ct --rtstruct patient/rs.dcm -d 302 --structure "GTVp=lung tumor"
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `duplus convert dicom`."""
    add = parser.add_argument_group(
        f"options of {NAME}: series with structures, RTSTRUCT or SEG (extra dicom)"
    ).add_argument
    add("--rtstruct", type=Path, nargs="+", default=(), metavar="FILE", help="RT Structure Sets; by default, and "
        "without --seg, all files of structures in FOLDER")  # fmt: skip
    add("--seg", type=Path, nargs="+", default=(), metavar="FILE", help="DICOM Segmentations")
    add(
        "--structure", nargs="+", default=(), metavar="NAME=TARGET",
        help="the target that a structure is. Others are found by the names and synonyms of the prompt registry; those "
        "that are not found are listed and left out",
    )  # fmt: skip
    add("--precedence", nargs="+", default=(), metavar="TARGET", help="targets that keep the voxels which they share "
        "with others, the first before the next; without it, targets may not overlap")  # fmt: skip
    add("--keep-ids", action="store_true", help="name cases by the patient ID. By default, no file names a patient")


def run(args: argparse.Namespace) -> int:
    """Convert series with structures.

    Returns:
        0 if all cases were converted, else 1.
    """
    from duplus_nnunet.data.composing.record import find_output_folder
    from duplus_nnunet.dicom.training_data import Choices, convert_drawn, describe_dataset

    if args.source is None or args.dataset is None:
        raise DataError(f"Name the folder of the series, and a number: duplus convert {NAME} FOLDER -d NUMBER.")
    choices = Choices(tuple(map(_read_pair, args.structure)), tuple(args.precedence), args.keep_ids)
    folder = find_output_folder(args.dataset, args.dataset_name or "Clinical")
    done = convert_drawn(args.source, [*args.rtstruct, *args.seg], folder, choices)
    for name, why in done.left_out.items():
        sys.stderr.write(f"error: {name} was left out: {why}\n")
    print("\n".join(describe_dataset(done)))
    print()
    print("\n".join(format_table([("target", "cases"), *((name, str(n)) for name, n in done.targets.items())], "<>")))
    print(f"\nNext: write the region of the body into {done.folder / 'prompts.yaml'}")
    print(f"      duplus prompts check {args.dataset}")
    return int(bool(done.left_out))


def _read_pair(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not (equals and name.strip() and target.strip()):
        raise DataError(f"--structure is {text!r}; expected NAME=TARGET, such as 'GTVp=lung tumor'.")
    return name.strip(), target.strip()
