"""Options of `duplus report` that choose what its sections of numbers and charts show."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.model_report.sections import SectionOptions


def add_section_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--feature-map", action="store_true",
        help="compute the map of features, which runs the network on windows of a few dozen images",
    )  # fmt: skip
    files = (
        ("--scores", "FILE", "scores.json of `duplus evaluate`, in place of the scores of the validation"),
        ("--wording", "FILE", "JSON file of `duplus prompts sensitivity`"),
        ("--calibration", "FILE", "calibration.json of `duplus evaluate --calibration`"),
        ("--prognosis", "FOLDER", "folder that `duplus survival evaluate -o` wrote"),
        ("--ablations", "FILE", "JSON file of benchmarks/universal.py or benchmarks/learning.py"),
    )
    for option, metavar, text in files:
        parser.add_argument(option, metavar=metavar, type=Path, help=text)
    parser.add_argument("--adapters", metavar="FOLDER", type=Path, nargs="+", default=[], help="adapters of the model")


def read_section_options(args: argparse.Namespace, device: str | None) -> "SectionOptions":
    """Return what the options choose.

    Args:
        args: The parsed command line.
        device: As for nnU-Net's `-device`; None: CUDA if there is one.
    """
    from duplus_nnunet.model_report.sections import SectionOptions

    return SectionOptions(
        feature_map=args.feature_map,
        device=device,
        scores=args.scores,
        wording=args.wording,
        calibration=args.calibration,
        prognosis=args.prognosis,
        adapters=args.adapters,
        ablations=args.ablations,
    )
