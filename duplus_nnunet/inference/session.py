"""One call of a prediction: in come a bound predictor and what the user wants, out comes a folder that says what it is.

nnU-Net's predictor calls back here: to read cases, to predict and write them, and to leave out those that are complete.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.volume_ranges import read_volume_ranges
from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.inference.assembly import spread_probabilities
from duplus_nnunet.inference.binding import Binding, apply_selection
from duplus_nnunet.inference.contexts import ContextChoice
from duplus_nnunet.inference.jobs import Job, group_jobs, read_jobs
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader, read_ahead
from duplus_nnunet.inference.records import describe_run, find_decisive_changes, join_runs
from duplus_nnunet.inference.run import LEAST_LOGIT, Failures, PredictedCase, run_cases
from duplus_nnunet.inference.selection import Selection, get_selection
from duplus_nnunet.inference.writing import CaseWriter, describe_inputs
from duplus_nnunet.outputs.files import write_text
from duplus_nnunet.outputs.legend import write_legend
from duplus_nnunet.outputs.manifest import COMPLETE, CaseRecord, Manifest, current_time
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.settings import PLANS_KEY

# nnU-Net's lists: files of each case, where its label map goes, and what a cascade would need.
Lists = tuple[list[list[str]], list[str] | None, list[str | None] | None]


@dataclass(frozen=True)
class Call:
    """How nnU-Net's predictor was called.

    Attributes:
        output: Folder, or None if results are returned.
        overwrite: Whether cases that are complete are predicted again.
        host_probabilities: nnU-Net's `--save_probabilities`.
        part: Number of this part, from 0, and number of parts.
    """

    output: Path | None
    overwrite: bool = True
    host_probabilities: bool = False
    part: tuple[int, int] = (0, 1)

    @property
    def place(self) -> Path:
        """Folder of manifest and tables; parts that run at the same time have one each."""
        number, parts = self.part
        folder = self.output or Path()
        return folder if parts == 1 else folder / f"part_{number}_of_{parts}"


@dataclass
class Session:
    """One call.

    Attributes:
        predictor: nnU-Net's predictor, bound.
        options: What the user wants.
        call: How the predictor was called.
        failures: Cases that went wrong.
        cases: Number of cases so far.
    """

    predictor: Any
    options: Options
    call: Call
    failures: Failures = field(default_factory=Failures)
    cases: int = 0
    _manifest: Manifest | None = None
    _statistics: StatisticsTable | None = None
    _names: dict[int, str] = field(default_factory=dict)
    _made: tuple[Binding, CaseWriter] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def binding(self) -> Binding:
        """What the predictor is bound to."""
        found: Binding = self.predictor.duplus_binding
        return found

    def walk_jobs(self) -> Iterator[tuple[list[list[str]], list[str]]]:
        """Bind the predictor to one group of jobs after another; yields files and names of the cases of each.

        Raises:
            DataError: The table is not of the form.
            PromptError: The model does not know a context or target of it.
        """
        groups = group_jobs(read_jobs(str(self.options.jobs), self.predictor.dataset_json["file_ending"]))
        choices = [ContextChoice(None, {job.case: self._find_context(job) for job in jobs}) for jobs in groups]
        first = self.binding
        labels: dict[str, Any] = {}
        for jobs, choice in zip(groups, choices, strict=True):
            first.release(self.predictor)
            selection = Selection(jobs[0].targets, choice, jobs[0].prompts, get_selection().encoder)
            apply_selection(self.predictor, selection)
            labels |= self.predictor.dataset_json["labels"]
            yield [list(job.images) for job in jobs], [job.case for job in jobs]
        if self.call.output is not None:
            # nnU-Net wrote one of the last group.
            declared = {**self.predictor.dataset_json, "labels": labels}
            write_text(self.call.output / "dataset.json", json.dumps(declared, indent=4, ensure_ascii=False))

    def _find_context(self, job: Job) -> str:
        bank = self.binding.bank
        try:
            return bank.find_context(job.context) if job.context else bank.require_context(None)
        except DuplusError as error:
            raise type(error)(f"{job.origin}: {error}") from error

    def leave_out_complete(self, lists: Lists) -> Lists:
        """Leave out cases whose files are all there, of the images as they are now.

        Raises:
            DataError: The folder was predicted by another model or under other prompts.
        """
        inputs, outputs, previous = lists
        if outputs is None:
            return lists
        kept = [n for n, (files, name) in enumerate(zip(inputs, outputs, strict=True)) if self._is_open(files, name)]
        sys.stdout.write(f"{len(inputs) - len(kept)} of {len(inputs)} cases are complete and left out.\n")
        return (
            [inputs[n] for n in kept],
            [outputs[n] for n in kept],
            None if previous is None else [previous[n] for n in kept],
        )

    def _is_open(self, files: list[str], output: str) -> bool:
        if not Path(output + self.predictor.dataset_json["file_ending"]).is_file():
            return True
        name, manifest = os.path.basename(output), self._open_manifest()
        if name not in manifest.cases:  # nnU-Net's own prediction, say, or before there were manifests
            return self.options.asks_for_more
        question = self.binding.questions[self.binding.choice.of(name)]
        try:
            inputs = describe_inputs(InputCase(name, tuple(files), output))
        except OSError:
            return True
        wanted = CaseRecord(COMPLETE, question.context, dict(self.binding.list_asked(question)), inputs)
        return not manifest.is_complete(name, wanted, Path(output).parent)

    def read(self, inputs: list[list[str]], outputs: list[str] | None) -> Iterator[PreparedCase]:
        """Read cases ahead."""
        from duplus_nnunet.planners.preprocessor import read_identifier

        predictor, ending = self.predictor, self.predictor.dataset_json["file_ending"]
        places: list[str | None] = [None] * len(inputs) if outputs is None else list(outputs)
        sources = []
        for files, place in zip(inputs, places, strict=True):
            name = os.path.basename(place) if place else read_identifier(files[0], ending)
            sources.append(InputCase(name, tuple(files), place, self.binding.choice.of(name)))
        manager, verbose = self.binding.configuration, predictor.verbose_preprocessing
        return read_ahead(Reader(predictor.plans_manager, manager, predictor.dataset_json, verbose), sources)

    def predict(self, items: Iterable[PreparedCase]) -> list[Any]:
        """Predict cases; they are written, or returned as nnU-Net does where there is no folder."""
        floor = LEAST_LOGIT if self.options.probabilities else 0.0
        floor = float("-inf") if self.call.host_probabilities else floor
        return run_cases(self.predictor, self._count(items), floor, self._finish, self._fail)

    def _count(self, items: Iterable[PreparedCase]) -> Iterator[PreparedCase]:
        for item in items:
            self.cases += 1
            yield item

    def _finish(self, done: PredictedCase) -> Any:
        """Write a case, or return its label map, and its probabilities if nnU-Net is to give them."""
        answer, output = done.answer, done.item.source.output
        if output is not None:
            if self.call.output is None:
                self.call = replace(self.call, output=Path(output).parent)
            self._note(answer.case, self._writer.write(done))
            return None
        if not self.call.host_probabilities:
            return answer.labels
        return answer.labels, spread_probabilities(answer.targets, answer.geometry.shape)

    @property
    def _writer(self) -> CaseWriter:
        """What writes the cases of the binding as it is; a group of jobs has one of its own."""
        if self._made is None or self._made[0] is not self.binding:
            self._made = self.binding, self._make_writer()
        return self._made[1]

    def _make_writer(self) -> CaseWriter:
        plans, place = self.predictor.plans_manager, self.call.place
        declared = self.binding.declare(list(self.binding.questions.values()))
        if self._statistics is None:
            self._statistics = StatisticsTable() if self.call.overwrite else StatisticsTable.read(place)
        self._names |= {int(value): name for value, name in declared[PLANS_KEY]["legend"].items()}
        write_legend(place, self._names)
        ranges = {context: read_volume_ranges(plans.plans, context) for context in self.binding.bank.contexts}
        return CaseWriter(
            io=plans.image_reader_writer_class(),
            ending=declared["file_ending"],
            options=self.options,
            host_probabilities=self.call.host_probabilities,
            statistics=self._statistics,
            place=place,
            volumes={
                context: {name: (found.p1, found.p99) for name, found in targets.items()}
                for context, targets in ranges.items()
            },
        )

    def _fail(self, source: InputCase, why: str) -> None:
        self.failures.add(source.name, why)
        if source.output is not None:
            self._note(source.name, CaseRecord("failed", source.context, message=why, finished=current_time()))

    def _note(self, case: str, record: CaseRecord) -> None:
        # A case is written in one thread while another one fails in the other.
        with self._lock:
            manifest = self._open_manifest()
            manifest.record(case, record)
            manifest.write(self.call.place)

    def _open_manifest(self) -> Manifest:
        """Open the folder's manifest, and say in it what is asked for now."""
        run = describe_run(self.predictor, asdict(self.options))
        if self._manifest is None:
            self._manifest = self._start_manifest(Manifest(run))
        self._manifest.run = join_runs(self._manifest.run, run) if self.options.jobs else run
        return self._manifest

    def _start_manifest(self, new: Manifest) -> Manifest:
        before = Manifest.read(self.call.place)
        if before is None:
            return new
        changes = find_decisive_changes(before, new.run)
        if not changes:
            return Manifest(new.run, before.cases)
        if self.call.overwrite:
            return new
        raise DataError(
            f"{self.call.place} was predicted otherwise ({', '.join(changes)} differ), so that it cannot be continued. "
            "Predict into a new folder, or leave out --continue_prediction to predict all of it again."
        )


_open: list[Session] = []


@contextlib.contextmanager
def open_session(predictor: Any, options: Options, call: Call) -> Iterator[Session]:
    """Open a session for one call of a predictor.

    Raises:
        DataError: At the end, if cases went wrong.
    """
    session = Session(predictor, options, call)
    _open.append(session)
    try:
        yield session
    finally:
        _open.remove(session)
    session.failures.raise_if_any(session.cases)


def get_session(predictor: Any, host_probabilities: bool = False) -> Session:
    """Return a predictor's open session, or a new one if nnU-Net's method was called by itself."""
    found = next((session for session in reversed(_open) if session.predictor is predictor), None)
    return found or Session(predictor, Options(), Call(None, host_probabilities=host_probabilities))
