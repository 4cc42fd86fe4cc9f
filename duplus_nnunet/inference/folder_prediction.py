"""Predicts files into a folder: lists, reads, predicts and writes the cases, and records them in a manifest."""

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.volume_ranges import read_volume_ranges
from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.files import is_full_disk, write_text
from duplus_nnunet.inference.answering import LEAST_LOGIT, Failures, PredictedCase, predict_cases
from duplus_nnunet.inference.assembly import spread_probabilities
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.case_list import PredictionCall, list_cases
from duplus_nnunet.inference.contexts import ContextChoice
from duplus_nnunet.inference.dicom_input import DicomInput, open_dicom_image
from duplus_nnunet.inference.images import check_source
from duplus_nnunet.inference.jobs import Job, group_jobs, read_jobs
from duplus_nnunet.inference.model import LoadedModel
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.output_lock import hold_output
from duplus_nnunet.inference.progress import Progress
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader, read_ahead
from duplus_nnunet.inference.records import describe_run, find_decisive_changes, join_runs, list_idle_options
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.writing import CaseWriter, describe_answer, describe_inputs
from duplus_nnunet.outputs.legend import write_legend
from duplus_nnunet.outputs.manifest import COMPLETE, CaseRecord, Manifest, current_time
from duplus_nnunet.outputs.naming import name_cases, require_valid_text, show_name
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.plans_section import PLANS_KEY

_NEW = "it has no label map yet"


def predict_files(bound: BoundModel, call: PredictionCall, encoder: str | None = None) -> list[Any] | None:
    """Predict files, or the jobs of a table.

    Args:
        bound: The model and what is asked of it; its options name the table of jobs, if there is one.
        call: What is predicted and where it goes.
        encoder: Where the model's own text encoder is, for free texts in a table of jobs.

    Returns:
        Label maps, and probabilities if they were asked for, where there is no output; else None for each case. None
        if there was nothing to do, or a table of jobs.

    Raises:
        DataError: At the end, if cases failed; at once, if there is no case, the table of jobs is not valid, another
            process predicts into the folder, the disk is full, or the output folder was predicted with another model
            or other prompts and is to be continued.
        PromptError: The model does not know a context or target of a job.
    """
    run = FolderPrediction(bound, call)
    with run.lock_output():
        if bound.options.jobs is None:
            check_source(call.source, bound.model.dataset_json)
            results = run.predict(bound, call)
        else:
            results = None
            run.predict_jobs(bound, encoder)
    run.failures.raise_if_any(run.cases)
    return results


def predict_items(bound: BoundModel, items: Iterable[PreparedCase], save_probabilities: bool) -> list[Any]:
    """Predict preprocessed cases, and write or return each as `predict_files` does.

    Raises:
        DataError: At the end, if cases failed; at once, if the disk is full.
    """
    run = FolderPrediction(bound, PredictionCall([], None, save_probabilities))
    with run.lock_output():
        results = run.predict_items(bound, items)
    run.failures.raise_if_any(run.cases)
    return results


@dataclass
class FolderPrediction:
    """One call: the state that its cases share.

    Attributes:
        bound: The model, and what is asked of it; of a table of jobs, what the current group asks.
        call: What is predicted and where it goes.
        failures: Cases that failed.
        cases: Number of cases so far.
    """

    bound: BoundModel
    call: PredictionCall
    failures: Failures = field(default_factory=Failures)
    cases: int = 0
    _manifest: Manifest | None = None
    _statistics: StatisticsTable | None = None
    _legend: dict[int, list[str]] = field(default_factory=dict)
    _unseen: set[int] = field(default_factory=set)
    _made: tuple[BoundModel, CaseWriter] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _progress: Progress = field(default_factory=Progress)
    _held: ExitStack = field(default_factory=ExitStack)
    _full_disk: str = ""  # why nothing more can be written

    @property
    def options(self) -> Options:
        """What the user asked for beside targets and context."""
        return self.bound.options

    @contextmanager
    def lock_output(self) -> Iterator[None]:
        """Hold the lock on the output folder; without one, that of the first case that is written.

        Raises:
            DataError: Another process predicts into it, or its name is not valid text.
        """
        with self._held:
            if self.call.folder is not None:
                require_valid_text(str(self.call.folder))
                self._held.enter_context(hold_output(self.call.folder, self.call.part))
            yield

    def predict(self, bound: BoundModel, call: PredictionCall) -> list[Any] | None:
        """List the cases of a call, leave out those that are complete, and predict the others."""
        self.bound = bound
        if call.folder is not None:
            _write_arguments(bound, call, call.folder)
        lists = list_cases(bound.model, call)
        bound.check_cases([case.name for case in lists])
        _check_dicom(bound.options, lists)
        cases = lists if call.overwrite or call.output is None else self._leave_out_complete(lists)
        self._progress.expect(len(cases), len(lists) - len(cases))
        if not cases:
            return None
        placed = [replace(case, context=bound.choice.of(case.name)) for case in cases]
        model = bound.model
        verbose = bool(model.predictor.verbose_preprocessing)
        reader = Reader(model.plans, model.configuration, bound.declare_all(), verbose)
        return self.predict_items(bound, read_ahead(reader, placed))

    def predict_items(self, bound: BoundModel, items: Iterable[PreparedCase]) -> list[Any]:
        """Predict preprocessed cases; they are written, or returned where there is no output."""
        floor = LEAST_LOGIT if bound.options.probabilities else 0.0
        floor = float("-inf") if self.call.save_probabilities else floor
        return predict_cases(bound, self._count(items), floor, self._finish, self._fail)

    def predict_jobs(self, first: BoundModel, encoder: str | None) -> None:
        """Predict a table of jobs, those together that ask for the same.

        Args:
            first: The model, bound; its options name the table.
            encoder: Where the model's own text encoder is.
        """
        model, folder = first.model, self.call.folder or Path()
        ending = model.dataset_json["file_ending"]
        table = read_jobs(str(first.options.jobs), ending)
        groups, cases = group_jobs(table), [job.case for job in table]
        files = dict(zip(cases, name_cases(cases, ending), strict=True))
        dicom = {job.case: found for job in table if (found := _open_dicom(job, first.options.series)) is not None}
        choices = [
            ContextChoice(None, {job.case: _find_context(model, job, dicom.get(job.case)) for job in jobs})
            for jobs in groups
        ]
        labels: dict[str, Any] = {}
        unseen: dict[str, Any] = {}
        declared: dict[str, Any] = {}
        for jobs, choice in zip(groups, choices, strict=True):
            bound = bind(model, Selection(jobs[0].targets, choice, jobs[0].prompts, encoder, first.options))
            declared = bound.declare_all()
            labels |= declared["labels"]
            unseen |= declared[PLANS_KEY]["not_seen_in_training"]
            names = tuple(job.case for job in jobs)
            series = {job.case: dicom[job.case].images[0] for job in jobs if job.case in dicom}
            images = [[series[job.case].file] if job.case in series else list(job.images) for job in jobs]
            by_file = {image.file: image for image in series.values()}
            outputs = [str(folder / files[name]) for name in names]
            self.predict(bound, replace(self.call, source=images, output=outputs, names=names, dicom=by_file))
        if self.call.folder is not None:
            declared["labels"] = labels  # that of the last group was written with it
            declared[PLANS_KEY]["not_seen_in_training"] = unseen
            write_text(folder / "dataset.json", json.dumps(declared, indent=4, ensure_ascii=False))

    def _count(self, items: Iterable[PreparedCase]) -> Iterator[PreparedCase]:
        for item in items:
            self.cases += 1
            yield item

    def _leave_out_complete(self, cases: list[InputCase]) -> list[InputCase]:
        """Leave out cases whose files are complete and were made from the images as they are now.

        Raises:
            DataError: The folder was predicted by another model or with other prompts.
        """
        reasons = [self._explain_open(case) for case in cases]
        for case, reason in zip(cases, reasons, strict=True):
            if reason and reason != _NEW:
                sys.stdout.write(f"{show_name(case.name)} is predicted again: {reason}.\n")
        kept = [case for case, reason in zip(cases, reasons, strict=True) if reason]
        sys.stdout.write(f"{len(cases) - len(kept)} of {len(cases)} cases are complete and left out.\n")
        return kept

    def _explain_open(self, case: InputCase) -> str:
        """Say why a case has to be predicted; empty if it is complete."""
        output = str(case.output)
        if not Path(output + self.bound.model.dataset_json["file_ending"]).is_file():
            return _NEW
        manifest = self._open_manifest()
        if case.name not in manifest.cases:  # written by nnU-Net's own prediction, or before there were manifests
            return "files beside the label map are asked for" if self.options.asks_for_more else ""
        question = self.bound.questions[self.bound.choice.of(case.name)]
        try:
            inputs = describe_inputs(case)
        except OSError as error:
            return f"its image cannot be read ({error.strerror or error})"
        expected = CaseRecord(COMPLETE, question.context, dict(self.bound.list_asked(question)), inputs)
        reason = manifest.explain_incomplete(case.name, expected, Path(output).parent, self.options.verify)
        if not reason and self.options.statistics and case.name not in self._open_statistics().cases:
            return "the table of statistics does not list it"
        return reason

    def _finish(self, predicted: PredictedCase) -> Any:
        """Write a case, or return its label map, and its probabilities if nnU-Net is to give them."""
        answer, output = predicted.answer, predicted.item.source.output
        try:
            if output is not None:
                self._write(predicted, Path(output).parent)
                return None
        finally:
            predicted.item.source.forget()
        if not self.call.save_probabilities:
            return answer.labels
        return answer.labels, spread_probabilities(answer.targets, answer.geometry.shape)

    def _write(self, predicted: PredictedCase, folder: Path) -> None:
        try:
            if self.call.output is None:
                self._held.enter_context(hold_output(folder, self.call.part))
                self.call = replace(self.call, output=str(folder))
            record = self._writer.write(predicted)
            self._record(predicted.answer.case, record)
            renamed = f", written as {record.file_name}" if record.file_name else ""
            text, seconds = describe_answer(predicted.answer) + renamed, sum(record.seconds.values())
            sys.stdout.write(self._progress.report(text, seconds) + "\n")
        except Exception as error:
            if is_full_disk(error):
                self._full_disk = str(error)
            raise

    @property
    def _writer(self) -> CaseWriter:
        """What writes the cases of the current group of jobs."""
        if self._made is None or self._made[0] is not self.bound:
            self._made = self.bound, self._make_writer()
        return self._made[1]

    def _make_writer(self) -> CaseWriter:
        plans, folder = self.bound.model.plans, self.call.table_folder
        declared = self.bound.declare_all()
        for value, name in declared[PLANS_KEY]["legend"].items():
            # Jobs of one table may give the same value to different texts; the label maps name their own.
            names = self._legend.setdefault(int(value), [])
            names += [name] if name not in names else []
        self._unseen |= {target["value"] for target in declared[PLANS_KEY]["not_seen_in_training"].values()}
        write_legend(folder, {value: " or ".join(names) for value, names in self._legend.items()}, self._unseen)
        ranges = {
            context: read_volume_ranges(self.bound.model.bank.form, context)
            for context in self.bound.model.bank.contexts
        }
        return CaseWriter(
            io=plans.image_reader_writer_class(),
            ending=declared["file_ending"],
            options=self.options,
            host_probabilities=self.call.save_probabilities,
            statistics=self._open_statistics(),
            table_folder=folder,
            volumes={
                context: {name: (volumes.p1, volumes.p99) for name, volumes in targets.items()}
                for context, targets in ranges.items()
            },
            bank=self.bound.model.bank,
            model=self.bound.model.record.name,
        )

    def _open_statistics(self) -> StatisticsTable:
        if self._statistics is None:
            before = None if self.call.overwrite else StatisticsTable.read(self.call.table_folder)
            self._statistics = before or StatisticsTable()
        return self._statistics

    def _fail(self, source: InputCase, why: str) -> None:
        """Record a case that failed, and end the run if the disk is full.

        Raises:
            DataError: The disk is full.
        """
        source.forget()
        self.failures.add(source.name, why)
        self._progress.failed += 1
        try:
            if source.output is not None:
                hidden = source.hide_folders(why)
                self._record(source.name, CaseRecord("failed", source.context, message=hidden, finished=current_time()))
        except DataError as error:
            if not is_full_disk(error):
                raise
            self._full_disk = self._full_disk or str(error)
        if self._full_disk:
            raise DataError(f"{self._full_disk} {self._progress.describe_rest()}")

    def _record(self, case: str, record: CaseRecord) -> None:
        # A case is written in one thread while another one may fail in the other.
        with self._lock:
            manifest = self._open_manifest()
            manifest.record(case, record)
            manifest.write(self.call.table_folder)

    def _open_manifest(self) -> Manifest:
        """Open the folder's manifest, and describe in it what is asked for now."""
        run = describe_run(self.bound)
        if self._manifest is None:
            self._manifest = self._start_manifest(Manifest(run))
        self._manifest.run = join_runs(self._manifest.run, run) if self.options.jobs else run
        return self._manifest

    def _start_manifest(self, new: Manifest) -> Manifest:
        folder = self.call.table_folder
        before = Manifest.read(folder)
        if before is None:
            return new
        changes = find_decisive_changes(before, new.run, list_idle_options(self.bound))
        if not changes:
            return Manifest(new.run, before.cases)
        if self.call.overwrite:
            return new
        raise DataError(
            f"{folder} was predicted with other settings ({', '.join(changes)} differ), so that it cannot be "
            "continued. Predict into a new folder, or leave out --continue_prediction to predict all of it again."
        )


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
        "output_folder_or_list_of_truncated_output_files": call.output,
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
        return open_dicom_image(job.images[0], series) if len(job.images) == 1 else None
    except DuplusError as error:
        raise type(error)(f"{job.origin}: {error}") from error


def _find_context(model: LoadedModel, job: Job, dicom: DicomInput | None) -> str:
    try:
        if dicom is not None:
            return dicom.choose_one_context(model.bank.contexts, job.context)
        return model.bank.find_context(job.context) if job.context else model.bank.require_context(None)
    except DuplusError as error:
        raise type(error)(f"{job.origin}: {error}") from error
