"""Runs commands side by side, skips those that are done, and starts none that would not end in time.

A folder keeps what is known: `results/NAME.json` of each job that is done, `spent.json` with the minutes of all, also
of parts that were interrupted, and `logs/NAME.log`. So a later call continues where an earlier one ended.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A job that was interrupted before needs a few minutes at least, however much it seems to lack.
LEAST_MINUTES = 3.0
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: Name of its files.
        words: A script of this folder and its arguments.
        minutes: How long it may take, until one of its kind was measured.
        kind: Jobs of one kind take equally long.
        needs: Names of the jobs that must be done before.
        alone: Whether nothing may run beside it, since it measures time.
        resumable: Whether it continues when it was interrupted.
        variables: Environment variables to set.
    """

    name: str
    words: tuple[str, ...]
    minutes: float
    kind: str
    needs: tuple[str, ...] = ()
    alone: bool = False
    resumable: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, str(Path(__file__).parent / self.words[0]), *self.words[1:]]


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.started) / 60


class JobQueue:
    """Runs jobs.

    Args:
        folder: Where results, logs and times are kept.
        jobs: Jobs, the most important first.
        slots: How many run side by side.
        minutes: Time limit, or None. At the limit, jobs that took longer than expected are ended.
        in_parts: Whether resumable jobs are started even if they do not fit; they are continued by the next call.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], slots: int, minutes: float | None, in_parts: bool = False
    ) -> None:
        self.folder, self.jobs, self.slots, self.in_parts = folder, jobs, slots, in_parts
        self._deadline = None if minutes is None else time.monotonic() + minutes * 60
        self._running: list[_Running] = []
        self.failed: dict[str, str] = {}
        self.interrupted: set[str] = set()
        for part in ("results", "logs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        spent = folder / "spent.json"
        self._spent: dict[str, dict[str, Any]] = json.loads(spent.read_text()) if spent.is_file() else {}

    def find_result(self, job: Job) -> Path:
        """Return the file that says that a job is done."""
        return self.folder / "results" / f"{job.name}.json"

    def is_done(self, job: Job) -> bool:
        """Check whether a job ended well, now or in an earlier call."""
        return self.find_result(job).is_file()

    def estimate(self, job: Job) -> float:
        """Estimate the minutes that a job still needs, from finished ones of its kind and from its earlier parts."""
        known = [row["minutes"] for row in self._spent.values() if row["kind"] == job.kind and row["done"]]
        whole = max(known) if known else job.minutes
        own = self._spent.get(job.name)
        spent = own["minutes"] if own and job.resumable else 0.0
        return max(whole - spent, min(whole, LEAST_MINUTES))

    def describe(self, job: Job) -> str:
        """Say what became of a job."""
        if self.is_done(job):
            return "done"
        if job.name in self.failed:
            return f"failed: {self.failed[job.name]}"
        if waiting := [name for name in job.needs if name not in self._list_done()]:
            return f"waits for {', '.join(waiting)}"
        state = "interrupted" if job.name in self.interrupted else "not started"
        return f"{state}; needs about {self.estimate(job):.0f} min"

    def summarise(self) -> list[str]:
        """List all jobs with what became of them."""
        width = max((len(job.name) for job in self.jobs), default=0)
        return [f"{job.name:<{width}}  {self.describe(job)}" for job in self.jobs]

    def run(self) -> None:
        """Run all jobs that can be run; those that run are ended if this is interrupted."""
        try:
            while True:
                self._collect()
                started = self._start_next()
                if not self._running and not started:
                    return
                if self._left() <= 0:
                    return
                if not started:
                    time.sleep(0.2)
        finally:
            self._end_all()

    def _left(self) -> float:
        """Return the minutes left, infinite without a limit."""
        return float("inf") if self._deadline is None else (self._deadline - time.monotonic()) / 60

    def _list_done(self) -> set[str]:
        return {job.name for job in self.jobs if self.is_done(job)}

    def _is_ready(self, job: Job, done: set[str]) -> bool:
        """Check whether a job may be started now."""
        tried = {*self.failed, *self.interrupted, *(running.job.name for running in self._running)}
        if job.name in tried or not done.issuperset(job.needs):
            return False
        if self._running and (job.alone or any(running.job.alone for running in self._running)):
            return False
        return self.estimate(job) <= self._left() or (self.in_parts and job.resumable)

    def _start_next(self) -> bool:
        """Start the first job that is ready, if there is room."""
        done = self._list_done()
        if len(self._running) >= self.slots:
            return False
        ready = next((job for job in self.jobs if job.name not in done and self._is_ready(job, done)), None)
        if ready is not None:
            self._start(ready)
        return ready is not None

    def _start(self, job: Job) -> None:
        print(f"starts {job.name}", flush=True)
        out = self.find_result(job).with_suffix(".partial")
        log = self.folder / "logs" / f"{job.name}.log"
        environment = {**os.environ, **job.variables}
        with out.open("wb") as output, log.open("ab") as errors:
            process = subprocess.Popen(
                job.command, stdout=output, stderr=errors, env=environment, start_new_session=True, cwd=self.folder
            )
        self._running.append(_Running(job, process, time.monotonic()))

    def _collect(self) -> None:
        """Take what ended out of those that run."""
        for running in [running for running in self._running if running.process.poll() is not None]:
            self._running.remove(running)
            self._finish(running)

    def _finish(self, running: _Running) -> None:
        """Write the result of a job that ended by itself."""
        job, code = running.job, running.process.returncode
        error = f"exit code {code}, see {self.folder / 'logs' / job.name}.log" if code else ""
        result = self.find_result(job)
        try:
            output = result.with_suffix(".partial").read_text()
            content = json.loads(output) if output.strip() and not error else None
        except ValueError:
            content = [json.loads(line) for line in output.splitlines() if line.startswith(("{", "["))]
        self._note(running, done=not error)
        if error:
            self.failed[job.name] = error
        else:
            record = {"command": list(job.words), "minutes": round(running.minutes, 2), "result": content}
            _write(result, record)
        print(f"{'failed' if error else 'ended'} {job.name}, {running.minutes:.1f} min", flush=True)
        result.with_suffix(".partial").unlink()

    def _note(self, running: _Running, done: bool) -> None:
        """Add the minutes that a job ran to those of its earlier parts."""
        row = self._spent.get(running.job.name, {"minutes": 0.0})
        minutes = round(row["minutes"] + running.minutes, 2)
        self._spent[running.job.name] = {"kind": running.job.kind, "minutes": minutes, "done": done}
        _write(self.folder / "spent.json", self._spent)

    def _end_all(self) -> None:
        """End what still runs, with the processes that it started."""
        for running in self._running:
            _signal(running.process, signal.SIGTERM)
        for running in self._running:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(PATIENCE_SECONDS)
            _signal(running.process, signal.SIGKILL)
            running.process.wait()
            self.interrupted.add(running.job.name)
            self._note(running, done=False)
        self._running.clear()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a job's processes, all of which are in a group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _write(file: Path, content: object) -> None:
    """Write JSON that is whole or not there."""
    partial = file.with_suffix(".writing")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(file)
