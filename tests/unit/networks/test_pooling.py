"""Numbers of an image are the averages that one would write down by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.networks.pooling import Windows, compute_pooling_weights, find_region, measure_lesion, pool_windows

SIZE = (4, 4, 4)


def one_window(values: torch.Tensor) -> Windows:
    return Windows([values], [(0, 0, 0)], SIZE)


def test_the_mean_of_one_window_is_its_mean() -> None:
    bottleneck = torch.randn(3, 2, 2, 2)
    found = pool_windows(one_window(bottleneck), torch.ones(SIZE))
    torch.testing.assert_close(found, bottleneck.double().mean((1, 2, 3)))


def test_a_voxel_counts_as_much_as_what_is_looked_at_covers_of_it() -> None:
    bottleneck = torch.arange(8.0).view(1, 2, 2, 2)
    weights = torch.zeros(SIZE)
    weights[:2, :2, :2] = 1  # all 8 voxels of the block of bottleneck voxel 0
    weights[2:, 2:, 3:] = 1  # 4 of the 8 of the block of voxel 7
    found = pool_windows(one_window(bottleneck), weights)
    assert found.tolist() == pytest.approx([(8 * 0 + 4 * 7) / 12])


def test_windows_stand_where_they_start() -> None:
    maps = [torch.full((1, 1, 1, 1), value) for value in (1.0, 5.0)]
    windows = Windows(maps, [(0, 0, 0), (4, 0, 0)], SIZE)
    weights = torch.zeros(8, 4, 4)
    weights[5, 1, 1] = 1
    assert pool_windows(windows, weights).tolist() == [5.0]
    assert pool_windows(windows, torch.ones(8, 4, 4)).tolist() == [3.0]


def test_where_windows_overlap_both_count() -> None:
    maps = [torch.full((1, 1, 1, 1), value) for value in (1.0, 5.0)]
    weights = torch.zeros(6, 4, 4)
    weights[3] = 1
    assert pool_windows(Windows(maps, [(0, 0, 0), (2, 0, 0)], SIZE), weights).tolist() == [3.0]


def test_of_nothing_there_is_no_mean() -> None:
    with pytest.raises(DataError, match="weights"):
        pool_windows(one_window(torch.ones(1, 1, 1, 1)), torch.zeros(SIZE))
    with pytest.raises(DataError, match="expected one each"):
        pool_windows(Windows([torch.ones(1, 1, 1, 1)], [(0, 0, 0), (1, 0, 0)], SIZE), torch.ones(SIZE))


@given(st.integers(0, 2**16))
def test_a_mean_lies_between_the_smallest_and_the_largest_value(seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 2, 2, 2, generator=drawn) for _ in range(2)]
    weights = torch.rand(6, 4, 4, generator=drawn)
    found = pool_windows(Windows(maps, [(0, 0, 0), (2, 0, 0)], SIZE), weights)
    every = torch.stack(maps)
    assert bool((found >= every.amin((0, 2, 3, 4)) - 1e-9).all())
    assert bool((found <= every.amax((0, 2, 3, 4)) + 1e-9).all())


def test_the_region_is_the_lesions_box_grown_in_mm() -> None:
    mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    mask[10, 8:12, 1] = True
    assert find_region(mask, (5.0, 2.0, 1.0), 4.0) == (slice(9, 12), slice(6, 14), slice(0, 6))


def test_without_a_lesion_the_region_is_everything() -> None:
    assert find_region(torch.zeros(3, 4, 5, dtype=torch.bool), (1, 1, 1)) == (slice(0, 3), slice(0, 4), slice(0, 5))


def test_a_lesion_is_measured_in_ml_and_by_its_own_intensities() -> None:
    image, probability = torch.zeros(2, 4, 4, 4), torch.full((4, 4, 4), 0.4)
    probability[1, 1, 1:3] = 0.9
    image[0, 1, 1, 1], image[0, 1, 1, 2], image[0, 0, 0, 0] = 2.0, 4.0, 100.0
    found = measure_lesion(image, probability, (10.0, 10.0, 5.0))
    assert found.volume == pytest.approx(2 * 0.5)
    assert found.means == (3.0, 0.0)
    assert found.maxima == (4.0, 0.0)
    assert found.found


def test_no_lesion_has_no_volume() -> None:
    found = measure_lesion(torch.randn(1, 2, 2, 2), torch.full((2, 2, 2), 0.5), (1, 1, 1))
    assert (found.volume, found.means, found.maxima, found.found) == (0.0, (0.0,), (0.0,), False)


def test_the_lesion_weighs_by_its_probability_inside_the_region_alone() -> None:
    probability = torch.full((9, 1, 1), 0.1)
    probability[4] = 0.8
    region, lesion = compute_pooling_weights(probability, (9, 1, 1), (10.0, 1.0, 1.0))
    assert region[:, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert lesion[:, 0, 0].tolist() == pytest.approx([0, 0, 0, 0.1, 0.8, 0.1, 0, 0, 0])


def test_without_a_found_lesion_both_averages_are_of_everything() -> None:
    region, lesion = compute_pooling_weights(torch.full((2, 2, 2), 0.3), (2, 2, 2), (1, 1, 1))
    assert region.min() == 1
    assert lesion is region
    assert [bool((part == 1).all()) for part in compute_pooling_weights(None, (2, 2, 2), (1, 1, 1))] == [True]
