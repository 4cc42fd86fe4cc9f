"""The files that the cases of a run share: manifest, statistics and legend. They say which cases are complete.

They are written after a case, but not so often that it would take more than a twentieth of the time: in a folder of
many thousands of cases, they are large.
"""

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.binding import BoundModel
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.reading import InputCase
from duplus_nnunet.inference.records import describe_run, find_decisive_changes, join_runs, list_idle_options
from duplus_nnunet.inference.writing import WrittenCase, describe_inputs
from duplus_nnunet.outputs.legend import write_legend
from duplus_nnunet.outputs.manifest import COMPLETE, CaseRecord, Manifest
from duplus_nnunet.outputs.naming import show_name
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.plans_section import PLANS_KEY

_NEW = "it has no label map yet"
# Time between two writes, as a multiple of what the last one took; and the least time between uploads, in s.
_PAUSE, _UPLOAD_PAUSE = 20, 10.0
# Files whose state a storage is asked for at a time.
_QUESTIONS = 32


@dataclass
class RunFiles:
    """Manifest, statistics and legend of a run.

    Attributes:
        call: What is predicted and where it goes.
        hardware: Device and number of threads that predict, where that is not this process.
    """

    call: PredictionCall
    hardware: tuple[str, int | None] | None = None
    _manifest: Manifest | None = None
    _statistics: StatisticsTable | None = None
    _legend: dict[int, list[str]] = field(default_factory=dict)
    _unseen: set[int] = field(default_factory=set)
    _declared: BoundModel | None = None
    _before: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # cases of earlier runs: of the manifest, of the table
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _has_rows: bool = False  # of this run
    _has_new_rows: bool = False  # not saved yet
    _is_unsaved: bool = False
    _next: float = 0.0

    def declare(self, bound: BoundModel) -> None:
        """Add what a bound model predicts to the legend."""
        if self._declared is bound:
            return
        self._declared = bound
        declared = bound.declare_all()
        for value, name in declared[PLANS_KEY]["legend"].items():
            # Jobs of one table may give the same value to different texts; the label maps name their own.
            names = self._legend.setdefault(int(value), [])
            names += [name] if name not in names else []
        self._unseen |= {target["value"] for target in declared[PLANS_KEY]["not_seen_in_training"].values()}
        named = {value: " or ".join(names) for value, names in self._legend.items()}
        write_legend(self.call.table_folder, named, self._unseen)

    def leave_out_complete(self, bound: BoundModel, cases: list[InputCase]) -> list[InputCase]:
        """Leave out cases whose files are complete and were made from the images as they are now.

        Raises:
            DataError: The folder was predicted by another model or with other prompts.
        """
        # Storage answers many questions at a time; each takes it as long as thousands of questions to a disk.
        with ThreadPoolExecutor(max_workers=_QUESTIONS if any(case.urls for case in cases) else 1) as pool:
            reasons = list(pool.map(partial(self._explain_open, bound), cases))
        for case, reason in zip(cases, reasons, strict=True):
            if reason and reason != _NEW:
                sys.stdout.write(f"{show_name(case.name)} is predicted again: {reason}.\n")
        kept = [case for case, reason in zip(cases, reasons, strict=True) if reason]
        sys.stdout.write(f"{len(cases) - len(kept)} of {len(cases)} cases are complete and left out.\n")
        return kept

    def _explain_open(self, bound: BoundModel, case: InputCase) -> str:
        """Say why a case has to be predicted; empty if it is complete."""
        output, store = str(case.output), self.call.store
        label_map = Path(output + bound.model.dataset_json["file_ending"])
        if not (label_map.is_file() if store is None else store.holds(label_map)):
            return _NEW
        manifest = self.open_manifest(bound)
        if case.name not in manifest.cases:  # written by nnU-Net's own prediction, or before there were manifests
            return "files beside the label map are asked for" if bound.options.asks_for_more else ""
        question = bound.questions[bound.choice.of(case.name)]
        try:
            inputs = describe_inputs(case)
        except (OSError, DataError) as error:
            return f"its image cannot be read ({getattr(error, 'strerror', None) or error})"
        expected = CaseRecord(COMPLETE, question.context, dict(bound.list_asked(question)), inputs)
        find_change = None if store is None else store.find_change
        reason = manifest.explain_incomplete(case.name, expected, label_map.parent, bound.options.verify, find_change)
        if not reason and bound.options.statistics and case.name not in self._open_statistics().cases:
            return "the table of statistics does not list it"
        return reason

    def add(self, bound: BoundModel, written: WrittenCase) -> None:
        """Take a case that was written."""
        with self._lock:
            if bound.options.statistics:
                self._open_statistics().put(written.case, written.rows)
                self._has_rows = self._has_new_rows = True
            self.add_record(bound, written.case, written.record)

    def add_record(self, bound: BoundModel, case: str, record: CaseRecord) -> None:
        """Take what came of a case."""
        # A case is written in one thread while another one may fail in the other.
        with self._lock:
            self.open_manifest(bound).record(case, record)
            self._is_unsaved = True
            if time.monotonic() >= self._next:
                self.save()

    def save(self, is_end: bool = False) -> None:
        """Write what has not been written, the manifest last.

        Args:
            is_end: Whether the run has ended well; then a storage gets all files of the run.

        Raises:
            DataError: The disk is full, or the storage of the output cannot be written to.
        """
        with self._lock:
            if not self._is_unsaved and not (is_end and self.call.store is not None):
                return
            started, folder = time.monotonic(), self.call.table_folder
            if self._has_new_rows:
                self._open_statistics().write(folder)
            if self._manifest is not None:
                self._manifest.write(folder)
            if self.call.store is not None:
                self.call.store.put_tables()
            self._has_new_rows = self._is_unsaved = False
            ended = time.monotonic()
            least = 0.0 if self.call.store is None else _UPLOAD_PAUSE
            self._next = ended + max(_PAUSE * (ended - started), least)

    def sort(self, cases: Sequence[str]) -> None:
        """Put cases in the order in which they were asked for, after those of earlier runs."""
        with self._lock:
            if self._manifest is None:
                return
            order = dict.fromkeys([*self._before[0], *cases])
            self._manifest.cases = {case: self._manifest.cases[case] for case in order if case in self._manifest.cases}
            self._is_unsaved = True
            if self._statistics is not None and self._has_rows:
                self._statistics.sort([*self._before[1], *cases])
                self._has_new_rows = True

    def open_manifest(self, bound: BoundModel) -> Manifest:
        """Open the folder's manifest, and describe in it what is asked for now.

        Raises:
            DataError: The folder was predicted by another model or with other prompts, and is to be continued.
        """
        with self._lock:
            run = describe_run(bound)
            if self.hardware is not None:
                run = replace(run, device=self.hardware[0], threads=self.hardware[1])
            if self._manifest is None:
                self._manifest = self._start_manifest(bound, Manifest(run))
            self._manifest.run = join_runs(self._manifest.run, run) if bound.options.jobs else run
            return self._manifest

    def _start_manifest(self, bound: BoundModel, new: Manifest) -> Manifest:
        folder = self.call.table_folder
        before = Manifest.read(folder)
        if before is None:
            return new
        changes = find_decisive_changes(before, new.run, list_idle_options(bound))
        if not changes:
            self._before = tuple(before.cases), self._before[1]
            return Manifest(new.run, before.cases)
        if self.call.overwrite:
            return new
        raise DataError(
            f"{self.call.shown_folder} was predicted with other settings ({', '.join(changes)} differ), so that "
            "it cannot be continued. Predict into a new folder, or leave out --continue_prediction to predict all of "
            "it again."
        )

    def _open_statistics(self) -> StatisticsTable:
        with self._lock:
            if self._statistics is None:
                table = StatisticsTable() if self.call.overwrite else StatisticsTable.read(self.call.table_folder)
                self._statistics, self._before = table, (self._before[0], table.cases)
            return self._statistics
