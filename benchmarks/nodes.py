"""Measures the time of a training step by one and by several processes that divide the same batch, on one node.

For each number of processes, torchrun starts a training of fold 0 of a dataset that is planned for DuPLUS and
preprocessed. Reported is the median wall-clock time of a step on rank 0, in s, and whether all ranks end with equal
weights, to the bit. On CPUs, each process has OMP_NUM_THREADS threads. Models are written to a temporary folder.

Example: python benchmarks/nodes.py 998 --processes 1 2 --steps 20 --device cpu
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from running import CONFIGURATION, call, find_dataset

# The first steps of each training allocate memory and choose kernels.
WARM_UP = 3
TRAINER = """
import json
import os
import time
from pathlib import Path

import torch

from duplus_nnunet.trainers import DuPLUSTrainer
from duplus_nnunet.trainers.distributed import digest_weights


class TimedTrainer(DuPLUSTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_val_iterations_per_epoch = 1, 1
        self.num_iterations_per_epoch = int(os.environ["BENCHMARK_STEPS"])
        self.times = []

    def train_step(self, batch):
        start = time.perf_counter()
        step = super().train_step(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() - start)
        return step

    def on_train_end(self):
        super().on_train_end()
        content = {"times": self.times, "weights": digest_weights(self.network), "batch": self.batch_size}
        Path(os.environ["BENCHMARK_OUT"], f"{self.local_rank}.json").write_text(json.dumps(content))

    def perform_actual_validation(self, save_probabilities=False):
        pass
"""


def measure(number: int, plans: str, processes: int, steps: int, device: str) -> dict[str, Any]:
    """Train by several processes, and return what the ranks measured."""
    with tempfile.TemporaryDirectory() as folder:
        call(
            "torchrun", "--standalone", "--nproc-per-node", processes, "-m", "duplus_nnunet.train", number,
            CONFIGURATION, 0, "-tr", "TimedTrainer", "-p", plans, "-device", device, trainers=TRAINER,
            BENCHMARK_OUT=folder, BENCHMARK_STEPS=str(steps), nnUNet_results=f"{folder}/results",
        )  # fmt: skip
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(processes)]
    times = ranks[0]["times"][WARM_UP:]
    return {
        "processes": processes,
        "images": [rank["batch"] for rank in ranks],
        "seconds per step": round(statistics.median(times), 4),
        "equal weights": len({rank["weights"] for rank in ranks}) == 1,
    }


def main() -> None:
    """Print one line of JSON for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=int, help="number of the dataset")
    parser.add_argument("-p", dest="plans", default="DuPLUSPlans", help="name of its plans")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--steps", type=int, default=20, help=f"training steps, of which the first {WARM_UP} do not count"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options = parser.parse_args()
    if options.steps <= WARM_UP:
        sys.exit(f"--steps is {options.steps}; expected more than the {WARM_UP} that do not count.")
    find_dataset(options.dataset)
    for processes in options.processes:
        print(json.dumps(measure(options.dataset, options.plans, processes, options.steps, options.device)))


if __name__ == "__main__":
    main()
