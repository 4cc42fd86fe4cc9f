"""nnU-Net's planning commands, for our planners: what would stop them is said early, and a base can be planned for."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from duplus_nnunet.adaptation.base import read_base, use_base
from duplus_nnunet.errors import PlansError
from duplus_nnunet.planners.planner import check_dataset
from duplus_nnunet.settings import refuse_unplanned

BASE_OPTION = "--from-model"
_HELP = f"""
DuPLUS option (for the DuPLUS planners):
  {BASE_OPTION} FOLDER   Plan for an adapter of this trained model: with its spacing, patch, network and normalisation.
                        Then train with -tr DuPLUSLoRATrainer -pretrained_weights FOLDER/fold_0/checkpoint_final.pth
"""


def plan(original: Callable[[], Any], ours: bool) -> Any:
    """Run one of nnU-Net's planning commands.

    What would stop our planners is said before the fingerprint is taken, which can be an hour earlier. nnU-Net's parser
    does not get to see `--from-model`.

    Args:
        original: The command; it reads its words from sys.argv.
        ours: Whether it is to run one of our planners.

    Raises:
        DuplusError: Labels, prompts, embeddings or the base are not as they have to be.
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


def _check(words: list[str]) -> None:
    """Find what would stop our planner in what nnU-Net's parser is to read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-pl")
    parser.add_argument("-c", nargs="+", default=[])
    parser.add_argument("-d", nargs="+", default=[])
    typed, _ = parser.parse_known_args(words)
    refuse_unplanned(typed.c, f"the plans of {typed.pl}")
    for number in filter(str.isdigit, typed.d):
        check_dataset(int(number))
