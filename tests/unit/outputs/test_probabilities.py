"""Probability maps on disk."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry
from duplus_nnunet.outputs.probabilities import (
    MapDescription,
    read_probabilities,
    to_probabilities,
    write_probabilities,
)

from .outputs_answers import PROPERTIES, SHAPE, SPACING, make_answer, make_cube

CUBE = make_cube((1, 2, 3), (3, 2, 4))


def make_random(shape: tuple[int, int, int] = SHAPE, box: Any = np.s_[1:5, 2:6, 0:7]) -> CaseAnswer:
    """Make a prediction with random logits inside a box."""
    answer = make_answer({"left kidney": np.zeros(shape, bool)})
    size = tuple(part.stop - part.start for part in box)
    logits = np.random.default_rng(0).normal(scale=6, size=size).astype(np.float16)
    return replace(answer, targets=(replace(answer.targets[0], box=box, mask=logits > 0, logits=logits),))


def test_probabilities_are_the_sigmoid_of_the_logits_in_the_box_and_zero_outside(tmp_path: Path) -> None:
    answer = make_random()
    array, _ = read_probabilities(write_probabilities(answer, tmp_path)[0])
    expected = np.zeros(SHAPE)
    expected[1:5, 2:6, 0:7] = expit(answer.targets[0].logits.astype(float))
    assert array.dtype == np.float16
    np.testing.assert_allclose(array[:], expected, atol=5e-4)
    assert not array[:][expected == 0].any()


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_logits_that_are_a_view_in_another_order_are_written_alike(axes: tuple[int, ...], tmp_path: Path) -> None:
    answer = make_random()
    stored = np.ascontiguousarray(answer.targets[0].logits.transpose(np.argsort(axes))).transpose(axes)
    transposed = replace(answer, targets=(replace(answer.targets[0], logits=stored),))
    for name, each in (("plain", answer), ("transposed", transposed)):
        (tmp_path / name).mkdir()
        write_probabilities(each, tmp_path / name)
    plain, other = (next((tmp_path / name).rglob("*.b2nd")) for name in ("plain", "transposed"))
    np.testing.assert_array_equal(read_probabilities(other)[0][:], read_probabilities(plain)[0][:])


def test_map_holds_its_metadata(tmp_path: Path) -> None:
    file = write_probabilities(make_answer({"left kidney": CUBE, "Leber/Läsion": CUBE}), tmp_path)[1]
    assert file == tmp_path / "case_1" / "Leber_Lasion.b2nd"
    _, found = read_probabilities(str(file))
    affine = ((0.0, 0.0, -0.7, 11.0), (0.0, -0.8, 0.0, -3.5), (2.5, 0.0, 0.0, 40.25), (0.0, 0.0, 0.0, 1.0))
    assert found == MapDescription(
        case="case_1",
        target="Leber/Läsion",
        value=2,
        prompt="A computed tomography of the Leber/Läsion",
        context="abdomen_ct",
        context_prompt="A computed tomography",
        shape=SHAPE,
        spacing=SPACING,
        affine=affine,
    )


def test_map_of_an_image_without_orientation_says_so(tmp_path: Path) -> None:
    answer = make_answer({"liver": CUBE}, {"spacing": [np.float64(2.5), 1, 1]})
    answer = replace(answer, geometry=replace(answer.geometry, shape=tuple(map(np.int64, SHAPE))))
    _, found = read_probabilities(write_probabilities(answer, tmp_path)[0])
    assert (found.affine, found.shape, found.spacing) == (None, SHAPE, (2.5, 1.0, 1.0))


@pytest.mark.parametrize("part", [np.s_[70], np.s_[60:70, 3:5], np.s_[:, :, 2], np.s_[64:66, 1:9, 1:9]])
def test_slices_are_those_of_the_whole(part: Any, tmp_path: Path) -> None:
    answer = make_random((140, 9, 10), np.s_[30:131, 1:9, 0:10])
    array, _ = read_probabilities(write_probabilities(answer, tmp_path)[0])
    assert array.chunks[0] < 140
    np.testing.assert_array_equal(array[part], array[:][part])
    np.testing.assert_array_equal(array[30:131, 1:9, :], to_probabilities(answer.targets[0].logits))


def test_target_that_is_nowhere_costs_nothing(tmp_path: Path) -> None:
    shape = (200, 300, 300)
    answer = make_answer({"spleen": np.zeros((1, 1, 1), bool)})
    answer = replace(answer, geometry=Geometry(shape, SPACING, PROPERTIES))
    file = write_probabilities(answer, tmp_path)[0]
    array, _ = read_probabilities(file)
    assert array.shape == shape
    assert not array[100].any()
    assert file.stat().st_size < 2000


def test_description_is_plain_json_for_any_reader_of_blosc2(tmp_path: Path) -> None:
    file = write_probabilities(make_answer({"liver": CUBE}), tmp_path)[0]
    array = blosc2.open(str(file), mode="r")
    content = json.loads(array.schunk.vlmeta["duplus"])
    assert (content["version"], content["target"], content["shape"]) == (1, "liver", list(SHAPE))


@given(arrays(np.float16, (4, 3, 2), elements=st.floats(width=16, allow_nan=False)))
def test_probability_is_above_one_half_exactly_where_the_logit_is_positive(logits: Any) -> None:
    probabilities = to_probabilities(logits)
    np.testing.assert_array_equal(probabilities > 0.5, logits > 0)
    np.testing.assert_allclose(probabilities, expit(logits.astype(float)), atol=6e-4)


def test_writing_that_fails_leaves_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("duplus_nnunet.outputs.probabilities.to_probabilities", fail)
    with pytest.raises(OSError, match="disk full"):
        write_probabilities(make_answer({"liver": CUBE}), tmp_path)
    assert list((tmp_path / "case_1").iterdir()) == []


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.b2nd"):
        read_probabilities(tmp_path / "nothing.b2nd")


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.b2nd").write_text("text" * 100, encoding="utf-8")
    blosc2.asarray(np.zeros(3), urlpath=str(tmp_path / "array.b2nd"), mode="w")
    for name in ("text.b2nd", "array.b2nd"):
        with pytest.raises(DataError, match=name):
            read_probabilities(tmp_path / name)


def test_map_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "later.b2nd"
    array = blosc2.asarray(np.zeros(3), urlpath=str(file), mode="w")
    array.schunk.vlmeta["duplus"] = json.dumps({"version": 2})
    with pytest.raises(DataError, match=r"later\.b2nd .*version 2\b.*\b1\b"):
        read_probabilities(file)
