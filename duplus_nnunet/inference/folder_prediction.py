"""Predicts files into a folder: lists, reads, predicts and writes the cases, and records them in a manifest."""

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.volume_ranges import read_volume_ranges
from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.files import write_text
from duplus_nnunet.inference.answering import LEAST_LOGIT, Failures, PredictedCase, predict_cases
from duplus_nnunet.inference.assembly import spread_probabilities
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.contexts import ContextChoice
from duplus_nnunet.inference.images import check_source
from duplus_nnunet.inference.jobs import Job, group_jobs, read_jobs
from duplus_nnunet.inference.model import LoadedModel
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader, read_ahead
from duplus_nnunet.inference.records import describe_run, find_decisive_changes, join_runs
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.writing import CaseWriter, describe_inputs
from duplus_nnunet.outputs.legend import write_legend
from duplus_nnunet.outputs.manifest import COMPLETE, CaseRecord, Manifest, current_time
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.plans_section import PLANS_KEY


@dataclass(frozen=True)
class PredictionCall:
    """What is predicted and where it goes, as nnU-Net's predictor is called.

    Attributes:
        source: Folder of images, or the files of each case, one per channel.
        output: Folder; or a file per case, without ending; None: results are returned.
        save_probabilities: nnU-Net's option: also its own file of probabilities.
        overwrite: Whether cases that are complete are predicted again.
        part: Number of this part, from 0, and number of parts.
        unused: Options of nnU-Net's that change nothing here; they are recorded.
    """

    source: str | Sequence[Sequence[str]]
    output: str | list[str] | None
    save_probabilities: bool = False
    overwrite: bool = True
    part: tuple[int, int] = (0, 1)
    unused: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """Folder of the output; None if results are returned."""
        if isinstance(self.output, list):
            return Path(os.path.dirname(self.output[0]))
        return None if self.output is None else Path(self.output)

    @property
    def table_folder(self) -> Path:
        """Folder of manifest and tables; parts that run at the same time have one each."""
        number, parts = self.part
        folder = self.folder or Path()
        return folder if parts == 1 else folder / f"part_{number}_of_{parts}"


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
        DataError: At the end, if cases failed; at once, if there is no case, the table of jobs is not valid, or the
            output folder was predicted with another model or other prompts and is to be continued.
        PromptError: The model does not know a context or target of a job.
    """
    run = FolderPrediction(bound, call)
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
        DataError: At the end, if cases failed.
    """
    run = FolderPrediction(bound, PredictionCall([], None, save_probabilities))
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
    _legend: dict[int, str] = field(default_factory=dict)
    _unseen: set[int] = field(default_factory=set)
    _made: tuple[BoundModel, CaseWriter] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def options(self) -> Options:
        """What the user asked for beside targets and context."""
        return self.bound.options

    def predict(self, bound: BoundModel, call: PredictionCall) -> list[Any] | None:
        """List the cases of a call, leave out those that are complete, and predict the others."""
        self.bound = bound
        if call.folder is not None:
            _write_arguments(bound, call, call.folder)
        lists = _list_cases(bound, call)
        bound.check_cases([case.name for case in lists])
        cases = lists if call.overwrite or call.output is None else self._leave_out_complete(lists)
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
        groups = group_jobs(read_jobs(str(first.options.jobs), model.dataset_json["file_ending"]))
        choices = [ContextChoice(None, {job.case: _find_context(model, job) for job in jobs}) for jobs in groups]
        labels: dict[str, Any] = {}
        unseen: dict[str, Any] = {}
        declared: dict[str, Any] = {}
        for jobs, choice in zip(groups, choices, strict=True):
            bound = bind(model, Selection(jobs[0].targets, choice, jobs[0].prompts, encoder, first.options))
            declared = bound.declare_all()
            labels |= declared["labels"]
            unseen |= declared[PLANS_KEY]["not_seen_in_training"]
            outputs = [str(folder / job.case) for job in jobs]
            self.predict(bound, replace(self.call, source=[list(job.images) for job in jobs], output=outputs))
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
        kept = [case for case in cases if self._is_open(case)]
        sys.stdout.write(f"{len(cases) - len(kept)} of {len(cases)} cases are complete and left out.\n")
        return kept

    def _is_open(self, case: InputCase) -> bool:
        output = str(case.output)
        if not Path(output + self.bound.model.dataset_json["file_ending"]).is_file():
            return True
        manifest = self._open_manifest()
        if case.name not in manifest.cases:  # written by nnU-Net's own prediction, or before there were manifests
            return self.options.asks_for_more
        question = self.bound.questions[self.bound.choice.of(case.name)]
        try:
            inputs = describe_inputs(case)
        except OSError:
            return True
        expected = CaseRecord(COMPLETE, question.context, dict(self.bound.list_asked(question)), inputs)
        return not manifest.is_complete(case.name, expected, Path(output).parent)

    def _finish(self, predicted: PredictedCase) -> Any:
        """Write a case, or return its label map, and its probabilities if nnU-Net is to give them."""
        answer, output = predicted.answer, predicted.item.source.output
        if output is not None:
            if self.call.output is None:
                self.call = replace(self.call, output=str(Path(output).parent))
            self._record(answer.case, self._writer.write(predicted))
            return None
        if not self.call.save_probabilities:
            return answer.labels
        return answer.labels, spread_probabilities(answer.targets, answer.geometry.shape)

    @property
    def _writer(self) -> CaseWriter:
        """What writes the cases of the current group of jobs."""
        if self._made is None or self._made[0] is not self.bound:
            self._made = self.bound, self._make_writer()
        return self._made[1]

    def _make_writer(self) -> CaseWriter:
        plans, folder = self.bound.model.plans, self.call.table_folder
        declared = self.bound.declare_all()
        if self._statistics is None:
            self._statistics = StatisticsTable() if self.call.overwrite else StatisticsTable.read(folder)
        for value, name in declared[PLANS_KEY]["legend"].items():
            # Jobs of one table may give the same value to different texts; the label maps name their own.
            names = [other for other in (self._legend.get(int(value)), name) if other]
            self._legend[int(value)] = name if name in names[:1] else " or ".join(names)
        self._unseen |= {target["value"] for target in declared[PLANS_KEY]["not_seen_in_training"].values()}
        write_legend(folder, self._legend, self._unseen)
        ranges = {
            context: read_volume_ranges(self.bound.model.bank.form, context)
            for context in self.bound.model.bank.contexts
        }
        return CaseWriter(
            io=plans.image_reader_writer_class(),
            ending=declared["file_ending"],
            options=self.options,
            host_probabilities=self.call.save_probabilities,
            statistics=self._statistics,
            table_folder=folder,
            volumes={
                context: {name: (volumes.p1, volumes.p99) for name, volumes in targets.items()}
                for context, targets in ranges.items()
            },
        )

    def _fail(self, source: InputCase, why: str) -> None:
        self.failures.add(source.name, why)
        if source.output is not None:
            self._record(source.name, CaseRecord("failed", source.context, message=why, finished=current_time()))

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
        changes = find_decisive_changes(before, new.run)
        if not changes:
            return Manifest(new.run, before.cases)
        if self.call.overwrite:
            return new
        raise DataError(
            f"{folder} was predicted with other settings ({', '.join(changes)} differ), so that it cannot be "
            "continued. Predict into a new folder, or leave out --continue_prediction to predict all of it again."
        )


def _list_cases(bound: BoundModel, call: PredictionCall) -> list[InputCase]:
    """List the cases of a call by nnU-Net's own method, this part's only."""
    from duplus_nnunet.planners.preprocessor import read_identifier

    number, parts = call.part
    files, outputs, _ = bound.model.predictor._manage_input_and_output_lists(
        call.source, call.output, None, True, number, parts, call.save_probabilities
    )
    ending = bound.model.dataset_json["file_ending"]
    names = [os.path.basename(output) for output in outputs or ()] or [read_identifier(own[0], ending) for own in files]
    places = outputs or [None] * len(files)
    return [InputCase(name, tuple(own), output) for name, own, output in zip(names, files, places, strict=True)]


def _write_arguments(bound: BoundModel, call: PredictionCall, folder: Path) -> None:
    """Write the files that nnU-Net writes beside each prediction, and reads again in its post-processing."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "list_of_lists_or_source_folder": call.source,
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


def _find_context(model: LoadedModel, job: Job) -> str:
    try:
        return model.bank.find_context(job.context) if job.context else model.bank.require_context(None)
    except DuplusError as error:
        raise type(error)(f"{job.origin}: {error}") from error
