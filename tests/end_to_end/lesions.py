"""A tiny dataset for prognosis: one bright ball a patient, and a hazard that rises with its volume."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np

SIDE, SPACING = 24, 4.0
SCHEMA = """\
patient: patient
centre: centre
time: {column: months, unit: months}
event: {column: relapse, seen: [1], censored: [0]}
cases: '^([^_]+)_'
covariates:
  age: {type: numeric}
  grade: {type: ordinal, order: [low, high]}
"""


def write_lesions(folder: Path, patients: int, tests: int = 1, seed: int = 0) -> dict[str, float]:
    """Write a raw dataset with clinical.csv and clinical.yaml; returns the lesion's volume (ml) by patient."""
    rng = np.random.default_rng(seed)
    rows, volumes = [], {}
    for number in range(patients + tests):
        patient, part = f"P{number:02d}", "Tr" if number < patients else "Ts"
        radius = rng.uniform(2.5, 7.0)
        image, labels = _draw(radius, rng)
        for values, kind, name in ((image, "images", f"{patient}_CT_0000"), (labels, "labels", f"{patient}_CT")):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
            affine = np.diag([SPACING] * 3 + [1.0])
            nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{kind}{part}" / f"{name}.nii.gz")
        volumes[patient] = float(labels.sum()) * SPACING**3 / 1000
        time = rng.exponential(40 * np.exp(-0.8 * (radius - 4.75)))
        censoring = rng.uniform(10, 120)
        rows.append([
            patient, "AB"[number % 2], f"{min(time, censoring) + 0.1:.2f}", int(time <= censoring),
            "" if number % 7 == 3 else int(rng.integers(40, 80)), ("low", "high")[number % 2],
        ])  # fmt: skip
    _describe(folder, patients, rows)
    return volumes


def _draw(radius: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    axes = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    centre = rng.uniform(8, SIDE - 8, 3)
    inside = sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) <= radius**2
    image = np.where(inside, 150.0, -50.0) + rng.normal(0, 20, inside.shape)
    return image.astype(np.float32), inside.astype(np.uint8)


def _describe(folder: Path, patients: int, rows: list[list[object]]) -> None:
    content = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1}, "numTraining": patients,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    with (folder / "clinical.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["patient", "centre", "months", "relapse", "age", "grade"], *rows])
    (folder / "clinical.yaml").write_text(SCHEMA)
