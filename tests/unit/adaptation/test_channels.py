"""Channels of a new dataset stand where the model was trained with the same ones."""

from typing import Any

import pytest

from duplus_nnunet.adaptation.base import Base
from duplus_nnunet.adaptation.channels import check_channels, describe_channels
from duplus_nnunet.errors import PlansError


def name(*channels: str) -> dict[str, Any]:
    return {"channel_names": {str(number): channel for number, channel in enumerate(channels)}}


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(PlansError, match=r"\b1 channel.*\b2\b"):
        check_channels(Base("base", {}, name("CT")), name("CT", "PET"))


@pytest.mark.parametrize(
    ("theirs", "own"),
    [
        (("PET", "CT"), ("CT", "PET")),
        (("T2", "T1"), ("t1", "t2")),
        (("T1", "T2", "FLAIR"), ("T1", "FLAIR", "DWI")),
        (("T1", "T1", "T2"), ("T2", "T1", "T1")),
    ],
)
def test_the_models_channels_in_another_order_are_refused(theirs: tuple[str, ...], own: tuple[str, ...]) -> None:
    with pytest.raises(PlansError, match=f"_0000 '{theirs[0]}', _0001 '{theirs[1]}'.*channel_names"):
        check_channels(Base("base", {}, name(*theirs)), name(*own))


@pytest.mark.parametrize(
    ("theirs", "own"),
    [
        (("CT", "PET"), ("ct", "PET")),
        (("T1", "T2"), ("FLAIR", "T2")),
        (("MR", "MR"), ("MR", "CT")),
        (("CT",), ("MR",)),
    ],
)
def test_other_channels_are_the_users_to_judge(theirs: tuple[str, ...], own: tuple[str, ...]) -> None:
    check_channels(Base("base", {}, name(*theirs)), name(*own))


def test_the_order_is_that_of_the_numbers() -> None:
    check_channels(Base("base", {}, {"modality": {"1": "PET", "0": "CT"}}), name("CT", "PET"))


def test_different_names_are_shown_side_by_side() -> None:
    (note,) = describe_channels(("FLAIR", "T2"), ("T1", "t2"))
    assert all(word in note for word in ("channel 0", "'T1'", "'FLAIR'"))


@pytest.mark.parametrize("common", ["image", "image 0"])
def test_a_model_of_several_modalities_names_no_channel(common: str) -> None:
    assert describe_channels((common,), ("CT",)) == []
