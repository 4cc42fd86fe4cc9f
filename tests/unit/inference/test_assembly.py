"""From logits to answers: the label maps are those of nnU-Net 2.8's export with our label manager."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from scipy.ndimage import gaussian_filter

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.assembly import (
    Assembly,
    Memory,
    Rule,
    choose_group,
    estimate_memory,
    read_rule,
    spread_probabilities,
)
from duplus_nnunet.inference.memory import GIB
from duplus_nnunet.inference.resampling import NOWHERE, Resampler, make_resampler
from duplus_nnunet.inference.voxels import Voxels
from duplus_nnunet.planners import DuPLUSLabelManager

EXCLUSIVE = {"background": 0, "liver": 1, "spleen": 5, "left kidney": 3, "right kidney": 4}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3, "vessel": 4}
MANAGERS = {
    "exclusive": DuPLUSLabelManager(EXCLUSIVE, None),
    "regions": DuPLUSLabelManager(REGIONS, [1, 2, 3, 4]),
    "regions written backwards": DuPLUSLabelManager(REGIONS, [4, 3, 2, 1]),
    "a value above 254": DuPLUSLabelManager({**EXCLUSIVE, "spleen": 300}, None),
}
# What nnU-Net decides in float16, within the last digit or so.
CLOSE = 1e-2


class Case:
    """A case as nnU-Net's managers and preprocessing describe it; spacings and shapes in nnU-Net's order of axes."""

    def __init__(
        self,
        source: Any = (10, 12, 14),
        target: Any = (13, 15, 16),
        spacings: Any = ((1.3, 1.2, 1.1), (1, 1, 1)),
        forward: Any = (0, 1, 2),
        crop: Any = (0, 0, 0),
        margin: int = 0,
        order: int = 1,
    ) -> None:
        settings_of_plans = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
        self.configuration = ConfigurationManager(
            {
                "architecture": {},
                "spacing": list(spacings[0]),
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": settings_of_plans,
            }
        )
        self.transpose_forward, self.transpose_backward = list(forward), np.argsort(forward).tolist()
        self.source = source
        self.properties = {
            "spacing": [spacings[1][axis] for axis in self.transpose_backward],
            "shape_after_cropping_and_before_resampling": target,
            "bbox_used_for_cropping": [[first, first + size] for first, size in zip(crop, target, strict=True)],
            "shape_before_cropping": tuple(first + size + margin for first, size in zip(crop, target, strict=True)),
        }

    def make_resampler(self) -> Resampler:
        return make_resampler(self.configuration, self, self.properties, self.source)

    def ask_nnunet(self, logits: torch.Tensor, manager: Any, probabilities: bool = False) -> Any:
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.clone(), self, self.configuration, manager, self.properties, probabilities, num_threads_torch=1
        )

    def resample_with_nnunet(self, logits: torch.Tensor) -> np.ndarray[Any, Any]:
        """Resample on the image's grid, -100 outside of the crop."""
        wanted = [self.properties["spacing"][axis] for axis in self.transpose_forward]
        target = self.properties["shape_after_cropping_and_before_resampling"]
        inside = self.configuration.resampling_fn_probabilities(logits, target, self.configuration.spacing, wanted)
        whole = np.full((len(logits), *self.properties["shape_before_cropping"]), -100, np.float32)
        crop = tuple(slice(start, stop) for start, stop in self.properties["bbox_used_for_cropping"])
        whole[(slice(None), *crop)] = inside
        turned: np.ndarray[Any, Any] = whole.transpose([0, *(1 + axis for axis in self.transpose_backward)])
        return turned


CASES = {
    "isotropic, enlarged": Case(),
    "isotropic, reduced": Case((14, 16, 18), (10, 9, 13), ((0.7, 0.6, 0.7), (1, 1, 1))),
    "same grid": Case((10, 11, 12), (10, 11, 12), ((1, 1, 1), (1, 1, 1))),
    "thick first axis": Case((6, 14, 14), (9, 18, 10), ((6, 1, 1), (4, 0.8, 1.4))),
    "thick second axis": Case((14, 6, 14), (18, 9, 10), ((1, 6, 1), (0.8, 4, 1.4))),
    "thick third axis": Case((14, 14, 6), (18, 10, 9), ((1, 1, 6), (0.8, 1.4, 4))),
    "thick in the image alone": Case((18, 12, 12), (6, 14, 14), ((1, 1, 1), (3.5, 0.9, 0.9))),
    "cropped": Case(crop=(2, 0, 5), margin=3),
    "turned": Case(forward=(2, 0, 1)),
    "turned, cropped and thick": Case((6, 14, 12), (9, 18, 10), ((6, 1, 1), (4, 0.8, 1.2)), (1, 2, 0), (3, 1, 2), 4),
    "cubic": Case(order=3),
}


def draw_logits(shape: Any, targets: int = 4, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=(targets, *shape))
    smooth = np.stack([gaussian_filter(channel, 1.5) for channel in noise])
    return torch.from_numpy((20 * smooth + shift).astype(np.float16))


def ask(manager: DuPLUSLabelManager) -> list[tuple[str, str]]:
    return [(name, f"A scan of the {name}.") for name in manager.label_dict if name != "background"]


def run(case: Case, logits: torch.Tensor, manager: Any, floor: float = 0.0, group: int | None = None) -> Any:
    groups = torch.split(logits, group or len(logits))
    assembly = Assembly(case.make_resampler(), read_rule(manager), ask(manager), floor)
    for group in groups:
        assembly.add(group)
    return assembly.finish()


def find_clear(stock: np.ndarray[Any, Any], exclusive: bool) -> np.ndarray[Any, Any]:
    """Find voxels that no target owns by a hair: neither close to 0, nor two close to one another at the top."""
    clear: np.ndarray[Any, Any] = (np.abs(stock) > CLOSE).all(0)
    if exclusive:
        best, runner_up = np.sort(stock, 0)[[-1, -2]]
        clear &= (best < 0) | (best - runner_up > CLOSE)
    return clear


def measure_dice(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


@pytest.mark.parametrize("kind", list(MANAGERS))
@pytest.mark.parametrize("name", list(CASES))
def test_label_map_is_nnunets(name: str, kind: str) -> None:
    case, manager = CASES[name], MANAGERS[kind]
    logits = draw_logits(case.source)
    stock, resampled = case.ask_nnunet(logits, manager), case.resample_with_nnunet(logits)
    labels, targets = run(case, logits, manager)
    assert (labels.dtype, labels.shape) == (stock.dtype, stock.shape)
    clear = find_clear(resampled, manager.exclusive)
    np.testing.assert_array_equal(labels[clear], stock[clear])
    assert clear.mean() > 0.95
    for target in targets:
        assert measure_dice(labels == target.value, stock == target.value) >= 0.999


@pytest.mark.parametrize("kind", list(MANAGERS))
@pytest.mark.parametrize("name", ["cropped", "turned, cropped and thick", "cubic"])
def test_answers_hold_each_targets_logits_and_voxels(name: str, kind: str) -> None:
    case, manager = CASES[name], MANAGERS[kind]
    logits = draw_logits(case.source)
    resampled = case.resample_with_nnunet(logits)
    labels, targets = run(case, logits, manager)
    assert [(target.name, target.prompt) for target in targets] == ask(manager)
    assert [target.value for target in targets] == manager.regions_class_order
    for target, stock in zip(targets, resampled, strict=True):
        np.testing.assert_allclose(target.logits, stock[target.box], rtol=1.1e-3, atol=1e-6)
        outside = np.ones(labels.shape, bool)
        outside[target.box] = False
        assert not (stock[outside] > CLOSE).any()
        own = labels[target.box] == target.value if manager.exclusive else target.logits > 0
        np.testing.assert_array_equal(target.mask, own)
        assert target.mask.shape == target.logits.shape == tuple(part.stop - part.start for part in target.box)


@pytest.mark.parametrize("kind", list(MANAGERS))
@pytest.mark.parametrize("group", [1, 2, 3])
def test_groups_change_nothing(kind: str, group: int) -> None:
    case, manager = CASES["turned, cropped and thick"], MANAGERS[kind]
    logits = draw_logits(case.source)
    labels, targets = run(case, logits, manager)
    labels_of_groups, targets_of_groups = run(case, logits, manager, group=group)
    np.testing.assert_array_equal(labels, labels_of_groups)
    for one, other in zip(targets, targets_of_groups, strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.logits, other.logits)


@given(seed=st.integers(0, 1000), shift=st.integers(-6, 3), floor=st.sampled_from([-1.0, -4.6, float("-inf")]))
@settings(max_examples=30, deadline=None)
def test_floor_widens_boxes_and_changes_nothing_else(seed: int, shift: int, floor: float) -> None:
    case, manager = CASES["thick first axis"], MANAGERS["exclusive"]
    logits = draw_logits(case.source, seed=seed, shift=shift)
    labels, targets = run(case, logits, manager)
    labels_of_wide, wide = run(case, logits, manager, floor)
    np.testing.assert_array_equal(labels, labels_of_wide)
    for narrow, target in zip(targets, wide, strict=True):
        assert narrow.mask.sum() == target.mask.sum()
        whole = np.full(labels.shape, -np.inf, np.float16)
        whole[target.box] = target.logits
        np.testing.assert_array_equal(whole[narrow.box], narrow.logits)


def test_first_of_two_equal_targets_keeps_the_voxels() -> None:
    case, manager = CASES["same grid"], MANAGERS["exclusive"]
    logits = torch.ones(4, *case.source, dtype=torch.float16)
    logits[3] = 0
    labels, targets = run(case, logits, manager)
    assert (labels == 1).all()
    assert [int(target.mask.sum()) for target in targets] == [labels.size, 0, 0, 0]
    np.testing.assert_array_equal(labels, case.ask_nnunet(logits, manager))


def test_later_regions_are_written_over_earlier_ones_that_keep_their_voxels() -> None:
    case, manager = CASES["same grid"], MANAGERS["regions"]
    logits = torch.ones(4, *case.source, dtype=torch.float16)
    labels, targets = run(case, logits, manager)
    assert (labels == 4).all()
    assert all(target.mask.all() for target in targets)


@pytest.mark.parametrize("kind", ["exclusive", "regions"])
def test_target_that_is_nowhere_has_an_empty_answer(kind: str) -> None:
    case, manager = CASES["turned, cropped and thick"], MANAGERS[kind]
    logits = draw_logits(case.source)
    logits[1] = -3
    labels, targets = run(case, logits, manager)
    assert targets[1].box == NOWHERE
    assert targets[1].mask.size == targets[1].logits.size == labels[targets[1].box].size == 0
    assert manager.regions_class_order[1] not in labels


@pytest.mark.parametrize("shift", [-40, 40])
def test_all_or_nothing_is_nnunets_too(shift: float) -> None:
    case, manager = CASES["cropped"], MANAGERS["exclusive"]
    logits = draw_logits(case.source, shift=shift)
    labels, _ = run(case, logits, manager)
    stock = case.ask_nnunet(logits, manager)
    assert (labels > 0).any() == (shift > 0)
    np.testing.assert_array_equal(labels > 0, stock > 0)


def test_large_values_survive() -> None:
    case, manager = CASES["isotropic, enlarged"], MANAGERS["a value above 254"]
    labels, targets = run(case, draw_logits(case.source), manager)
    assert labels.dtype == np.uint16
    assert int((labels == 300).sum()) == int(targets[1].mask.sum()) > 0


def test_more_targets_than_a_byte_counts_are_told_apart() -> None:
    case = CASES["same grid"]
    manager = DuPLUSLabelManager({"background": 0, **{f"organ {i}": i for i in range(1, 301)}}, None)
    logits = torch.full((300, *case.source), -1, dtype=torch.float16)
    for index in range(300):
        logits[index].view(-1)[index] = 2
    labels, targets = run(case, logits, manager)
    assert labels.ravel()[:300].tolist() == list(range(1, 301))
    assert all(target.mask.shape == (1, 1, 1) and target.mask.all() for target in targets)


@pytest.mark.parametrize("name", ["cropped", "turned, cropped and thick", "cubic"])
def test_probabilities_are_nnunets(name: str) -> None:
    case, manager = CASES[name], MANAGERS["regions"]
    logits = draw_logits(case.source)
    _, stock = case.ask_nnunet(logits, manager, probabilities=True)
    labels, targets = run(case, logits, manager, float("-inf"))
    found = spread_probabilities(targets, labels.shape)
    assert (found.dtype, found.shape) == (stock.dtype, stock.shape)
    np.testing.assert_allclose(found, stock, atol=2e-3)
    assert (found == stock).mean() > 0.95


def test_probabilities_below_the_floor_alone_are_left_out() -> None:
    case, manager = CASES["cropped"], MANAGERS["regions"]
    logits = draw_logits(case.source, shift=-8)
    whole, some = (spread_probabilities(run(case, logits, manager, floor)[1], (18, 18, 24)) for floor in (-99, -4.6))
    assert whole[some == 0].max() <= 1 / (1 + np.exp(4.6))
    np.testing.assert_allclose(some[some > 0], whole[some > 0], rtol=1e-6)
    assert (some == 0).sum() > (whole == 0).sum()


def test_a_floor_that_would_cut_targets_is_refused() -> None:
    rule = Rule((1,), True, np.uint8)
    with pytest.raises(DataError, match=r"0\.5"):
        Assembly(CASES["cropped"].make_resampler(), rule, [("liver", "A liver.")], 0.5)


def test_number_of_targets_is_checked_from_the_start_to_the_end() -> None:
    case, rule = CASES["cropped"], Rule((1, 2), True, np.uint8)
    with pytest.raises(DataError, match=r"\b1\b.*\b2\b"):
        Assembly(case.make_resampler(), rule, [("liver", "A liver.")])
    assembly = Assembly(case.make_resampler(), rule, [("liver", "A liver."), ("spleen", "A spleen.")])
    assembly.add(draw_logits(case.source, 1))
    with pytest.raises(DataError, match=r"\b1\b.*\b2\b"):
        assembly.finish()
    with pytest.raises(DataError, match=r"1 \+ 2\b.*\b2\b"):
        assembly.add(draw_logits(case.source, 2))


def test_answers_so_far_are_counted() -> None:
    case, manager = CASES["same grid"], MANAGERS["exclusive"]
    assembly = Assembly(case.make_resampler(), read_rule(manager), ask(manager))
    assert assembly.nbytes == 0
    assembly.add(torch.ones(2, *case.source))
    assert assembly.nbytes == 2 * 3 * 10 * 11 * 12


@pytest.mark.parametrize("name", ["isotropic, reduced", "thick first axis", "cubic"])
@pytest.mark.parametrize("kind", ["exclusive", "regions"])
def test_no_more_memory_is_taken_than_estimated(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from duplus_nnunet.inference import assembly, resampling

    for module in (assembly, resampling):
        monkeypatch.setattr(module, "SLAB", 1000)
    small, manager = CASES[name], MANAGERS[kind]
    spacings = (small.configuration.spacing, [small.properties["spacing"][axis] for axis in range(3)])
    target = tuple(3 * size for size in small.properties["shape_after_cropping_and_before_resampling"])
    order = small.configuration.configuration["resampling_fn_probabilities_kwargs"]["order"]
    case = Case(tuple(3 * size for size in small.source), target, spacings, order=order)
    logits, resampler = torch.ones(4, *case.source, dtype=torch.float16), case.make_resampler()
    memory = estimate_memory(resampler, read_rule(manager), (1, 1, 1))
    run(small, torch.ones(4, *small.source), manager)  # imports
    tracemalloc.start()
    answer = run(case, logits, manager, float("-inf"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(answer[1]) == 4
    assert peak < memory.measure(0, 4)


def test_sums_of_small_images_are_as_large_as_the_patch() -> None:
    resampler, rule = CASES["same grid"].make_resampler(), Rule((1,), True, np.uint8)
    unpadded = estimate_memory(resampler, rule, (8, 8))
    padded = estimate_memory(resampler, rule, (20, 20, 20))
    assert padded.network / unpadded.network == pytest.approx(8000 / 1320)
    assert estimate_memory(resampler, rule, (8, 8, 8), folds=5).network > unpadded.network


def test_group_is_the_largest_that_fits() -> None:
    memory = Memory(fixed=GIB, network=GIB // 2, kept=GIB // 8)
    assert choose_group(3 * GIB, memory, 8) == 2
    assert choose_group(3 * GIB - 1, memory, 8) == 1
    assert choose_group(100 * GIB, memory, 8) == 8
    assert choose_group(3 * GIB, memory, 8, share=0.5) == 3


def test_limit_that_would_do_is_said_and_does() -> None:
    memory = Memory(fixed=GIB, network=GIB // 3, kept=GIB // 7)
    with pytest.raises(DataError, match=r"(?s)1\.00 GiB.*\b8\b.*--memory.*2\.5GB"):
        choose_group(GIB, memory, 8)
    assert choose_group(int(2.5 * GIB), memory, 8) == 1


def settle(kind: str, values: list[list[float]], unseen: int, trained_first: bool) -> tuple[list[int], list[list[int]]]:
    """Settle targets on three voxels, the last ones unseen in training; returns the labels, and each target's mask."""
    case, manager = CASES["same grid"], MANAGERS[kind]
    logits = torch.full((len(values), *case.source), -1, dtype=torch.float16)
    logits[:, 0, 0, :3] = torch.tensor(values, dtype=torch.float16)
    known = read_rule(manager)
    rule = Rule(known.values[: len(values)], known.exclusive, known.dtype, unseen, trained_first)
    assembly = Assembly(case.make_resampler(), rule, ask(manager)[: len(values)], -2.0)
    for group in logits.split(1):
        assembly.add(group)
    labels, targets = assembly.finish()
    assert [target.seen for target in targets] == [index < len(values) - unseen for index in range(len(values))]
    return labels[0, 0, :3].tolist(), [target.mask[0, 0, :3].astype(int).tolist() for target in targets]


@pytest.mark.parametrize(
    ("kind", "first", "labels", "masks"),
    [
        ("exclusive", True, [1, 5, 0], [[1, 0, 0], [0, 1, 0]]),
        ("exclusive", False, [5, 5, 0], [[0, 0, 0], [1, 1, 0]]),
        ("regions", True, [1, 2, 0], [[1, 0, 0], [0, 1, 0]]),
        ("regions", False, [2, 2, 0], [[1, 0, 0], [1, 1, 0]]),
    ],
)
def test_a_target_unseen_in_training_gets_what_the_trained_one_leaves(
    kind: str, first: bool, labels: list[int], masks: list[list[int]]
) -> None:
    assert settle(kind, [[1, -1, -1], [3, 2, -1]], 1, first) == (labels, masks)


def test_of_two_unseen_targets_the_more_probable_one_gets_what_is_left() -> None:
    labels, masks = settle("exclusive", [[1, -1, -1], [9, 2, 1], [9, 3, -1]], 2, True)
    assert labels == [1, 3, 5]
    assert masks == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("before", "labels"), [(1, [0, 1, 1]), (0, [0, 0, 1])])
def test_a_rival_takes_where_it_is_more_probable_or_equal_and_first(before: int, labels: list[int]) -> None:
    case, rule = CASES["same grid"], Rule((1,), True, np.uint8)
    assembly = Assembly(case.make_resampler(), rule, [("liver", "A liver.")])
    logits = torch.full((2, *case.source), -1, dtype=torch.float16)
    logits[:, 0, 0, :3] = torch.tensor([[1, 1, 1], [2, 1, 0.5]], dtype=torch.float16)
    assembly.add(logits[:1])
    voxels = Voxels.of(assembly.contested)
    assembly.contest(logits[1:][(slice(None), *np.nonzero(assembly.contested))], voxels, [before])
    assert assembly.finish()[0][0, 0, :3].tolist() == labels


def test_what_is_contested_are_the_claimed_voxels_and_their_neighbours() -> None:
    case, rule = CASES["same grid"], Rule((1,), True, np.uint8)
    assembly = Assembly(case.make_resampler(), rule, [("liver", "A liver.")])
    assert assembly.contested is None
    logits = torch.full((1, *case.source), -1, dtype=torch.float16)
    logits[0, 4, 5, 6] = 1
    assembly.add(logits)
    contested = assembly.contested
    assert contested is not None
    assert contested.sum() == contested[3:6, 4:7, 5:8].sum() == 27
