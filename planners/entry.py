"""nnU-Net's planning commands, for our planners: what would stop them is said early, and a base can be planned for."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from duplus_nnunet.adaptation.base import read_base, use_base
from duplus_nnunet.errors import PlansError
from duplus_nnunet.planners.planner import check_dataset


def plan(original: Callable[[], Any], datasets: Sequence[int], option: str) -> Any:
    """Run one of nnU-Net's planning commands.

    What would stop our planners is said before the fingerprint is taken, which can be an hour earlier.

    Args:
        original: The command; it reads its words from sys.argv.
        datasets: Numbers of the datasets.
        option: The one that names a base; nnU-Net's parser does not get to see it.

    Raises:
        DuplusError: Labels, prompts, embeddings or the base are not as they have to be.
    """
    before = sys.argv
    folder, rest = _take(before, option)
    with use_base(None if folder is None else read_base(folder)):
        for number in datasets:
            check_dataset(number)
        sys.argv = rest
        try:
            return original()
        finally:
            sys.argv = before


def _take(words: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """Take an option and its word out of a command line.

    Raises:
        PlansError: It has none.
    """
    if option not in words:
        return None, list(words)
    place = list(words).index(option)
    after = words[place + 1 : place + 2]
    if not after or after[0].startswith("-"):
        raise PlansError(f"{option} needs the folder of a trained model, the base.")
    return after[0], [*words[:place], *words[place + 2 :]]
