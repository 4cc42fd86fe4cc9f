"""Phantoms: known truth, different anatomies, correct sides, and a dataset that nnU-Net can read."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from duplus_nnunet.data.anatomy import LABELS, Anatomy, Solid, draw_anatomy, measure_depth, mirror, rotation
from duplus_nnunet.data.phantom import Phantom, make_phantom, scan_anatomy
from duplus_nnunet.data.scans import CT, MR, PET, Scan
from duplus_nnunet.errors import DataError

from ...phantom_dataset import write_phantom_dataset

SMALL = replace(CT, shape=(24, 24, 20), spacing=(11.0, 11.0, 11.0))
IDEAL = {"noise": 0.0, "grain": 0.0, "shading": 0.0, "gain": 1.0}
KIDNEYS = ("left kidney", "right kidney")


def centre_of(labels: np.ndarray, affine: np.ndarray, name: str) -> np.ndarray:
    middle = np.argwhere(labels == LABELS[name]).mean(axis=0)
    return affine[:3, :3] @ middle + affine[:3, 3]


def core_mean(phantom, name: str) -> float:
    return float(np.median(phantom.image[phantom.labels == LABELS[name]]))


def test_same_seed_gives_same_phantom() -> None:
    first, second = make_phantom(3, 0, 1, SMALL), make_phantom(3, 0, 1, SMALL)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("other", [(4, 0, 1), (3, 1, 1), (3, 0, 2)])
def test_other_seed_group_or_number_gives_other_anatomy(other: tuple[int, int, int]) -> None:
    assert (make_phantom(3, 0, 1, SMALL).labels != make_phantom(*other, SMALL).labels).mean() > 0.01


@pytest.mark.parametrize("scan", [CT, MR, PET], ids=lambda scan: scan.channel)
@pytest.mark.parametrize("number", range(6))
def test_every_structure_is_there_and_large_enough_to_learn(number: int, scan: Scan) -> None:
    sizes = np.bincount(make_phantom(0, 0, number, scan).labels.ravel(), minlength=len(LABELS) + 1)
    assert sizes[1:].min() * np.prod(scan.spacing) > 100 * np.prod(CT.spacing)
    assert sizes[1:].min() > 70


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SRA", "PIR"])
def test_left_kidney_lies_on_the_patients_left_however_it_is_stored(orientation: str) -> None:
    phantom = make_phantom(0, 0, 0, replace(SMALL, orientation=orientation))
    assert "".join(nibabel.aff2axcodes(phantom.affine)) == orientation
    # In NIfTI's world x grows to the patient's right.
    assert centre_of(phantom.labels, phantom.affine, "left kidney")[0] < -30
    assert centre_of(phantom.labels, phantom.affine, "right kidney")[0] > 30


def test_liver_is_right_spleen_left_spine_behind_aorta() -> None:
    phantom = make_phantom(0, 0, 0, CT)
    place = {name: centre_of(phantom.labels, phantom.affine, name) for name in LABELS}
    assert place["liver"][0] > 20 > -20 > place["spleen"][0]
    assert place["spine"][1] < place["aorta"][1]
    assert place["left kidney"][2] < place["spleen"][2]


def test_four_structures_share_one_intensity() -> None:
    phantom = make_phantom(0, 0, 0, CT)
    means = [core_mean(phantom, name) for name in ("liver", "spleen", "left kidney", "right kidney")]
    assert max(means) - min(means) < CT.noise


def test_other_structures_have_intensities_of_their_own() -> None:
    phantom = make_phantom(0, 0, 0, CT)
    means = [core_mean(phantom, name) for name in ("stomach", "liver", "aorta", "spine")]
    assert np.diff(means).min() > CT.noise


def test_one_anatomy_in_two_scans_has_one_truth() -> None:
    anatomy = draw_anatomy(np.random.default_rng(0))
    grid = {"shape": CT.shape, "spacing": CT.spacing}
    in_ct, in_mr = (scan_anatomy(anatomy, scan, np.random.default_rng(1)) for scan in (CT, replace(MR, **grid)))
    np.testing.assert_array_equal(in_ct.labels, in_mr.labels)
    assert np.abs(in_ct.image - in_mr.image).mean() > 100


@pytest.mark.parametrize("scan", [CT, MR, PET])
def test_without_noise_intensities_stay_within_those_of_the_tissues(scan: Scan) -> None:
    image = make_phantom(0, 0, 0, replace(scan, **IDEAL)).image
    values = scan.intensities.values()
    assert min(values) - 1e-3 <= image.min() < image.max() <= max(values) + 1e-3


def test_blur_makes_partial_volumes() -> None:
    def count_values(blur: float) -> int:
        return len(np.unique(make_phantom(0, 0, 0, replace(SMALL, noise=0.0, blur=blur)).image.round()))

    assert count_values(6.0) > 2 * count_values(0.0)


def test_shading_brightens_one_side() -> None:
    anatomy = Anatomy((Solid("liver", (0, 0, 0), (500, 500, 500)),))
    scan = replace(SMALL, noise=0.0, shading=0.3)
    image = scan_anatomy(anatomy, scan, np.random.default_rng(0)).image
    assert image.max() / image.min() > 1.2


def test_ct_is_in_hounsfield_units() -> None:
    phantom = make_phantom(0, 0, 0, CT)
    assert phantom.image.min() >= -1024
    assert phantom.image[0, 0].mean() == pytest.approx(-1000, abs=20)
    assert core_mean(phantom, "liver") == pytest.approx(120, abs=25)


def test_pet_is_never_negative_noisier_and_coarser_than_ct() -> None:
    phantom = make_phantom(0, 0, 0, PET)
    assert phantom.image.min() >= 0
    assert relative_noise(PET, "liver") > 1.5 * relative_noise(CT, "liver")
    assert min(PET.spacing) > max(CT.spacing)


def relative_noise(scan: Scan, name: str) -> float:
    """Noise over the contrast to fat, in a structure."""
    fixed = replace(scan, gain=1.0)
    noisy, clean = (make_phantom(0, 0, 0, one) for one in (fixed, replace(fixed, noise=0.0, grain=0.0)))
    noise = (noisy.image - clean.image)[noisy.labels == LABELS[name]]
    return float(noise.std()) / abs(scan.intensities[name] - scan.intensities["fat"])


def test_unit_of_mr_differs_between_cases() -> None:
    medians = [core_mean(make_phantom(0, 0, number, MR), "liver") for number in range(8)]
    assert max(medians) > 2 * min(medians)


def test_contrasts_order_the_structures_differently() -> None:
    orders = [sorted(("fat", *LABELS), key=lambda name: scan.intensities[name]) for scan in (CT, MR, PET)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("scan", [MR, PET], ids=lambda scan: scan.channel)
def test_one_anatomy_on_two_grids_has_the_same_masks_up_to_resampling(scan: Scan) -> None:
    in_ct, other = make_phantom(0, 1, 0, CT), make_phantom(0, 1, 0, scan)
    found, covered = resample(other, in_ct)
    for value in LABELS.values():
        first, second = (in_ct.labels == value) & covered, found == value
        assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.8


def resample(phantom: Phantom, grid: Phantom) -> tuple[np.ndarray, np.ndarray]:
    """Give the nearest labels of a phantom on another's grid, and where it reaches."""
    change = np.linalg.inv(phantom.affine) @ grid.affine
    places = np.tensordot(change[:3, :3], np.indices(grid.labels.shape), axes=1) + change[:3, 3, None, None, None]
    limits = np.array(phantom.labels.shape).reshape(3, 1, 1, 1) - 0.5
    covered = ((places > -0.5) & (places < limits)).all(axis=0)
    nearest = np.clip(places.round().astype(int), 0, (limits - 0.5).astype(int))
    return np.where(covered, phantom.labels[tuple(nearest)], 0), covered


@pytest.mark.parametrize("scan", [CT, MR, PET], ids=lambda scan: scan.channel)
def test_kidneys_have_one_distribution_of_intensities(scan: Scan) -> None:
    flat = replace(scan, shading=0.0, gain=1.0)
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in KIDNEYS}
    for number in range(5):
        phantom = make_phantom(0, 0, number, flat)
        for name in KIDNEYS:
            inside = binary_erosion(phantom.labels == LABELS[name])
            pooled[name].append(phantom.image[inside])
    left, right = (np.quantile(np.concatenate(pooled[name]), (0.25, 0.5, 0.75)) for name in KIDNEYS)
    assert np.abs(left - right).max() < 0.1 * abs(scan.intensities["left kidney"] - scan.intensities["fat"])


@pytest.mark.parametrize("scan", [CT, MR, PET], ids=lambda scan: scan.channel)
def test_kidneys_are_distinguished_by_their_side_only(scan: Scan) -> None:
    drawn = replace(draw_anatomy(np.random.default_rng(0)), bends=())
    other = {"left kidney": "right kidney", "right kidney": "left kidney"}
    turned = [replace(mirror(solid), tissue=other.get(solid.tissue, solid.tissue)) for solid in drawn.solids]
    first, second = (
        scan_anatomy(anatomy, replace(scan, **IDEAL), np.random.default_rng(0)).image
        for anatomy in (drawn, Anatomy(tuple(turned)))
    )
    # Voxels on a border may fall to either side by rounding.
    assert (np.abs(first - second[::-1]) > 1e-3 * np.abs(first).max()).mean() < 0.001


def test_gap_keeps_neighbours_of_one_intensity_apart() -> None:
    liver = Solid("liver", (40.0, 0.0, 0.0), (40.0, 40.0, 40.0))
    kidney = Solid("right kidney", (-40.0, 0.0, 0.0), (40.0, 40.0, 40.0), gap=12.0)
    body = Solid("muscle", (0.0, 0.0, 0.0), (500.0, 500.0, 500.0))
    labels = scan_anatomy(Anatomy((body, liver, kidney)), CT, np.random.default_rng(0)).labels
    first_kidney, first_liver = (np.argwhere(labels == LABELS[name])[:, 0] for name in ("right kidney", "liver"))
    assert first_kidney.min() - first_liver.max() > 1


def test_depth_is_the_distance_to_a_ball() -> None:
    points = np.array([[0.0, 12.0, 15.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    depth = measure_depth(Solid("liver", (0, 0, 0), (10, 10, 10)), points)
    assert depth[0] <= 0
    np.testing.assert_allclose(depth[1:], [2.0, 5.0], rtol=0.35)


def test_tube_has_no_end() -> None:
    tube = Solid("aorta", (0, 0, 0), (10, 10, float("inf")))
    points = np.array([[0.0], [0.0], [1e4]], dtype=np.float32)
    assert measure_depth(tube, points)[0] <= 0


def test_mirrored_twice_is_the_same() -> None:
    solid = Solid("liver", (5.0, 6.0, 7.0), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0))
    assert mirror(mirror(solid)) == solid


def test_mirror_reflects_the_body_of_a_turned_solid() -> None:
    points = np.random.default_rng(0).uniform(-30, 30, (3, 200)).astype(np.float32)
    solid = Solid("liver", (5.0, 6.0, 7.0), (10.0, 20.0, 5.0), (10.0, 20.0, 30.0))
    reflected = points * np.array([[-1.0], [1.0], [1.0]], dtype=np.float32)
    np.testing.assert_allclose(measure_depth(mirror(solid), reflected), measure_depth(solid, points), rtol=1e-3)


def test_rotation_is_orthogonal() -> None:
    turn = rotation((10.0, 20.0, 30.0))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)


def test_dataset_is_laid_out_as_nnunet_wants_it(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset999_Phantom"
    cases = write_phantom_dataset(folder, training_cases=2, test_cases=1, seed=0, scan=SMALL)
    assert cases == ["test_000"]
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == [
        "train_000_0000.nii.gz",
        "train_001_0000.nii.gz",
    ]
    assert [path.name for path in (folder / "labelsTs").iterdir()] == ["test_000.nii.gz"]
    described = json.loads((folder / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "CT"}
    assert described["numTraining"] == 2
    assert described["labels"] == {"background": 0, **LABELS}


def test_written_image_and_truth_share_a_grid_and_keep_their_values(tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path / "data", 1, 1, seed=5, scan=SMALL)
    image = nibabel.load(tmp_path / "data" / "imagesTs" / "test_000_0000.nii.gz")
    truth = nibabel.load(tmp_path / "data" / "labelsTs" / "test_000.nii.gz")
    phantom = make_phantom(5, 1, 0, SMALL)
    np.testing.assert_array_equal(image.affine, truth.affine)
    np.testing.assert_array_equal(np.asarray(truth.dataobj), phantom.labels)
    np.testing.assert_allclose(image.get_fdata(), phantom.image, atol=1e-3)


def test_existing_dataset_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match="exists already"):
        write_phantom_dataset(tmp_path, 1, 1, seed=0, scan=SMALL)
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_nothing_half_written_stands_under_the_datasets_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(nibabel, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_phantom_dataset(tmp_path / "data", 1, 1, seed=0, scan=SMALL)
    assert not (tmp_path / "data").exists()
