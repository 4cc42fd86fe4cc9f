"""Runs the long versions of the benchmarks on a machine with a GPU: data, plans, and trainings side by side.

Everything is kept in one folder: nnU-Net's folders, predictions, logs, and the results as JSON. A later call continues
where an earlier one ended, also in the midst of a training. Nothing is started that would not end within --minutes,
as estimated from what was measured before; with --in-parts, trainings are, and are continued by the next call.
DATA has the raw datasets 4, 50, 60, 61 and 62; parts whose datasets or scripts are not there are left out.

Examples:
  python benchmarks/long.py FOLDER --data DATA --dry-run       # prints the commands
  python benchmarks/long.py FOLDER --data DATA --processes 4 --minutes 600
  python benchmarks/long.py FOLDER --data DATA --only universal --seeds 1 --minutes 9 --in-parts
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import learning
import parity
import universal
from job_queue import Job, JobQueue

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.locks import hold

SCRIPTS = Path(__file__).parent
SPECIALISTS = ("stock", "stock_adamw")
ABLATIONS = ("full", "sgd", "no_t1", "one_hot", "no_film", "no_paraphrases")
TRANSFER = ("plain", "one_hot", "remap")
# Iterations a minute of an H100 that is shared by four trainings, of networks as nnU-Net plans them and of small ones.
PLANNED_SPEED, SMALL_SPEED = 100, 300


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        folder: Where everything is kept.
        seeds: Seeds of all trainings.
        device: "cuda" or "cpu".
        iterations: Of the universal model.
        stock_iterations: Of each specialist.
        ablation_iterations: Of each ablation.
        parity_epochs: Of each training of the parity study, of nnU-Net's 250 iterations each.
    """

    folder: Path
    seeds: tuple[int, ...]
    device: str = "cuda"
    iterations: int = 20000
    stock_iterations: int = 4000
    ablation_iterations: int = 5000
    parity_epochs: int = 1000

    @property
    def predictions(self) -> Path:
        """Folder for predictions."""
        return self.folder / "predictions"

    def find_universal(self, run: universal.Run) -> Path:
        """Return the folder of a model for all datasets, which need not be there yet."""
        dataset = f"Dataset{universal.NUMBER}_{universal.NAME}"
        return self.folder / "nnUNet_results" / dataset / f"{universal.OURS}__{run.plans}__3d_fullres"


def list_conditioning(plan: Plan) -> list[Job]:
    """Measure what conditioning costs, with nothing beside it."""
    words = ("conditioning.py", "--device", plan.device, "--json")
    patch = ("--patch", "128") if plan.device == "cuda" else ()
    return [Job("conditioning", (*words, *patch), 15, "conditioning", alone=True)]


def list_parity(plan: Plan) -> list[Job]:
    """Train on one dataset for nnU-Net's length, ours and stock."""
    jobs = [Job("parity-prepare", ("parity.py", "prepare"), 10, "parity-prepare")]
    length = ("--epochs", str(plan.parity_epochs), "--iterations", "250", "--validation-iterations", "50")
    minutes = plan.parity_epochs * 250 / SMALL_SPEED
    size = parity.Size(4, plan.parity_epochs, 250, 50, 2)
    for seed in plan.seeds:
        for run in [parity.Run(kind, fold, seed, size) for fold in (0, 1) for kind in parity.RUNS]:
            where = ("--folds", str(run.fold), "--seeds", str(seed), "--device", plan.device)
            words = ("parity.py", "train", run.kind, *where, *length)
            name = f"{run.plans}-fold_{run.fold}"
            jobs.append(Job(name, words, minutes, f"parity-{plan.parity_epochs}", ("parity-prepare",), resumable=True))
    return jobs


def list_universal(plan: Plan) -> list[Job]:
    """Train one model for five datasets and five specialists, with nnU-Net's planned features."""
    jobs = [Job("universal-prepare", ("universal.py", "prepare"), 30, "universal-prepare")]
    for seed in plan.seeds:
        jobs += pair_universal(plan, universal.Run("universal", seed, plan.iterations, True))
        for name in SPECIALISTS:
            jobs += pair_universal(plan, universal.Run(name, seed, plan.stock_iterations, True))
    return jobs


def list_ablations(plan: Plan) -> list[Job]:
    """Train the ablations, with the small network of universal.py."""
    jobs = [Job("universal-prepare", ("universal.py", "prepare"), 30, "universal-prepare")]
    for seed in plan.seeds:
        for name in ABLATIONS:
            jobs += pair_universal(plan, universal.Run(name, seed, plan.ablation_iterations, False))
    return jobs


def pair_universal(plan: Plan, run: universal.Run) -> list[Job]:
    """Train a model of universal.py, then predict and score the test images with it."""
    each = ("--iterations" if run.is_ours else "--stock-iterations", str(run.iterations))
    planned = ("--planned",) if run.planned else ()
    words = (run.name, "--seeds", str(run.seed), *each, *planned, "--device", plan.device)
    speed = PLANNED_SPEED if run.planned else SMALL_SPEED
    minutes = run.iterations * (1 if run.is_ours else len(universal.SOURCES)) / speed
    kind = f"{'ours' if run.is_ours else 'stock'}-{run.iterations}-{run.planned}"
    train, score = f"universal-{run.plans}", f"universal-{run.plans}-score"
    options = ("--out", str(plan.predictions))
    return [
        Job(train, ("universal.py", "train", *words), minutes, kind, ("universal-prepare",), resumable=True),
        Job(score, ("universal.py", "score", *words, *options), 15, f"score-{run.planned}", (train,), resumable=True),
    ]


def list_implausible(plan: Plan) -> list[Job]:
    """Train with and without negative prompts, and ask both for targets of other regions."""
    jobs = [Job("universal-prepare", ("universal.py", "prepare"), 30, "universal-prepare")]
    for seed in plan.seeds:
        runs = [universal.Run(name, seed, plan.ablation_iterations, False) for name in ("negatives", "full")]
        pairs = [pair_universal(plan, run) for run in runs]
        jobs += [job for pair in pairs for job in pair]
        models = [str(plan.find_universal(run)) for run in runs]
        options = ("-d", str(universal.NUMBER), "--device", plan.device)
        words = ("implausible.py", *models, *options, "--out", str(plan.predictions / f"implausible-{seed}"))
        needs = tuple(pair[0].name for pair in pairs)
        jobs.append(Job(f"implausible-{seed}", words, 20, "implausible", needs))
    return jobs


def list_learning(plan: Plan) -> list[Job]:
    """Train each choice of learning.py, in nnU-Net folders of its own, since its split and plans are others."""
    jobs = []
    for data in ("hippocampus", "contrasts"):
        prepare = f"learning-{data}-prepare"
        jobs.append(Job(prepare, ("learning.py", "prepare", data), 10, prepare))
        for seed in plan.seeds:
            for variant in learning.VARIANTS:
                words = ("learning.py", "train", data, variant, "--seeds", str(seed), "--device", plan.device)
                name, kind = f"learning-{learning.name_plans(data, variant, seed)}", f"learning-{data}"
                jobs.append(Job(name, words, 5, kind, (prepare,), resumable=True))
    # Compiling takes longer than such a training.
    variables = {**name_folders(plan.folder / "learning"), "nnUNet_compile": "f"}
    return [replace(job, variables=variables) for job in jobs]


def list_transfer(plan: Plan) -> list[Job]:
    """Train on bodies whose contrasts lack targets, in nnU-Net folders of its own, since it generates other data."""
    jobs = [Job("transfer-prepare", ("transfer.py", "prepare"), 10, "transfer-prepare")]
    for seed in plan.seeds:
        for variant in TRANSFER:
            words, name = (variant, "--seeds", str(seed), "--device", plan.device), f"transfer-{variant}-{seed}"
            train = ("transfer.py", "train", *words)
            jobs.append(Job(name, train, 15, "transfer", ("transfer-prepare",), resumable=True))
            jobs.append(Job(f"{name}-score", ("transfer.py", "score", *words), 5, "transfer-score", (name,)))
    variables = name_folders(plan.folder / "transfer")
    return [replace(job, variables=variables) for job in jobs]


@dataclass(frozen=True)
class Part:
    """One benchmark: what lists its jobs, its script beside those that are always there, and datasets it needs."""

    list_jobs: Callable[[Plan], list[Job]]
    script: str
    datasets: tuple[int, ...] = ()


PARTS = {
    "conditioning": Part(list_conditioning, "conditioning.py"),
    "universal": Part(list_universal, "universal.py", universal.SOURCES),
    "ablations": Part(list_ablations, "universal.py", universal.SOURCES),
    "implausible": Part(list_implausible, "implausible.py", universal.SOURCES),
    "transfer": Part(list_transfer, "transfer.py"),
    "learning": Part(list_learning, "learning.py", (4,)),
    "parity": Part(list_parity, "parity.py", (4,)),
}


def list_reports(plan: Plan) -> list[Job]:
    """List the commands that read what is there, as JSON."""
    seeds = ("--seeds", *map(str, plan.seeds))
    out = (*seeds, "--out", str(plan.predictions))
    long = ("--planned", "--iterations", str(plan.iterations), "--stock-iterations", str(plan.stock_iterations))
    length = ("--epochs", str(plan.parity_epochs), "--iterations", "250", "--validation-iterations", "50")
    ablations = ("--iterations", str(plan.ablation_iterations))
    commands = {
        "universal": ("universal.py", "report", "universal", *SPECIALISTS, *out, *long),
        "ablations": ("universal.py", "report", *ABLATIONS, *out, *ablations),
        "implausible": ("universal.py", "report", "negatives", "full", *out, *ablations),
        "learning-hippocampus": ("learning.py", "report", "hippocampus", *seeds),
        "learning-contrasts": ("learning.py", "report", "contrasts", *seeds),
        "parity": ("parity.py", "report", *seeds, *length),
    }
    rooms = {"learning": name_folders(plan.folder / "learning")}
    return [
        Job(f"report-{name}", words, 1, "report", variables=rooms.get(name.split("-")[0], {}))
        for name, words in commands.items()
    ]


def name_folders(folder: Path) -> dict[str, str]:
    """Return the variables of nnU-Net's three folders."""
    return {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}


def list_lacks(part: Part, data: Path) -> list[str]:
    """List what a part needs and does not find."""
    lacks = [] if (SCRIPTS / part.script).is_file() else [f"benchmarks/{part.script}"]
    return lacks + [f"Dataset{n:03d}_* in {data}" for n in part.datasets if not any(data.glob(f"Dataset{n:03d}_*"))]


def set_up(plan: Plan, data: Path, processes: int) -> None:
    """Make nnU-Net's folders, link the raw datasets, and share the processor cores."""
    os.environ.update(name_folders(plan.folder))
    for folder in (plan.folder, plan.folder / "transfer", plan.folder / "learning"):
        for name in name_folders(folder).values():
            Path(name).mkdir(parents=True, exist_ok=True)
        for number in universal.SOURCES:
            for source in data.resolve().glob(f"Dataset{number:03d}_*"):
                link = folder / "nnUNet_raw" / source.name
                if not link.exists():
                    link.symlink_to(source)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = str(max(1, cores // processes - 1))
    common = {"nnUNet_n_proc_DA": workers, "nnUNet_def_n_proc": str(max(2, int(workers)))}
    for name, value in {**common, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}.items():
        os.environ.setdefault(name, value)


def report(plan: Plan, parts: list[str]) -> list[str]:
    """Write the reports of the parts of which trainings are there, and say where they are."""
    lines = []
    for job in list_reports(plan):
        if not any(job.name.startswith(f"report-{part}") for part in parts):
            continue
        environment = {**os.environ, **job.variables}
        done = subprocess.run(job.command, capture_output=True, text=True, env=environment)
        file = plan.folder / "results" / f"{job.name}.json"
        if done.returncode:
            lines.append(f"{job.name}: nothing to report ({(done.stderr.strip().splitlines() or ['?'])[-1]})")
            continue
        content = json.loads(done.stdout)
        if any(content.get(key) for key in ("models", "variants", "trainings")):
            file.write_text(json.dumps(content, indent=1))
            lines.append(f"{job.name}: {file}")
    return lines


def list_jobs(plan: Plan, parts: list[str], data: Path) -> tuple[list[Job], dict[str, str]]:
    """List the jobs of some parts, each once, and for each part that is left out the reason."""
    jobs: dict[str, Job] = {}
    left_out = {}
    for name in parts:
        if lacks := list_lacks(PARTS[name], data):
            left_out[name] = f"{name} is left out: there is no {', no '.join(lacks)}"
        else:
            jobs |= {job.name: job for job in PARTS[name].list_jobs(plan)}
    return list(jobs.values()), left_out


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--data", type=Path, required=True, help="folder of the raw datasets")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="parts (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=4, help="trainings side by side (default: 4)")
    parser.add_argument("--minutes", type=float, help="time limit (default: none)")
    parser.add_argument("--in-parts", action="store_true", help="start trainings that do not fit, and continue them")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--iterations", type=int, default=Plan.iterations, help="universal model (20,000)")
    parser.add_argument("--stock-iterations", type=int, default=Plan.stock_iterations, help="a specialist (4,000)")
    parser.add_argument("--ablation-iterations", type=int, default=Plan.ablation_iterations, help="ablation (5,000)")
    parser.add_argument("--parity-epochs", type=int, default=Plan.parity_epochs, help="of 250 iterations (1,000)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are not done, and run nothing")
    args = parser.parse_args()
    if args.processes < 1:
        parser.error(f"--processes is {args.processes}; expected 1 or more")
    return args


def main() -> int:
    """Run what is not done, write the reports, and print a summary."""
    args = read_arguments()
    lengths = (args.iterations, args.stock_iterations, args.ablation_iterations, args.parity_epochs)
    plan = Plan(args.folder.resolve(), tuple(args.seeds), args.device, *lengths)
    jobs, left_out = list_jobs(plan, args.only, args.data)
    if args.dry_run:
        for job in jobs:
            if not (plan.folder / "results" / f"{job.name}.json").is_file():
                print(f"python benchmarks/{' '.join(job.words)}  # {job.minutes:.0f} min")
        print("\n".join(left_out.values()))
        return 0
    set_up(plan, args.data, args.processes)
    try:
        with hold(plan.folder, "running benchmarks in", "Wait for it, or choose another folder."):
            queue = JobQueue(plan.folder, jobs, args.processes, args.minutes, args.in_parts)
            queue.run()
            reports = report(plan, [name for name in args.only if name not in left_out])
    except DuplusError as error:
        sys.exit(str(error))
    print("\n".join([*queue.summarise(), *left_out.values(), *reports]))
    return int(bool(queue.failed or left_out))


if __name__ == "__main__":
    sys.exit(main())
