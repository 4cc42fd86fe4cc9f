"""In a trained network, the target prompt alone decides which structure of an image is segmented."""

from collections.abc import Iterator

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from duplus_nnunet.networks import ConditionedUNet, Prompts, condition
from duplus_nnunet.trainers.loss import TargetLoss

SIDE, STEPS = 24, 150
BALL, PLATE = 0, 1


def draw_images(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a ball and a plate of the same intensity at random positions in noise, without overlap."""
    axes = torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij")
    labels = torch.zeros(count, 1, SIDE, SIDE, SIDE)
    for label_map in labels:
        first, second = torch.randperm(2, generator=generator) * 12 + 6
        centre = torch.randint(6, SIDE - 6, (2, 2), generator=generator)
        ball = sum((axis - at) ** 2 for axis, at in zip(axes, (first, *centre[0]), strict=True)) <= 16
        plate = (axes[0] - second).abs() <= 1
        for axis, at in zip(axes[1:], centre[1], strict=True):
            plate &= (axis - at).abs() <= 6
        label_map[0][ball], label_map[0][plate] = BALL + 1, PLATE + 1
    return (labels > 0) + 0.2 * torch.randn(labels.shape, generator=generator), labels


def make_network(embedding: tuple[int, int] = (8, 8)) -> ConditionedUNet:
    unet = PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=[8, 8, 8], conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1, 2, 2], n_conv_per_stage=1, num_classes=1, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    return condition(unet, embedding)


@pytest.fixture(scope="module")
def _one_thread() -> Iterator[None]:
    """Volumes this small are slower with more threads, much slower where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(_one_thread: None) -> tuple[ConditionedUNet, Prompts]:
    torch.manual_seed(0)
    network, prompts = make_network(), Prompts(torch.randn(1, 8), torch.randn(2, 8))
    loss, optimizer = TargetLoss([1, 2], batch_dice=True), torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images, labels = draw_images(2, generator)
        optimizer.zero_grad()
        loss(network(images, prompts), labels).backward()
        optimizer.step()
    return network.eval(), prompts


def measure_dice(network: ConditionedUNet, prompts: Prompts, targets: list[int]) -> torch.Tensor:
    """Compute the Dice of the prediction for each target prompt with each structure, shape (prompts, structures)."""
    images, labels = draw_images(4, torch.Generator().manual_seed(2))
    with torch.no_grad():
        masks = network(images, Prompts(prompts.context, prompts.targets[targets])) > 0
    truth = torch.cat([labels == BALL + 1, labels == PLATE + 1], dim=1)
    overlap = torch.einsum("bkdhw,btdhw->kt", masks.float(), truth.float())
    sizes = [part.sum((0, 2, 3, 4)) for part in (masks, truth)]
    return 2 * overlap / (sizes[0][:, None] + sizes[1][None])


@pytest.mark.parametrize("target", [BALL, PLATE])
def test_changing_the_target_prompt_changes_the_structure(
    trained: tuple[ConditionedUNet, Prompts], target: int
) -> None:
    dice = measure_dice(*trained, [target])[0]
    assert dice[target] > 0.8
    assert dice[1 - target] < 0.1


def test_swapping_two_embeddings_swaps_the_masks(trained: tuple[ConditionedUNet, Prompts]) -> None:
    swapped = measure_dice(*trained, [PLATE, BALL])
    assert (swapped.diagonal() < 0.1).all()
    assert (swapped.flip(1).diagonal() > 0.8).all()
