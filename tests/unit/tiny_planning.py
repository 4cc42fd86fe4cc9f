"""Plans a tiny raw dataset in this process: its fingerprint is given, and its cases are surveyed without workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.planners import planner as planners
from duplus_nnunet.planners.survey import survey_case

NAME = "Dataset007_Test"


def prepare_planning(write_raw: Callable[..., Path], preprocessed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a dataset of two cases, one with a liver of 256 voxels, and return its folder in `preprocessed`."""
    raw = write_raw(NAME, {"a": np.eye(16, dtype=np.uint8)[None].repeat(16, 0), "b": np.zeros((16,) * 3, np.uint8)})
    folder = preprocessed / NAME
    folder.mkdir()
    fingerprint = {
        "spacings": [[2.5, 0.8, 0.7]] * 2,
        "shapes_after_crop": [[16, 16, 16]] * 2,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))

    def survey(dataset: Any, reader: type, known: Any) -> Any:
        images, labels = raw / "imagesTr", raw / "labelsTr"
        return {
            name: survey_case([str(images / f"{name}_0000.nii.gz")], str(labels / f"{name}.nii.gz"), reader, 100, known)
            for name in dataset
        }

    monkeypatch.setattr(planners, "survey_dataset", survey)
    return folder


def plan_again(folder: Path, plans: Any = None, **options: Any) -> dict[str, Any]:
    """Plan the dataset by the default planner, after `plans` were put in place of those that are there."""
    file = folder / "DuPLUSPlans.json"
    if plans is not None:
        file.write_text(json.dumps(plans))
    planners.DuPLUSPlanner(NAME, **options).plan_experiment()
    written: dict[str, Any] = json.loads(file.read_text())
    return written
