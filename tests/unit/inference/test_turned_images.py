"""An image in any of the 48 orientations: the network sees the same, and the answer lies on the image's own grid."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.data.orientations import ORIENTATIONS
from duplus_nnunet.inference.answering import read_geometry
from duplus_nnunet.inference.assembly import Assembly, Rule
from duplus_nnunet.inference.resampling import make_resampler
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.outputs.world import find_affine
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor

PLANS = Path(__file__).parents[2] / "compatibility" / "files" / "models" / "segmentation" / "plans.json"
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
AFFINE = np.array([[-9.0, 0, 0, 30], [0, -10, 0, 20], [0, 0, 11, 10], [0, 0, 0, 1]])  # LPS


@pytest.fixture(params=[[0, 1, 2], [2, 0, 1]])
def plans(request: pytest.FixtureRequest) -> PlansManager:
    content = json.loads(PLANS.read_text())
    order = request.param
    content |= {"transpose_forward": order, "transpose_backward": np.argsort(order).tolist()}
    content["duplus"]["orientation"] = "LPS"
    return PlansManager(content)


def make_image(code: str, file: Path) -> nibabel.Nifti1Image:
    values = np.random.default_rng(0).normal(40, 100, (7, 8, 9)).astype(np.float32)
    values[:2], values[:, :, 7:] = 0, 0  # nnU-Net crops it
    image = nibabel.Nifti1Image(values, AFFINE)
    turned = image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(code)))
    nibabel.save(turned, file)
    return turned


def preprocess(plans: PlansManager, file: Path) -> tuple[Any, dict[str, Any]]:
    configuration = plans.get_configuration("3d_fullres")
    data, _, properties = DuPLUSPreprocessor(False).run_case([str(file)], None, plans, configuration, DATASET)
    return data, properties


def draw_logits(shape: Any) -> Any:
    smooth = np.random.default_rng(1).normal(size=(2, *shape)).cumsum(1).cumsum(2).cumsum(3)
    return smooth.astype(np.float16)


def answer(plans: PlansManager, data: Any, properties: dict[str, Any]) -> CaseAnswer:
    configuration = plans.get_configuration("3d_fullres")
    resampler = make_resampler(configuration, plans, properties, data.shape[1:])
    assembly = Assembly(resampler, Rule((1, 2), True, np.uint8), [("a", "A."), ("b", "B.")])
    assembly.add(draw_logits(data.shape[1:]))
    labels, targets = assembly.finish()
    return CaseAnswer("case", "ct", "A CT.", read_geometry(plans, properties), labels, targets)


def turn_to_lps(array: Any, image: nibabel.Nifti1Image) -> Any:
    """Return an array (z, y, x) on an image's grid as one on the grid in LPS."""
    made = nibabel.Nifti1Image(array.transpose().astype(np.int16), image.affine)
    return np.asarray(made.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS"))).dataobj)


def measure(found: CaseAnswer) -> list[Any]:
    affine, volumes = find_affine(found.geometry), []
    assert affine is not None
    for target in found.targets:
        whole = np.zeros(found.geometry.shape, bool)
        whole[target.box] = target.mask
        volumes.append((affine @ [*np.argwhere(whole).mean(0), 1]).round(3).tolist())
    return volumes


def test_all_orientations_are_predicted_alike(plans: PlansManager, tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nii.gz"
    make_image("LPS", file)
    data, properties = preprocess(plans, file)
    expected = answer(plans, data, properties)
    assert set(np.unique(expected.labels)) == {0, 1, 2}
    for code in ORIENTATIONS:
        image = make_image(code, file)
        own, noted = preprocess(plans, file)
        found = answer(plans, own, noted)
        np.testing.assert_array_equal(own, data, err_msg=code)
        assert found.geometry.shape == found.labels.shape == image.shape[::-1]
        assert found.geometry.spacing == pytest.approx(image.header.get_zooms()[::-1])
        np.testing.assert_array_equal(turn_to_lps(found.labels, image), expected.labels.transpose(), err_msg=code)
        assert measure(found) == measure(expected)


@pytest.mark.parametrize("code", ["LPS", "RPS", "LAS", "SPL", "AIR"])
def test_nnunets_own_export_gives_the_images_grid(plans: PlansManager, tmp_path: Path, code: str) -> None:
    file = tmp_path / "case_0000.nii.gz"
    image = make_image(code, file)
    data, properties = preprocess(plans, file)
    configuration, manager = plans.get_configuration("3d_fullres"), plans.get_label_manager(DATASET)
    logits = draw_logits(data.shape[1:])
    labels = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, manager, properties
    )
    expected = answer(plans, data, properties).labels
    assert labels.shape == image.shape[::-1]
    assert (labels == expected).mean() > 0.99


@pytest.mark.parametrize("code", ["RPS", "SPL"])
def test_label_maps_of_training_are_turned_with_their_images(plans: PlansManager, tmp_path: Path, code: str) -> None:
    results = []
    for own in ("LPS", code):
        image = make_image(own, tmp_path / "case_0000.nii.gz")
        labels = nibabel.Nifti1Image((np.asarray(image.dataobj) > 50).astype(np.uint8), image.affine)
        nibabel.save(labels, tmp_path / "case.nii.gz")
        configuration = plans.get_configuration("3d_fullres")
        files = [str(tmp_path / "case_0000.nii.gz")], str(tmp_path / "case.nii.gz")
        results.append(DuPLUSPreprocessor(False).run_case(*files, plans, configuration, DATASET)[:2])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
