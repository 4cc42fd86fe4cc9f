"""Probabilities that nnU-Net itself wrote are read with the right channels and axes, and calibrated."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.calibration_files import read_calibration_report
from duplus_nnunet.saved_predictions.host_probabilities import read_host_layout, read_host_probabilities

SHAPE = (9, 8, 7)
SPACING = (12.0, 8.0, 6.0)  # (z, y, x)
# nnU-Net's network sees the axes (x, z, y), cropped along the first of them.
FORWARD, BACKWARD = [2, 0, 1], [1, 2, 0]
CROP = [[1, 6], [0, 9], [0, 8]]
LABELS: dict[str, Any] = {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}
REGIONS: dict[str, Any] = {"background": 0, "organ": [1, 2], "tumor": [2]}
VALUES = {"liver": [1], "tumor": [2], "organ": [1, 2]}


def make_logits(channels: int) -> Any:
    shape = [high - low for low, high in CROP]
    return np.random.default_rng(0).normal(0, 2, (channels, *shape)).astype(np.float32)


def make_truth() -> Any:
    return np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)


def write_by_nnunet(home: Path, labels: dict[str, Any]) -> None:
    """Let nnU-Net export the logits of one case, with its probabilities, and put its dataset.json beside them."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    for folder in ("r", "p"):
        (home / folder).mkdir()
        content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
        order = {"regions_class_order": [1, 2]} if labels is REGIONS else {}
        (home / folder / "dataset.json").write_text(json.dumps({**content, **order}))
    reference = home / "r" / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(make_truth().transpose(2, 1, 0), np.diag([*SPACING[::-1], 1.0])), reference)
    properties = SimpleITKIO().read_seg(str(reference))[1]
    properties |= {
        "shape_before_cropping": [SHAPE[axis] for axis in FORWARD],
        "shape_after_cropping_and_before_resampling": [high - low for low, high in CROP],
        "bbox_used_for_cropping": CROP,
    }
    resampling = "resample_data_or_seg_to_shape"
    plans = PlansManager({
        "dataset_name": "D", "plans_name": "P", "image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager",
        "transpose_forward": FORWARD, "transpose_backward": BACKWARD,
        "configurations": {"3d_fullres": {
            "architecture": {},
            "spacing": [SPACING[axis] for axis in FORWARD], "resampling_fn_probabilities": resampling,
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0},
        }},
    })  # fmt: skip
    dataset_json = json.loads((home / "p" / "dataset.json").read_text())
    export_prediction_from_logits(
        make_logits(3 if labels is LABELS else 2), properties, plans.get_configuration("3d_fullres"), plans,
        dataset_json, str(home / "p" / "a"), save_probabilities=True, num_threads_torch=1,
    )  # fmt: skip


def find_expected(labels: dict[str, Any], target: str) -> Any:
    """Lay the probability of a target out over the image, (z, y, x), by the formulas."""
    if labels is LABELS:
        inside, outside = softmax(make_logits(3), axis=0)[VALUES[target]].sum(0), 0.0
    else:
        inside, outside = expit(make_logits(2))[["organ", "tumor"].index(target)], 0.0
    whole = np.full([SHAPE[axis] for axis in FORWARD], outside)
    whole[tuple(slice(*ends) for ends in CROP)] = inside
    return whole.transpose(BACKWARD)


def read(home: Path) -> Any:
    layout = read_host_layout(home / "p")
    assert layout is not None
    return read_host_probabilities(home / "p" / "a.npz", layout, home / "r" / "a.nii.gz", SHAPE)


@pytest.mark.parametrize(("labels", "target"), [(LABELS, "liver"), (LABELS, "tumor"), (REGIONS, "organ"),
                                                (REGIONS, "tumor")])  # fmt: skip
def test_the_probability_of_a_target_is_that_of_its_channel_on_the_axes_of_the_image(
    tmp_path: Path, labels: dict[str, Any], target: str
) -> None:
    write_by_nnunet(tmp_path, labels)
    np.testing.assert_allclose(read(tmp_path).read(VALUES[target]), find_expected(labels, target), atol=1e-3)


def test_labels_that_make_up_a_target_are_summed_and_others_have_no_channel(tmp_path: Path) -> None:
    write_by_nnunet(tmp_path, LABELS)
    both = find_expected(LABELS, "liver") + find_expected(LABELS, "tumor")
    np.testing.assert_allclose(read(tmp_path).read([1, 2]), both, atol=1e-3)
    assert read(tmp_path).read([1, 9]) is None


def test_a_region_that_was_not_trained_has_no_probability(tmp_path: Path) -> None:
    write_by_nnunet(tmp_path, REGIONS)
    assert read(tmp_path).read([1]) is None


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
def test_evaluate_measures_the_calibration_of_stock_predictions(tmp_path: Path, labels: dict[str, Any]) -> None:
    write_by_nnunet(tmp_path, labels)
    folders = ("-p", str(tmp_path / "p"), "-r", str(tmp_path / "r"))
    assert cli.main(["evaluate", *folders, "-np", "1", "--calibration"]) == 0
    report = read_calibration_report(tmp_path / "p" / "calibration.json")
    [row] = [row for row in report.rows if row.target == "tumor"]
    assert row.all is not None
    assert row.presence is None
    truth = (make_truth() == 2).ravel()
    expected = brier_score_loss(truth, find_expected(labels, "tumor").ravel())
    assert (row.all.voxels, row.all.brier.value) == (truth.size, pytest.approx(expected, abs=1e-4))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_by_nnunet(tmp_path, LABELS)
    file = tmp_path / "p" / "a.npz"
    for array in (np.zeros((2, *SHAPE)), np.zeros((3, 9, 8, 6)), np.full((3, *SHAPE), 7.0)):
        np.savez_compressed(file, probabilities=array)
        with pytest.raises(DataError, match=r"a\.npz"):
            read(tmp_path)
    for content in (b"", b"PK\x03\x04 damaged"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz"):
            read(tmp_path)
    np.savez_compressed(file, softmax=np.zeros(3))
    with pytest.raises(DataError, match="probabilities"):
        read(tmp_path)


def test_predictions_of_this_package_have_other_channels(tmp_path: Path) -> None:
    write_by_nnunet(tmp_path, LABELS)
    file = tmp_path / "p" / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "duplus": {"targets": {}}}))
    assert read_host_layout(tmp_path / "p") is None
    assert read_host_layout(tmp_path / "nowhere") is None
