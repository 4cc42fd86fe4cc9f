"""Works on tasks one after another in a thread of napari, so that the window stays free."""

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import thread_worker
from qtpy.QtCore import QObject, Signal

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.napari_plugin.session import CancelledError


@dataclass(frozen=True)
class Task:
    """Work for the thread.

    Attributes:
        title: Shown while it is done; a task whose title is waiting or worked on is not added again.
        work: Called in the thread.
        then: Called with its result in the window's thread, unless it was dropped.
        is_needed: Whether the tasks after it make no sense without it.
    """

    title: str
    work: Callable[[], Any]
    then: Callable[[Any], object]
    is_needed: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a task failed.

    Attributes:
        text: For the user; empty if it was cancelled.
        details: Where an unexpected error came from.
    """

    text: str = ""
    details: str = ""


class TaskLine(QObject):
    """Tasks that wait in line for one thread.

    Args:
        parent: The widget.

    Attributes:
        changed: Emitted when a task begins or ends.
        failed: Emitted with a Failure.
    """

    changed = Signal()
    failed = Signal(object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._waiting = deque[Task]()
        self._running: Task | None = None
        self._is_dropped = False
        self._worker: Any = None

    @property
    def title(self) -> str:
        """What is worked on; empty: nothing."""
        return "" if self._running is None else self._running.title

    def add(self, task: Task) -> None:
        """Work on a task when those before it are done."""
        titles = [waiting.title for waiting in self._waiting]
        if task.title in titles or (task.title == self.title and not self._is_dropped):
            return
        self._waiting.append(task)
        if self._running is None:
            self._begin()

    def drop(self) -> bool:
        """Forget the tasks that wait, and the result of the one that is worked on.

        Returns:
            Whether one of them was needed by tasks after it.
        """
        tasks = [*self._waiting, *([] if self._running is None else [self._running])]
        self._waiting.clear()
        self._is_dropped = self._running is not None
        return any(task.is_needed for task in tasks)

    def _begin(self) -> None:
        self._running = self._waiting.popleft() if self._waiting else None
        self._is_dropped = False
        if self._running is not None:
            self._worker = thread_worker(_run)(self._running.work)
            self._worker.returned.connect(self._end)
            self._worker.start()
        self.changed.emit()

    def _end(self, result: Any) -> None:
        task, is_dropped = self._running, self._is_dropped
        if isinstance(result, Failure) and not is_dropped and task is not None and task.is_needed:
            self._waiting.clear()
        self._begin()
        if isinstance(result, Failure):
            if not is_dropped:
                self.failed.emit(result)
        elif task is not None and not is_dropped:
            task.then(result)
        elif hasattr(result, "close"):
            result.close()


def _run(work: Callable[[], Any]) -> Any:
    """Return the result of some work, or a Failure: napari would report an exception on the console."""
    try:
        return work()
    except CancelledError:
        return Failure()
    except DuplusError as error:
        return Failure(str(error))
    except Exception as error:  # of other packages; the window has to say it, whatever it is
        return Failure(f"Unexpected error: {type(error).__name__}: {error}", traceback.format_exc())
