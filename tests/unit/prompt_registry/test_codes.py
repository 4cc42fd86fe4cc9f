"""Codes of targets are those of DICOM's context groups, as pydicom's dictionary holds them."""

import pytest

from duplus_nnunet.prompt_registry.codes import ANATOMY, LESION, SUBSTANCE, Code, find_code
from duplus_nnunet.prompt_registry.finding import shipped_files

NAMES = sorted({name for file in shipped_files() for name in file.targets})
# Targets that no context group of DICOM has, or whose extent is another one than that of the nearest concept.
WITHOUT_CODE = {
    *("brain tumor core", "enhancing brain tumor", "non-enhancing brain tumor", "whole brain tumor"),
    *("first sacral vertebra", "intervertebral discs", "intestine", "kidney with masses", "resection cavity"),
    *("left autochthonous back muscle", "right autochthonous back muscle", "left iliopsoas muscle"),
    *("right iliopsoas muscle", "left quadriceps femoris muscle", "right quadriceps femoris muscle"),
    *("left sartorius muscle", "right sartorius muscle", "left hip bone", "right hip bone"),
    *(f"{side} gluteus {size} muscle" for side in ("left", "right") for size in ("maximus", "medius", "minimus")),
    *(f"{part} compartment of the {side} thigh" for side in ("left", "right") for part in ("medial", "posterior")),
    *("left half of the mandible", "right half of the mandible"),
    *("left ventricular cavity", "left ventricular myocardium", "right ventricular cavity"),
    *("portal vein and splenic vein", "prostate or uterus"),
}


@pytest.fixture(scope="module")
def dictionary():
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts["SCT"]
    return {(code, meaning) for codes in concepts.values() for code, (meaning, _) in codes.items()}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_CODE])
def test_each_code_of_a_shipped_target_is_in_dicoms_context_groups(name, dictionary):
    assert {(code.value, code.meaning) for code in find_code(name).all} <= dictionary


@pytest.mark.parametrize("name", sorted(WITHOUT_CODE))
def test_a_target_without_a_code_is_a_shipped_one_and_gets_none(name):
    assert name in NAMES
    assert find_code(name) is None


def test_the_side_of_a_name_is_the_modifier():
    assert find_code("left kidney").modifier == Code("7771000", "Left")
    assert find_code("right kidney").modifier == Code("24028007", "Right")
    assert find_code("kidney").modifier is None
    assert find_code("upper lobe of the left lung").modifier == Code("7771000", "Left")


def test_a_structure_with_a_code_of_its_own_gets_no_side_twice():
    assert find_code("middle lobe of the right lung").type == Code("72481006", "Middle lobe of right lung")
    assert find_code("left atrium").modifier is None


def test_the_side_of_a_lesion_is_that_of_its_region():
    code = find_code("left kidney cyst")
    assert (code.category, code.modifier) == (LESION, None)
    assert (code.region.meaning, code.region_modifier.meaning) == ("Kidney", "Left")


def test_the_category_follows_the_kind_of_structure():
    assert find_code("liver").category == ANATOMY
    assert find_code("liver tumor").category == LESION
    assert find_code("cerebrospinal fluid").category == SUBSTANCE


def test_an_unknown_name_has_no_code():
    assert find_code("left elbow of a robot") is None
