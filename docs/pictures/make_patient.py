"""Draws docs/pictures/patient.png: one patient in three contexts, the predicted lesion and the reference.

Takes predictions of the test images of a composed dataset whose sources are CT, MR and PET of the same patients, and
their scores, as benchmarks/universal.py writes them. The patient is the one with the median Dice, not the best one.

Example:
  python docs/pictures/make_patient.py $nnUNet_raw/Dataset501_Universal universal_predictions/universal-5000-1
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nibabel
import numpy as np

SOURCES = {"SarcomaCT": "CT", "SarcomaMR": "MR, T1-weighted", "SarcomaPET": "FDG-PET"}
WINDOWS: dict[str, tuple[float, float] | None] = {"SarcomaCT": (-160, 240), "SarcomaMR": None, "SarcomaPET": (0, 8)}
TARGET = "soft tissue sarcoma"
PREDICTED, TRUE = "#E69F00", "#56B4E9"
FILE = Path(__file__).with_name("patient.png")


def choose_patient(cases: dict[str, Any]) -> str:
    """Choose the patient with the median of the mean Dice over all sources (the upper one of two)."""
    scores: dict[str, list[float]] = {}
    for name, case in cases.items():
        if case["source"] in SOURCES:
            scores.setdefault(name.removeprefix(case["source"] + "_"), []).append(case["targets"][TARGET]["dice"])
    ordered = sorted(scores, key=lambda name: np.mean(scores[name]))
    return ordered[len(ordered) // 2]


def read(file: Path) -> tuple[np.ndarray[Any, Any], tuple[float, ...]]:
    """Read an image as (x, y, z) toward left, back and head, with its voxel size in mm."""
    image: Any = nibabel.as_closest_canonical(nibabel.load(file))
    return np.asarray(image.dataobj)[::-1, ::-1], image.header.get_zooms()[:3]


def draw(axes: Any, raw: Path, predictions: Path, source: str, patient: str, dice: float, value: int) -> None:
    """Draw the slice with the most voxels of the reference."""
    name = f"{source}_{patient}"
    volume, spacing = read(raw / "imagesTs" / f"{name}_0000.nii.gz")
    truth, _ = read(raw / "labelsTs" / f"{name}.nii.gz")
    mask, _ = read(predictions / f"{name}.nii.gz")
    index = int((truth == value).sum((0, 1)).argmax())
    low, high = WINDOWS[source] or np.percentile(volume[..., index], (1, 99.5))
    picture = volume[..., index].T
    colours = "gray_r" if source == "SarcomaPET" else "gray"
    axes.imshow(picture, cmap=colours, vmin=low, vmax=high, aspect=spacing[1] / spacing[0])
    for labels, colour, style in ((truth, TRUE, "dashed"), (mask, PREDICTED, "solid")):
        plane = (labels[..., index] == value).T
        if plane.any():
            axes.contour(plane, levels=[0.5], colors=colour, linestyles=style, linewidths=1.6)
    axes.set_title(f"{SOURCES[source]}: Dice {dice:.2f}", fontsize=10)
    axes.set_axis_off()


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="folder of the composed raw dataset")
    parser.add_argument("predictions", type=Path, help="folder of predictions with scores.json")
    args = parser.parse_args()
    cases = json.loads((args.predictions / "scores.json").read_text(encoding="utf-8"))["cases"]
    value = json.loads((args.raw / "dataset.json").read_text(encoding="utf-8"))["labels"]
    [number] = [value for label, value in value.items() if TARGET in label]
    patient = choose_patient(cases)
    figure, places = plt.subplots(1, 3, figsize=(10.5, 3.9))
    for axes, source in zip(places, SOURCES, strict=True):
        dice = cases[f"{source}_{patient}"]["targets"][TARGET]["dice"]
        draw(axes, args.raw, args.predictions, source, patient, dice, number)
    figure.legend(
        handles=[
            plt.Line2D([], [], color=PREDICTED, label="predicted"),
            plt.Line2D([], [], color=TRUE, linestyle="dashed", label="drawn by the collection's radiation oncologist"),
        ],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.09, wspace=0.03)
    figure.savefig(FILE, dpi=110, metadata={"Title": f"patient {patient}"})


if __name__ == "__main__":
    main()
