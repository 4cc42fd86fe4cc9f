"""Whether the intensities of an image are plausible in its context."""

import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.data.plausibility import describe_intensities, find_implausible, join_ranges
from duplus_nnunet.errors import DataError

Image = np.ndarray[Any, Any]
SHAPE = (24, 24, 24)
REAL_DATA = os.environ.get("DUPLUS_SHARED_DATA")


def make_body(values: dict[str, float], noise: float, seed: int = 0) -> Image:
    """Make a body of fat with organs and bone in air."""
    image = np.full(SHAPE, values["air"])
    image[3:-3, 3:-3, 3:-3] = values["fat"]
    image[6:-6, 6:-6, 6:-6] = values["organ"]
    image[10:14, 10:14] = values["bone"]
    return image + np.random.default_rng(seed).normal(0, noise, SHAPE)


def make_ct(seed: int = 0) -> Image:
    return make_body({"air": -1000, "fat": -100, "organ": 60, "bone": 700}, 20, seed).clip(-1024, 3071)


def make_pet(seed: int = 0) -> Image:
    image = make_body({"air": 0.0, "fat": 0.3, "organ": 2.5, "bone": 1.4}, 0.15, seed)
    image[8, 8, 8] = 22.0
    return image.clip(0)


def make_mr(seed: int = 0) -> Image:
    return make_body({"air": 0, "fat": 620, "organ": 400, "bone": 150}, 30, seed).clip(0)


MAKERS = {
    "ct": ("computed tomography", make_ct),
    "pet": ("positron emission tomography", make_pet),
    "mr": ("T2-weighted magnetic resonance imaging", make_mr),
}


def make_context(name: str, trained: bool = True) -> dict[str, Any]:
    modality, make = MAKERS[name]
    context = {"name": name, "modality": modality}
    if trained:
        context["intensities"] = join_ranges([describe_intensities(make(seed)) for seed in range(1, 6)])
    return context


def ask(image: Image, name: str, trained: bool = True) -> str | None:
    contexts = {other: make_context(other, trained) for other in MAKERS}
    return find_implausible(image, contexts.pop(name), contexts)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_image_of_its_own_context_raises_no_warning(name: str, trained: bool) -> None:
    assert ask(MAKERS[name][1](), name, trained) is None


@pytest.mark.parametrize("trained", [True, False])
def test_ct_given_as_pet_is_reported_with_the_better_context(trained: bool) -> None:
    warning = ask(make_ct(), "pet", trained)
    given, suggested = warning.split(" fit ")
    assert "'pet' (positron emission tomography)" in given
    assert "negative" in given
    assert "'ct' (computed tomography)" in suggested


@pytest.mark.parametrize("trained", [True, False])
def test_pet_given_as_ct_is_reported_with_the_better_context(trained: bool) -> None:
    warning = ask(make_pet(), "ct", trained)
    given, suggested = warning.split(" fit ")
    assert "from 0 to 22" in given
    assert "'ct' (computed tomography)" in given
    assert "'pet' (positron emission tomography)" in suggested


def test_expected_range_is_that_of_the_training_images() -> None:
    assert "the lowest value of its training images is -1024" in ask(make_pet(), "ct")
    assert "of such images is between" in ask(make_pet(), "ct", trained=False)


def test_ct_scaled_to_a_byte_is_reported() -> None:
    image = make_ct()
    assert ask(((image + 1024) / 4095 * 255).astype(np.uint8), "ct") is not None


def test_ct_without_rescaling_to_hounsfield_units_is_reported() -> None:
    warning = ask(make_ct() + 1024, "ct")
    assert "Hounsfield" in warning
    assert "'ct'" not in warning.split("was given")[1]


def test_mr_given_as_ct_or_pet_is_reported() -> None:
    assert "'mr'" in ask(make_mr(), "ct").split(" fit ")[1]
    assert "too high" in ask(make_mr(), "pet")


def test_ct_given_as_mr_is_reported() -> None:
    assert "'ct'" in ask(make_ct(), "mr").split(" fit ")[1]


def test_mr_of_any_scale_is_plausible() -> None:
    for scale in (1e-3, 1.0, 1e4):
        assert ask(make_mr() * scale, "mr") is None
    assert ask((make_mr() - 400) / 200, "mr") is None


@pytest.mark.parametrize("name", MAKERS)
def test_constant_image_is_reported(name: str) -> None:
    assert "all of them are 0" in ask(np.zeros(SHAPE), name)


def test_activity_instead_of_uptake_values_is_reported() -> None:
    assert "too high" in ask(make_pet() * 5000, "pet")
    assert "too low" in ask(make_pet() / 5000, "pet")


def test_ringing_below_zero_is_plausible_in_pet() -> None:
    assert ask(make_pet() - 0.2, "pet") is None


@pytest.mark.parametrize("padding", [-2000.0, -3024.0])
def test_padding_and_metal_are_plausible_in_ct(padding: float) -> None:
    image = make_ct()
    image[0] = padding
    image[12, 12, 12:14] = 30_000
    assert ask(image, "ct") is None


def test_ct_trained_on_crops_without_air_needs_none() -> None:
    inside = slice(7, 17)
    crops = [make_ct(seed)[inside, inside, inside] for seed in range(5)]
    context = make_context("ct") | {"intensities": join_ranges([describe_intensities(crop) for crop in crops[1:]])}
    assert find_implausible(crops[0], context, {}) is None


def test_several_modalities_at_once_are_not_judged() -> None:
    context = {"name": "both", "modality": "positron emission tomography and computed tomography"}
    assert find_implausible(make_mr(), context, {}) is None


def test_ranges_are_plain_and_hold_every_image() -> None:
    ranges = join_ranges([describe_intensities(image) for image in (make_ct(0), make_ct(1) + 5)])
    assert json.loads(json.dumps(ranges)) == ranges
    assert all(low < high for low, high in ranges.values())


def test_statistics_of_a_large_image_are_close_to_all_voxels() -> None:
    image = np.arange(3_000_000, dtype=np.float32).reshape(300, 100, 100)
    found = describe_intensities(image)
    assert (found["min"], found["max"]) == (0, 2_999_999)
    assert found["p50"] == pytest.approx(1_500_000, rel=0.01)
    assert found["p99"] == pytest.approx(2_970_000, rel=0.01)


def test_voxels_that_are_no_numbers_are_left_out() -> None:
    assert describe_intensities(np.array([1.0, np.nan, 3.0, np.inf]))["max"] == 3
    with pytest.raises(DataError, match="finite"):
        describe_intensities(np.array([np.nan]))
    with pytest.raises(DataError, match="no image"):
        join_ranges([])


REAL = {
    "ct": ("Dataset060_SarcomaCT", "computed tomography"),
    "mr": ("Dataset061_SarcomaMR", "T1-weighted magnetic resonance imaging"),
    "pet": ("Dataset062_SarcomaPET", "positron emission tomography"),
}


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA, reason="DUPLUS_SHARED_DATA does not name a folder of real datasets")
def test_real_images_fit_their_own_context_and_ct_and_pet_not_each_others() -> None:
    images, contexts = {}, {}
    for name, (dataset, modality) in REAL.items():
        files = {
            part: sorted(Path(REAL_DATA or "", dataset, f"images{part}").glob("*.nii.gz")) for part in ("Tr", "Ts")
        }
        arrays = {part: [np.asarray(nibabel.load(file).dataobj) for file in found] for part, found in files.items()}
        ranges = join_ranges([describe_intensities(array) for array in arrays["Tr"]])
        contexts[name] = {"name": name, "modality": modality, "intensities": ranges}
        images[name] = [*arrays["Tr"], *arrays["Ts"]]
    for name, found in images.items():
        assert [find_implausible(image, contexts[name], contexts) for image in found] == [None] * len(found)
    for name, given in (("ct", "pet"), ("pet", "ct"), ("ct", "mr")):
        for image in images[name]:
            assert repr(name) in find_implausible(image, contexts[given], contexts).split(" fit ")[1]
