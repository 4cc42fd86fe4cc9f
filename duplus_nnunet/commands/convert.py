"""`duplus convert`: make a raw dataset of nnU-Net from the download of a public dataset."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.commands import convert_dicom
from duplus_nnunet.commands.interrupts import end_like_interrupt
from duplus_nnunet.errors import DataError
from duplus_nnunet.progress import follow
from duplus_nnunet.text_table import format_table

if TYPE_CHECKING:
    from duplus_nnunet.conversion.finding import Download
    from duplus_nnunet.conversion.recipe import Recipe
    from duplus_nnunet.conversion.writing import Conversion

_LIST = "list"
_SHOWN = 20
_DESCRIPTION = """\
Make a raw dataset of nnU-Net from the download of a public dataset. Images that need no change are linked, label values
are numbered as in dataset.json, and known faults of a dataset are corrected or reported: in the output, and in
conversion.json beside dataset.json. Contexts and prompts come from the prompt registry.

A recipe of your own is a YAML file like those that are shipped; name it instead of a dataset.
"""
_EXAMPLE = """\
examples:
  duplus convert list                                   datasets, where to get them, licence and size
  duplus convert btcv downloads/BTCV --check            what is complete, and what is missing; writes nothing
  duplus convert btcv downloads/BTCV -d 17              writes Dataset017_BTCV into nnUNet_raw
  duplus convert mine.yaml downloads/mine -d 300        with a recipe of your own
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the parser of `duplus`."""
    parser = subparsers.add_parser(
        "convert",
        help="make a raw dataset of nnU-Net from the download of a public dataset",
        description=_DESCRIPTION,
        epilog=_EXAMPLE + convert_dicom.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help=f"dataset, as `duplus convert {_LIST}` shows it, or file of a recipe of your own")
    add("source", nargs="?", type=Path, metavar="FOLDER", help="the unpacked download")
    add("-d", "--dataset", type=int, metavar="NUMBER", help="number of the dataset that is written, such as 17")
    add("-n", "--dataset-name", metavar="NAME", help="its name; by default the one that the prompt registry knows")
    add("--grid", metavar="CHANNEL", help="resample images and labels to the grid of this channel, such as PET")
    add("--check", action="store_true", help="report what is complete and what is missing, and write nothing")
    add("--available", action="store_true", help="convert what is complete, although something is missing")
    convert_dicom.add_options(parser)
    parser.set_defaults(run=run)


@end_like_interrupt()
def run(args: argparse.Namespace) -> int:
    """Convert a download, check it, or list the datasets.

    Returns:
        0 if all was converted (or, with `--check`, is complete), else 1.
    """
    from duplus_nnunet.conversion.finding import drop_copies, find_download
    from duplus_nnunet.conversion.recipe import load_recipe, set_grid

    if args.name == _LIST and args.source is None:
        print("\n".join(_list_datasets()))
        return 0
    if args.name == convert_dicom.NAME:
        return convert_dicom.run(args)
    recipe = load_recipe(args.name)
    if args.grid is not None:
        recipe = set_grid(recipe, args.grid)
    if args.source is None:
        raise DataError(f"Name the folder of the download: duplus convert {args.name} FOLDER -d NUMBER.")
    download = find_download(recipe, args.source)
    print("\n".join(_describe_download(recipe, download)))
    if args.check:
        return int(bool(download.problems))
    if download.problems and not args.available:
        raise DataError(
            f"{len(download.problems)} problem(s) of the download are listed above. Complete it, or convert what is "
            "there with --available."
        )
    return _convert(args, recipe, drop_copies(download))


def _convert(args: argparse.Namespace, recipe: "Recipe", download: "Download") -> int:
    from duplus_nnunet.conversion.writing import convert
    from duplus_nnunet.data.composing.processing import count_processes
    from duplus_nnunet.data.composing.record import find_output_folder

    if args.dataset is None:
        raise DataError("Give the dataset a number with -d, such as -d 17.")
    folder = find_output_folder(args.dataset, args.dataset_name or recipe.dataset)
    processes = min(count_processes(), len(download.cases))
    with follow(len(download.cases), "Converting", "case") as update:
        done = convert(args.name, recipe, download, folder, processes, update)
    print("\n".join(_describe_conversion(done, recipe, args.dataset)))
    return int(bool(done.failed))


def _list_datasets() -> Iterator[str]:
    from duplus_nnunet.conversion.recipe import list_recipes, read_recipe

    for name, file in list_recipes().items():
        recipe = read_recipe(file)
        yield f"{name}: {recipe.title}"
        yield f"    {recipe.source}"
        yield f"    {recipe.size}; licence: {recipe.licence}; forms: {'; '.join(form.name for form in recipe.layouts)}"


def _describe_download(recipe: "Recipe", download: "Download") -> Iterator[str]:
    training = sum(not case.group.test for case in download.cases)
    patients = len({case.patient for case in download.cases})
    yield f"{recipe.title}: {download.root}, {download.layout.name}"
    yield f"complete: {training} training and {len(download.cases) - training} test cases of {patients} patients"
    yield from (f"problem: {problem}" for problem in download.problems)


def _describe_conversion(done: "Conversion", recipe: "Recipe", number: int) -> Iterator[str]:
    for case in done.failed:
        sys.stderr.write(f"error: {case.name} was left out: {case.problem}\n")
    notes = [f"{case.name}: {note}" for case in done.cases for note in case.notes]
    notes += [f"{case.name}: {recipe.notes[case.name]}" for case in done.cases if case.name in recipe.notes]
    yield from (f"note: {note}" for note in (*done.tables, *notes[:_SHOWN]))
    if len(notes) > _SHOWN:
        yield f"note: {len(notes) - _SHOWN} more notes are in {done.folder / 'conversion.json'}"
    yield ""
    yield from format_table([("label", "training cases"), *((name, str(n)) for name, n in done.targets.items())], "<>")
    yield ""
    yield f"Wrote {done.folder}: {len(done.cases) - len(done.failed)} cases."
    yield f"Next: duplus prompts check {number}"
    yield f"      nnUNetv2_plan_and_preprocess -d {number} -pl DuPLUSPlanner -c 3d_fullres"
