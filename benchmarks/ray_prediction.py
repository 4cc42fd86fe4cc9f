"""Measures prediction by workers of Ray beside the plain prediction: images a second, results, and a lost worker.

Small images (blocks cut from the bodies of `duplus example`) are predicted by the shipped model: by the plain command,
by one worker and by two, and by two of which one is killed in mid-run. Each run is a new process. Label maps,
statistics and the manifest's entries are compared with those of the plain run.

Examples:
  python benchmarks/ray_prediction.py --json benchmarks/results/ray_prediction.json
  python benchmarks/ray_prediction.py --images 12 --edge 24    # small and quick
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.data.phantom import save_volume
from duplus_nnunet.example.folder import read_record, write_example
from duplus_nnunet.example.sources import EXAMPLE_SOURCES, make_unseen_body

# Different bodies; further images are other blocks of them.
BODIES = 4
TARGETS = ("liver", "left kidney", "right kidney")
# Entries of the manifest that depend on when and where a case was predicted.
BY_RUN = ("seconds", "finished")
_STARTED = re.compile(r"A worker has started: process (\d+) on ")
_FINISHED = re.compile(r"case (\d+) of \d+: ")


@dataclass
class Run:
    """What was seen of one prediction.

    Attributes:
        out: Its folder.
        code: Exit code.
        seconds: Duration of the whole command, in s.
        times: When each case was finished, in s after the first worker or the command began.
        workers: Numbers of the processes of workers, in the order in which they began.
        killed: The one that was killed; None if none was.
        load: Mean number of processes that wanted to run on the machine, before and after.
    """

    out: Path
    code: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    killed: int | None = None
    load: tuple[float, float] = (0.0, 0.0)


def write_images(folder: Path, number: int, edge: int) -> None:
    """Write cubic blocks of bodies in all contrasts, and the table of their contexts."""
    record, contexts = read_record(), {}
    bodies = [
        (source, make_unseen_body(source, body, record.seed)) for body in range(BODIES) for source in EXAMPLE_SOURCES
    ]
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for index in range(number):
        source, body = bodies[index % len(bodies)]
        start = [int(random.integers(0, max(1, size - edge))) for size in body.image.shape]
        block = body.image[tuple(slice(first, first + edge) for first in start)]
        save_volume(block, body.affine, folder / "images" / f"case{index:03d}_0000.nii.gz")
        contexts[f"case{index:03d}"] = source.context
    (folder / "contexts.json").write_text(json.dumps(contexts))


def predict(folder: Path, name: str, *options: str, kill_after: int | None = None) -> Run:
    """Predict all images by the command, and kill its first worker after a number of finished cases."""
    words = ["predict", "-m", folder / "example" / "model", "-i", folder / "images", "-o", folder / name, "-f", "0"]
    words += ["--context", folder / "contexts.json", "--targets", *TARGETS, "--statistics", "-device", "cpu"]
    words += ["-step_size", "1", "--disable_tta", "--disable_progress_bar", "-npp", "1", "-nps", "1", *options]
    program = "import sys; from duplus_nnunet.cli import main; sys.exit(main())"
    command = [sys.executable, "-u", "-c", program, *map(str, words)]
    variables = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "nnUNet_def_n_proc": "1"}
    run, before, began = Run(folder / name), os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    first = 0.0
    for line in process.stdout:
        if found := _STARTED.match(line):
            first = first or time.perf_counter()
            run.workers.append(int(found[1]))
        elif _FINISHED.match(line):
            run.times.append(time.perf_counter() - (first or began))
        if kill_after is not None and run.killed is None and len(run.times) >= kill_after:
            run.killed = run.workers[0]
            os.kill(run.killed, signal.SIGKILL)
    run.code = process.wait()
    run.seconds, run.load = time.perf_counter() - began, (before, os.getloadavg()[0])
    return run


def compare(plain: Path, other: Path, cases: int) -> dict[str, Any]:
    """Compare the files of two runs."""
    names = [f"case{index:03d}" for index in range(cases)]
    first, second = (json.loads((folder / "manifest.json").read_text())["cases"] for folder in (plain, other))
    maps = [f"{name}.nii.gz" for name in names]
    return {
        "complete": sum(second.get(name, {}).get("status") == "complete" for name in names),
        "label_maps_equal": sum(_is_equal(plain / name, other / name) for name in maps),
        "statistics_equal": _is_equal(plain / "statistics.json", other / "statistics.json"),
        "manifest_entries_equal": sum(_strip(first[name]) == _strip(second.get(name, {})) for name in names),
        "files_besides": sorted({path.name for path in other.iterdir()} ^ {path.name for path in plain.iterdir()}),
    }


def _is_equal(first: Path, second: Path) -> bool:
    return second.is_file() and first.read_bytes() == second.read_bytes()


def _strip(record: dict[str, Any]) -> dict[str, Any]:
    outputs = [{**output, "modified": None} for output in record.get("outputs", ())]
    return {**{key: value for key, value in record.items() if key not in BY_RUN}, "outputs": outputs}


def describe(run: Run) -> dict[str, Any]:
    """Describe a run; the rate is that of the last 80 % of cases, when all workers have begun."""
    start = len(run.times) // 5
    rest = run.times[start:]
    rate = (len(rest) - 1) / (rest[-1] - rest[0]) if len(rest) > 1 and rest[-1] > rest[0] else None
    return {
        "exit_code": run.code,
        "seconds": round(run.seconds, 1),
        "images_per_second": None if rate is None else round(rate, 2),
        "seconds_of_cases": round(run.times[-1], 1) if run.times else None,
        "workers_started": len(run.workers),
        "killed": run.killed is not None,
        "load_before_and_after": [round(load, 1) for load in run.load],
    }


def measure(folder: Path, images: int, edge: int) -> dict[str, Any]:
    """Run all predictions; returns the table."""
    write_example(folder / "example")
    write_images(folder, images, edge)
    runs = {"plain": predict(folder, "plain")}
    for name, workers, kill_after in (("1 worker", 1, None), ("2 workers", 2, None), ("one killed", 2, images // 4)):
        options = ("--ray", "--ray-workers", str(workers), "--cpus-per-worker", "1")
        runs[name] = predict(folder, name.replace(" ", "_"), *options, kill_after=kill_after)
    table = {name: describe(run) for name, run in runs.items()}
    for name, run in runs.items():
        if name != "plain":
            table[name] |= compare(runs["plain"].out, run.out, images)
    return table


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="number of images. Default: %(default)s")
    parser.add_argument("--edge", type=int, default=32, help="edge of an image in voxels. Default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON")
    args = parser.parse_args()
    import ray
    import torch

    with tempfile.TemporaryDirectory() as folder:
        table = measure(Path(folder), args.images, args.edge)
    content = {
        "machine": {"processors": os.cpu_count(), "system": platform.system()},
        "note": "Loads are of processes that wanted to run: above about 2 before a run, other programs used the "
        "machine, and rates are not exact. Rates are those of the last 80 % of cases.",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "ray": ray.__version__},
        "images": args.images,
        "edge": args.edge,
        "runs": table,
    }
    text = json.dumps(content, indent=1)
    print(text)
    if args.json:
        Path(args.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
