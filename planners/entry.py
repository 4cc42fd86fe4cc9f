"""Runs nnU-Net's planning commands for the DuPLUS planners, with early checks and the option `--from-model`."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from duplus_nnunet.adaptation.base import read_base, use_base
from duplus_nnunet.errors import PlansError
from duplus_nnunet.planners.planner import check_dataset
from duplus_nnunet.plans_section import refuse_unplanned

BASE_OPTION = "--from-model"
_HELP = f"""
DuPLUS option (for the DuPLUS planners):
  {BASE_OPTION} FOLDER   Plan for an adapter of this trained model: with its spacing, patch, network and normalisation.
                        Then train with -tr DuPLUSLoRATrainer -pretrained_weights FOLDER/fold_0/checkpoint_final.pth
"""


def plan(original: Callable[[], Any], ours: bool) -> Any:
    """Run one of nnU-Net's planning commands.

    Errors that would stop the planners are reported before the fingerprint is extracted, which can take an hour.
    nnU-Net's parser does not receive `--from-model`.

    Args:
        original: The command, which reads its arguments from sys.argv.
        ours: Whether the command is to run a DuPLUS planner.

    Raises:
        DuplusError: Labels, prompts, embeddings or the base are invalid.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(BASE_OPTION, dest="base")
    typed, rest = parser.parse_known_args()
    if {"-h", "--help"} & set(rest):
        try:
            return original()
        finally:
            sys.stdout.write(_HELP)
    if not ours:
        raise PlansError(f"{BASE_OPTION} is an option of the DuPLUS planners: add -pl DuPLUSPlanner.")
    before = sys.argv
    with use_base(None if typed.base is None else read_base(typed.base)):
        _check(rest)
        sys.argv = [before[0], *rest]
        try:
            return original()
        finally:
            sys.argv = before


def _check(arguments: list[str]) -> None:
    """Check the arguments that nnU-Net's parser will read, and the datasets that they name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-pl")
    parser.add_argument("-c", nargs="+", default=[])
    parser.add_argument("-d", nargs="+", default=[])
    typed, _ = parser.parse_known_args(arguments)
    refuse_unplanned(typed.c, f"the plans of {typed.pl}")
    for number in filter(str.isdigit, typed.d):
        check_dataset(int(number))
