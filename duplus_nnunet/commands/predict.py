"""`duplus predict`: nnU-Net's prediction commands under one name, with the choice of targets."""

import argparse
import sys
from pathlib import Path
from typing import Any

from duplus_nnunet.inference.command_options import add_host_options, add_our_options

_USAGE = """\
duplus predict -i FOLDER -o FOLDER -m MODEL_FOLDER [-f FOLD ...] [options]
       duplus predict -i FOLDER -o FOLDER -d DATASET -c CONFIGURATION -tr TRAINER -p PLANS [-f FOLD ...] [options]
       duplus predict -m MODEL_FOLDER --list-targets"""
_EPILOG = """\
examples, with the model and the images of `duplus demo --keep`:
  duplus predict -m demo/nnUNet_results/Dataset999_Phantom/DuPLUSTrainer__DuPLUSPlans__3d_fullres --list-targets
  duplus predict -m demo/nnUNet_results/Dataset999_Phantom/DuPLUSTrainer__DuPLUSPlans__3d_fullres -f 0 \\
      -i demo/images -o predicted --context demo/contexts.csv --targets liver "left kidney" --preview

example, with dataset 4 of nnU-Net's documentation:
  duplus predict -i nnUNet_raw/Dataset004_Hippocampus/imagesTs -o predicted -d 4 -c 3d_fullres -f 0 \\
      -tr DuPLUSTrainer -p DuPLUSPlans --prompt "A magnetic resonance imaging of the amygdala"

example, with a table of jobs, two workers on a machine's GPU, and images on object storage:
  duplus predict --ray --gpus-per-worker 0.5 -m MODEL_FOLDER -f 0 --jobs jobs.csv -o s3://bucket/predicted

nnUNetv2_predict takes the same options (with -m: nnUNetv2_predict_from_modelfolder). What nnU-Net says of its own:
`duplus predict --help-all`.
"""
_ALLOW, _REFUSE, _HELP_ALL = "--allow-stock", "--refuse-stock", "--help-all"


def add_parser(subparsers: Any) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        "predict",
        usage=_USAGE,
        description="Predict with a trained model, by nnU-Net's own predictor. nnU-Net's options are handed on to it "
        "unchanged.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_our_options(parser)
    parser.add_argument_group("models of stock nnU-Net").add_argument(
        _ALLOW, action="store_true",
        help="predict with a model that is not a DuPLUS model, too. nnU-Net loads its checkpoint without restrictions: "
        "the file can run any code with your rights. Give the option only if you trust where the model comes from",
    )  # fmt: skip
    add_host_options(parser)
    parser.add_argument(_HELP_ALL, action="store_true", help="show nnU-Net's own help too, and exit")
    parser.set_defaults(run=run, parser=parser, hands_on=True)


def run(args: argparse.Namespace) -> int:
    """Hand the words on to nnU-Net's command."""
    words = list(args.words)
    if not words:
        sys.stdout.write(args.parser.format_help())
        return 0
    from nnunetv2.inference import predict_from_raw_data

    from duplus_nnunet.errors import HostError

    name = "predict_entry_point_modelfolder" if args.m is not None else "predict_entry_point"
    if not hasattr(getattr(predict_from_raw_data, name), "__wrapped__"):
        raise HostError("nnU-Net is not changed for DuPLUS models. Run `duplus doctor`, and unset DUPLUS_AUTOLOAD.")
    before = sys.argv
    sys.argv = ["duplus predict", *(["--help"] if args.help_all else _choose_models(_choose_folds(words)))]
    try:
        getattr(predict_from_raw_data, name)()
    finally:
        sys.argv = before
    return 0


def _choose_models(words: list[str]) -> list[str]:
    """Refuse models that are not of this package, unless the words allow them."""
    if _ALLOW in words:
        return [word for word in words if word != _ALLOW]
    return [_REFUSE, *words]


def _choose_folds(options: list[str]) -> list[str]:
    """Name the folds that a model folder has if the options name none: nnU-Net would ask for all of 0 to 4."""
    if "-m" not in options[:-1] or "-f" in options:
        return options
    folder = Path(options[options.index("-m") + 1])
    checkpoint = options[options.index("-chk") + 1] if "-chk" in options[:-1] else "checkpoint_final.pth"
    names = {path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}")}
    folds = sorted(name for name in names if name.isdecimal()) or sorted(names)
    if not folds or folds == list("01234"):
        return options
    sys.stderr.write(f"note: {folder} has fold {', '.join(folds)}; -f chooses among them.\n")
    return [*options, "-f", *folds]
