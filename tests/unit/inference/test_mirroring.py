"""Mirror images: two organs that look alike are told apart by side, in training and at prediction."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from duplus_nnunet.inference.windows import predict_mirrored
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.trainers.batches import BatchPrompter, flip_images
from duplus_nnunet.trainers.loss import TargetLoss

from ..networks.test_steering import make_network
from ..partial_plans import LENGTH, make_plans, make_table

SIDE, STEPS = 16, 150
AXES = (0, 1, 2)
ACROSS = 2
LEFT, RIGHT = 2, 3
SIDES = ["left kidney", "right kidney"]


def draw_images(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw two equal balls in noise, one on either side of a brighter spine across the last axis."""
    axes = torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij")
    labels = torch.zeros(count, 1, SIDE, SIDE, SIDE)
    for one in labels:
        for value, start in ((LEFT, 2), (RIGHT, 11)):
            at = torch.randint(0, 3, (3,), generator=generator) + torch.tensor([7, 7, start])
            one[0][sum((axis - place) ** 2 for axis, place in zip(axes, at, strict=True)) <= 6] = value
    spine = 2 * ((axes[ACROSS] >= 7) & (axes[ACROSS] <= 8)).float()
    return (labels > 0) + spine + 0.2 * torch.randn(labels.shape, generator=generator), labels


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(exchange: bool) -> ConditionedUNet:
    """Train on mirror images, with partners' prompts exchanged there or not."""
    torch.manual_seed(0)
    bank = PromptBank(make_plans())
    network = make_network((LENGTH, 2 * LENGTH))
    questioner, loss = BatchPrompter(bank, make_table()), TargetLoss([1, LEFT, RIGHT], batch_dice=False)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(0)
    for _ in range(STEPS):
        question = questioner.choose(["a_0", "a_0"], rng)
        images, labels = flip_images(*draw_images(2, generator), question.flipped, ACROSS)
        asked = question.images if exchange else [(context, question.names) for context, _ in question.images]
        network.bind(bank.compose_batch(bank.choose_batch(asked, rng, 0.0)))
        loss.select(question.rows, question.annotated)
        optimizer.zero_grad()
        assert isinstance(labels, torch.Tensor)
        loss(network(images), labels).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def trained() -> ConditionedUNet:
    return train(exchange=True)


def confuse(network: ConditionedUNet, axes: tuple[int, ...], mirrored: bool = True) -> torch.Tensor:
    """Measure the share of each true side, a row, that is predicted as left and as right, a column."""
    prompts = PromptBank(make_plans()).draw("ct", SIDES)
    network.bind(prompts if mirrored else PromptBank(make_plans()).draw("ct", SIDES, np.random.default_rng(0)))
    images, labels = draw_images(4, torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = torch.cat([predict_mirrored(network, network, image[None], axes, ACROSS) for image in images]) > 0
    truth = torch.cat([labels == LEFT, labels == RIGHT], dim=1)
    shares = torch.einsum("btdhw,bkdhw->tk", truth.float(), found.float())
    return shares / truth.sum((0, 2, 3, 4))[:, None]


@pytest.mark.parametrize("axes", [(), AXES])
def test_sides_are_not_confused(trained: ConditionedUNet, axes: tuple[int, ...]) -> None:
    shares = confuse(trained, axes)
    assert (shares.diagonal() > 0.8).all()
    assert (shares.flip(1).diagonal() < 0.05).all()


def test_without_the_exchange_training_on_mirror_images_confuses_sides() -> None:
    assert confuse(train(exchange=False), ()).flip(1).diagonal().max() > 0.3


def test_prompts_are_bound_as_before_after_mirroring(trained: ConditionedUNet) -> None:
    prompts = PromptBank(make_plans()).draw("ct", SIDES)
    trained.bind(prompts)
    predict_mirrored(trained, trained, torch.randn(1, 1, SIDE, SIDE, SIDE), AXES, ACROSS)
    assert trained.prompts is prompts


def test_without_partners_the_axis_across_is_left_out() -> None:
    bank, network = PromptBank(make_plans()), make_network((LENGTH, 2 * LENGTH)).eval()
    calls: list[torch.Tensor] = []

    def call(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        found: torch.Tensor = network(x)
        return found

    network.bind(bank.draw("ct", SIDES, np.random.default_rng(0)))
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        predict_mirrored(call, network, x, AXES, ACROSS)
    assert len(calls) == 4
    assert not any(torch.equal(found, x.flip(4)) for found in calls)


def test_mirrored_logits_are_nnunets_average_where_no_target_has_a_side() -> None:
    import itertools

    bank, network = PromptBank(make_plans()), make_network((LENGTH, 2 * LENGTH)).eval()
    network.bind(bank.draw("mr"))
    x = torch.randn(1, 1, 8, 8, 8)
    places = [some for count in range(4) for some in itertools.combinations((2, 3, 4), count)]
    with torch.no_grad():
        expected = sum(network(x.flip(some)).flip(some) for some in places) / 8
        torch.testing.assert_close(predict_mirrored(network, network, x, AXES, ACROSS), expected)
