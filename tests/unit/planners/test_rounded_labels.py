"""Labels that are not quite whole give the same preprocessed maps and references as whole ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor
from duplus_nnunet.planners.references import round_references

MODEL = Path(__file__).parents[2] / "compatibility" / "files" / "models" / "segmentation"
PROPERTIES = {
    "spacing": [2.0, 2.0, 2.0],
    "sitk_stuff": {"spacing": (2.0,) * 3, "origin": (0.0,) * 3, "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)},
}


def preprocess(labels: Any) -> Any:
    plans, dataset_json = (json.loads((MODEL / name).read_text()) for name in ("plans.json", "dataset.json"))
    manager = PlansManager(plans)
    image = np.random.default_rng(0).normal(size=(1, 10, 10, 10)).astype(np.float32)
    done = DuPLUSPreprocessor(verbose=False).run_case_npy(
        image, labels, dict(PROPERTIES), manager, manager.get_configuration("3d_fullres"), dataset_json
    )
    return done[1]


@pytest.fixture
def labels() -> Any:
    return (np.arange(1000).reshape(1, 10, 10, 10) // 400).astype(np.float32)


def test_preprocessed_maps_are_those_of_whole_labels(labels: Any) -> None:
    whole = preprocess(labels)
    assert set(np.unique(whole)) >= {0, 1, 2}
    assert np.array_equal(preprocess(labels * np.float32(0.99999)), whole)


def test_undeclared_values_are_not_preprocessed(labels: Any) -> None:
    labels[0, 0, 0, 0] = 77
    with pytest.raises(DataError, match="77"):
        preprocess(labels)


def test_references_of_the_validation_are_rounded_too(write_raw: Callable[..., Path], tmp_path: Path) -> None:
    raw = write_raw("Dataset001_A", {"a": np.full((4, 5, 6), 0.99999, np.float32), "b": 1})
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset001_A"
    folder.mkdir()
    (folder / "DuPLUSPlans.json").write_text((MODEL / "plans.json").read_text())
    (raw / "labelsTr").rename(folder / "gt_segmentations")
    assert round_references("Dataset001_A", "DuPLUSPlans") == ["a.nii.gz"]
    image = SimpleITK.ReadImage(str(folder / "gt_segmentations" / "a.nii.gz"))
    assert (SimpleITK.GetArrayFromImage(image) == 1).all()
    assert image.GetOrigin() == pytest.approx((-11, 3.5, 40.25))
