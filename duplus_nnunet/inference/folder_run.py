"""One prediction of files: lists what is to be predicted, predicts it or takes what workers made, and records it."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.files import is_full_disk, write_text
from duplus_nnunet.inference.answering import Failures, PredictedCase, choose_floor, predict_cases
from duplus_nnunet.inference.assembly import spread_probabilities
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.case_list import PredictionCall, list_cases
from duplus_nnunet.inference.contexts import ContextChoice
from duplus_nnunet.inference.dicom_input import DicomInput, open_dicom_image
from duplus_nnunet.inference.jobs import Job, group_jobs, read_jobs, require_storages
from duplus_nnunet.inference.model import LoadedModel
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.output_lock import hold_output
from duplus_nnunet.inference.output_store import write_case
from duplus_nnunet.inference.progress import Progress
from duplus_nnunet.inference.reading import InputCase, PreparedCase, make_reader, read_ahead
from duplus_nnunet.inference.run_files import RunFiles
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.writing import CaseWriter, WrittenCase, make_writer
from duplus_nnunet.outputs.manifest import CaseRecord, current_time
from duplus_nnunet.outputs.naming import name_cases, require_valid_text
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.remote_files import is_url


@dataclass(frozen=True)
class Group:
    """Cases that are asked for the same.

    Attributes:
        bound: The model and what is asked of it.
        selection: What is asked, as it was typed.
        cases: Those that are to be predicted, each with its context.
    """

    bound: BoundModel
    selection: Selection
    cases: list[InputCase]


@dataclass
class FolderPrediction:
    """One call: the state that its cases share.

    Attributes:
        first: The model, and what is asked of it; of a table of jobs, each group asks for its own.
        call: What is predicted and where it goes.
        failures: Cases that failed.
        cases: Number of cases so far.
        files: Manifest, tables and legend.
    """

    first: BoundModel
    call: PredictionCall
    failures: Failures = field(default_factory=Failures)
    cases: int = 0
    files: RunFiles = field(init=False)
    _made: tuple[BoundModel, CaseWriter] | None = None
    _progress: Progress = field(default_factory=Progress)
    _held: ExitStack = field(default_factory=ExitStack)
    _full_disk: str = ""  # why nothing more can be written

    def __post_init__(self) -> None:
        self.files = RunFiles(self.call)

    @contextmanager
    def lock_output(self) -> Iterator[None]:
        """Hold the lock on the output folder; without one, that of the first case that is written.

        What the cases share is written at the end, whatever ends the run.

        Raises:
            DataError: Another process predicts into it, or its name is not valid text.
        """
        with self._held:
            if self.call.folder is not None:
                require_valid_text(str(self.call.folder))
                self._held.enter_context(hold_output(self.call.folder, self.call.part))
            try:
                yield
            except BaseException:
                with suppress(DuplusError, OSError):  # what ended the run is worth more
                    self.files.save()
                raise
            self.files.save(is_end=True)

    def plan(self, selection: Selection) -> Iterator[Group]:
        """Yield the cases that are to be predicted: those of a folder or list, or of a table of jobs."""
        if self.first.options.jobs is None:
            yield Group(self.first, selection, self._plan_cases(self.first, self.call))
        else:
            yield from self._plan_jobs(selection)

    def _plan_cases(self, bound: BoundModel, call: PredictionCall) -> list[InputCase]:
        """List the cases of a call, each with its context, and leave out those that are complete."""
        if call.folder is not None:
            _write_arguments(bound, call, call.folder)
        lists = list_cases(bound.model, call)
        bound.check_cases([case.name for case in lists])
        _check_dicom(bound.options, lists)
        cases = lists if call.overwrite or call.output is None else self.files.leave_out_complete(bound, lists)
        self._progress.expect(len(cases), len(lists) - len(cases))
        return [replace(case, context=bound.choice.of(case.name)) for case in cases]

    def _plan_jobs(self, selection: Selection) -> Iterator[Group]:
        """Yield the jobs of a table, those together that ask for the same."""
        model, folder, options = self.first.model, self.call.folder or Path(), self.first.options
        ending = model.dataset_json["file_ending"]
        table = read_jobs(str(options.jobs), ending)
        require_storages(table)
        groups, cases = group_jobs(table), [job.case for job in table]
        files = dict(zip(cases, name_cases(cases, ending), strict=True))
        dicom = {job.case: found for job in table if (found := _open_dicom(job, options.series)) is not None}
        choices = [
            ContextChoice(None, {job.case: _find_context(model, job, dicom.get(job.case)) for job in jobs})
            for jobs in groups
        ]
        labels: dict[str, Any] = {}
        unseen: dict[str, Any] = {}
        declared: dict[str, Any] = {}
        for jobs, choice in zip(groups, choices, strict=True):
            asked = Selection(jobs[0].targets, choice, jobs[0].prompts, selection.encoder, options)
            bound = bind(model, asked)
            declared = bound.declare_all()
            labels |= declared["labels"]
            unseen |= declared[PLANS_KEY]["not_seen_in_training"]
            names = tuple(job.case for job in jobs)
            series = {job.case: dicom[job.case].images[0] for job in jobs if job.case in dicom}
            images = [[series[job.case].file] if job.case in series else list(job.images) for job in jobs]
            by_file = {image.file: image for image in series.values()}
            outputs = [str(folder / files[name]) for name in names]
            call = replace(self.call, source=images, output=outputs, names=names, dicom=by_file)
            yield Group(bound, asked, self._plan_cases(bound, call))
        if self.call.folder is not None:
            declared["labels"] = labels  # that of the last group was written with it
            declared[PLANS_KEY]["not_seen_in_training"] = unseen
            write_text(folder / "dataset.json", json.dumps(declared, indent=4, ensure_ascii=False))

    def predict_group(self, group: Group) -> list[Any] | None:
        """Predict cases by this process; None if there is none."""
        if not group.cases:
            return None
        return self.predict_items(group.bound, read_ahead(make_reader(group.bound), group.cases))

    def predict_items(self, bound: BoundModel, items: Iterable[PreparedCase]) -> list[Any]:
        """Predict preprocessed cases; they are written, or returned where there is no output."""
        floor = choose_floor(bound, self.call.save_probabilities)
        return predict_cases(bound, self._count(items), floor, partial(self._finish, bound), partial(self.fail, bound))

    def _count(self, items: Iterable[PreparedCase]) -> Iterator[PreparedCase]:
        for item in items:
            self.cases += 1
            yield item

    def _finish(self, bound: BoundModel, predicted: PredictedCase) -> Any:
        """Write a case, or return its label map, and its probabilities if nnU-Net is to give them."""
        answer, output = predicted.answer, predicted.item.source.output
        try:
            if output is not None:
                self._write(bound, predicted, Path(output).parent)
                return None
        finally:
            predicted.item.source.forget()
        if not self.call.save_probabilities:
            return answer.labels
        return answer.labels, spread_probabilities(answer.targets, answer.geometry.shape)

    def _write(self, bound: BoundModel, predicted: PredictedCase, folder: Path) -> None:
        try:
            if self.call.output is None:
                self._held.enter_context(hold_output(folder, self.call.part))
                self.call = self.files.call = replace(self.call, output=str(folder))
            self.files.declare(bound)
            self.take(bound, write_case(self._writer_of(bound), predicted, self.call.store))
        except Exception as error:
            if is_full_disk(error):
                self._full_disk = str(error)
            raise

    def take(self, bound: BoundModel, written: WrittenCase) -> None:
        """Record a case that was written, and report it in one line."""
        self.files.add(bound, written)
        record = written.record
        renamed = f", written as {record.file_name}" if record.file_name else ""
        seconds = sum(record.seconds.values())
        sys.stdout.write(self._progress.report(written.summary + renamed, seconds) + "\n")

    def _writer_of(self, bound: BoundModel) -> CaseWriter:
        if self._made is None or self._made[0] is not bound:
            self._made = bound, make_writer(bound, self.call.save_probabilities)
        return self._made[1]

    def fail(self, bound: BoundModel, source: InputCase, why: str, full_disk: str = "") -> None:
        """Record a case that failed, and end the run if the disk is full.

        Args:
            bound: The model and what was asked of it.
            source: The case.
            why: Why it failed.
            full_disk: What a full disk was reported as where the case was written; empty if it was not.

        Raises:
            DataError: The disk is full.
        """
        source.forget()
        self.failures.add(source.name, why)
        self._progress.failed += 1
        self._full_disk = self._full_disk or full_disk
        try:
            if source.output is not None:
                hidden = source.hide_folders(why)
                record = CaseRecord("failed", source.context, message=hidden, finished=current_time())
                self.files.add_record(bound, source.name, record)
        except DataError as error:
            if not is_full_disk(error):
                raise
            self._full_disk = self._full_disk or str(error)
        if self._full_disk:
            raise DataError(f"{self._full_disk} {self.describe_rest()}")

    def describe_rest(self) -> str:
        """Say how many cases are complete, how many are not, and how to go on."""
        return self._progress.describe_rest()


def _check_dicom(options: Options, cases: Sequence[InputCase]) -> None:
    """Raise DataError unless the DICOM series of each case is known, if files are to refer to it."""
    if options.output_format:
        from duplus_nnunet.inference.dicom_output import check_slices

        listed = [(case.name, case.slices) for case in cases]
        images = {case.name: case.files[0] for case in cases}
        check_slices(options.output_format, listed, options.dicom_source, options.jobs is not None, images)


def _write_arguments(bound: BoundModel, call: PredictionCall, folder: Path) -> None:
    """Write the files that nnU-Net writes beside each prediction, and reads again in its post-processing."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "list_of_lists_or_source_folder": call.source_label,
        "output_folder_or_list_of_truncated_output_files": call.output_label,
        "save_probabilities": call.save_probabilities,
        "overwrite": call.overwrite,
        "part_id": call.part[0],
        "num_parts": call.part[1],
        **call.unused,
    }
    write_text(folder / "predict_from_raw_data_args.json", json.dumps(arguments, indent=4, sort_keys=True))
    write_text(folder / "dataset.json", json.dumps(bound.declare_all(), indent=4))
    write_text(folder / "plans.json", json.dumps(bound.model.plans.plans, indent=4))


def _open_dicom(job: Job, series: str | None) -> DicomInput | None:
    """Find the DICOM series that a job names; None if its image is not DICOM."""
    try:
        if len(job.images) != 1 or is_url(job.images[0]):
            return None
        return open_dicom_image(job.images[0], series)
    except DuplusError as error:
        raise type(error)(f"{job.origin}: {error}") from error


def _find_context(model: LoadedModel, job: Job, dicom: DicomInput | None) -> str:
    try:
        if dicom is not None:
            return dicom.choose_one_context(model.bank.contexts, job.context)
        return model.bank.find_context(job.context) if job.context else model.bank.require_context(None)
    except DuplusError as error:
        raise type(error)(f"{job.origin}: {error}") from error
