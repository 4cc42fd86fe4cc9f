"""Occlusion: a filled box has the effect of reading the whole filled image, and maps lie on the grid of the image."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.imaging.image_features import FeatureReader
from duplus_nnunet.survival.prediction.maps import bring_back, make_nifti
from duplus_nnunet.survival.prediction.occlusion import BaseCalls, WindowedImage, choose_boxes, spread
from duplus_nnunet.survival.training.lora import ADAPTER, attach_lora, make_lora_spec

from ..imaging.test_image_features import SIDE, make_reader


def make_image() -> torch.Tensor:
    return torch.randn(1, 20, SIDE, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("adapter", ["", ADAPTER])
def test_a_filled_box_is_read_as_if_the_whole_image_was(adapter: str) -> None:
    reader, image = make_reader(), make_image()
    if adapter:
        with torch.no_grad():
            for weight in attach_lora(reader.network, make_lora_spec(reader.network, SurvivalSettings(lora_r=4))):
                weight.normal_(std=0.2)
        reader = FeatureReader(reader.network, reader.host, reader.bank, reader.lesions, adapter)
    windowed = WindowedImage(reader, image, "ct")
    whole = reader.read(image, "ct")
    # nnU-Net adds windows up in half precision, which moves voxels at the very border of a lesion.
    np.testing.assert_allclose(windowed.row, whole, rtol=2e-2, atol=2e-2)
    assert windowed.windows > 1
    box = (slice(0, 5), slice(2, 9), slice(17, 24))
    filled = image.clone()
    filled[(slice(None), *box)] = image.mean()
    np.testing.assert_allclose(
        windowed.read_without(box), WindowedImage(reader, filled, "ct").row, rtol=1e-3, atol=1e-3
    )
    assert not np.allclose(windowed.read_without(box), windowed.row, rtol=1e-3, atol=1e-3)


def test_an_image_smaller_than_a_window_is_filled_where_it_is() -> None:
    reader, image = make_reader(), make_image()[:, :10, :, :SIDE]
    box = (slice(0, 4), slice(0, 4), slice(0, 4))
    filled = image.clone()
    filled[(slice(None), *box)] = image.mean()
    found = WindowedImage(reader, image, "ct").read_without(box)
    np.testing.assert_allclose(found, WindowedImage(reader, filled, "ct").row, rtol=1e-3, atol=1e-3)


def test_only_windows_that_meet_the_box_are_looked_at_again() -> None:
    reader = make_reader()
    windowed = WindowedImage(reader, torch.randn(1, SIDE, SIDE, 5 * SIDE), "ct")
    calls = list[int]()
    reader.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    windowed.read_without((slice(0, 4), slice(0, 4), slice(0, 4)))
    assert windowed.windows == 9
    assert len(calls) == 1


def make_adapted(seed: int) -> FeatureReader:
    """Make the reader of a fold: the base of all folds, and an adapter of its own."""
    reader = make_reader()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in attach_lora(reader.network, make_lora_spec(reader.network, SurvivalSettings(lora_r=4))):
            weight.normal_(std=0.2)
    return FeatureReader(reader.network, reader.host, reader.bank, reader.lesions, ADAPTER)


def test_folds_whose_adapters_have_the_same_base_share_its_passes() -> None:
    image, box, calls = make_image(), (slice(0, 5), slice(2, 9), slice(17, 24)), list[int]()
    readers = [make_adapted(seed) for seed in (1, 2, 3)]
    alone = [WindowedImage(reader, image, "ct") for reader in readers]
    for reader in readers:
        reader.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    whole, filled = BaseCalls(), BaseCalls()
    together = [WindowedImage(reader, image, "ct", whole) for reader in readers]
    assert len(calls) == (3 + 1) * together[0].windows  # instead of twice three
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(other.row, one.row)
        np.testing.assert_array_equal(other.read_without(box, filled), one.read_without(box))
    assert not np.array_equal(alone[0].row, alone[1].row)


def test_folds_with_different_bases_do_not_share_passes() -> None:
    image, calls = make_image(), BaseCalls()
    one, other = make_adapted(1), make_adapted(1)
    with torch.no_grad():
        next(other.network.encoder.parameters()).add_(0.5)
    WindowedImage(one, image, "ct", calls)
    np.testing.assert_array_equal(WindowedImage(other, image, "ct", calls).row, WindowedImage(other, image, "ct").row)


def test_boxes_part_the_region() -> None:
    region = (slice(2, 18), slice(0, 8), slice(5, 25))
    found = choose_boxes(region, (2.0, 4.0, 1.0), None, 512)  # 32, 32 and 20 mm
    assert found.size == 4.0
    assert not found.enlarged
    counts = spread([1.0] * len(found.boxes), found.boxes, (20, 10, 30))
    assert np.isfinite(counts).sum() == 16 * 8 * 20
    assert sum(np.zeros((20, 10, 30))[box].size for box in found.boxes) == 16 * 8 * 20  # none twice
    assert len(found.boxes) == 8 * 8 * 5


def test_too_many_boxes_are_made_larger() -> None:
    found = choose_boxes((slice(0, 40),) * 3, (1.0, 1.0, 1.0), 1.0, 30)
    assert len(found.boxes) <= 30
    assert found.enlarged
    assert len(choose_boxes((slice(0, 40),) * 3, (1.0, 1.0, 1.0), None, 1).boxes) == 1
    with pytest.raises(DataError, match=r"-1\.0 mm"):
        choose_boxes((slice(0, 4),) * 3, (1.0, 1.0, 1.0), -1.0, 30)


def test_what_was_cropped_was_not_looked_at() -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    properties = {
        "shape_after_cropping_and_before_resampling": (4, 2, 2), "shape_before_cropping": (6, 2, 2),
        "bbox_used_for_cropping": [[1, 5], [0, 2], [0, 2]],
    }  # fmt: skip
    found = bring_back(values, properties, (2, 1, 0))
    assert found.shape == (2, 2, 6)
    assert np.isnan(found[..., [0, 5]]).all()
    np.testing.assert_array_equal(found[0, 0, 1:5], [0, 0, 4, 4])


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO, NibabelIOWithReorient])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_map_has_the_grid_of_the_images_file(reader: type, signs: tuple[int, int, int], tmp_path: Path) -> None:
    affine = np.diag([2.0 * signs[0], 3.0 * signs[1], 4.0 * signs[2], 1.0])
    affine[:3, 3] = [10, -20, 30]
    image = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    file = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, affine), file)
    data, properties = reader().read_images([str(file)])
    shape = data.shape[1:]
    properties |= {
        "shape_after_cropping_and_before_resampling": shape, "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, length] for length in shape],
    }  # fmt: skip

    class Plans:
        transpose_backward = (0, 1, 2)

    made = make_nifti(data[0], Plans(), properties, file)
    np.testing.assert_allclose(made.affine, affine)
    np.testing.assert_allclose(made.get_fdata(), image, rtol=1e-6)
