"""Compares the cost of prediction of stock nnU-Net and DuPLUS, for 60 targets and for three of them.

A phantom image of 256x256x200 voxels of 0.8 mm is predicted by models planned at 1.5 mm with nnU-Net's command, each
time in a new process. Networks have the planned size and random weights: their forward passes are run and timed, then
their logits are replaced by those of 60 organ-like balls, the same for all models, so that resampling and export work
as with a trained model. Masks are compared, also on a second image with thick slices.

Examples:
  python benchmarks/prediction.py --json
  python benchmarks/prediction.py --shape 96 96 80 --patch 48    # small and quick
  python benchmarks/prediction.py --device cuda --patch 128
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUMBER, NAME = 777, "Dataset777_TotalSegmentator"
TARGETS = 60
FEW = 3
SPACING = 1.5
IMAGE_SPACING = 0.8
THICK = 5.0
STOCK, OURS = ("nnUNetTrainer", "ExperimentPlanner", "nnUNetPlans"), ("DuPLUSTrainer", "DuPLUSPlanner", "DuPLUSPlans")
FOLDERS = ("raw", "preprocessed", "results")


@dataclass(frozen=True)
class Setting:
    """Size of the measurement.

    Attributes:
        shape: Voxels of the image along (x, y, z).
        patch: Edge of a cubic patch.
        targets: Names of the targets, in the order of their label values.
        device: nnU-Net's -device.
    """

    shape: tuple[int, int, int]
    patch: int
    targets: tuple[str, ...]
    device: str = "cpu"


def list_targets() -> tuple[str, ...]:
    """List labels of TotalSegmentator in the shipped registry."""
    from duplus_nnunet.prompt_registry.finding import SHIPPED_FOLDER
    from duplus_nnunet.prompt_registry.registry_file import load_registry_file

    known = load_registry_file(SHIPPED_FOLDER / "totalsegmentator_ct.yaml").labels
    return tuple(labels[0] for labels in known.values())[:TARGETS]


def write_dataset(raw: Path, setting: Setting) -> None:
    """Write five small training cases, used for planning only."""
    import SimpleITK

    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (raw / NAME / part).mkdir(parents=True)
    for number in range(5):
        labels = np.kron(rng.integers(0, len(setting.targets) + 1, (8, 8, 8)), np.ones((12, 12, 12))).astype(np.uint8)
        image = (labels * 10.0 + rng.normal(0, 20, labels.shape)).astype(np.float32)
        for values, file in ((image, f"imagesTr/c{number}_0000.nii.gz"), (labels, f"labelsTr/c{number}.nii.gz")):
            written = SimpleITK.GetImageFromArray(values)
            written.SetSpacing([SPACING] * 3)
            SimpleITK.WriteImage(written, str(raw / NAME / file))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: value for value, name in enumerate(setting.targets, 1)}},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (raw / NAME / "dataset.json").write_text(json.dumps(content))


def write_image(folder: Path, setting: Setting, thickness: float) -> None:
    """Write an image of a body in air with a slice thickness in mm; thicker slices are fewer."""
    import SimpleITK

    rng = np.random.default_rng(1)
    x, y, z = setting.shape
    spacing = (IMAGE_SPACING, IMAGE_SPACING, thickness)
    sizes = (round(z * IMAGE_SPACING / thickness), y, x)
    grids = np.meshgrid(*(np.linspace(-1, 1, size) for size in sizes), indexing="ij")
    body = grids[1] ** 2 + grids[2] ** 2 < 0.7
    image = SimpleITK.GetImageFromArray((np.where(body, 40, -1000) + rng.normal(0, 20, sizes)).astype(np.float32))
    image.SetSpacing(spacing)
    folder.mkdir(parents=True)
    SimpleITK.WriteImage(image, str(folder / "phantom_0000.nii.gz"))


def call(*words: object) -> None:
    """Run a command of this environment; its output goes to stderr."""
    script = Path(sys.executable).with_name(str(words[0]))
    subprocess.run([str(script), *map(str, words[1:])], check=True, stdout=sys.stderr)


def make_model(kind: tuple[str, str, str], setting: Setting) -> Path:
    """Plan a model with nnU-Net's command and save it with random weights."""
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer, planner, plans_name = kind
    call("nnUNetv2_plan_experiment", "-d", NUMBER, "-pl", planner)
    file = Path(os.environ["nnUNet_preprocessed"]) / NAME / f"{plans_name}.json"
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["patch_size"], configuration["spacing"] = [setting.patch] * 3, [SPACING] * 3
    for context in plans.get("duplus", {}).get("contexts", {}).values():
        context["spacing"] = [SPACING] * 3
    file.write_text(json.dumps(plans))
    call("nnUNetv2_preprocess", "-d", NUMBER, "-plans_name", plans_name, "-c", "3d_fullres", "-np", 2)
    training = get_trainer_from_args(str(NUMBER), "3d_fullres", 0, trainer, plans_name, device=torch.device("cpu"))
    training.initialize()
    folder = Path(training.output_folder)
    training.save_checkpoint(str(folder / "checkpoint_final.pth"))
    for name, content in (("plans.json", plans), ("dataset.json", training.dataset_json)):
        (folder.parent / name).write_text(json.dumps(content))
    return folder.parent


def make_logits(shape: tuple[int, ...], values: list[int]) -> torch.Tensor:
    """Make float16 logits (K, d, h, w): zeros for value 0, for others a ball with a smooth rim like an organ."""
    logits = torch.zeros((len(values), *shape), dtype=torch.half)
    for channel, value in zip(logits, values, strict=True):
        if value:
            rng = np.random.default_rng(value)
            centre, radius = [rng.uniform(0.2, 0.8) * size for size in shape], rng.uniform(4, 14)
            axes = np.ogrid[tuple(slice(0, size) for size in shape)]
            squares = sum(np.square(axis - middle, dtype=np.float32) for axis, middle in zip(axes, centre, strict=True))
            channel.copy_(torch.from_numpy(np.clip(3 * (radius - np.sqrt(squares)), -12, 12)))
    return logits


def take_wanted(logits: torch.Tensor, predictor: Any) -> torch.Tensor:
    """Return the logits (K, N) of those voxels alone that the predictor was asked for, if it was not of all."""
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    walk = getattr(predictor, "_walk", None)
    if walk is None or walk.voxels is None:
        return logits
    padded = pad_nd_image(logits, predictor.configuration_manager.patch_size, "constant", {"value": 0}, False)
    return torch.as_tensor(padded)[(slice(None), *walk.voxels.box)][:, torch.from_numpy(walk.voxels.mask)]


def predict(model: Path, images: Path, out: Path, device: str, targets: str) -> None:
    """Run nnU-Net's command in this process with replaced logits; prints the seconds of each stage.

    "Export" is everything after the logits, "rest" everything but the network: loading, reading, resampling, export.
    """
    from nnunetv2.inference import predict_from_raw_data

    names = json.loads((model / "dataset.json").read_text())["labels"]
    seconds: dict[str, float] = {}
    logits_there, answered = [0.0], [0]
    host = predict_from_raw_data.nnUNetPredictor
    network = host.predict_logits_from_preprocessed_data

    def answer(self: Any, data: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        shape = network(self, data).shape
        seconds["network"] = seconds.get("network", 0.0) + time.perf_counter() - started
        started = time.perf_counter()
        declared = names
        if "DuPLUS" in self.trainer_name:
            asked = {name: value for name, value in self.bound.declare_all()["labels"].items() if name != "background"}
            # Then come the others of the context, in the order of the labels, where voxels are settled against them.
            others = {name: value for name, value in names.items() if name not in asked and name != "background"}
            declared = dict([*asked.items(), *others.items()][answered[0] : answered[0] + shape[0]])
            answered[0] += shape[0]
        logits = take_wanted(make_logits(tuple(data.shape[1:]), list(declared.values())), self)
        if logits.shape != shape:
            raise RuntimeError(f"The network gave {tuple(shape)} instead of {tuple(logits.shape)}.")
        logits_there[0] = time.perf_counter()
        seconds["aside"] = seconds.get("aside", 0.0) + logits_there[0] - started
        return logits

    host.predict_logits_from_preprocessed_data = answer
    options = ["-f", "0", "-device", device, "--disable_tta", "--disable_progress_bar", "-npp", "1", "-nps", "1"]
    sys.argv = ["predict", "-i", str(images), "-o", str(out), "-m", str(model), *options]
    sys.argv += ["--targets", *targets.split(",")] if targets else []
    started = time.perf_counter()
    predict_from_raw_data.predict_entry_point_modelfolder()
    ended = time.perf_counter()
    seconds["total"] = ended - started - seconds.pop("aside")
    seconds["export"] = ended - logits_there[0]
    sys.stdout.write("\nRESULT " + json.dumps(seconds) + "\n")


def measure(model: Path, images: Path, out: Path, device: str, targets: str = "") -> dict[str, float]:
    """Predict in a new process; returns seconds by stage and the peak memory of it and its workers, in GiB."""
    words = [sys.executable, __file__, "--worker", str(model), str(images), str(out), device, targets]
    worker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(worker, peak), daemon=True)
    watcher.start()
    printed, _ = worker.communicate()
    watcher.join()
    results = [line for line in printed.splitlines() if line.startswith("RESULT ")]
    if worker.returncode or not results:
        raise RuntimeError(printed[-3000:])
    seconds: dict[str, float] = json.loads(results[-1].removeprefix("RESULT "))
    seconds["rest"] = seconds["total"] - seconds["network"]
    costs = {**{key: round(value, 2) for key, value in seconds.items()}, "peak_gib": round(peak[0] / 2**30, 2)}
    sys.stderr.write(f"{out.name}: {costs}\n")
    return costs


def watch(worker: "subprocess.Popen[str]", peak: list[int]) -> None:
    """Record the peak memory of a process and its children."""
    import psutil

    while worker.poll() is None:
        try:
            root = psutil.Process(worker.pid)
            # PSS counts shared pages once: PyTorch forks a dozen workers, which share most of its memory.
            used = sum(process.memory_full_info().pss for process in [root, *root.children(recursive=True)])
            peak[0] = max(peak[0], used)
        except psutil.Error:
            pass
        time.sleep(0.1)


def compare_masks(first: Path, second: Path, values: list[int]) -> float:
    """Return the smallest Dice of two label maps over label values; values in neither map are ignored."""
    import SimpleITK

    files = (str(folder / "phantom.nii.gz") for folder in (first, second))
    first_map, second_map = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file)) for file in files)
    dice = []
    for value in values:
        a, b = first_map == value, second_map == value
        if a.any() or b.any():
            dice.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
    return min(dice)


def run(setting: Setting, folder: Path, repeats: int) -> dict[str, Any]:
    """Measure stock nnU-Net and DuPLUS alternately."""
    for kind in FOLDERS:
        os.environ[f"nnUNet_{kind}"] = str(folder / kind)
        (folder / kind).mkdir()
    os.environ.setdefault("nnUNet_def_n_proc", "2")
    write_dataset(folder / "raw", setting)
    call("nnUNetv2_extract_fingerprint", "-d", NUMBER, "-np", os.environ["nnUNet_def_n_proc"])
    stock, ours = (make_model(kind, setting) for kind in (STOCK, OURS))
    write_image(folder / "images", setting, IMAGE_SPACING)
    write_image(folder / "thick", setting, THICK)
    few = ",".join(setting.targets[:FEW])
    cases = {"stock": (stock, ""), "all": (ours, ""), "few": (ours, few)}
    repetitions = [
        {
            name: measure(model, folder / "images", folder / name, setting.device, targets)
            for name, (model, targets) in cases.items()
        }
        for _ in range(repeats)
    ]
    medians = {
        name: {key: float(np.median([costs[name][key] for costs in repetitions])) for key in repetitions[0][name]}
        for name in cases
    }
    for name in ("stock", "all"):
        measure(cases[name][0], folder / "thick", folder / f"thick_{name}", setting.device)
    values = list(range(1, len(setting.targets) + 1))
    return {
        "shape": setting.shape,
        "targets": len(setting.targets),
        "patch": setting.patch,
        "seconds": medians,
        "export: stock / all": medians["stock"]["export"] / medians["all"]["export"],
        "export: stock / few": medians["stock"]["export"] / medians["few"]["export"],
        "rest: stock / all": medians["stock"]["rest"] / medians["all"]["rest"],
        "rest: stock / few": medians["stock"]["rest"] / medians["few"]["rest"],
        "network: few / all": medians["few"]["network"] / medians["all"]["network"],
        "total: few / all": medians["few"]["total"] / medians["all"]["total"],
        "network: stock / all": medians["stock"]["network"] / medians["all"]["network"],
        "total: stock / all": medians["stock"]["total"] / medians["all"]["total"],
        "peak memory: all / stock": medians["all"]["peak_gib"] / medians["stock"]["peak_gib"],
        "least Dice, all": compare_masks(folder / "stock", folder / "all", values),
        "least Dice, all, thick slices": compare_masks(folder / "thick_stock", folder / "thick_all", values),
    }


def main() -> int:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 200), help="voxels along x, y and z")
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--device", default="cpu", help="nnU-Net's -device (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="number of repetitions; the median is reported")
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        model, images, out, device, targets = args.worker
        predict(Path(model), Path(images), Path(out), device, targets)
        return 0
    setting = Setting(tuple(args.shape), args.patch, list_targets(), args.device)
    with tempfile.TemporaryDirectory() as folder:
        result = run(setting, Path(folder), args.repeats)
    print(json.dumps(result, indent=None if args.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
