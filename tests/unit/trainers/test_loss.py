"""Dice + cross-entropy a target."""

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.nn.functional import binary_cross_entropy_with_logits

from duplus_nnunet.networks.sums import expand_target, membership_table
from duplus_nnunet.settings import LossSettings
from duplus_nnunet.trainers.loss import TargetLoss, separate_targets


def make_labels(values: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, values, (batch, 1, 4, 5, 6), dtype=torch.int16)


def expand(labels: torch.Tensor, regions: list[object]) -> torch.Tensor:
    table = membership_table(regions, labels.device)
    return torch.cat([expand_target(labels, table, k) for k in range(len(regions))], dim=1)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("regions", [[1, 2], [(1, 2), 2]])
def test_equals_nnunets_loss_where_every_target_is_present(batch_dice: bool, regions: list[object]) -> None:
    torch.manual_seed(0)
    labels, logits = make_labels(), torch.randn(2, 2, 4, 5, 6, requires_grad=True)
    ours = TargetLoss(regions, batch_dice)(logits, labels)
    stock = DC_and_BCE_loss(
        {}, {"batch_dice": batch_dice, "do_bg": True, "smooth": 1e-5, "ddp": False},
        dice_class=MemoryEfficientSoftDiceLoss,
    )(logits, expand(labels, regions))  # fmt: skip
    torch.testing.assert_close(ours, stock)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(stock, logits))


def test_equals_nnunets_loss_with_an_ignore_label() -> None:
    torch.manual_seed(0)
    labels, logits = make_labels(4, batch=1), torch.randn(1, 2, 4, 5, 6, requires_grad=True)
    ours = TargetLoss([1, 2], True, ignore_label=3)(logits, labels)
    stock = DC_and_BCE_loss(
        {}, {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": False}, use_ignore_label=True,
        dice_class=MemoryEfficientSoftDiceLoss,
    )(logits, expand(labels, [1, 2, 3]))  # fmt: skip
    # nnU-Net divides the sum over K targets by the voxels, not by K times the voxels.
    dice = MemoryEfficientSoftDiceLoss(torch.sigmoid, True, True, 1e-5, False)
    stock_dice = dice(logits, expand(labels, [1, 2]), loss_mask=labels != 3)
    torch.testing.assert_close(ours, stock_dice + (stock - stock_dice) / 2)


def test_ignored_voxels_get_no_gradient() -> None:
    labels, logits = make_labels(4), torch.randn(2, 2, 4, 5, 6, requires_grad=True)
    TargetLoss([1, 2], False, ignore_label=3)(logits, labels).backward()
    assert logits.grad is not None
    assert not logits.grad[(labels == 3).expand_as(logits)].any()


def test_an_absent_target_leaves_the_dice_mean() -> None:
    labels = torch.ones(1, 1, 4, 4, 4, dtype=torch.int16)
    perfect = torch.full((1, 2, 4, 4, 4), -30.0)
    perfect[:, 0] = 30.0
    torch.testing.assert_close(TargetLoss([1, 2], False)(perfect, labels), torch.tensor(-1.0))


def test_an_absent_target_is_still_taught() -> None:
    labels, logits = torch.zeros(1, 1, 4, 4, 4, dtype=torch.int16), torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    TargetLoss([1], False)(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad > 1e-4).all()


@pytest.mark.parametrize("batch_dice", [True, False])
def test_an_unannotated_target_gets_no_gradient(batch_dice: bool) -> None:
    labels, logits = make_labels(), torch.randn(2, 2, 4, 5, 6, requires_grad=True)
    annotated = torch.tensor([[True, False], [True, True]])
    loss = TargetLoss([1, 2], batch_dice)
    loss.select(annotated=annotated)
    loss(logits, labels).backward()
    assert logits.grad is not None
    assert not logits.grad[0, 1].any()
    assert logits.grad[1, 1].any()


def test_without_any_annotated_target_the_loss_is_a_connected_zero() -> None:
    logits = torch.randn(2, 2, 4, 5, 6, requires_grad=True)
    loss = TargetLoss([1, 2], True)
    loss.select(annotated=torch.zeros(2, 2, dtype=torch.bool))
    found = loss(logits, make_labels())
    found.backward()
    assert found.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_permuting_targets_does_not_change_the_loss() -> None:
    labels, logits = make_labels(), torch.randn(2, 2, 4, 5, 6)
    torch.testing.assert_close(
        TargetLoss([1, 2], False)(logits, labels), TargetLoss([2, 1], False)(logits.flip(1), labels)
    )


def test_half_precision_logits_are_summed_in_full_precision() -> None:
    labels, logits = make_labels(), torch.randn(2, 2, 4, 5, 6)
    half = TargetLoss([1, 2], False)(logits.half(), labels)
    torch.testing.assert_close(half, TargetLoss([1, 2], False)(logits, labels), rtol=1e-3, atol=1e-3)
    assert half.dtype == torch.float32


def test_sums_survive_more_voxels_than_a_float16_can_count() -> None:
    labels = torch.ones(1, 1, 64, 64, 64, dtype=torch.int16)
    loss = TargetLoss([1], False)(torch.full((1, 1, 64, 64, 64), 20.0, dtype=torch.half), labels)
    torch.testing.assert_close(loss, torch.tensor(-1.0))


def test_sums_are_the_same_under_mixed_precision() -> None:
    labels = torch.ones(1, 1, 48, 48, 48, dtype=torch.int16)
    logits = torch.randn(1, 1, 48, 48, 48, dtype=torch.half) + 3
    with torch.autocast("cpu", torch.float16):
        mixed = TargetLoss([1], False)(logits, labels)
    torch.testing.assert_close(mixed, TargetLoss([1], False)(logits, labels))


def test_selected_targets_are_those_of_their_rows() -> None:
    labels, logits = make_labels(4), torch.randn(2, 2, 4, 5, 6)
    loss = TargetLoss([1, 2, 3], False)
    loss.select(torch.tensor([2, 0]))
    torch.testing.assert_close(loss(logits, labels), TargetLoss([3, 1], False)(logits, labels))


def test_an_image_with_many_annotated_targets_weighs_as_much_as_one_with_a_single_one() -> None:
    torch.manual_seed(0)
    labels, logits = make_labels(4), torch.randn(2, 3, 4, 5, 6)
    loss = TargetLoss([1, 2, 3], False)
    loss.select(annotated=torch.tensor([[True, True, True], [False, True, False]]))
    first = TargetLoss([1, 2, 3], False)(logits[:1], labels[:1])
    second = TargetLoss([2], False)(logits[1:, 1:2], labels[1:])
    torch.testing.assert_close(loss(logits, labels), (first + second) / 2)


def compute(settings: LossSettings, annotated: list[list[bool]], logits: torch.Tensor, labels: torch.Tensor) -> float:
    loss = TargetLoss([1, 2, 3], False, settings=settings)
    loss.select(None, torch.tensor(annotated))
    return float(loss(logits, labels))


def test_reductions_differ_by_the_number_of_annotated_targets() -> None:
    torch.manual_seed(0)
    labels, logits = make_labels(4, batch=1), torch.randn(1, 3, 4, 5, 6)
    mean, root, total = (
        compute(LossSettings(reduction=name), [[True, True, False]], logits, labels) for name in ("mean", "sqrt", "sum")
    )
    assert (root, total) == (pytest.approx(2**0.5 * mean), pytest.approx(2 * mean))


def test_the_mean_gives_images_with_more_targets_the_same_weight_and_the_sum_does_not() -> None:
    torch.manual_seed(0)
    labels, logits = make_labels(4, batch=2), torch.randn(2, 3, 4, 5, 6)
    rows = [[True, False, False], [True, True, True]]
    apart = [compute(LossSettings(), [row], logits[i : i + 1], labels[i : i + 1]) for i, row in enumerate(rows)]
    assert compute(LossSettings(), rows, logits, labels) == pytest.approx(sum(apart) / 2, abs=0.02)
    together = compute(LossSettings(reduction="sum"), rows, logits, labels)
    assert together == pytest.approx((apart[0] + 3 * apart[1]) / 2, abs=0.05)


def measure_pulls(settings: LossSettings, batch_dice: bool) -> tuple[float, float]:
    """Return how hard Dice pulls at an image that shows one of its two annotated targets, and at one with its only.

    Both have half of the voxels, and a probability of a half in all, so that the gradient of cross-entropy sums to 0.
    """
    labels = torch.zeros(2, 1, 4, 4, 4, dtype=torch.int16)
    labels[0, :, :2], labels[1, :, :2] = 1, 2
    logits = torch.zeros(2, 3, 4, 4, 4, requires_grad=True)
    loss = TargetLoss([1, 2, 3], batch_dice, settings=settings)
    loss.select(annotated=torch.tensor([[True, False, True], [False, True, False]]))
    (grad,) = torch.autograd.grad(loss(logits, labels), logits)
    pulls = grad.sum((2, 3, 4))
    return float(pulls[0, 0]), float(pulls[1, 1])


@pytest.mark.parametrize("batch_dice", [True, False])
def test_a_patch_that_shows_one_of_two_targets_has_the_same_dice_weight_as_one_with_its_only(batch_dice: bool) -> None:
    first, second = measure_pulls(LossSettings(), batch_dice)
    assert first == pytest.approx(second)
    first, second = measure_pulls(LossSettings(dice_share="annotated"), batch_dice)
    assert first == pytest.approx(second / 2)


@pytest.mark.parametrize("name", ["mean", "sqrt", "sum"])
def test_dice_is_the_mean_over_patches_of_the_mean_over_the_targets_they_show(name: str) -> None:
    labels = torch.zeros(2, 1, 2, 2, 2, dtype=torch.int16)
    labels[0, :, 0, 0], labels[0, :, 0, 1], labels[1, :, 0] = 1, 2, 3
    logits = torch.full((2, 4, 2, 2, 2), -30.0)
    logits[0, 0] = torch.where(labels[0] == 1, 30.0, -30.0)  # Dice of 1, of 0, and of 2/3
    logits[1, 2] = 30.0
    loss = TargetLoss([1, 2, 3, 4], False, settings=LossSettings(reduction=name))
    loss.select(annotated=torch.tensor([[True, True, False, True], [False, False, True, True]]))
    factor = {"mean": 1.0, "sqrt": 2**0.5, "sum": 2.0}[name]
    cross = compute_cross(logits, labels, name)
    assert float(loss(logits, labels)) == pytest.approx(cross - (factor * 0.5 + 2 / 3) / 2, abs=1e-4)


def compute_cross(logits: torch.Tensor, labels: torch.Tensor, name: str) -> float:
    """Compute the cross-entropy of the test above: the targets annotated in the images are 3 and 2."""
    total = 0.0
    for image, targets in enumerate(([1, 2, 4], [3, 4])):
        values = [
            float(binary_cross_entropy_with_logits(logits[image, value - 1], (labels[image, 0] == value).float()))
            for value in targets
        ]
        total += sum(values) / len(values) * len(values) ** {"mean": 0.0, "sqrt": 0.5, "sum": 1.0}[name]
    return total / 2


def separate(logits: torch.Tensor, labels: list[int], counted: list[float]) -> torch.Tensor:
    table = membership_table([1, 2, [2, 3]], torch.device("cpu"))
    return separate_targets(logits, torch.tensor([labels]), table, torch.tensor([counted]))


def test_separation_is_a_softmax_over_annotated_targets() -> None:
    logits = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [5.0, 0.0]]])
    found = separate(logits, [1, 0], [1.0, 1.0, 0.0])
    torch.testing.assert_close(found, -torch.log_softmax(torch.tensor([2.0, 1.0]), 0)[0])


def test_separation_leaves_out_voxels_of_overlapping_targets() -> None:
    logits = torch.randn(1, 3, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(separate(logits, [2, 3], [1.0, 1.0, 1.0]), logits)
    assert not grad[..., 0].any()
    assert grad[..., 1].any()


def test_separation_weighs_targets_equally_whatever_their_size() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 0] = 1.0
    few = separate(logits, [1, 3, 0, 0], [1.0, 0.0, 1.0])
    torch.testing.assert_close(separate(logits, [1, 3, 3, 3], [1.0, 0.0, 1.0]), few)


@pytest.mark.parametrize("counted", [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_separation_of_fewer_than_two_targets_is_zero_with_a_gradient_of_zero(counted: list[float]) -> None:
    logits = torch.randn(1, 3, 2, requires_grad=True)
    found = separate(logits, [1, 2], counted)
    (grad,) = torch.autograd.grad(found, logits)
    assert float(found.detach()) == 0
    assert not grad.any()


def test_separation_enters_the_loss_with_its_weight() -> None:
    torch.manual_seed(0)
    labels, logits = make_labels(4, batch=1), torch.randn(1, 3, 4, 5, 6)
    rows = [[True, True, True]]
    table = membership_table([1, 2, 3], torch.device("cpu"))
    term = float(separate_targets(logits.flatten(2), labels.flatten(1), table, torch.ones(1, 3)))
    without, with_term = (compute(LossSettings(separation=weight), rows, logits, labels) for weight in (0.0, 0.5))
    assert with_term - without == pytest.approx(0.5 * term, abs=1e-5)
