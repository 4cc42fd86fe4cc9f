"""Measures false positives where test images are asked for targets of other regions, which they cannot show.

Everything is done by nnU-Net's prediction command. The targets of each context are those that the plans list as
`implausible`; a model that was planned without them takes the lists of other plans by --plans. Volumes (ml an image)
and the share of images with more than 0.1 ml are given with 95 % intervals over draws of patients. Several models are
compared with the first one on the same images. nnUNet_raw must be set.

Examples:
  python benchmarks/implausible.py AFTER -d 501
  python benchmarks/implausible.py AFTER BEFORE -d 501 --plans AFTER/plans.json --targets brainstem "left parotid gland"
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from universal import call, find_dataset, find_folder, read_tests

LEAST_ML = 0.1
DRAWS = 2000


@dataclass(frozen=True)
class FalseVolume:
    """Volume (ml) of each asked target in one test image; all of it is false."""

    source: str
    patient: str
    targets: dict[str, float]

    @property
    def total(self) -> float:
        """Volume of all targets together (ml)."""
        return sum(self.targets.values())


def read_implausible(plans: Path, only: Sequence[str]) -> dict[str, list[str]]:
    """Return for each context the targets to ask for: those that plans list, or some of them."""
    contexts = json.loads(plans.read_text(encoding="utf-8"))["duplus"]["contexts"]
    listed = {name: context.get("implausible", []) for name, context in contexts.items()}
    unknown = set(only) - {target for targets in listed.values() for target in targets}
    if unknown:
        sys.exit(f"--targets: {', '.join(sorted(unknown))}: implausible in no context of {plans}.")
    asked = {name: [target for target in targets if not only or target in only] for name, targets in listed.items()}
    asked = {name: targets for name, targets in asked.items() if targets}
    if not asked:
        sys.exit(f"{plans} lists no implausible targets. Plan the dataset again, or name other plans by --plans.")
    return asked


def predict(model: Path, number: int, context: str, targets: Sequence[str], out: Path, options: list[object]) -> None:
    """Ask all test images of a context for some targets."""
    images = find_folder("raw") / find_dataset(number) / "imagesTs"
    with tempfile.TemporaryDirectory() as folder:
        for case, (_, of_case) in read_tests(number).items():
            for file in images.glob(f"{case}_????.nii.gz") if of_case == context else ():
                (Path(folder) / file.name).symlink_to(file.resolve())
        words = ("-i", folder, "-o", out, "-m", model, "--context", context, "--targets", *targets)
        more = ("--disable_tta", "-npp", 1, "-nps", 1, "--continue_prediction", *options)
        call("nnUNetv2_predict_from_modelfolder", *words, *more)


def measure(case: str, folder: Path, targets: Sequence[str]) -> dict[str, float]:
    """Measure the volume (ml) of each target in a predicted label map."""
    declared = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["duplus"]
    image: Any = nibabel.load(folder / f"{case}.nii.gz")
    labels, millilitres = np.asarray(image.dataobj), float(np.prod(image.header.get_zooms()[:3])) / 1000
    values = {label: int(value) for value, label in declared["legend"].items()}
    return {name: float((labels == values[declared["targets"][name]]).sum() * millilitres) for name in targets}


def measure_model(
    model: Path, number: int, asked: Mapping[str, list[str]], out: Path, options: list[object]
) -> dict[str, FalseVolume]:
    """Predict and measure all test images of the contexts in which targets are asked for."""
    table = json.loads((find_folder("raw") / find_dataset(number) / "duplus_cases.json").read_text(encoding="utf-8"))
    volumes = {}
    for context, targets in asked.items():
        cases = {case: source for case, (source, of_case) in read_tests(number).items() if of_case == context}
        if not cases:
            continue
        predict(model, number, context, targets, out / context, options)
        for case, source in cases.items():
            patient = table["tests"][case]["patient"]
            volumes[case] = FalseVolume(source, patient, measure(case, out / context, targets))
    return volumes


def average(values: np.ndarray, patients: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Return the mean of values (N) and its 95 % interval over draws of the patients with replacement."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    sums, counts = np.bincount(owner, values), np.bincount(owner)
    drawn = np.random.default_rng(seed).integers(len(names), size=(DRAWS, len(names)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return {key: round(float(value), 4) for key, value in (("mean", values.mean()), ("low", low), ("high", high))}


def summarise(volumes: Sequence[FalseVolume]) -> dict[str, Any]:
    """Summarise some images: number, mean volume, and share with more than LEAST_ML."""
    patients, totals = [volume.patient for volume in volumes], np.array([volume.total for volume in volumes])
    return {
        "images": len(volumes),
        "patients": len(set(patients)),
        "volume_ml": average(totals, patients),
        f"share_above_{LEAST_ML}_ml": average((totals > LEAST_ML).astype(float), patients),
    }


def report(volumes: Mapping[str, FalseVolume]) -> dict[str, Any]:
    """Summarise all images, those of each source, and each target."""
    images = list(volumes.values())
    targets = sorted({name for image in images for name in image.targets})
    alone = {
        name: [FalseVolume(i.source, i.patient, {name: i.targets[name]}) for i in images if name in i.targets]
        for name in targets
    }
    sources = {source: [i for i in images if i.source == source] for source in sorted({i.source for i in images})}
    return {
        **summarise(images),
        "sources": {source: summarise(of_source) for source, of_source in sources.items()},
        "targets": {name: summarise(of_target) for name, of_target in alone.items()},
    }


def compare(first: Mapping[str, FalseVolume], other: Mapping[str, FalseVolume]) -> dict[str, Any]:
    """Return the paired differences of two models on the same images; below 0, the first has fewer false positives."""
    cases, patients = list(first), [first[case].patient for case in first]
    ours, theirs = (np.array([volumes[case].total for case in cases]) for volumes in (first, other))
    shares = (ours > LEAST_ML).astype(float) - (theirs > LEAST_ML).astype(float)
    return {"volume_ml": average(ours - theirs, patients), f"share_above_{LEAST_ML}_ml": average(shares, patients)}


def main() -> int:
    """Measure models, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model folders, with plans.json and fold_X")
    parser.add_argument("-d", type=int, default=501, help="number of the composed dataset (default: 501)")
    parser.add_argument("-f", default=0, help="fold (default: 0)")
    parser.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")
    parser.add_argument("--plans", type=Path, help="plans that list implausible targets (default: the first model's)")
    parser.add_argument("--targets", nargs="+", default=[], help="only these targets (default: all implausible ones)")
    parser.add_argument("--out", type=Path, default=Path("implausible_predictions"), help="folder for predictions")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    asked = read_implausible(args.plans or args.models[0] / "plans.json", args.targets)
    options: list[object] = ["-f", args.f, "-chk", args.chk, "-device", args.device]
    measured = [
        measure_model(model.resolve(), args.d, asked, args.out.resolve() / str(index), options)
        for index, model in enumerate(args.models)
    ]
    names = [str(model) for model in args.models]
    result = {
        "asked": asked,
        "models": {name: report(volumes) for name, volumes in zip(names, measured, strict=True)},
        "differences": {
            f"{names[0]} - {name}": compare(measured[0], volumes)
            for name, volumes in zip(names[1:], measured[1:], strict=True)
        },
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
