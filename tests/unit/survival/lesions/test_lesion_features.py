"""Measurements of lesions equal those computed by hand and MIRP's."""

import csv
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.lesions.ibsi import compute_ibsi
from duplus_nnunet.survival.lesions.measures import (
    PEAK_RADIUS,
    Threshold,
    find_peak,
    measure_shapes,
    measure_uptake,
    parse_threshold,
)
from duplus_nnunet.survival.lesions.table import TOGETHER, FeatureChoice, measure_targets

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "lesion_peaks.json").read_text(encoding="utf-8"))


def make_ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> NDArray[np.bool_]:
    offsets = [axis - middle for axis, middle in zip(np.indices(shape), centre, strict=True)]
    ball: NDArray[np.bool_] = sum(offset**2 for offset in offsets) <= radius**2
    return ball


def test_volumes_and_distances_are_those_counted_by_hand() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[1:3, 1:3, 1:3] = mask[7, 7, 7] = True
    shapes = measure_shapes(mask, (3.0, 2.0, 1.0))
    np.testing.assert_allclose(shapes.volumes, [8 * 6 / 1000, 6 / 1000])
    assert shapes.spread == pytest.approx(math.sqrt((5.5 * 3) ** 2 + (5.5 * 2) ** 2 + 5.5**2))


def test_the_volume_of_a_ball_is_that_of_a_sphere() -> None:
    shapes = measure_shapes(make_ball((32, 32, 32), (16, 16, 16), 14), (1.0, 1.0, 1.0))
    assert shapes.volumes[0] == pytest.approx(4 / 3 * math.pi * 14**3 / 1000, rel=0.01)


def test_lesions_that_touch_at_a_corner_are_one_and_no_lesion_has_no_spread() -> None:
    mask = np.zeros((4, 4, 4), bool)
    assert math.isnan(measure_shapes(mask, (1.0, 1.0, 1.0)).spread)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert len(measure_shapes(mask, (1.0, 1.0, 1.0)).volumes) == 1
    assert measure_shapes(mask, (1.0, 1.0, 1.0)).spread == 0


def test_the_sphere_of_the_peak_holds_1_ml() -> None:
    assert 4 / 3 * math.pi * PEAK_RADIUS**3 == pytest.approx(1000)


def test_the_peak_is_the_mean_in_the_sphere_around_the_best_voxel_even_across_the_border() -> None:
    pet = np.random.default_rng(0).gamma(2, 2, (12, 12, 12))
    mask = make_ball(pet.shape, (5, 5, 9), 2)
    spacing = np.array([3.0, 2.0, 2.5])
    points = np.argwhere(np.ones(pet.shape, bool))
    means = []
    for voxel in np.argwhere(mask):
        near = ((((points - voxel) * spacing) ** 2).sum(1)) <= PEAK_RADIUS**2
        means.append(pet[tuple(points[near].T)].mean())
    assert find_peak(mask, pet, spacing.tolist()) == pytest.approx(max(means))


def test_the_peak_is_that_of_mirp() -> None:
    rng = np.random.default_rng(GOLDEN["seed"])
    pet = rng.gamma(2, 2, (20, 20, 20)).astype(np.float32)
    mask = make_ball(pet.shape, (10, 10, 10), 6)
    spacing = GOLDEN["spacing"]
    assert find_peak(mask, pet, spacing) == pytest.approx(GOLDEN["loc_peak_glob"], abs=1e-5)
    assert measure_shapes(mask, spacing).volumes[0] == pytest.approx(GOLDEN["morph_vol_approx"] / 1000, rel=1e-6)
    uptake = measure_uptake(mask, pet, spacing)
    assert uptake.mean == pytest.approx(GOLDEN["stat_mean"], rel=1e-5)
    assert uptake.maximum == pytest.approx(GOLDEN["stat_max"], rel=1e-5)
    assert uptake.glycolysis == pytest.approx(GOLDEN["stat_mean"] * GOLDEN["morph_vol_approx"] / 1000, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "volume", "mean"), [("0", 0.008, 3.0), ("4", 0.004, 4.0), ("100%", 0.004, 4.0), ("40%", 0.008, 3.0)]
)
def test_the_metabolic_volume_starts_at_the_threshold(text: str, volume: float, mean: float) -> None:
    pet = np.full((2, 2, 2), 2.0)
    pet[0] = 4.0
    uptake = measure_uptake(np.ones((2, 2, 2), bool), pet, (1.0, 1.0, 1.0), parse_threshold(text))
    assert (uptake.volume, uptake.mean, uptake.glycolysis) == pytest.approx((volume, mean, volume * mean))


@pytest.mark.parametrize("text", ["", "-1", "101%", "a lot", "nan"])
def test_other_thresholds_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_threshold(text)


def test_a_pet_in_becquerel_or_with_nan_is_refused() -> None:
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(DataError, match="Bq/ml"):
        measure_uptake(mask, np.full((2, 2, 2), 20000.0), (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="NaN"):
        measure_uptake(mask, np.full((2, 2, 2), np.nan), (1.0, 1.0, 1.0))


def test_targets_are_measured_apart_and_together() -> None:
    primary, nodes = np.zeros((2, 10, 10, 10), bool)
    primary[0, 0, 0] = nodes[0, 0, 1] = nodes[0, 0, 9] = True  # the first node touches the primary
    row = measure_targets({"GTVp": primary, "GTVn": nodes}, None, (2.0, 2.0, 2.0), "GTVp", FeatureChoice())
    assert row["GTVn: lesions"] == 2
    assert row[f"{TOGETHER}: lesions"] == 3
    assert row[f"{TOGETHER}: volume (ml)"] == pytest.approx(0.024)
    assert row["GTVn: largest distance from GTVp (mm)"] == 18
    assert row[f"{TOGETHER}: largest distance between lesions (mm)"] == 18
    assert not [name for name in row if "SUV" in name]


def test_regions_within_each_other_are_one_lesion() -> None:
    whole, core, node = np.zeros((3, 10, 10, 10), bool)
    whole[:4, :4, :4] = core[1:3, 1:3, 1:3] = node[8, 8, 8] = True
    row = measure_targets({"core": core, "node": node, "whole": whole}, None, (10.0, 10.0, 10.0), "", FeatureChoice())
    assert row[f"{TOGETHER}: lesions"] == 2
    assert row[f"{TOGETHER}: volume (ml)"] == pytest.approx(65)
    assert row[f"{TOGETHER}: largest lesion (ml)"] == pytest.approx(64)
    assert (row["core: lesions"], row["core: volume (ml)"]) == (1, pytest.approx(8))


@pytest.mark.skipif(importlib.util.find_spec("mirp") is None, reason="needs the extra radiomics")
def test_ibsi_features_are_those_of_mirp_and_defined() -> None:
    pet = np.random.default_rng(0).gamma(2, 2, (8, 8, 8))
    features = compute_ibsi(make_ball(pet.shape, (4, 4, 4), 3), pet, (3.0, 2.0, 2.0))
    assert len(features) > 150
    assert features["morph_vol_approx"] == pytest.approx(make_ball(pet.shape, (4, 4, 4), 3).sum() * 12)


def make_dataset(folder: Path, cases: tuple[str, ...] = ("A_1", "B_2")) -> Path:
    import nibabel

    root = folder / "Dataset011_HeadNeck"
    for part in ("imagesTr", "labelsTr", "other"):
        (root / part).mkdir(parents=True)
    channels, labels = {"0": "CT", "1": "PET"}, {"background": 0, "GTVp": 1, "GTVn": 2}
    description = {"channel_names": channels, "labels": labels, "file_ending": ".nii.gz", "numTraining": len(cases)}
    (root / "dataset.json").write_text(json.dumps(description))
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    for number, case in enumerate(cases):
        pet, label = np.ones((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.uint8)
        label[1:3, 1:3, 1:3], label[6, 6, 6] = 1, 2 * number
        pet[label > 0] = 5.0
        for name, values in (
            (f"imagesTr/{case}_0000", pet),
            (f"imagesTr/{case}_0001", pet),
            (f"labelsTr/{case}", label),
        ):
            nibabel.save(nibabel.Nifti1Image(values, affine), root / f"{name}.nii.gz")
    return root


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_the_command_writes_a_row_a_patient_that_joins_the_clinical_table(tmp_path: Path) -> None:
    root, file = make_dataset(tmp_path), tmp_path / "features.csv"
    schema = "patient: ID\ntime: {column: t}\nevent: {column: e, seen: [1], censored: [0]}\ncases: '_(.+)$'\n"
    (root / "clinical.yaml").write_text(schema)
    assert cli.main(["survival", "features", str(root), "-o", str(file)]) == 0
    first, second = read(file)
    assert (first["ID"], second["ID"]) == ("1", "2")
    assert float(first["GTVp: volume (ml)"]) == pytest.approx(8 * 12 / 1000)
    assert float(first["GTVp: SUVmax (g/ml)"]) == 5
    assert float(first["GTVp: TLG (g)"]) == pytest.approx(5 * 8 * 12 / 1000)
    assert (first["GTVn: lesions"], first["GTVn: SUVmax (g/ml)"], first["GTVn: MTV (ml)"]) == ("0.0", "", "0.0")
    assert float(second["GTVn: largest distance from GTVp (mm)"]) == pytest.approx(
        math.sqrt(2 * (4.5 * 2) ** 2 + (4.5 * 3) ** 2), rel=1e-5
    )


def test_the_command_measures_predictions_and_refuses_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file = make_dataset(tmp_path), tmp_path / "features.csv"
    (root / "labelsTr" / "A_1.nii.gz").rename(root / "other" / "A_1.nii.gz")
    command = ["survival", "features", str(root), "-o", str(file)]
    assert cli.main([*command, "--predictions", str(root / "other")]) == 0
    assert [row["patient"] for row in read(file)] == ["A_1"]
    assert cli.main(command) == 0
    assert [row["patient"] for row in read(file)] == ["B_2"]
    assert "A_1" in capsys.readouterr().err
    for wrong in (["--targets", "liver"], ["--pet", "7"], ["--predictions", str(tmp_path / "none")]):
        assert cli.main([*command, *wrong]) == 1
    assert cli.main(["survival", "features", str(make_twins(tmp_path)), "-o", str(file)]) == 1
    assert "A_1" in capsys.readouterr().err


def make_twins(folder: Path) -> Path:
    root = make_dataset(folder / "twins", ("A_1", "A_2"))
    schema = "patient: ID\ntime: {column: t}\nevent: {column: e, seen: [1], censored: [0]}\ncases: '^([^_]+)_'\n"
    (root / "clinical.yaml").write_text(schema)
    return root


def test_thresholds_are_read() -> None:
    assert parse_threshold(" 41% ") == Threshold(0.41, True)


def test_an_empty_mask_has_no_uptake() -> None:
    empty: Any = measure_uptake(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2)), (1.0, 1.0, 1.0))
    assert math.isnan(empty.maximum)
