"""Plans the trainings of an experiment from its arguments, checks them, and sends them."""

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.submission.checks import (
    check_trainings,
    find_dataset,
    list_source_datasets,
    require_folders,
)
from duplus_nnunet.submission.extra import require_submitit
from duplus_nnunet.submission.record import Record, SentTask, name_state_file, write_record
from duplus_nnunet.submission.resources import Resources, choose_fold_numbers
from duplus_nnunet.submission.sending import list_devices, send
from duplus_nnunet.submission.trainings import Training, leave_finished_out, read_further
from duplus_nnunet.submission.variants import Variant, check_variant, name_plans, read_variant, write_plans

_PACKAGES = ("duplus-nnunet", "nnunetv2", "torch", "submitit")
_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer")
_FOLDER = "duplus_jobs"


@dataclass(frozen=True)
class Experiment:
    """Trainings that belong together.

    Attributes:
        kind: "folds", "sources", "ablations" or "seeds".
        folder: Folder of their jobs.
        trainings: What is to be trained.
        epochs: Number of epochs of each; None where its trainer decides.
        finished: What is trained already.
        new_plans: Plans that are written before, each with its file.
    """

    kind: str
    folder: Path
    trainings: tuple[Training, ...]
    epochs: tuple[int | None, ...]
    finished: tuple[Training, ...]
    new_plans: tuple[tuple[Path, dict[str, Any]], ...]


def plan_experiment(args: argparse.Namespace, resources: Resources) -> Experiment:
    """List and check the trainings of an experiment; nothing is written.

    Args:
        args: Parsed arguments of `duplus submit`, with further arguments of nnUNetv2_train as `more`.
        resources: What each job asks for.

    Raises:
        DuplusError: One of them cannot run.
    """
    require_submitit()
    require_folders()
    further = read_further(args.more)
    datasets = [find_dataset(dataset) for dataset in args.datasets]
    if args.kind == "sources" and len(datasets) == 1:
        datasets = [find_dataset(name) for name in list_source_datasets(datasets[0])]
    folds = choose_fold_numbers(args.folds, range(5) if args.kind == "folds" else [0])
    variants = list_variants(getattr(args, "variants", None) or [], getattr(args, "seeds", []))
    trainings, new_plans = [], {}
    for dataset, variant in product(datasets, variants):
        name = args.plans
        if variant.name:
            name = name_plans(args.plans, variant)
            made = check_variant(dataset, args.plans, variant)
            if made is not None:
                new_plans[made[0]] = made[1]
        trainings += [Training(dataset, args.configuration, fold, args.trainer, name, further) for fold in folds]
    to_send, finished = leave_finished_out(trainings)
    # Plans that are not yet written differ in their settings alone, which were checked; the rest is that of the base.
    unwritten = {(file.parent.name, file.stem) for file in new_plans}
    checked = [
        replace(training, plans=args.plans) if (training.dataset, training.plans) in unwritten else training
        for training in to_send
    ]
    epochs = list(check_trainings(checked, resources.processes))
    for index, training in enumerate(to_send):
        made_plans = [plans for file, plans in new_plans.items() if file.stem == training.plans]
        if made_plans and epochs[index] is not None:
            epochs[index] = made_plans[0]["duplus"]["settings"].get("epochs", epochs[index])
    folder = (args.output or Path(_FOLDER) / "_".join((args.kind, *args.datasets))).absolute()
    return Experiment(args.kind, folder, tuple(to_send), tuple(epochs), tuple(finished), tuple(new_plans.items()))


def list_variants(variants: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Variant]:
    """List all combinations of variants and seeds; without any, the plans as they are.

    Args:
        variants: Words of each variant: its name, then KEY=VALUE.
        seeds: Seeds, 0 or more.

    Raises:
        DataError: A seed is negative, or two variants have one name.
    """
    named = [read_variant(words) for words in variants] or [Variant("")]
    names = [variant.name for variant in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"Two variants are called {twice[0]!r}. Give each a name of its own.")
    if any(seed < 0 for seed in seeds):
        raise DataError(f"--seeds {min(seeds)}: a seed is 0 or more.")
    return [variant.with_seed(seed) for variant in named for seed in dict.fromkeys(seeds)] if seeds else named


def send_experiment(experiment: Experiment, resources: Resources) -> tuple[Path, Record]:
    """Write the plans of variants, send the trainings, and record them; return the file of the record.

    Raises:
        DuplusError: A file cannot be written, or the scheduler refuses the jobs.
    """
    from duplus_nnunet.submission.task import Order

    local = resources.executor == "local"
    devices = list_devices() if local and resources.gpus else ()
    slots = count_slots(resources, len(devices)) if local else 0
    folder = _choose_folder(experiment.folder)
    for file, plans in experiment.new_plans:
        write_plans(file, plans)
    commands = [tuple(training.write_command(resources.gpus, resources.nodes)) for training in experiment.trainings]
    variables = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    orders = [
        Order(command, training.output, name_state_file(folder, number), resources.workers, slots, resources.gpus,
              devices, variables)
        for number, (command, training) in enumerate(zip(commands, experiment.trainings, strict=True))
    ]  # fmt: skip
    tasks = tuple(
        SentTask("", training.name, command, str(training.output), epochs)
        for training, command, epochs in zip(experiment.trainings, commands, experiment.epochs, strict=True)
    )
    sent = datetime.now(UTC).isoformat(timespec="seconds")
    about = {**asdict(resources), "setup": list(resources.setup), "slurm": dict(resources.slurm)}
    record = Record(experiment.kind, sent, resources.executor, platform.node(), about, read_versions(), tasks)
    write_record(record, folder)
    jobs = send(orders, resources, folder)
    record = replace(record, tasks=tuple(replace(task, job=job) for task, job in zip(tasks, jobs, strict=True)))
    return write_record(record, folder), record


def count_slots(resources: Resources, devices: int) -> int:
    """Count the trainings that run on this machine at the same time.

    Args:
        resources: What each job asks for.
        devices: GPUs of this machine.

    Raises:
        DataError: There are fewer GPUs than the trainings need.
    """
    if not devices:
        if resources.gpus > 1:
            raise DataError(f"--gpus {resources.gpus}: this machine has no GPU that CUDA may use. Use --gpus 1.")
        return resources.parallel or 1
    most = devices // resources.gpus
    if not most or resources.parallel > most:
        raise DataError(
            f"--gpus {resources.gpus} --parallel {resources.parallel or 1}: this machine has {devices} GPUs. Ask for "
            f"{devices} at most."
        )
    return resources.parallel or most


def read_versions() -> dict[str, str]:
    """Return the versions of the packages on which a training depends, by name."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _choose_folder(folder: Path) -> Path:
    """Create a folder for the jobs; if it has a record already, one beside it with a number."""
    chosen, number = folder, 2
    while True:
        try:
            chosen.mkdir(parents=True)
            return chosen
        except FileExistsError:
            chosen, number = folder.with_name(f"{folder.name}_{number}"), number + 1
        except OSError as error:
            raise DataError(f"{folder} cannot be created: {error.strerror or error}. Name another by -o.") from error
