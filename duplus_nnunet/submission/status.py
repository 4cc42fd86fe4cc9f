"""Reads the state of everything that a record lists."""

from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.submission.progress import count_epochs, judge, read_last_lines, read_state
from duplus_nnunet.submission.record import Record, name_log, name_state_file
from duplus_nnunet.submission.sending import ask_scheduler

_LINES = 20


@dataclass(frozen=True)
class TaskStatus:
    """The state of a training that was sent.

    Attributes:
        job: Number of its job.
        name: Dataset, plans and fold.
        state: "waiting", "running", "queued again", "finished", "failed", "stopped", or "lost" with the reason.
        epoch: Epochs that are trained; None before the first.
        epochs: All epochs; None where its trainer decides.
        since: Time of the last change of its state, ISO 8601, UTC; empty if it has not begun.
        host: Its node; empty if it has not begun.
        log: Log of the job.
        end: Last lines of the log, of a training that failed.
    """

    job: str
    name: str
    state: str
    epoch: int | None
    epochs: int | None
    since: str
    host: str
    log: str
    end: tuple[str, ...]

    @property
    def is_bad(self) -> bool:
        """Whether it ended before it was finished."""
        return self.state.startswith(("failed", "lost", "stopped"))

    @property
    def progress(self) -> str:
        """Epochs that are trained, of all."""
        if self.epoch is None:
            return "-"
        return f"{self.epoch}/{self.epochs}" if self.epochs else str(self.epoch)


def find_folder(record: Path) -> Path:
    """Return the folder of jobs: that of the record, which may have been moved with it."""
    return (record if record.is_dir() else record.parent).absolute()


def read_status(record: Record, folder: Path) -> list[TaskStatus]:
    """Read the state of each training of a record.

    Args:
        record: What was sent.
        folder: Folder of its jobs.
    """
    rows = []
    for number, task in enumerate(record.tasks):
        noted = read_state(name_state_file(folder, number))
        state = judge(noted, ask_scheduler(record.executor, folder, task.job))
        log = name_log(folder, task.job)
        row = TaskStatus(
            task.job,
            task.name,
            state,
            count_epochs(Path(task.output)),
            task.epochs,
            noted.since if noted else "",
            noted.host if noted else "",
            str(log),
            (),
        )
        end = tuple(read_last_lines(log, _LINES)) if row.is_bad else ()
        rows.append(TaskStatus(**{**vars(row), "end": end}))
    return rows
