"""Modality, body part and sequence of a series propose its context."""

import pytest

from duplus_nnunet.dicom.checks import make_series
from duplus_nnunet.dicom.proposals import fits_modality, propose_contexts
from duplus_nnunet.dicom.series import Description
from duplus_nnunet.plans_form import PlannedContext

MR = "magnetic resonance imaging"


def make_context(modality, region=""):
    return PlannedContext(sentences=[f"A {modality} of {region}"], target_prompts={}, modality=modality, region=region)


CONTEXTS = {
    "ct": make_context("computed tomography", "abdomen"),
    "head": make_context("computed tomography", "head and neck"),
    "in": make_context(f"T1-weighted in-phase {MR}", "abdomen"),
    "out": make_context(f"T1-weighted out-of-phase {MR}", "abdomen"),
    "t2": make_context(f"T2-weighted {MR}", "abdomen"),
    "dwi": make_context(f"diffusion-weighted {MR}", "abdomen"),
    "pet": make_context("positron emission tomography", "whole body"),
    "both": make_context("positron emission tomography and computed tomography", "whole body"),
}


def propose(modality, text="", body_part="", words=(), contexts=CONTEXTS):
    (series,) = make_series(Description("1.2", modality=modality, text=text, body_part=body_part, words=words), [], "x")
    return propose_contexts(series, contexts)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (("CT", "", "ABDOMEN"), ["ct"]),
        (("CT", "", "LIVER"), ["ct"]),
        (("CT", "", "HEADNECK"), ["head"]),
        (("CT",), ["ct", "head"]),
        (("CT", "", "SOMETHING"), ["ct", "head"]),
        (("CT", "", "FOOT"), []),
        (("PT",), ["pet"]),
        (("MR", "t1_vibe_in_phase"), ["in"]),
        (("MR", "t1 vibe opp-phase"), ["out"]),
        (("MR", "T1 out of phase"), ["out"]),
        (("MR", "ax t2 haste"), ["t2"]),
        (("MR", "resolve DWI b800"), ["dwi"]),
        (("MR", "", "", ("ep2d_diff",)), ["dwi"]),
        (("MR", "localiser"), ["in", "out", "t2", "dwi"]),
        (("MR", "t1 vibe dixon"), ["in", "out", "t2", "dwi"]),
        (("MR", "", "BRAIN"), []),
        (("US",), []),
    ],
    ids=str,
)
def test_contexts_are_those_of_modality_body_part_and_sequence(asked, names):
    assert propose(*asked) == names


def test_context_without_a_known_modality_fits_any():
    assert fits_modality("CT", make_context(""))
    assert not fits_modality("CT", make_context(MR))
    assert not fits_modality("CT", CONTEXTS["both"])
