"""`duplus dicom`: show the DICOM series of a folder or zip file, and write them as NIfTI."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.command_map import CommandMap, Group
from duplus_nnunet.errors import DuplusError
from duplus_nnunet.text_table import format_table

if TYPE_CHECKING:
    from duplus_nnunet.dicom.finding import Study
    from duplus_nnunet.dicom.series import Series

GROUPS = (
    Group(
        "Read DICOM",
        {
            "list": "list the series of a folder or zip file, and what is odd about each",
            "to-nifti": "write series as NIfTI: HU of CT, SUV by body weight of PET",
        },
    ),
)
_DESCRIPTION = """\
Read DICOM series: folders of any depth and with any file names, zip files, multi-frame files, compressed images. No
name or ID of a patient is shown or written unless --keep-ids is given; a series description may hold one, and is shown.
`duplus predict` and `duplus survival predict` take the same folders and zip files as images.
"""
_LIST_EXAMPLE = """\
  duplus dicom list export                     a folder as an archive or a CD has it
  duplus dicom list export.zip --json
"""
_WRITE_EXAMPLE = """\
  duplus dicom to-nifti export -o nifti --series CT
  duplus dicom to-nifti export.zip -o nifti --series "*venous*"
"""
_HEADER = ("", "patient", "study", "modality", "description", "slices", "size", "spacing (mm)", "")
_ALIGN = "><<<<>><<"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser("dicom", description=_DESCRIPTION, epilog=f"example:\n{_LIST_EXAMPLE}")
    commands = CommandMap(parser, GROUPS)
    listed = commands.add("list", _LIST_EXAMPLE)
    listed.add_argument("--json", action="store_true", help="print JSON, with the hash of each series")
    listed.set_defaults(run=_list)
    write = commands.add("to-nifti", _WRITE_EXAMPLE)
    write.add_argument("-o", metavar="FOLDER", type=Path, required=True, help="folder to write to")
    write.add_argument(
        "--series",
        metavar="CHOICE",
        help="number, modality or pattern of the description; default: all that can be read",
    )
    write.set_defaults(run=_write)
    for added in (listed, write):
        added.add_argument("source", metavar="SOURCE", type=Path, help="folder or zip file of DICOM series")
        added.add_argument("--keep-ids", action="store_true", help="show the patient ID, or put it into file names")


def _list(args: argparse.Namespace) -> int:
    """Print a line for each series."""
    from duplus_nnunet.dicom.finding import find_series

    study = find_series(args.source)
    rows = _describe_all(study, args.keep_ids)
    if args.json:
        print(json.dumps({"series": rows, "other_files": study.others}, indent=1, ensure_ascii=False))
        return 0
    table = [_HEADER, *(_make_row(row) for row in rows)]
    print("\n".join(format_table(table, _ALIGN)))
    for row in rows:
        for kind in ("refused", "doubts", "notes"):
            for text in row[kind]:
                print(f"{row['number']}: {'refused: ' if kind == 'refused' else ''}{text}")
    if study.others:
        print(f"{study.others} other file(s) are not DICOM images.")
    return 0


def _make_row(row: dict[str, Any]) -> tuple[str, ...]:
    shape, spacing = row["shape"], row["spacing"]
    return (
        str(row["number"]),
        row["patient"],
        row["study"],
        row["modality"],
        row["description"] or "-",
        str(shape[0]) if shape else "-",
        f"{shape[2]} x {shape[1]}" if shape else "-",
        " x ".join(f"{width:.3g}" for width in spacing) if spacing else "-",
        row["state"],
    )


def _describe_all(study: "Study", keep_ids: bool) -> list[dict[str, Any]]:
    """Describe each series as plain data; patients and studies are numbered."""
    patients = list(dict.fromkeys(one.about.patient for one in study.series))
    studies = list(dict.fromkeys(one.about.study for one in study.series))
    return [
        {
            "number": number,
            "hash": one.hash,
            "patient": one.about.patient if keep_ids else f"patient {patients.index(one.about.patient) + 1}",
            "study": f"study {studies.index(one.about.study) + 1}",
            "modality": one.modality,
            "description": one.about.text,
            "body_part": one.about.body_part,
            "shape": list(one.shape) if one.slices else None,
            "spacing": [round(width, 6) for width in one.spacing] if one.slices else None,
            "state": _find_state(one),
            "refused": list(one.refusals),
            "doubts": list(one.doubts),
            "notes": list(one.notes),
        }
        for number, one in enumerate(study.series, 1)
    ]


def _find_state(series: "Series") -> str:
    if series.refusals:
        return "refused"
    return "by choice" if series.doubts else ""


def _write(args: argparse.Namespace) -> int:
    """Write series as NIfTI; exit code 1 if one cannot be read."""
    from duplus_nnunet.dicom.choosing import choose_series
    from duplus_nnunet.dicom.finding import find_series
    from duplus_nnunet.dicom.naming import name_case
    from duplus_nnunet.dicom.reading import write_image
    from duplus_nnunet.files import require_writable

    require_writable(args.o, "Choose another folder with -o.")
    study = find_series(args.source)
    failed = 0
    for one in choose_series(study, args.series):
        file = args.o / f"{name_case(one, args.keep_ids)}_0000.nii.gz"
        try:
            _report(file, write_image(one, file))
        except DuplusError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    return int(failed > 0)


def _report(file: Path, notes: Sequence[str]) -> None:
    print(f"Wrote {file}.")
    for note in notes:
        print(f"  {note}")
