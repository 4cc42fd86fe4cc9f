"""Shows how far a long step is: a bar in a terminal, elsewhere a line every half minute."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from duplus_nnunet.inference.progress import describe_duration

EVERY = 30.0  # seconds


@contextmanager
def follow(total: int, what: str, unit: str, every: float = EVERY) -> Iterator[Callable[[], object]]:
    """Yield a function that is called after each of `total` parts of a step.

    Args:
        total: Number of parts.
        what: Name of the step.
        unit: Name of one part.
        every: Least time between two lines, in s, where standard error is no terminal.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit) as bar:
            yield bar.update
        return
    started = last = time.monotonic()
    done = 0

    def count() -> None:
        nonlocal last, done
        done += 1
        now = time.monotonic()
        if now - last >= every and done < total:
            last = now
            left = (now - started) / done * (total - done)
            sys.stderr.write(f"{what}: {done} of {total} ({unit}), about {describe_duration(left)} left\n")
            sys.stderr.flush()

    yield count
