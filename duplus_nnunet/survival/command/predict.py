"""`duplus survival predict`: what a trained prognosis foretells of new patients."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.prediction.maps import Occlusion
    from duplus_nnunet.survival.prediction.run import Answer

_DESCRIPTION = """\
Foretell new patients by a trained prognosis, from images, a clinical table, or both. What became of them need not be
known: columns of time and event are not looked at. Several folds are averaged.
"""
_EPILOG = """\
examples:
  duplus survival predict -m MODEL_FOLDER -i IMAGES --clinical clinical.csv -o OUT
  duplus survival predict -m MODEL_FOLDER -i IMAGES -o OUT --context contexts.csv   CT and PET of each patient
  duplus survival predict -m MODEL_FOLDER --clinical clinical.csv -o OUT --horizons 365 730
  duplus survival predict -m MODEL_FOLDER -i IMAGES --clinical clinical.csv -o OUT --explain --box 20

Whoever has no row, or no image, is foretold from the other and a warning says so. Exit code 1: an image could not be
used; all others were.

--explain also writes explanation.csv (what each column, and the images, did to each risk) and a map of each image:
boxes of the region around the lesion are filled by the image's mean, one after another, and the change of the risk is
written into each. A box takes as many passes of the network as there are windows that meet it, up to eight or so, for
each fold: hundreds of boxes are minutes on a GPU and may be hours on a CPU. --boxes bounds them; 0: no maps.
"""


def add_action(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the action."""
    parser = actions.add_parser(
        "predict",
        help="foretell new patients by a trained prognosis",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-m", "--model", metavar="FOLDER", type=Path, required=True, help="model folder of DuPLUSSurvivalTrainer")
    add("-i", "--images", metavar="FOLDER", type=Path, help="images as in imagesTs: CASE_0000.nii.gz")
    add("--clinical", metavar="FILE", type=Path, help="table with the columns that the model was trained with")
    add("-o", "--output", metavar="FOLDER", type=Path, required=True, help="for tables and maps")
    add("--fold", metavar="FOLD", nargs="+", default=(), help="folds that are averaged (default: all)")
    add("--context", metavar="CONTEXT|FILE", help="what the images are: a context, or a table `case,context`")
    add("--horizons", metavar="DAYS", type=float, nargs="+", default=(), help="days at which survival is told; none "
        "beyond the follow-up (default: 1, 2, 3 and 5 years, as far as it went)")  # fmt: skip
    add("--device", help="cpu, cuda or mps (default: cuda if there is one)")
    add("--explain", action="store_true", help="which inputs drove each risk: a table, and a map of each image")
    add("--box", metavar="MM", type=float, help="side of the maps' boxes (default: an eighth of the region's)")
    add("--boxes", metavar="N", type=int, default=512, help="boxes of a map, at most; if there were more, they are "
        "made larger (default: %(default)s)")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Foretell; exit code 1 if an image could not be used."""
    from duplus_nnunet.inference.devices import choose_device
    from duplus_nnunet.survival.prediction.run import Request, predict_survival

    answer = predict_survival(
        Request(
            args.model,
            args.output,
            args.images,
            args.clinical,
            tuple(args.fold),
            args.context,
            tuple(args.horizons),
            choose_device(args.device),
            _read_occlusion(args),
        )
    )
    _tell(answer)
    return 1 if answer.failures else 0


def _read_occlusion(args: argparse.Namespace) -> "Occlusion | None":
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.prediction.maps import Occlusion

    if args.boxes < 0 or (args.box is not None and not args.box > 0):
        raise DataError("--box must be above 0, and --boxes 0 or more.")
    return Occlusion(args.box, args.boxes) if args.explain else None


def _tell(answer: "Answer") -> None:
    found = answer.prediction
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for one in found.patients:
        for warning in one.warnings:
            print(f"warning: {one.patient}: {warning}", file=sys.stderr)
    for file in answer.files:
        print(f"Wrote {file}.")
    print(f"{len(found.patients)} patient(s) foretold; risk: higher is worse.", file=sys.stderr)
