"""Shows how far a long step is, and how long it may still take: a bar on a terminal, nothing in pipes and log files."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

# Least time between two lines, in s, of steps that report into log files too.
LOG_EVERY = 30.0

Item = TypeVar("Item")


@contextmanager
def follow(total: int, what: str, unit: str, every: float = math.inf) -> Iterator[Callable[..., object]]:
    """Yield a function that is called after each of `total` parts of a step, or with the number of parts.

    Everything is written to standard error, so that the output of a command is the same with and without a terminal.

    Args:
        total: Number of parts.
        what: Name of the step.
        unit: Name of one part.
        every: Least time between two lines, in s, where standard error is no terminal; by default, none is written.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit, file=sys.stderr) as bar:
            yield bar.update
        return
    started = last = time.monotonic()
    done = 0

    def count(parts: int = 1) -> None:
        nonlocal last, done
        done += parts
        now = time.monotonic()
        if now - last >= every and done < total:
            last = now
            left = (now - started) / done * (total - done)
            sys.stderr.write(f"{what}: {done} of {total} ({unit}), about {describe_duration(left)} left\n")
            sys.stderr.flush()

    yield count


def track(items: Iterable[Item], total: int, what: str, unit: str) -> Iterator[Item]:
    """Yield items, and show as in `follow` how many of them have been used.

    Args:
        items: What is yielded.
        total: Number of items.
        what: Name of the step.
        unit: Name of one item.
    """
    with follow(total, what, unit) as count:
        for item in items:
            yield item
            count()


def describe_duration(seconds: float) -> str:
    """Round a duration in s to a whole number of seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
