"""Keeps predictions that would write the same files from running at the same time."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.locks import FILE_NAME, hold

_PURPOSE = "predicting into"
_ADVICE = (
    "Wait until it ends, or choose another output folder with -o. Parts of one prediction run at the same time with "
    "-num_parts and -part_id."
)
# A part needs the lock of the whole folder for a moment; other parts that start wait for it.
_PATIENCE = 3.0  # s
_PAUSE = 0.05  # s


@contextmanager
def hold_output(folder: Path, part: tuple[int, int]) -> Iterator[None]:
    """Hold a folder of predictions, or a part of it. A whole prediction and a part of one exclude each other.

    Args:
        folder: Output folder; it is created if needed.
        part: Number of this part, from 0, and number of parts.

    Raises:
        DataError: Another process predicts into the folder: the whole, the same part, or a part of another number of
            parts. The message names it.
    """
    number, parts = part
    if parts == 1:
        with hold(folder, _PURPOSE, _ADVICE):
            _require_no_part(folder, None)
            yield
        return
    with hold(folder, f"predicting part {number} of {parts} into", _ADVICE, f"part_{number}_of_{parts}"):
        _require_no_whole(folder, f"starting part {number} of {parts} in", parts)
        yield


def _require_no_whole(folder: Path, purpose: str, parts: int) -> None:
    """Check that neither a whole prediction nor parts of another number of parts are running."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with hold(folder, purpose, _ADVICE):
                break
        except DataError:
            if time.monotonic() > end:
                raise
            time.sleep(_PAUSE)
    _require_no_part(folder, parts)


def _require_no_part(folder: Path, parts: int | None) -> None:
    """Check that no part is running, other than those of a number of parts."""
    for file in sorted(folder.glob(f"{FILE_NAME}_part_*")):
        found = re.fullmatch(r"part_\d+_of_(\d+)", file.name.removeprefix(f"{FILE_NAME}_"))
        if found is not None and int(found[1]) != parts:
            with hold(folder, _PURPOSE, _ADVICE, found[0]):
                pass
