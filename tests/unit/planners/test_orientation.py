"""Which orientation a network is trained in, and how images come to it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from duplus_nnunet.data.orientations import NO_REORIENTATION, find_turn
from duplus_nnunet.planners.orientation import TrainingOrientation, find_image_turn, read_training_orientation
from duplus_nnunet.planners.survey import CaseSurvey
from duplus_nnunet.plans_form import PlansForm, as_form

from ..partial_plans import make_plans

IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
# x to the patient's right.
RPS = (-1, 0, 0, 0, 1, 0, 0, 0, 1)
# The first axis to the head, the last one to the left.
SPL = (0, 0, 1, 0, 1, 0, 1, 0, 0)
ORDER = (0, 1, 2)
READER = "SimpleITKIO"


def form(**changes: Any) -> PlansForm:
    plans = make_plans()
    plans["duplus"] |= changes
    return as_form(plans)


def write_cases(folder: Path, *codes: str) -> dict[str, dict[str, Any]]:
    image = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    cases = {}
    for number, code in enumerate(codes):
        file = str(folder / f"c{number}_0000.nii.gz")
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, code), file)
        cases[f"c{number}"] = {"images": [file]}
    return cases


def lie(direction: Any) -> dict[str, Any]:
    return {"sitk_stuff": {"direction": direction}}


@pytest.mark.parametrize(
    ("codes", "name", "across"), [(("LPS",), "LPS", 2), (("RAS",) * 2, "RAS", 2), (("LPS", "SPL", "SPL"), "SPL", 0)]
)
def test_the_most_frequent_orientation_is_trained(
    tmp_path: Path, codes: tuple[str, ...], name: str, across: int
) -> None:
    found = read_training_orientation(write_cases(tmp_path, *codes), READER)
    assert (found.name, found.across) == (name, across)
    assert set(found.turned.values()) == set(codes) - {name}


def test_the_orientation_of_a_base_is_kept(tmp_path: Path) -> None:
    found = read_training_orientation(write_cases(tmp_path, "RPS", "RPS"), READER, "LPS")
    assert (found.name, found.turned) == ("LPS", {"c0": "RPS", "c1": "RPS"})


def test_a_reader_that_turns_images_itself_needs_no_turn(tmp_path: Path) -> None:
    cases = write_cases(tmp_path, "LPS", "RPS")
    assert read_training_orientation(cases, "SimpleITKIOWithReorient") == TrainingOrientation(None, 2)
    assert read_training_orientation({}, "Tiff3DIO") == TrainingOrientation()


def test_fingerprint_and_surveys_have_the_axes_of_the_turned_images() -> None:
    survey = CaseSurvey((1, 2, 3), (10, 20, 30), 1.0, (), (), ())
    training = TrainingOrientation("LPS", 2, {"b": "SPL"})
    turned = training.turn_surveys({"a": survey, "b": survey})
    assert (turned["a"].spacing, turned["b"].spacing, turned["b"].shape) == ((1, 2, 3), (3, 2, 1), (30, 20, 10))
    fingerprint = {"spacings": [[1, 2, 3]] * 2, "shapes_after_crop": [(10, 20, 30)] * 2, "other": 7}
    assert training.turn_fingerprint(fingerprint, ["a", "b"]) == {
        "spacings": [[1, 2, 3], [3, 2, 1]], "shapes_after_crop": [[10, 20, 30], [30, 20, 10]], "other": 7,
    }  # fmt: skip


@pytest.mark.parametrize(("direction", "code"), [(IDENTITY, "LPS"), (RPS, "RPS"), (SPL, "SPL")])
def test_an_image_is_turned_to_the_training(direction: Any, code: str) -> None:
    how = find_image_turn(lie(direction), form(orientation="LPS"), ORDER, READER)
    assert (how.turn, how.sides_known, how.warnings) == (find_turn(code, "LPS"), True, ())


def test_an_image_without_direction_is_taken_as_it_is() -> None:
    how = find_image_turn({"spacing": (1, 1, 1)}, form(orientation="RAS"), ORDER, READER)
    assert (how.turn, how.sides_known, how.warnings) == (NO_REORIENTATION, True, ())


@pytest.mark.parametrize(("direction", "known", "warned"), [(IDENTITY, True, 0), (RPS, True, 1), (SPL, False, 1)])
def test_plans_without_an_orientation_turn_nothing_and_warn(direction: Any, known: bool, warned: int) -> None:
    how = find_image_turn(lie(direction), form(), ORDER, READER)
    assert (how.turn, how.sides_known, len(how.warnings)) == (NO_REORIENTATION, known, warned)


def test_no_image_is_doubtful_where_there_are_no_sides() -> None:
    targets = [{"name": "liver", "label": "Liver"}]
    contexts = {"ct": {"sentences": ["T1 CT"], "target_prompts": {"liver": ["CT of liver"]}}}
    how = find_image_turn(lie(RPS), form(targets=targets, contexts=contexts), ORDER, READER)
    assert how.warnings == ()


def test_the_left_right_axis_is_compared_after_nnunets_transposition() -> None:
    assert not find_image_turn(lie(SPL), form(left_right_axis=2), ORDER, READER).sides_known
    assert find_image_turn(lie(SPL), form(left_right_axis=2), (2, 1, 0), READER).sides_known


def test_an_oblique_image_is_turned_to_the_nearest_with_a_warning() -> None:
    c, s = np.cos(np.deg2rad(40)), np.sin(np.deg2rad(40))
    how = find_image_turn(lie((c, -s, 0, s, c, 0, 0, 0, 1)), form(orientation="LPS"), ORDER, READER)
    assert (how.turn, how.sides_known, len(how.warnings)) == (NO_REORIENTATION, False, 1)
