"""Small datasets under the names that the documentation uses: a download of the Decathlon, and three of sarcoma."""

import csv
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from duplus_nnunet.data.phantom import make_phantom, save_volume
from duplus_nnunet.data.scans import MR
from duplus_nnunet.example.folder import write_example

from ..dicom_series import write_export

_STRUCTURES = {1: 1, 2: 2}  # liver as the anterior, spleen as the posterior part
SARCOMAS = {"Dataset060_SarcomaCT": "CT", "Dataset061_SarcomaMR": "MRI", "Dataset062_SarcomaPET": "PET"}
_BACKGROUND = {"CT": (-50.0, 100.0, 20.0), "MRI": (150.0, 200.0, 20.0), "PET": (1.0, 6.0, 0.2)}
PATIENTS, WITHOUT_IMAGE, TESTS = 10, 30, 1
_SIDE, _SPACING = 24, 4.0


def write_download(folder: Path, cases: int = 5) -> Path:
    """Write an archive in the form of the Decathlon's `Task04_Hippocampus.tar`."""
    task = folder / "Task04_Hippocampus"
    for number in range(1, cases + 2):
        part = "Tr" if number <= cases else "Ts"
        phantom = make_phantom(0, 0, number, MR)
        labels = sum((phantom.labels == old) * new for old, new in _STRUCTURES.items()).astype(np.uint8)
        for values, kind in ((phantom.image, "images"), (labels, "labels")):
            if (kind, part) != ("labels", "Ts"):
                file = task / f"{kind}{part}" / f"hippocampus_{number:03d}.nii.gz"
                file.parent.mkdir(parents=True, exist_ok=True)
                save_volume(values, phantom.affine, file)
    content = {
        "name": "Hippocampus", "modality": {"0": "MRI"}, "numTraining": cases, "training": [], "test": [],
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    }  # fmt: skip
    (task / "dataset.json").write_text(json.dumps(content))
    archive = folder / "Task04_Hippocampus.tar"
    with tarfile.open(archive, "w") as file:
        file.add(task, task.name)
    return archive


def write_series(folder: Path) -> None:
    """Write DICOM series of the images of `duplus example`."""
    with tempfile.TemporaryDirectory() as example:
        write_example(Path(example))
        write_export(Path(example) / "images", folder)


def write_sarcomas(raw: Path) -> None:
    """Write raw datasets of the same patients in CT, MR and PET: a ball each, and a record in which its size counts."""
    for dataset, channel in SARCOMAS.items():
        rng = np.random.default_rng(0)
        rows = []
        for number in range(PATIENTS + TESTS + WITHOUT_IMAGE):
            radius = rng.uniform(2.5, 7.0)
            if number < PATIENTS + TESTS:
                part = "Tr" if number < PATIENTS else "Ts"
                _write_ball(raw / dataset, part, f"STS_{number:03d}", radius, channel)
            time = rng.exponential(1200 * np.exp(-0.5 * (radius - 4.75)))
            censoring = rng.uniform(400, 2400)
            rows.append(
                [f"STS_{number:03d}", int(rng.integers(40, 80)), int(min(time, censoring)) + 1, int(time <= censoring)]
            )
        content = {
            "channel_names": {"0": channel}, "labels": {"background": 0, "tumor": 1}, "numTraining": PATIENTS,
            "file_ending": ".nii.gz",
        }  # fmt: skip
        (raw / dataset / "dataset.json").write_text(json.dumps(content))
    with (raw / "Dataset062_SarcomaPET" / "clinical.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["patient", "age", "time_days", "event"], *rows])


def _write_ball(folder: Path, part: str, case: str, radius: float, channel: str) -> None:
    outside, inside, noise = _BACKGROUND[channel]
    rng = np.random.default_rng(len(channel))
    axes = np.meshgrid(*[np.arange(_SIDE)] * 3, indexing="ij")
    ball = sum((axis - 12) ** 2 for axis in axes) <= radius**2
    image = np.where(ball, inside, outside) + rng.normal(0, noise, ball.shape)
    affine = np.diag([_SPACING] * 3 + [1.0])
    for values, kind, name in ((image.astype(np.float32), "images", f"{case}_0000"), (ball, "labels", case)):
        file = folder / f"{kind}{part}" / f"{name}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_volume(values if kind == "images" else values.astype(np.uint8), affine, file)
