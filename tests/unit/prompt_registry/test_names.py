import pytest

from duplus_nnunet.prompt_registry.names import (
    find_partner,
    needs_partner,
    normalise,
    spell_out,
    strip_dataset_number,
    swap_side,
)


@pytest.mark.parametrize("text", ["left kidney", "Left_Kidney", "LEFT-KIDNEY", "leftKidney", " left  kidney "])
def test_case_spaces_underscores_and_hyphens_do_not_count(text: str) -> None:
    assert normalise(text) == normalise("left kidney")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("left kidney", "left kidney"),
        ("right kidney", "right kidney"),
        ("liver", "liver"),
        ("spine", "spine"),
        ("kidney_left", "left kidney"),
        ("lt_kidney", "left kidney"),
        ("Kidney_RT", "right kidney"),
        ("OAR_lt_adrenal", "oar left adrenal gland"),
        ("SpinalCord", "spinal cord"),
        ("optic_nerve", "optic nerve"),
        ("RightParotid", "right parotid gland"),
        ("adrenal_gland_left", "left adrenal gland"),
        ("gall_bladder", "gallbladder"),
        ("IVC", "inferior vena cava"),
        ("postcava", "inferior vena cava"),
        ("CSF", "cerebrospinal fluid"),
        ("GM", "gray matter"),
        ("vertebrae_L1", "vertebrae l1"),
        ("tumor", "tumor"),
        ("Brain Stem", "brainstem"),
    ],
)
def test_labels_are_spelled_out(label: str, name: str) -> None:
    assert spell_out(label) == name


def test_a_lone_l_is_a_side_if_its_counterpart_is_there() -> None:
    assert spell_out("kidney_l", ["kidney_l", "kidney_r"]) == "left kidney"


def test_a_lone_l_is_no_side_without_its_counterpart() -> None:
    assert spell_out("type_l", ["type_l", "type_k"]) == "type l"


def test_a_side_alone_stays_a_name() -> None:
    assert spell_out("left") == "left"


def test_left_finds_right() -> None:
    assert find_partner("left kidney", ["liver", "right kidney"]) == "right kidney"


def test_a_side_inside_a_name_finds_its_partner() -> None:
    wanted = "upper lobe of the right lung"
    assert find_partner("upper lobe of the left lung", [wanted]) == wanted


@pytest.mark.parametrize("name", ["left ventricle", "left atrium", "left ventricular cavity", "left atrial appendage"])
def test_heart_chambers_have_no_mirror_partner(name: str) -> None:
    assert find_partner(name, [str(swap_side(name))]) is None
    assert not needs_partner(name)


def test_lateral_ventricles_of_the_brain_do_mirror() -> None:
    assert find_partner("left lateral ventricle", ["right lateral ventricle"]) == "right lateral ventricle"


def test_names_without_one_side_have_no_other_side() -> None:
    assert swap_side("liver") is None
    assert swap_side("left and right lung") is None


@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Task04_Hippocampus", "Hippocampus"])
def test_numbers_of_datasets_are_taken_off(name: str) -> None:
    assert strip_dataset_number(name) == "Hippocampus"
