"""Decides which worker predicts which case: a bounded number at a time each, and those of lost workers again.

A case that was with a lost worker may be what ended it. It is given again when no new case is left, to a worker that
has no other one, so that no case is blamed for another. It is given up when it has lost too many workers.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Case = TypeVar("Case")
Worker = TypeVar("Worker", bound=Hashable)


@dataclass(eq=False)
class Task(Generic[Case]):
    """A case that is to be predicted.

    Attributes:
        case: The case.
        losses: How many workers were lost that had it.
    """

    case: Case
    losses: int = 0


@dataclass
class Dispatcher(Generic[Worker, Case]):
    """The cases that are waiting, and those that workers have.

    Attributes:
        cases: All cases; they are taken when a worker has room.
        depth: Number of cases that a worker may have at a time.
        most_losses: Number of lost workers after which a case is given up.
    """

    cases: Iterator[Case]
    depth: int = 3
    most_losses: int = 3
    _suspects: deque[Task[Case]] = field(default_factory=deque)
    _given: dict[Worker, list[Task[Case]]] = field(default_factory=dict)
    _seen: deque[Case] = field(default_factory=deque)  # looked at, and not given yet

    def take(self, worker: Worker) -> Task[Case] | None:
        """Give a worker its next case; None if it has enough for now, or none is left."""
        own = self._given.setdefault(worker, [])
        if len(own) >= self.depth or any(task.losses for task in own):
            return None
        task = self._take_new()
        if task is None and self._suspects and not own:
            task = self._suspects.popleft()
        if task is not None:
            own.append(task)
        return task

    def finish(self, worker: Worker, task: Task[Case]) -> None:
        """Note that a worker has finished a case, whatever came of it."""
        self._given[worker].remove(task)

    def lose(self, worker: Worker) -> list[Task[Case]]:
        """Take back the cases of a worker that was lost; returns those that are given up."""
        given_up = []
        for task in self._given.pop(worker, []):
            task.losses += 1
            if task.losses < self.most_losses:
                self._suspects.append(task)
            else:
                given_up.append(task)
        return given_up

    @property
    def is_done(self) -> bool:
        """Whether no case is waiting or with a worker."""
        return not (any(self._given.values()) or self._suspects or self.look(1))

    def look(self, most: int) -> int:
        """Count the new cases that are waiting, up to a number."""
        while len(self._seen) < most:
            try:
                self._seen.append(next(self.cases))
            except StopIteration:
                break
        return min(len(self._seen), most)

    def _take_new(self) -> Task[Case] | None:
        return Task(self._seen.popleft()) if self.look(1) else None
