"""Names of clinical structures are matched by names and synonyms of targets; what is not certain is left open."""

import pytest

from duplus_nnunet.prompt_registry.structure_names import match_structures


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("Liver", "liver"),
        ("SpinalCord", "spinal cord"),
        ("spinal_cord", "spinal cord"),
        ("Oesophagus", "esophagus"),
        ("Parotid_Left", "left parotid gland"),
        ("Lung, left".replace(",", ""), "left lung"),
        ("BrainStem", "brainstem"),
    ],
)
def test_a_name_is_matched(name, target):
    assert match_structures([name])[name].target == target


def test_a_letter_is_a_side_if_its_counterpart_is_there():
    matches = match_structures(["Lung_L", "Lung_R"])
    assert [match.target for match in matches.values()] == ["left lung", "right lung"]
    assert not match_structures(["Lung_L"])["Lung_L"].target


@pytest.mark.parametrize("name", ["GTV", "GTVp", "CTV_60", "PTV1", "ITV", "iGTV", "Couch", "lad", "rad", ""])
def test_a_name_that_is_not_certain_is_left_open(name):
    match = match_structures([name])[name]
    assert not match.target
    assert match.reason


def test_what_is_decided_by_hand_precedes():
    assert match_structures(["GTV p"], [("gtv_p", "lung tumor")])["GTV p"].target == "lung tumor"
