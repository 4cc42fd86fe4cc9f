"""Small components are removed from masks and label maps where that is asked for, and nowhere else."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from duplus_nnunet.errors import PromptError
from duplus_nnunet.inference.binding import _read_cleaning
from duplus_nnunet.inference.cleaning import Cleaning, clean, read_cleaning, warn_of_unasked
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.prompt_bank import PromptBank

from ..outputs.outputs_answers import SHAPE, SPACING, make_answer, make_cube
from ..partial_plans import make_plans

VOXEL = float(np.prod(SPACING)) / 1000  # ml
BIG, SMALL, ONE = make_cube((1, 1, 1), (2, 2, 2)), make_cube((4, 4, 1), (1, 1, 3)), make_cube((5, 0, 7), (1, 1, 1))
PARTS = BIG | SMALL | ONE


def spread(answer):
    masks = {}
    for target in answer.targets:
        masks[target.name] = np.zeros(answer.geometry.shape, bool)
        masks[target.name][target.box] = target.mask
    return masks


def test_nothing_changes_unless_it_is_asked_for():
    answer = make_answer({"liver": PARTS})
    assert clean(answer, Cleaning()) is answer
    assert clean(answer, Cleaning(frozenset({"spleen"}))) is answer


def test_the_largest_component_of_the_named_target_is_kept():
    answer = clean(
        make_answer({"liver": PARTS, "spleen": np.roll(PARTS, 1, 1) & ~PARTS}), Cleaning(frozenset({"liver"}))
    )
    masks = spread(answer)
    np.testing.assert_array_equal(masks["liver"], BIG)
    np.testing.assert_array_equal(masks["spleen"], np.roll(PARTS, 1, 1) & ~PARTS)
    np.testing.assert_array_equal(answer.labels == 1, BIG)
    (removal,) = answer.removed
    assert (removal.target, removal.components, removal.voxels) == ("liver", 2, 4)
    assert removal.volume_ml == pytest.approx(4 * VOXEL)


@pytest.mark.parametrize(
    ("least", "kept"), [(0.9, PARTS), (1, PARTS), (1.5, BIG | SMALL), (3, BIG | SMALL), (8.5, BIG & False)]
)
def test_components_below_a_volume_are_removed(least, kept):
    answer = clean(make_answer({"liver": PARTS}), Cleaning(least={"liver": least * VOXEL}))
    np.testing.assert_array_equal(spread(answer)["liver"], kept)
    np.testing.assert_array_equal(answer.labels > 0, kept)


def test_the_volume_of_a_named_target_precedes_that_of_all():
    masks = {"liver": PARTS, "spleen": np.zeros(SHAPE, bool)}
    masks["spleen"][0, 6, 6] = True
    answer = clean(make_answer(masks), Cleaning(least={"spleen": 0}, least_of_others=2 * VOXEL))
    np.testing.assert_array_equal(spread(answer)["liver"], BIG | SMALL)
    assert spread(answer)["spleen"].any()
    assert [removal.target for removal in answer.removed] == ["liver"]


def test_the_largest_component_is_removed_too_if_it_is_small():
    answer = clean(make_answer({"liver": PARTS}), Cleaning(frozenset({"liver"}), least_of_others=9 * VOXEL))
    assert not answer.labels.any()
    assert answer.removed[0].components == 3


def test_voxels_that_touch_at_a_corner_are_one_component():
    mask = make_cube((1, 1, 1), (1, 1, 1)) | make_cube((2, 2, 2), (1, 1, 1))
    answer = make_answer({"liver": mask})
    assert clean(answer, Cleaning(frozenset({"liver"}))) is answer


def test_of_equal_components_the_first_is_kept():
    first, second = make_cube((0, 0, 0), (1, 1, 2)), make_cube((3, 3, 3), (1, 1, 2))
    answer = clean(make_answer({"liver": first | second}), Cleaning(frozenset({"liver"})))
    np.testing.assert_array_equal(spread(answer)["liver"], first)


def test_a_removed_voxel_belongs_to_the_target_below():
    answer = clean(
        make_answer({"kidney": BIG, "tumor": ONE | make_cube((1, 1, 1), (1, 1, 1))}),
        Cleaning(least={"tumor": 2 * VOXEL}),
    )
    np.testing.assert_array_equal(answer.labels == 1, BIG)
    assert not (answer.labels == 2).any()


def test_an_empty_mask_stays_empty():
    answer = make_answer({"liver": np.zeros(SHAPE, bool)})
    assert clean(answer, Cleaning(frozenset({"liver"}), least_of_others=1)) is answer


def test_logits_and_presence_stay():
    before = make_answer({"liver": PARTS})
    before = replace(before, targets=tuple(replace(target, presence=0.9) for target in before.targets))
    after = clean(before, Cleaning(frozenset({"liver"})))
    assert after.targets[0].presence == 0.9
    np.testing.assert_array_equal(after.targets[0].logits, before.targets[0].logits)


def read(largest=(), small=(), texts=()):
    return read_cleaning(largest, small, PromptBank(make_plans()), texts)


def test_options_are_read():
    assert read(["LIVER"], ["0.5", "left kidney=2"]) == Cleaning(frozenset({"liver"}), {"left kidney": 2.0}, 0.5)
    assert read(["a text"], ["a = text=1"], ["a text", "a = text"]).least == {"a = text": 1.0}
    assert not read()


@pytest.mark.parametrize("small", ["much", "liver=", "-1", "nan", "liver=inf", "=x"])
def test_a_volume_that_is_none_is_refused(small):
    with pytest.raises(PromptError, match="remove-small"):
        read(small=[small])


@pytest.mark.parametrize("words", [{"largest": ["livr"]}, {"small": ["livr=1"]}])
def test_a_target_that_the_model_does_not_have_is_refused(words):
    with pytest.raises(PromptError, match=r"'livr'.*'liver'"):
        read(**words)


def test_texts_of_all_jobs_of_a_table_may_be_named(tmp_path):
    (tmp_path / "jobs.csv").write_text("image,prompts\na.nii.gz,a cyst\nb.nii.gz,a shunt\n")
    model = SimpleNamespace(bank=PromptBank(make_plans()), dataset_json={"file_ending": ".nii.gz"})
    options = Options(jobs=str(tmp_path / "jobs.csv"), keep_largest=("a shunt",))
    assert _read_cleaning(model, {}, Selection(options=options)).largest == {"a shunt"}
    with pytest.raises(PromptError, match="'a stent'"):
        _read_cleaning(model, {}, Selection(options=replace(options, keep_largest=("a stent",))))


def test_a_target_that_is_not_predicted_is_warned_of(capsys):
    warn_of_unasked(read(["liver"]), ["left kidney"])
    assert "liver" in capsys.readouterr().err
    warn_of_unasked(read(["liver"]), ["liver"])
    assert not capsys.readouterr().err
