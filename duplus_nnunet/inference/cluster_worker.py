"""A worker of a prediction over a cluster: it holds a model, and predicts and writes the cases that it is given.

A case goes through the same functions as in the plain prediction. One thread reads, one predicts and one writes, so
that several cases that are under way at a time do not disturb one another.
"""

import contextlib
import io
import os
import platform
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import is_full_disk
from duplus_nnunet.inference.answering import answer_prepared, choose_floor
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.memory import format_memory_option, read_memory, return_freed_memory
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import ModelFiles
from duplus_nnunet.inference.output_store import OutputStore, write_case
from duplus_nnunet.inference.reading import InputCase, Reader, make_reader, report_failure
from duplus_nnunet.inference.records import describe_run
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.inference.writing import CaseWriter, WrittenCase, make_writer
from duplus_nnunet.outputs.manifest import RunRecord
from duplus_nnunet.remote_files import RemoteFolder

# Groups of jobs whose prompts a worker keeps.
_KEPT = 4


@dataclass(frozen=True)
class WorkOrder:
    """What a worker needs to know before its first case.

    Attributes:
        files: The model.
        predictor: Arguments of nnU-Net's predictor.
        selection: What is asked first; it is compared with what the main process makes of it.
        folder: Where relative paths start.
        witness: A file that the main process has put into the output folder; None if the output is a URL.
        output: URL of the output, and the folder that stands for it; None if it is a folder.
        save_probabilities: nnU-Net's option.
        processors: Number of processors of the worker.
        sharers: Number of workers on its machine.
    """

    files: ModelFiles
    predictor: dict[str, Any]
    selection: Selection
    folder: str
    witness: str | None
    output: tuple[RemoteFolder, str] | None
    save_probabilities: bool
    processors: int
    sharers: int


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker is, once its model is loaded.

    Attributes:
        host: Name of its machine.
        pid: Number of its process.
        run: How it predicts.
    """

    host: str
    pid: int
    run: RunRecord


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        written: The case, if it was written.
        error: Why it failed; empty if it did not.
        full_disk: The same, if the disk was full.
    """

    written: WrittenCase | None = None
    error: str = ""
    full_disk: str = ""


@dataclass(frozen=True)
class _Prepared:
    """What cases of one group need."""

    bound: BoundModel
    reader: Reader
    writer: CaseWriter


@dataclass
class CaseWorker:
    """Holds a model, and predicts cases; several threads may call `predict` at a time."""

    _order: WorkOrder | None = None
    _model: LoadedModel | None = None
    _store: OutputStore | None = None
    _prepared: dict[int, _Prepared] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stages: tuple[ThreadPoolExecutor, ...] = ()

    def load(self, order: WorkOrder) -> WorkerFacts:
        """Load the model.

        Raises:
            DataError: This machine does not see the output folder of the run.
            ModelError: It does not see the model, or the model is damaged.
        """
        if os.path.isdir(order.folder):
            os.chdir(order.folder)
        if order.witness is not None and not os.path.exists(order.witness):
            raise DataError(
                f"It does not see the output folder {os.path.dirname(order.witness)}. Give a folder on a disk that all "
                "machines see, or a URL."
            )
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, what nnU-Net prints is printed once
        return_freed_memory()
        torch.set_num_threads(order.processors)
        with contextlib.redirect_stderr(io.StringIO()):  # the main process has warned of the same
            predictor = WindowPredictor(**order.predictor)
            self._model = load_model(predictor, order.files, order.selection.options.precision)
        predictor.processors = order.processors
        self._order = order
        if order.output is not None:
            self._store = OutputStore(order.output[0], Path(order.output[1]))
        self._stages = tuple(
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) for name in ("reading", "network", "writing")
        )
        return WorkerFacts(platform.node(), os.getpid(), describe_run(self._prepare(0, order.selection).bound))

    def predict(self, group: int, selection: Selection, case: InputCase) -> Outcome:
        """Predict and write one case; an error is returned, not raised.

        Args:
            group: Number of the group that the case belongs to.
            selection: What is asked of that group.
            case: The case.
        """
        if self._order is None:
            raise TypeError("A worker predicts after it has loaded a model.")
        read, network, write = self._stages
        try:
            asked = self._prepare(group, selection)
            floor = choose_floor(asked.bound, self._order.save_probabilities)
            prepared = read.submit(asked.reader.read, case).result()
            try:
                predicted = network.submit(answer_prepared, asked.bound, prepared, floor).result()
                return Outcome(write.submit(write_case, asked.writer, predicted, self._store).result())
            finally:
                prepared.source.forget()
        except Exception as error:  # readers and writers have exceptions of their own, and no case may end the others
            why = report_failure(error)
            return Outcome(error=why, full_disk=why if is_full_disk(error) else "")

    def _prepare(self, group: int, selection: Selection) -> _Prepared:
        """Bind the model to what is asked of a group, and keep that for its next cases."""
        if self._model is None or self._order is None:
            raise TypeError("A model is bound after it was loaded.")
        with self._lock:
            if group not in self._prepared:
                while len(self._prepared) >= _KEPT:
                    del self._prepared[next(iter(self._prepared))]
                memory = selection.options.memory or _share_memory(self._order.sharers)
                asked = replace(selection, options=replace(selection.options, memory=memory))
                with contextlib.redirect_stderr(io.StringIO()):  # as above
                    bound = bind(self._model, asked)
                writer = make_writer(bound, self._order.save_probabilities)
                self._prepared[group] = _Prepared(bound, make_reader(bound), writer)
            return self._prepared[group]


def _share_memory(sharers: int) -> str | None:
    """Return this worker's part of what is free, as a value of `--memory`; None if it has its machine for itself."""
    return None if sharers == 1 else format_memory_option(max(1, read_memory(None) // sharers))
