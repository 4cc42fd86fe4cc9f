"""A preprocessed dataset without images, which the checks of jobs look at."""

import json
from pathlib import Path
from typing import Any

import pytest

DATASET = "Dataset007_Test"
PLANS: dict[str, Any] = {
    "dataset_name": DATASET,
    "plans_name": "DuPLUSPlans",
    "configurations": {
        "3d_fullres": {"data_identifier": "DuPLUSPlans_3d_fullres", "batch_size": 2},
        "3d_large": {"inherits_from": "3d_fullres", "batch_size": 8},
    },
    "duplus": {"version": 1, "settings": {"epochs": 5, "network": {"film_hidden": 16}}},
}


@pytest.fixture
def preprocessed(raw: Path, tmp_path: Path) -> Path:
    """The folder of a dataset of two cases in nnUNet_preprocessed."""
    folder = tmp_path / "nnUNet_preprocessed" / DATASET
    data = folder / "DuPLUSPlans_3d_fullres"
    data.mkdir(parents=True)
    (folder / "gt_segmentations").mkdir()
    for case in ("a", "b"):
        (data / f"{case}.pkl").touch()
        (folder / "gt_segmentations" / f"{case}.nii.gz").touch()
    write_plans(folder, "DuPLUSPlans", PLANS)
    write_plans(folder, "nnUNetPlans", {key: value for key, value in PLANS.items() if key != "duplus"})
    return folder


def write_plans(folder: Path, name: str, plans: dict[str, Any]) -> None:
    """Write plans into a folder."""
    (folder / f"{name}.json").write_text(json.dumps(plans), encoding="utf-8")
