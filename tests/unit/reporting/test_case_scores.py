"""Scores of single cases."""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.case_scores import ScoringSettings, score_cases, score_maps
from duplus_nnunet.reporting.surfaces import compute_nsd

READERS = [NibabelIO, SimpleITKIO, SimpleITKIOWithReorient]
REGIONS = {"liver": (1,), "spleen": (2,), "both": (1, 2)}
SETTINGS = ScoringSettings(SimpleITKIO, ".nii.gz", REGIONS)


def make_map(**boxes: slice) -> np.ndarray[Any, Any]:
    """Make a label map whose targets fill the given rows."""
    labels = np.zeros((10, 6, 6), np.uint8)
    for name, rows in boxes.items():
        labels[rows, 1:5, 1:5] = REGIONS[name][0]
    return labels


def save(folder: Path, labels: np.ndarray[Any, Any], name: str = "a", spacing: tuple[float, ...] = (1, 2, 3)) -> None:
    folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([*spacing, 1.0])), folder / f"{name}.nii.gz")


def score(prediction: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], name: str, **changes: Any) -> Any:
    maps = ScoringSettings(SimpleITKIO, ".nii.gz", REGIONS, **changes)
    return score_maps(prediction, reference, (1, 1, 1), maps, [name])[name]


def test_half_overlap_is_half_the_dice() -> None:
    found = score(make_map(liver=slice(2, 6)), make_map(liver=slice(4, 8)), "liver")
    assert found.dice == 0.5
    assert (found.present, found.predicted) == (True, True)


def test_same_maps_score_one() -> None:
    found = score(make_map(liver=slice(2, 6)), make_map(liver=slice(2, 6)), "liver")
    assert (found.dice, found.nsd) == (1, 1)


def test_absent_and_not_predicted_has_no_score() -> None:
    found = score(make_map(), make_map(), "liver")
    assert math.isnan(found.dice)
    assert math.isnan(found.nsd)
    assert (found.present, found.predicted) == (False, False)


@pytest.mark.parametrize("prediction", [True, False])
def test_what_only_one_of_the_maps_holds_scores_zero(prediction: bool) -> None:
    maps = [make_map(liver=slice(2, 6)), make_map()]
    found = score(*(maps if prediction else maps[::-1]), "liver")
    assert (found.dice, found.nsd, found.predicted, found.present) == (0, 0, prediction, not prediction)


def test_region_is_the_union_of_its_labels() -> None:
    reference = make_map(liver=slice(0, 4), spleen=slice(4, 8))
    swapped = make_map(spleen=slice(0, 4), liver=slice(4, 8))
    assert score(swapped, reference, "both").dice == 1
    assert score(swapped, reference, "liver").dice == 0


def test_voxels_of_the_ignore_label_count_for_nothing() -> None:
    reference = make_map(liver=slice(2, 6))
    reference[6:] = 9
    assert score(make_map(liver=slice(2, 9)), reference, "liver", ignore=9).dice == 1
    assert score(make_map(liver=slice(2, 9)), reference, "liver").dice < 1


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_tolerance_is_a_distance(tolerance: float) -> None:
    with pytest.raises(DataError, match=f"{tolerance} mm"):
        ScoringSettings(SimpleITKIO, ".nii.gz", REGIONS, tolerance=tolerance)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_every_reader_gives_the_same_scores(reader: type, tmp_path: Path) -> None:
    save(tmp_path / "p", make_map(liver=slice(2, 6), spleen=slice(6, 8)))
    save(tmp_path / "r", make_map(liver=slice(3, 6), spleen=slice(6, 9)))
    case = Case("one", "pat", ("liver", "spleen"), ())
    maps = ScoringSettings(reader, ".nii.gz", REGIONS, tolerance=0.5)
    found = score_cases(tmp_path / "p", tmp_path / "r", maps, {"a": case}, 1)["a"]
    assert found.spacing == (3, 2, 1)
    assert found.targets["liver"].dice == pytest.approx(6 / 7)
    turned = [make_map(liver=rows).T == 1 for rows in (slice(2, 6), slice(3, 6))]
    assert found.targets["liver"].nsd == pytest.approx(compute_nsd(*turned, (3, 2, 1), 0.5))
    assert (found.source, found.patient) == ("one", "pat")


def test_only_annotated_targets_are_scored(tmp_path: Path) -> None:
    for folder in ("p", "r"):
        save(tmp_path / folder, make_map(liver=slice(2, 6)))
    case = Case("one", "pat", ("spleen", "gallbladder"), ())
    found = score_cases(tmp_path / "p", tmp_path / "r", SETTINGS, {"a": case}, 1)["a"]
    assert list(found.targets) == ["spleen"]


def test_other_grid_names_the_case(tmp_path: Path) -> None:
    save(tmp_path / "p", make_map(), spacing=(1, 2, 4))
    save(tmp_path / "r", make_map())
    with pytest.raises(DataError, match=r"'a'.*spacing \[4.0, 2.0, 1.0\] and \[3.0, 2.0, 1.0\]"):
        score_cases(tmp_path / "p", tmp_path / "r", SETTINGS, {"a": Case("one", "pat", ("liver",), ())}, 1)


def test_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    save(tmp_path / "r", make_map())
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.nii.gz").write_text("no image")
    with pytest.raises(DataError, match=r"a\.nii\.gz cannot be read"):
        score_cases(
            tmp_path / "p",
            tmp_path / "r",
            ScoringSettings(NibabelIO, ".nii.gz", REGIONS),
            {"a": Case("one", "pat", ("liver",), ())},
            1,
        )


@pytest.mark.parametrize("side", ["p", "r"])
@pytest.mark.parametrize("value", [7, np.nan, 0.5])
def test_values_that_no_label_has_are_refused_on_both_sides(side: str, value: float, tmp_path: Path) -> None:
    wrong = make_map().astype(np.float32)
    wrong[0, 0, 0] = value
    for folder in ("p", "r"):
        save(tmp_path / folder, wrong if folder == side else make_map())
    known = frozenset({0, 1, 2})
    settings = ScoringSettings(SimpleITKIO, ".nii.gz", REGIONS, known=known, known_predicted=known)
    with pytest.raises(DataError, match=rf"{side}/a\.nii\.gz .*{value:g}"):
        score_cases(tmp_path / "p", tmp_path / "r", settings, {"a": Case("one", "pat", ("liver",), ())}, 1)


def test_nearly_whole_labels_score_as_whole_ones(tmp_path: Path) -> None:
    save(tmp_path / "p", make_map(liver=slice(2, 6)))
    save(tmp_path / "r", make_map(liver=slice(2, 6)).astype(np.float32) * np.float32(0.99999))
    case = Case("one", "pat", ("liver",), ())
    found = score_cases(tmp_path / "p", tmp_path / "r", SETTINGS, {"a": case}, 1)["a"]
    assert (found.targets["liver"].dice, found.rounded) == (1, 64)


@pytest.mark.slow
def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    cases = {}
    for number in range(3):
        save(tmp_path / "p", make_map(liver=slice(2, 5 + number)), str(number))
        save(tmp_path / "r", make_map(liver=slice(2, 6)), str(number))
        cases[str(number)] = Case("one", str(number), ("liver",), ())
    single, parallel = (score_cases(tmp_path / "p", tmp_path / "r", SETTINGS, cases, processes) for processes in (1, 2))
    assert repr(single) == repr(parallel)
    assert list(parallel) == ["0", "1", "2"]
