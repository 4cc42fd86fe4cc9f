"""Measures the cost of a training step for all weights, for LoRA of three ranks, and for the two generators only.

All use the network of benchmarks/conditioning.py and the same data, and are measured alternately in one run. Reported
are medians of processor time, which is less affected by other processes than wall-clock time.

Example: python benchmarks/adaptation_steps.py --json
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch
from conditioning import Case, Setting

from duplus_nnunet.networks.adaptation import AdapterSpec, activate_adapter, attach_adapter, choose_convolutions

TARGETS = 1


def make_all(patch: int, batch: int) -> Case:
    """Make a network with all weights trained by nnU-Net's optimizer."""
    return Case("duplus", TARGETS, Setting(patch, batch))


def make_generators(patch: int, batch: int) -> Case:
    """Make a network whose encoder and decoder have a learning rate of 0, as with frozen_encoder_epochs."""
    case = make_all(patch, batch)
    named = [(name.startswith(("encoder.", "decoder.")) and ".seg_layers." not in name, value)
             for name, value in case.network.named_parameters()]  # fmt: skip
    groups = [{"params": [value for waits, value in named if waits == flag], "lr": lr}
              for flag, lr in ((True, 0.0), (False, 0.01))]  # fmt: skip
    case.optimizer = torch.optim.SGD(groups, 0.01, momentum=0.99, nesterov=True)
    return case


def make_lora(r: int, patch: int, batch: int) -> Case:
    """Make a frozen network with an adapter trained by AdamW."""
    case = make_all(patch, batch)
    network: Any = case.network
    attach_adapter(network, AdapterSpec("new", r, 2.0 * r, 0.0, choose_convolutions(network, (), r), True, True))
    network.default_adapter = "new"
    activate_adapter(network, "new")
    trainable = [value for value in network.parameters() if value.requires_grad]
    case.optimizer = torch.optim.AdamW(trainable, 3e-3)
    return case


def run(patch: int, batch: int, repeats: int) -> dict[str, Any]:
    """Time all ways alternately."""
    torch.manual_seed(0)
    cases = {"all weights": make_all(patch, batch), "generators": make_generators(patch, batch)}
    cases |= {f"lora_{r}": make_lora(r, patch, batch) for r in (4, 8, 16)}
    times: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            start = time.process_time()
            case.train()
            if repeat:  # the first step allocates memory
                times[name].append(time.process_time() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        name: {"processor_s": round(value, 3), "ratio": round(value / medians["all weights"], 3)}
        for name, value in medians.items()
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    results = run(args.patch, args.batch, args.repeats)
    lines = [
        f"{name:<12} {row['processor_s']:.3f} s, {row['ratio']:.2f} of all weights" for name, row in results.items()
    ]
    print(json.dumps(results, indent=1) if args.json else "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
