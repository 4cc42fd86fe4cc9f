"""`duplus submit`: send folds, sources, ablations and seeds as jobs, and show how far they are."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.command_map import CommandMap, Group
from duplus_nnunet.errors import DataError
from duplus_nnunet.text_table import format_table

if TYPE_CHECKING:
    from duplus_nnunet.submission.experiments import Experiment
    from duplus_nnunet.submission.resources import Resources

_DESCRIPTION = """\
Send trainings as jobs of a SLURM array, one training a task, and write down what was sent. A training that reaches its
time limit or is preempted is queued again, and continues from its last checkpoint. What cannot run is refused before
anything is sent; what is trained already is left out. Needs the extra `cluster`.
"""
_EXAMPLE = """\
examples:
  duplus submit folds 4 --dry-run            show the script and the commands; SLURM is not needed
  duplus submit status duplus_jobs/folds_4   what runs, is finished or failed
"""
GROUPS = (
    Group(
        "Send trainings",
        {
            "folds": "train the folds of a dataset",
            "sources": "train one model for each source of a composed dataset, or for each of several datasets",
            "ablations": "train one model for each variant of the settings in the plans",
            "seeds": "train one model for each seed",
        },
    ),
    Group("Follow them", {"status": "show what waits, runs, is finished or failed, and how many epochs are trained"}),
)
_EXAMPLES = {
    "folds": """\
  duplus submit folds 4 --dry-run            show the script and the commands; SLURM is not needed
  duplus submit folds 4 --folds 0 1 2 --partition gpu --time 36h --cpus 12
  duplus submit folds 4 --executor local     on this machine, one training after another on each GPU
  duplus submit folds 4 -- --npz             arguments of nnUNetv2_train follow `--`
""",
    "sources": """\
  duplus submit sources 501 -tr nnUNetTrainer -p nnUNetPlans    specialists beside one model for all
  duplus submit sources 4 50 60 --folds 0 1 2 3 4
""",
    "ablations": """\
  duplus submit ablations 501 --variant full --variant no_film network.film=false --seeds 1 2 3
  duplus submit ablations 501 --variant short epochs=250 optimizer=sgd --dry-run
""",
    "seeds": "  duplus submit seeds 4 --seeds 1 2 3 --folds 0 1",
    "status": """\
  duplus submit status duplus_jobs/folds_4
  duplus submit status duplus_jobs/folds_4/jobs.json --json
""",
}
_LINES = 10


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command and those below it."""
    parser = subparsers.add_parser("submit", description=_DESCRIPTION, epilog=_EXAMPLE)
    commands = CommandMap(parser, GROUPS)
    for kind in GROUPS[0].commands:
        below = commands.add(kind, _EXAMPLES[kind])
        _add_trainings(below, kind)
        _add_resources(below)
        below.set_defaults(run=run, kind=kind, takes_more=True)
    status = commands.add(
        "status",
        _EXAMPLES["status"],
        "Show the state of jobs, the epochs that are trained, and the end of the log of those that failed. The exit "
        "code is 1 if a training failed or was lost.",
    )
    status.add_argument("record", type=Path, metavar="FILE", help="jobs.json that `duplus submit` wrote, or its folder")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=show_status)


def _add_trainings(parser: argparse.ArgumentParser, kind: str) -> None:
    add = parser.add_argument_group("trainings").add_argument
    several = kind == "sources"
    parser.add_argument(
        "datasets",
        nargs="+" if several else 1,
        metavar="DATASET",
        help="number or name of a preprocessed dataset" + ("; of a composed one, its sources" if several else ""),
    )
    default = "0 1 2 3 4" if kind == "folds" else "0"
    add("--folds", nargs="+", default=[], metavar="FOLD", help=f"numbers, or all (default: {default})")
    add("-c", "--configuration", default="3d_fullres", metavar="NAME", help="default: %(default)s")
    add("-tr", "--trainer", default="DuPLUSTrainer", metavar="NAME", help="trainer class (default: %(default)s)")
    add("-p", "--plans", default="DuPLUSPlans", metavar="NAME", help="name of the plans (default: %(default)s)")
    if kind == "ablations":
        add(
            "--variant",
            dest="variants",
            action="append",
            nargs="+",
            required=True,
            metavar=("NAME", "KEY=VALUE"),
            help="name and changed settings of a variant, which is written as plans PLANS_NAME; may be repeated",
        )
    if kind in ("ablations", "seeds"):
        help_ = "seeds; each is written as plans of its own"
        add("--seeds", nargs="+", type=int, default=[], required=kind == "seeds", metavar="SEED", help=help_)


def _add_resources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("jobs").add_argument
    add("--executor", choices=("slurm", "local"), default="slurm", help="SLURM, or this machine (default: %(default)s)")
    add("--dry-run", action="store_true", help="check all, show what would be sent, and write nothing")
    add("-o", "--output", type=Path, metavar="FOLDER", help="folder of jobs.json and logs, which all nodes see "
        "(default: duplus_jobs/KIND_DATASET)")  # fmt: skip
    add("--partition", default="", metavar="NAME", help="partition of SLURM")
    add("--account", default="", metavar="NAME", help="account of SLURM")
    add("--gpus", type=int, default=1, metavar="N", help="GPUs of each training, on each node (default: %(default)s)")
    add("--nodes", type=int, default=1, metavar="N", help="nodes of each training (default: %(default)s)")
    add("--cpus", type=int, default=8, metavar="N", help="CPU cores for each GPU (default: %(default)s)")
    add("--mem", type=float, default=32, metavar="GB", help="memory on each node, GB (default: %(default)s)")
    add("--time", metavar="TIME", help="time limit, such as 24:00:00, 36h or 2d, after which a job is queued again "
        "(default: 24h; none on this machine)")  # fmt: skip
    add("--requeues", type=int, default=20, metavar="N", help="how often, at most (default: %(default)s)")
    add("--parallel", type=int, default=0, metavar="N", help="trainings at the same time (default: all; here, "
        "as many as have GPUs, or 1)")  # fmt: skip
    add("--setup", action="append", default=[], metavar="COMMAND", help="shell command before each training, such as "
        "'module load cuda'; may be repeated")  # fmt: skip
    add("--slurm", action="append", default=[], metavar="KEY=VALUE", help="further option of sbatch, such as qos=high; "
        "may be repeated")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check trainings, and send them or show what would be sent."""
    from duplus_nnunet.submission.experiments import plan_experiment, send_experiment
    from duplus_nnunet.submission.sending import require_slurm, write_script

    resources = read_resources(args)
    experiment = plan_experiment(args, resources)
    for training in experiment.finished:
        print(f"trained already, and left out: {training.name}")
    if not experiment.trainings:
        print("Nothing was sent.")
        return 0
    if args.dry_run:
        if resources.executor == "slurm":
            print(write_script(len(experiment.trainings), resources, experiment.folder))
        print("\n".join(_describe(experiment, resources)))
        print("Nothing was sent.")
        return 0
    if resources.executor == "slurm":
        require_slurm()
    file, record = send_experiment(experiment, resources)
    print("\n".join(format_table([("job", "training"), *((task.job, task.name) for task in record.tasks)], align="<<")))
    print(f"Wrote {file}. Then run: duplus submit status {file}")
    return 0


def read_resources(args: argparse.Namespace) -> "Resources":
    """Read what each job asks for from parsed arguments."""
    from duplus_nnunet.submission.resources import UNLIMITED_MIN, Resources, read_minutes, read_slurm_options

    if args.executor == "local" and (args.slurm or args.partition or args.account):
        raise DataError(
            "--partition, --account and --slurm are options of SLURM. Leave them out with --executor local."
        )
    default = UNLIMITED_MIN if args.executor == "local" else 1440
    return Resources(
        executor=args.executor,
        gpus=args.gpus,
        nodes=args.nodes,
        cpus=args.cpus,
        memory_gb=args.mem,
        minutes=read_minutes(args.time) if args.time else default,
        parallel=args.parallel,
        requeues=args.requeues,
        partition=args.partition,
        account=args.account,
        setup=tuple(args.setup),
        slurm=read_slurm_options(args.slurm),
    )


def show_status(args: argparse.Namespace) -> int:
    """Show the state of what was sent."""
    import json
    from dataclasses import asdict

    from duplus_nnunet.submission.record import read_record
    from duplus_nnunet.submission.status import find_folder, read_status

    record = read_record(args.record)
    rows = read_status(record, find_folder(args.record))
    bad = [row for row in rows if row.is_bad]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return int(bool(bad))
    table = [("job", "training", "state", "epoch", "since", "node")]
    table += [(row.job, row.name, row.state, row.progress, row.since, row.host) for row in rows]
    print("\n".join(format_table(table, align="<<<><<")))
    for row in bad:
        print(f"\n{row.name}: the end of {row.log}:")
        print("\n".join(f"  {line}" for line in row.end[-_LINES:]) or "  there is no log")
    if bad:
        print("\nAfter the cause is removed, send the same again: trainings continue from their last checkpoint.")
    return int(bool(bad))


def _describe(experiment: "Experiment", resources: "Resources") -> Iterator[str]:
    """Describe what would be sent: plans that would be written, and the command of each task."""
    from duplus_nnunet.submission.trainings import continue_command

    for file, _ in experiment.new_plans:
        yield f"would write {file}"
    rows: list[Sequence[str]] = []
    for number, training in enumerate(experiment.trainings):
        words = continue_command(training.write_command(resources.gpus, resources.nodes), training.output)
        rows.append((f"task {number}:", " ".join(words)))
    yield from format_table(rows, align="<<")
