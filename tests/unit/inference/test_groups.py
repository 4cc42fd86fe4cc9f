"""Targets that do not fit into memory together share one pass of the network where what it computes fits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference import answering
from duplus_nnunet.inference.assembly import Memory
from duplus_nnunet.inference.binding import bind
from duplus_nnunet.inference.groups import Room, count_groups, is_quicker, plan_groups, split_prompts
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.networks import Prompts

from .test_rivals import KINDS, NAMES, find_masks, make_image, make_model, predict


def make_prompts(count: int) -> Prompts:
    return Prompts(torch.zeros(1, 2), torch.zeros(count, 3))


def make_room(limit: int, targets: int) -> Room:
    return Room(limit, Memory(100, 10, 1), targets, 1.0)


def test_groups_are_split_by_size() -> None:
    groups = [make_prompts(5), make_prompts(2)]
    assert [group.count for group in split_prompts(groups, 2)] == [2, 2, 1, 2]
    assert count_groups(groups, 2) == 4


@pytest.mark.parametrize(
    ("limit", "calls", "plan"),
    [
        (1000, 50, (20, 0)),  # one group, of which nothing needs to be kept
        (220, 50, (5, 50)),  # ten together, or five and what is kept
        (220, 0, (10, 0)),  # nothing can be kept
        (220, 95, (10, 0)),  # there is no room
        (220, 90, (1, 90)),  # one at a time still is quicker than two passes
    ],
)
def test_calls_are_kept_where_that_saves_passes(limit: int, calls: int, plan: tuple[int, int]) -> None:
    assert plan_groups(make_room(limit, 20), [make_prompts(20)], calls) == plan


def test_too_many_groups_are_slower_than_a_second_pass() -> None:
    assert is_quicker(20, 2)
    assert not is_quicker(21, 2)
    assert not is_quicker(1, 1)
    assert plan_groups(make_room(330, 21), [make_prompts(21)], 199) == (20, 0)


def test_a_group_of_its_own_shares_the_pass_whatever_the_memory() -> None:
    """Texts of a side are predicted without mirror images across, in a group of their own."""
    assert plan_groups(make_room(1000, 4), [make_prompts(3), make_prompts(1)], 50) == (4, 50)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(DataError, match="too little"):
        plan_groups(make_room(100, 20), [make_prompts(20)], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_that_share_a_pass_have_the_masks_of_one_group(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = make_model(**KINDS[kind]), list[int]()
    model.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    for asked in (NAMES, NAMES[1:]):
        calls.clear()
        expected, once = find_masks(predict(model, asked)), len(calls)
        monkeypatch.setattr(answering, "plan_groups", lambda *_: (1, 1 << 24))
        calls.clear()
        found = find_masks(predict(model, asked))
        assert len(calls) <= once
        assert "adapter" in kind or len(calls) == once
        monkeypatch.undo()
        for name, mask in expected.items():
            np.testing.assert_array_equal(found[name], mask)


def test_prompts_without_a_mirrored_side_use_some_of_the_calls() -> None:
    model, data, maps = make_model(mirroring=True), make_image()[0], KeptMaps(1 << 30)
    prompts = bind(model, Selection((), "ct")).first.prompts
    sided = replace(prompts.take([1]), mirrored=None)
    with torch.inference_mode():
        model.predictor.predict_logits(data, prompts, maps)
        found = model.predictor.predict_kept(data, sided, maps)
        assert maps.calls_again == 0
        assert torch.equal(found, model.predictor.predict_logits(data, sided))


def test_a_compiled_network_keeps_no_calls() -> None:
    model: Any = make_model()
    assert model.predictor.keeps_calls
    model.predictor.network = torch.compile(model.predictor.network, backend="eager")
    assert not model.predictor.keeps_calls
