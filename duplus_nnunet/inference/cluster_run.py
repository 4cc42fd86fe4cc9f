"""Predicts the cases of a run by workers of a Ray cluster: starts them, gives them cases, and replaces those it loses.

This process lists the cases and writes what they share; a case's own files are written by the worker that predicts it.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from duplus_nnunet.errors import DataError, DuplusError, HostError, ModelError
from duplus_nnunet.inference.cluster_connection import connect, list_nodes
from duplus_nnunet.inference.cluster_settings import ClusterSettings
from duplus_nnunet.inference.cluster_worker import CaseWorker, Outcome, WorkerFacts, WorkOrder
from duplus_nnunet.inference.contexts import ContextChoice
from duplus_nnunet.inference.dispatch import Dispatcher, Task
from duplus_nnunet.inference.folder_run import FolderPrediction, Group
from duplus_nnunet.inference.reading import InputCase, report_failure
from duplus_nnunet.inference.records import describe_run, find_decisive_changes
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.outputs.manifest import Manifest

# Cases that a worker has at a time: one is read, one predicted, one written.
DEPTH = 3
# Workers that a case may lose; and that may be lost in one place, one after another, before they have loaded the model.
MOST_LOSSES, MOST_RESTARTS = 3, 3
# Seconds without a worker after which the wait is explained.
_PATIENCE = 30.0


@dataclass(frozen=True)
class Resources:
    """What workers ask of a cluster.

    Attributes:
        workers: Number of workers.
        gpus: GPUs of each.
        cpus: Processors of each.
        sharers: Most workers on one machine.
    """

    workers: int
    gpus: float
    cpus: int
    sharers: int


@dataclass(frozen=True)
class _Asked:
    """A case, and what is asked of it."""

    number: int
    group: Group
    selection: Selection
    case: InputCase


@dataclass(eq=False)
class _Worker:
    """One place for a worker; a worker that is lost is replaced by a new one.

    Attributes:
        actor: Ray's handle of the present one.
        facts: What it is; None while it loads the model.
        lost: Number of workers lost here, one after another, before they had loaded the model.
        tasks: Cases that it has, by Ray's reference to the result.
        loading: Ray's reference to the facts, while it loads.
    """

    actor: Any = None
    facts: WorkerFacts | None = None
    lost: int = 0
    tasks: dict[Any, Task[_Asked]] = field(default_factory=dict)
    loading: Any = None


def predict_on_cluster(run: FolderPrediction, groups: Iterator[Group], selection: Selection) -> None:
    """Predict the cases of a run by workers of a Ray cluster, and record them as the plain prediction does.

    Args:
        run: The run.
        groups: Its cases.
        selection: What was asked for as it was typed.

    Raises:
        DataError: A worker does not see the folders of the run, all workers were lost, or the disk is full.
        ModelError: A worker would predict otherwise than this process: it has another model or precision.
        HostError: Ray is not installed or cannot be reached, or has no room for a worker.
    """
    if run.call.output is None or selection.cluster is None:
        raise DataError("A prediction over a cluster writes its results. Give an output folder or URL.")
    with connect(selection.cluster) as ray, _leave_witness(run) as witness:
        device = run.first.model.predictor.device.type
        resources = plan_resources(selection.cluster, device, list_nodes(ray))
        order = _write_order(run, selection, witness, resources)
        _Pool(ray, run, groups, order, resources).predict()


def plan_resources(settings: ClusterSettings, device: str, nodes: list[dict[str, float]]) -> Resources:
    """Plan how many workers a cluster has room for, and what each may use.

    Args:
        settings: What was asked for.
        device: cuda, cpu or mps.
        nodes: Resources of each machine, as Ray names them.

    Raises:
        HostError: No machine has a GPU, or enough processors, for a worker.

    Example:
        >>> plan_resources(ClusterSettings(gpus=0.5), "cuda", [{"CPU": 16, "GPU": 2}, {"CPU": 4}])
        Resources(workers=4, gpus=0.5, cpus=4, sharers=4)
    """
    gpus = settings.gpus if settings.gpus is not None else float(device == "cuda")
    if device == "cuda" and gpus == 0:
        raise HostError("--gpus-per-worker 0 leaves workers without a GPU. Add -device cpu, or give a share above 0.")
    fitting = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= 1]
    if not fitting:
        found = f"{sum(node.get('GPU', 0) for node in nodes):g} GPU(s) on {len(nodes)} machine(s)"
        raise HostError(
            f"A worker asks for {gpus:g} GPU, and Ray has {found}. Add -device cpu, or start Ray where there is a GPU."
        )
    places = sum(math.floor(node["GPU"] / gpus + 1e-6) for node in fitting) if gpus else len(fitting)
    workers = settings.workers or places
    sharers = math.ceil(workers / len(fitting))
    smallest = int(min(node["CPU"] for node in fitting))
    cpus = settings.cpus or max(1, smallest // sharers)
    if cpus > max(node["CPU"] for node in fitting):
        raise HostError(f"A worker asks for {cpus} processors, and no machine of Ray has as many.")
    return Resources(workers, gpus, cpus, sharers)


@contextmanager
def _leave_witness(run: FolderPrediction) -> Iterator[str | None]:
    """Put a file into the output folder by which workers see that it is the same one; none if the output is a URL."""
    folder = run.call.folder
    if folder is None or run.call.store is not None:
        yield None
        return
    witness = folder / f".duplus_witness-{uuid4().hex}"
    witness.touch()
    try:
        yield str(witness)
    finally:
        witness.unlink(missing_ok=True)


def _write_order(run: FolderPrediction, selection: Selection, witness: str | None, resources: Resources) -> WorkOrder:
    model, store = run.first.model, run.call.store
    if model.files is None:
        raise ModelError("A model that was made in memory cannot be given to workers. Load it from its folder.")
    predictor = model.predictor
    return WorkOrder(
        files=replace(model.files, folder=Path(os.path.abspath(model.files.folder)), folds=model.record.folds),
        predictor={
            "tile_step_size": predictor.tile_step_size,
            "use_gaussian": predictor.use_gaussian,
            "use_mirroring": predictor.use_mirroring,
            "perform_everything_on_device": predictor.perform_everything_on_device,
            "device": predictor.device,
            "verbose": False,
            "verbose_preprocessing": False,
            "allow_tqdm": False,
        },
        selection=_condense(selection, run.first.choice),
        folder=os.getcwd(),
        witness=witness,
        output=None if store is None else (store.remote, str(store.staging)),
        save_probabilities=run.call.save_probabilities,
        processors=resources.cpus,
        sharers=resources.sharers,
    )


def _condense(selection: Selection, choice: ContextChoice) -> Selection:
    """Return a selection for workers, which are given the context with each case."""
    contexts = dict.fromkeys(choice.by_case.values())
    short = ContextChoice(choice.default, {context: context for context in contexts}, choice.origin)
    return replace(selection, context=short, dicom=None, cluster=None, urls={})


def _list_cases(run: FolderPrediction, groups: Iterator[Group], order: list[str]) -> Iterator[_Asked]:
    """Yield the cases of a run one by one, and declare in its files what is asked of them."""
    for number, group in enumerate(groups, 1):
        if not group.cases:
            continue
        run.files.open_manifest(group.bound)
        run.files.declare(group.bound)
        selection = _condense(group.selection, group.bound.choice)
        for case in group.cases:
            order.append(case.name)
            if case.dicom is not None:
                why = "DICOM is not read by workers of Ray. Predict it without --ray, or write it as images first "
                run.cases += 1
                run.fail(group.bound, case, f"{why}(duplus dicom to-nifti).")
                continue
            yield _Asked(number, group, selection, case)


class _Pool:
    """The workers of a run.

    Args:
        ray: The module.
        run: The run.
        groups: Its cases.
        order: What workers are told first.
        resources: What workers ask for.
    """

    def __init__(
        self, ray: Any, run: FolderPrediction, groups: Iterator[Group], order: WorkOrder, resources: Resources
    ) -> None:
        self._ray, self._run, self._order = ray, run, order
        self._names: list[str] = []
        self._dispatcher: Dispatcher[_Worker, _Asked] = Dispatcher(
            _list_cases(run, groups, self._names), DEPTH, MOST_LOSSES
        )
        self._resources = resources
        self._actor = ray.remote(CaseWorker).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_concurrency=DEPTH, max_restarts=0
        )
        self._workers: list[_Worker] = []
        self._own = describe_run(run.first)
        self._devices: set[str] = set()
        self._last_loss = ""
        self._is_wait_explained = False

    def predict(self) -> None:
        """Predict all cases.

        Raises:
            DataError: All workers were lost, or the disk is full.
        """
        try:
            for _ in range(self._dispatcher.look(self._resources.workers)):
                self._workers.append(_Worker())
                self._start(self._workers[-1])
            while not self._dispatcher.is_done:
                self._step()
        finally:
            self._run.files.sort(self._names)
            for worker in self._workers:
                self._ray.kill(worker.actor)

    def _start(self, worker: _Worker) -> None:
        worker.actor, worker.facts = self._actor.remote(), None
        worker.loading = worker.actor.load.remote(self._order)

    def _step(self) -> None:
        """Give workers what they have room for, and receive what is ready."""
        for worker in self._workers:
            while worker.facts is not None and (task := self._dispatcher.take(worker)) is not None:
                asked = task.case
                worker.tasks[worker.actor.predict.remote(asked.number, asked.selection, asked.case)] = task
        owners = {reference: worker for worker in self._workers for reference in worker.tasks}
        owners |= {worker.loading: worker for worker in self._workers if worker.loading is not None}
        if not owners:
            raise DataError(f"All workers of Ray were lost: {self._last_loss} {self._run.describe_rest()}")
        ready, _ = self._ray.wait(list(owners), num_returns=1, timeout=_PATIENCE)
        if not ready:
            self._explain_wait()
        for reference in ready:
            self._receive(owners[reference], reference)

    def _receive(self, worker: _Worker, reference: Any) -> None:
        """Take a result of a worker, or notice that it was lost."""
        errors = self._ray.exceptions
        try:
            result = self._ray.get(reference)
        except errors.RayTaskError as error:
            self._receive_error(worker, reference, error)
        except errors.RayError as error:
            self._lose(worker, error)
        else:
            if isinstance(result, WorkerFacts):
                self._welcome(worker, result)
            else:
                self._finish(worker, reference, result)

    def _receive_error(self, worker: _Worker, reference: Any, error: Any) -> None:
        """Take an exception that a worker raised: about its model it ends the run, about a case that case.

        Raises:
            DuplusError: The worker cannot load the model.
        """
        cause = error.cause
        if reference is not worker.loading:
            self._finish(worker, reference, Outcome(error=report_failure(cause)))
        elif isinstance(cause, DuplusError):
            raise type(cause)(f"A worker of Ray cannot begin: {cause}") from error
        else:
            self._lose(worker, error)

    def _welcome(self, worker: _Worker, facts: WorkerFacts) -> None:
        """Check that a worker predicts as this process does, and let it begin.

        Raises:
            ModelError: It does not.
        """
        changes = find_decisive_changes(Manifest(self._own), facts.run)
        if changes:
            raise ModelError(
                f"The worker of Ray on {facts.host} would predict otherwise than this process: {', '.join(changes)} "
                "differ. Give all machines the same model; where precision differs, add --precision float32."
            )
        if facts.run.versions != self._own.versions:
            sys.stderr.write(f"warning: {facts.host} has other versions of programs: {dict(facts.run.versions)}.\n")
        self._devices.add(facts.run.device)
        self._run.files.hardware = ", ".join(sorted(self._devices)), facts.run.threads
        sys.stdout.write(f"A worker has started: process {facts.pid} on {facts.host}.\n")
        worker.facts, worker.loading, worker.lost = facts, None, 0

    def _finish(self, worker: _Worker, reference: Any, outcome: Outcome) -> None:
        """Record what came of a case."""
        task = worker.tasks.pop(reference)
        self._dispatcher.finish(worker, task)
        self._run.cases += 1
        if outcome.written is None:
            self._run.fail(task.case.group.bound, task.case.case, outcome.error, outcome.full_disk)
        else:
            self._run.take(task.case.group.bound, outcome.written)

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Take back the cases of a worker that was lost, and start another one in its place, a few times."""
        self._last_loss = (str(error).strip().splitlines() or [type(error).__name__])[0]
        facts, cases = worker.facts, len(worker.tasks)
        who = "A worker was lost while it began" if facts is None else f"Process {facts.pid} on {facts.host} was lost"
        sys.stderr.write(f"note: {who} ({type(error).__name__}); {cases} case(s) of it are predicted again.\n")
        worker.lost += facts is None
        worker.tasks, worker.loading, worker.facts = {}, None, None
        self._ray.kill(worker.actor)
        for task in self._dispatcher.lose(worker):
            self._run.cases += 1
            self._run.fail(
                task.case.group.bound,
                task.case.case,
                f"{task.losses} workers of Ray were lost that predicted it ({self._last_loss}). It may need more "
                "memory than there is: give a smaller --memory, or fewer --ray-workers.",
            )
        if worker.lost < MOST_RESTARTS and not self._dispatcher.is_done:
            self._start(worker)

    def _explain_wait(self) -> None:
        if self._is_wait_explained or any(worker.facts for worker in self._workers):
            return
        self._is_wait_explained = True
        asked = self._resources
        sys.stderr.write(
            f"note: No worker of Ray is ready yet. Each asks for {asked.gpus:g} GPU and {asked.cpus} processor(s), "
            "which others may be using: see `ray status`.\n"
        )
