"""Random contrasts of training images."""

import numpy as np
import pytest
import torch

from duplus_nnunet.trainers.contrast import Remapping, draw_remapping, remap_images


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = torch.zeros(2, 1, 10, 10, 10, dtype=torch.int16)
    labels[:, :, :4, :4, :4] = 1
    return torch.from_numpy(rng.normal(size=(2, 1, 10, 10, 10)).astype(np.float32)), labels


def draw(seed: int = 0, probability: float = 1.0, spread: float = 0.0, batch: int = 2) -> Remapping | None:
    return draw_remapping((batch, 1), probability, spread, np.random.default_rng(seed))


def make_curve(values: list[float]) -> Remapping:
    """Knots at equal distances, the same for both images."""
    knots = np.linspace(0, 1, len(values), dtype=np.float32)
    shape = 2, 1, len(values)
    curve = np.asarray(values, dtype=np.float32)
    regions = np.zeros((2, 1, 256), np.float32)
    return Remapping((True, True), np.broadcast_to(knots, shape).copy(), np.broadcast_to(curve, shape).copy(), regions)


def test_at_probability_0_nothing_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert draw_remapping((2, 1), 0.0, 1.0, rng) is None
    assert rng.random() == np.random.default_rng(0).random()


def test_without_a_remapping_images_are_the_same_object() -> None:
    data, labels = make_batch()
    assert remap_images(data, labels, None) is data


def test_about_the_probable_share_of_images_is_remapped() -> None:
    remapping = draw(probability=0.3, batch=1000)
    assert remapping is not None
    assert 250 < sum(remapping.chosen) < 350


def test_only_chosen_images_change() -> None:
    data, labels = make_batch()
    remapping = draw()
    assert remapping is not None
    remapped = remap_images(data, labels, Remapping((False, True), *list(vars(remapping).values())[1:]))
    assert torch.equal(remapped[0], data[0])
    assert not torch.equal(remapped[1], data[1])


def test_neither_images_nor_label_maps_are_changed_in_place() -> None:
    data, labels = make_batch()
    copies = data.clone(), labels.clone()
    remap_images(data, labels, draw(spread=1.0))
    assert torch.equal(data, copies[0])
    assert torch.equal(labels, copies[1])


def test_equal_seeds_give_equal_images_and_other_seeds_others() -> None:
    data, labels = make_batch()
    first, again, other = (remap_images(data, labels, draw(seed, spread=1.0)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shape_and_type_are_kept(dtype: torch.dtype) -> None:
    data, labels = make_batch()
    remapped = remap_images(data.to(dtype), [labels, labels[..., ::2]], draw(spread=1.0))
    assert (remapped.shape, remapped.dtype) == (data.shape, dtype)
    assert bool(remapped.isfinite().all())


def test_mean_and_deviation_are_kept() -> None:
    data, labels = make_batch()
    remapped = remap_images(3 * data + 5, labels, draw(spread=1.0))
    assert remapped[0].mean().item() == pytest.approx((3 * data + 5)[0].mean().item(), abs=1e-3)
    assert remapped[0].std().item() == pytest.approx((3 * data)[0].std().item(), rel=1e-3)


def test_an_image_of_air_alone_stays() -> None:
    data, labels = torch.full((2, 1, 10, 10, 10), -1.3), make_batch()[1]
    assert torch.equal(remap_images(data, labels, draw(spread=1.0)), data)


def test_half_an_image_of_air_stays_finite() -> None:
    data, labels = make_batch()
    data[..., :5] = -1024.0
    assert bool(remap_images(data, labels, draw(spread=1.0)).isfinite().all())


def test_knots_that_coincide_give_a_step() -> None:
    remapping = make_curve([0.0, 0.0, 1.0, 1.0])
    remapping.knots[..., 1:3] = 0.5
    remapped = remap_images(*make_batch(), remapping)
    assert len(remapped[0].round(decimals=3).unique()) == 2


def test_a_rising_line_inverts_nothing_and_a_falling_one_everything() -> None:
    data, labels = make_batch()
    for values, sign in (([0.0, 1.0], 1), ([1.0, 0.0], -1)):
        remapped = remap_images(data, labels, make_curve(values))
        correlation = np.corrcoef(data[0].flatten(), remapped[0].flatten())[0, 1]
        assert correlation == pytest.approx(sign, abs=0.01)


def test_a_curve_with_a_peak_makes_both_ends_alike() -> None:
    data = torch.linspace(0, 1, 1000).view(1, 1, 10, 10, 10).repeat(2, 1, 1, 1, 1)
    remapped = remap_images(data, make_batch()[1], make_curve([0.0, 1.0, 0.0]))[0].flatten()
    assert remapped[100].item() == pytest.approx(remapped[899].item(), abs=0.05)
    assert remapped[500] > remapped[100]


def test_regions_get_an_intensity_of_their_own_and_the_background_none() -> None:
    data, labels = make_batch()
    remapping = make_curve([0.0, 1.0])
    remapping.regions[..., 1] = 5.0
    remapped = remap_images(data, labels, remapping)
    inside, outside = remapped[0, 0, :3, :3, :3].mean(), remapped[0, 0, 6:, 6:, 6:].mean()
    assert inside - outside > 3


def test_ignored_voxels_are_no_region() -> None:
    data, labels = make_batch()
    remapping = make_curve([0.0, 1.0])
    plain = remap_images(data, labels, remapping)
    remapping.regions[..., 1] = 5.0
    assert torch.equal(remap_images(data, labels, remapping, ignore=1), plain)


def test_label_values_above_255_share_the_intensities_of_others() -> None:
    data, labels = make_batch()
    remapping = make_curve([0.0, 1.0])
    remapping.regions[..., 1] = 5.0
    high = torch.where(labels == 1, 256, labels)
    assert bool((high != labels).any())
    assert torch.equal(remap_images(data, high, remapping), remap_images(data, labels, remapping))
