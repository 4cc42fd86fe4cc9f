"""`duplus predict`: nnU-Net's prediction commands under one name, with the choice of targets."""

import argparse
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
example:
  duplus predict -i IN -o OUT -d 4 -c 3d_fullres -f 0 -tr DuPLUSTrainer -p DuPLUSPlans --targets "left kidney"
  duplus predict -i IN -o OUT -m MODEL_FOLDER -f 0 --targets spleen --context amos_ct
  duplus predict -i IN -o OUT -m MODEL_FOLDER -f 0 --prompt "A computed tomography of the renal pelvis"
  duplus predict -m MODEL_FOLDER --list-targets

All options of nnUNetv2_predict are taken (with -m, those of nnUNetv2_predict_from_modelfolder):
`duplus predict --help-all` shows them.

A model that is not a DuPLUS model is refused, unless --allow-stock is given. nnU-Net loads the checkpoint of such a
model without restrictions: the file can run any code with your rights. Give the option only if you trust where the
model comes from.
"""
_ALLOW, _REFUSE = "--allow-stock", "--refuse-stock"


def add_parser(subparsers: Any) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        "predict",
        help="predict with a trained model, all targets or a few",
        description="Predict with nnU-Net's own predictor. Options are handed on to it unchanged.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prefix_chars="+",
        add_help=False,
    )
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of nnUNetv2_predict, and ours")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Hand the options on to nnU-Net's command."""
    options = list(args.options)
    if not options or options[0] in ("-h", "--help"):
        sys.stdout.write(args.parser.format_help())
        return 0
    from nnunetv2.inference import predict_from_raw_data

    from duplus_nnunet.errors import HostError

    name = "predict_entry_point_modelfolder" if "-m" in options else "predict_entry_point"
    if not hasattr(getattr(predict_from_raw_data, name), "__wrapped__"):
        raise HostError("nnU-Net is not changed for DuPLUS models. Run `duplus doctor`, and unset DUPLUS_AUTOLOAD.")
    before = sys.argv
    sys.argv = [
        "duplus predict",
        *(["--help"] if options == ["--help-all"] else _choose_models(_choose_folds(options))),
    ]
    try:
        getattr(predict_from_raw_data, name)()
    finally:
        sys.argv = before
    return 0


def _choose_models(options: list[str]) -> list[str]:
    """Refuse models that are not of this package, unless the options allow them."""
    if _ALLOW in options:
        return [option for option in options if option != _ALLOW]
    return [_REFUSE, *options]


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
