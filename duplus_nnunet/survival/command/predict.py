"""`duplus survival predict`: predicts new patients by a trained survival model."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.command_map import CommandMap

if TYPE_CHECKING:
    from duplus_nnunet.survival.prediction.maps import Occlusion
    from duplus_nnunet.survival.prediction.run import Answer

_DESCRIPTION = """\
Predict risk and survival of new patients by a trained survival model, from images, a clinical table, or both, or by a
model of clinical records that `duplus survival fit` saved. Outcomes are not needed; where the table has them, they are
copied beside the predictions. Predictions of a trained survival model are averaged over folds.
"""
_EXAMPLE = """\
  duplus survival predict -i imagesTs --clinical clinical.csv -o predicted \\
      -m nnUNet_results/Dataset062_Sarcoma/DuPLUSSurvivalTrainer__DuPLUSPlans__3d_fullres
  duplus survival predict -m MODEL_FOLDER -i imagesTs -o predicted --context contexts.csv     CT and PET of each patient
  duplus survival predict -m MODEL_FOLDER --clinical clinical.csv -o predicted --horizons 365 730
  duplus survival predict -m model --clinical new.csv -o predicted     a model of records, saved by `survival fit`
  duplus survival predict -m MODEL_FOLDER -i imagesTs --clinical clinical.csv -o predicted --explain --box 20

Patients without a row in the table, or without an image, are predicted from the other source, with a warning. Exit code
1: an image could not be used; all other patients were predicted.

--explain also writes explanation.csv (effect of each column, and of the images, on each patient's risk) and an
occlusion map of each image: boxes of the region around the lesion are filled with the image mean, one at a time, and
the change of the risk is written into each box. Each box needs one network pass for every sliding window that it
overlaps (about eight) and for each fold: hundreds of boxes take minutes on a GPU and may take hours on a CPU. --boxes
limits their number; 0: no maps.
"""


def add_action(commands: CommandMap) -> None:
    """Add the sub-command."""
    parser = commands.add("predict", _EXAMPLE, _DESCRIPTION)
    add = parser.add_argument
    add("-m", "--model", metavar="FOLDER", type=Path, required=True, help="model folder of DuPLUSSurvivalTrainer or "
        "of `duplus survival fit`")  # fmt: skip
    add("-i", "--images", metavar="FOLDER", type=Path, help="folder of images named as in imagesTs: CASE_0000.nii.gz; "
        "or a folder or zip file of DICOM series")  # fmt: skip
    add("--clinical", metavar="FILE", type=Path, help="clinical table with the columns that the model was trained on")
    add("-o", "--output", metavar="FOLDER", type=Path, required=True, help="output folder for tables and maps")
    add("--fold", metavar="FOLD", nargs="+", default=(), help="folds to average over (default: all)")
    add("--context", metavar="CONTEXT|FILE", help="context of the images, or a table `case,context`")
    add(
        "--series", metavar="CHOICE", help="of DICOM, these series only: number, modality or pattern of the description"
    )
    add("--keep-ids", action="store_true", help="of DICOM, the patient ID of the headers is that of the clinical table")
    add("--horizons", metavar="DAYS", type=float, nargs="+", default=(), help="days at which survival is reported, "
        "within the follow-up of the training (default: the `horizons` of clinical.yaml in training)")  # fmt: skip
    add("--device", help="cpu, cuda or mps (default: cuda if available)")
    add("--explain", action="store_true", help="attribute each risk to its inputs: a table, and a map of each image")
    add("--box", metavar="MM", type=float, help="side of the boxes of a map (default: an eighth of the region's side)")
    add("--boxes", metavar="N", type=int, default=512, help="maximum number of boxes of a map; boxes are enlarged "
        "to stay within it (default: %(default)s)")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict; exit code 1 if an image could not be used."""
    from duplus_nnunet.survival.models.records_model_files import is_records_model

    return _predict_by_records(args) if is_records_model(args.model) else _predict_by_images(args)


def _predict_by_records(args: argparse.Namespace) -> int:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.prediction.notices import list_notices
    from duplus_nnunet.survival.prediction.records_run import predict_records

    others = {"-i": args.images, "--fold": args.fold, "--context": args.context, "--explain": args.explain}
    unfit = [option for option, value in others.items() if value]
    if args.clinical is None or unfit:
        raise DataError(
            f"{args.model} is a model of clinical records, without images: "
            + (f"{unfit[0]} is not for it." if unfit else "give a clinical table (--clinical FILE).")
        )
    answer = predict_records(args.model, args.clinical, args.output, args.horizons)
    for note in answer.prediction.notes:
        print(f"note: {note}", file=sys.stderr)
    for line in list_notices(answer.prediction.patients, ()):
        print(line, file=sys.stderr)
    for file in answer.files:
        print(f"Wrote {file}.")
    print(f"{len(answer.prediction.patients)} patient(s) predicted; risk: higher is worse.", file=sys.stderr)
    return 0


def _predict_by_images(args: argparse.Namespace) -> int:
    from duplus_nnunet.inference.devices import choose_device
    from duplus_nnunet.survival.prediction.images import DicomChoice
    from duplus_nnunet.survival.prediction.run import Request, predict_patients

    answer = predict_patients(
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
            DicomChoice(args.series, args.keep_ids),
        )
    )
    _report(answer)
    return 1 if answer.failures else 0


def _read_occlusion(args: argparse.Namespace) -> "Occlusion | None":
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.prediction.maps import Occlusion

    if args.boxes < 0 or (args.box is not None and not args.box > 0):
        raise DataError(f"--box is {args.box}, --boxes is {args.boxes}; expected --box above 0 and --boxes 0 or more.")
    return Occlusion(args.box, args.boxes) if args.explain else None


def _report(answer: "Answer") -> None:
    from duplus_nnunet.survival.prediction.notices import list_notices

    prediction = answer.prediction
    for note in prediction.notes:
        print(f"note: {note}", file=sys.stderr)
    for line in list_notices(prediction.patients, answer.imaged):
        print(line, file=sys.stderr)
    for file in answer.files:
        print(f"Wrote {file}.")
    print(f"{len(prediction.patients)} patient(s) predicted; risk: higher is worse.", file=sys.stderr)
