"""Measures the cost of conditioning relative to a stock nnU-Net network with the same number of classes.

Both networks are built from the same plans (a plain U-Net as planned by nnU-Net) and measured alternately in one run;
medians are compared. A training step includes the optimizer: ours AdamW, stock nnU-Net's SGD. Peak memory is that of a
training step; on a CPU it is measured in a separate process for each network. On a GPU both run in mixed precision, as
in nnU-Net, and compiled on request.

Examples:
  python benchmarks/conditioning.py --json
  python benchmarks/conditioning.py --device cuda --patch 128 --compile
"""

import argparse
import json
import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn

from duplus_nnunet.networks import Prompts, condition
from duplus_nnunet.trainers.loss import TargetLoss
from duplus_nnunet.trainers.optimization import make_adamw

FEATURES = (32, 64, 128, 256, 320)
E = 384


def build_unet(classes: int) -> nn.Module:
    """Build the network nnU-Net plans for 3D images, with deep supervision."""
    unet = PlainConvUNet(
        1, len(FEATURES), list(FEATURES), nn.Conv3d, 3, [1, 2, 2, 2, 2], 2, classes, 2, True, nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True}, True,
    )  # fmt: skip
    unet.apply(unet.initialize)
    return unet


def build(kind: str, targets: int) -> tuple[nn.Module, nn.Module]:
    """Build a network and its loss: stock (background and targets, softmax) or ours (one sigmoid per target)."""
    weights = [1, 0.5, 0.25, 0]
    if kind == "stock":
        loss: nn.Module = DC_and_CE_loss(
            {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {},
            dice_class=MemoryEfficientSoftDiceLoss,
        )  # fmt: skip
        return build_unet(targets + 1), DeepSupervisionWrapper(loss, weights)
    network = condition(build_unet(1), (E, 2 * E))
    network.bind(Prompts(torch.randn(1, E), torch.randn(targets, 2 * E)))
    return network, DeepSupervisionWrapper(TargetLoss(list(range(1, targets + 1)), False), weights)


@dataclass(frozen=True)
class Setting:
    """Size of the measurement: edge of a cubic patch in voxels, batch size, device, and whether to compile."""

    patch: int
    batch: int
    device: str = "cpu"
    compiled: bool = False

    def mix_precision(self) -> AbstractContextManager[Any]:
        """Compute as nnU-Net does: in mixed precision on a GPU, in float32 on a CPU."""
        return torch.autocast("cuda") if self.device == "cuda" else nullcontext()

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()


class Case:
    """One network with data of one patch size, ready to be timed."""

    def __init__(self, kind: str, targets: int, setting: Setting) -> None:
        self.setting = setting
        network, self.loss = build(kind, targets)
        self.network, self.loss = network.to(setting.device), self.loss.to(setting.device)
        self.called = torch.compile(self.network) if setting.compiled else self.network
        self.optimizer = (
            torch.optim.SGD(self.network.parameters(), 0.01, momentum=0.99, nesterov=True)
            if kind == "stock"
            else make_adamw(self.network.parameters(), 1e-3, torch.device(setting.device))
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=setting.device == "cuda")
        patch, batch = setting.patch, setting.batch
        self.image = torch.randn(batch, 1, patch, patch, patch, device=setting.device)
        sizes = [patch // 2**level for level in range(len(FEATURES) - 1)]
        made = [torch.randint(0, targets + 1, (batch, 1, s, s, s), dtype=torch.int16) for s in sizes]
        self.labels = [level.to(setting.device) for level in made]

    def train(self) -> None:
        """Run a training step."""
        self.network.train()
        self.network.decoder.deep_supervision = True
        self.optimizer.zero_grad(set_to_none=True)
        with self.setting.mix_precision():
            loss = self.loss(self.called(self.image), self.labels)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.setting.wait()

    def infer(self) -> None:
        """Run one forward pass of one patch."""
        self.network.eval()
        self.network.decoder.deep_supervision = False
        with torch.inference_mode(), self.setting.mix_precision():
            self.called(self.image[:1])
        self.setting.wait()


def time_once(call: Callable[[], None]) -> float:
    """Return seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(ours: Callable[[], None], stock: Callable[[], None], repeats: int) -> dict[str, float]:
    """Time two calls alternately; return the medians in seconds and their ratio."""
    for _ in range(2):  # compilation, selection of algorithms, allocation
        ours(), stock()
    pairs = [(time_once(ours), time_once(stock)) for _ in range(repeats)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"duplus_s": round(first, 4), "stock_s": round(second, 4), "ratio": round(first / second, 3)}


def read_peak_memory() -> float:
    """Return the peak memory of this process so far, in MiB (Linux; without that of its parent)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def measure_memory(kind: str, targets: int, setting: Setting) -> float:
    """Return the peak memory in MiB that two training steps add, in a fresh process or on the GPU."""
    torch.manual_seed(0)
    before = read_peak_memory()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    case = Case(kind, targets, setting)
    case.train(), case.train()
    after = torch.cuda.max_memory_allocated() / 2**20 if setting.device == "cuda" else read_peak_memory()
    return after - before


def measure_memories(targets: int, setting: Setting) -> dict[str, float]:
    """Measure both networks' peak memory."""
    peaks = {}
    for kind in ("duplus", "stock"):
        if setting.device == "cuda":
            peaks[kind] = measure_memory(kind, targets, setting)
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[kind] = pool.apply(measure_memory, (kind, targets, setting))
    return peaks


def run(targets: int, setting: Setting, repeats: int) -> dict[str, Any]:
    """Measure both networks for a number of targets."""
    torch.manual_seed(0)
    ours, stock = Case("duplus", targets, setting), Case("stock", targets, setting)
    result = {
        "targets": targets,
        "inference": alternate(ours.infer, stock.infer, repeats),
        "training_step": alternate(ours.train, stock.train, repeats),
    }
    del ours, stock
    peaks = measure_memories(targets, setting)
    result["peak_memory"] = {
        **{f"{kind}_mib": round(peak) for kind, peak in peaks.items()},
        "ratio": round(peaks["duplus"] / peaks["stock"], 3),
    }
    return result


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[2, 15, 60])
    parser.add_argument("--patch", type=int, default=64, help="edge of a cubic patch, voxels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile both networks, as nnU-Net does on a GPU")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    setting = Setting(args.patch, args.batch, args.device, args.compile)
    results = [run(targets, setting, args.repeats) for targets in args.targets]
    if args.json:
        where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        print(json.dumps({"device": where, "torch": torch.__version__, "results": results}, indent=1))
        return 0
    for row in results:
        cells = [f"{name} {row[name]['ratio']:.3f}" for name in ("inference", "training_step", "peak_memory")]
        print(f"{row['targets']:3d} targets, DuPLUS / stock: {', '.join(cells)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
