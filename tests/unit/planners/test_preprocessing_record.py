"""Preprocessed images keep how they were made, and a training refuses those that its plans would make differently."""

import json
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.preprocessing_record import (
    RECORD,
    describe_preprocessing,
    is_preprocessed,
    keep_records,
    read_record,
    require_fit,
    write_record,
)

from ..mutations import change
from ..partial_plans import make_plans
from .stock_models import CT, make_configuration

FULL = "3d_fullres"


@pytest.fixture
def plans() -> dict[str, Any]:
    """Make plans whose MR has a spacing and a normalisation of its own."""
    made = make_plans()
    configuration = {**make_configuration(), "data_identifier": "Mine_3d_fullres"}
    made |= {
        "plans_name": "Mine",
        "dataset_name": "Dataset007_A",
        "image_reader_writer": "SimpleITKIO",
        "configurations": {FULL: configuration},
        "foreground_intensity_properties_per_channel": {"0": {**CT, "max": 1000.0}},
    }
    own = {"spacing": [3.0, 1.0, 1.0], "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}
    made["duplus"]["contexts"]["mr"] |= {**own, "foreground_intensity_properties_per_channel": {"0": CT}}
    made["duplus"]["reference_spacing"] = configuration["spacing"]
    return made


@pytest.fixture
def images(tmp_path: Path, plans: dict[str, Any]) -> Path:
    """Make the folder of images that were preprocessed by the plans."""
    folder = tmp_path / "Dataset007_A" / "Mine_3d_fullres"
    write_record(folder, plans, FULL)
    return folder


def test_the_record_names_what_decides_the_images(images: Path, plans: dict[str, Any]) -> None:
    record = read_record(images)
    assert record == describe_preprocessing(plans, FULL)
    assert record is not None
    assert (record.image_reader_writer, record.transpose_forward) == ("SimpleITKIO", [0, 1, 2])
    ct, mr = record.contexts["ct"], record.contexts["mr"]
    assert (ct.spacing, mr.spacing) == ([3.0, 1.5, 1.25], [3.0, 1.0, 1.0])
    assert (ct.normalization_schemes, mr.normalization_schemes) == (["CTNormalization"], ["ZScoreNormalization"])
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")
    assert (ct.statistics, mr.statistics) == ({"0": {name: CT[name] for name in names}}, {"0": {}})


def test_the_folder_of_the_images_holds_no_file_that_nnunet_would_take_for_one(images: Path) -> None:
    assert [path.is_dir() for path in images.iterdir()] == [True]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image_reader_writer", "SimpleITKIOWithReorient"),
        ("transpose_forward", [1, 0, 2]),
        ("duplus/orientation", "RAS"),
        ("configurations/3d_fullres/spacing", [3.0, 1.5, 1.5]),
        ("configurations/3d_fullres/normalization_schemes", ["NoNormalization"]),
        ("configurations/3d_fullres/use_mask_for_norm", [True]),
        ("configurations/3d_fullres/resampling_fn_seg", "resample_torch_fornnunet"),
        ("configurations/3d_fullres/resampling_fn_data_kwargs/order", 3),
        ("foreground_intensity_properties_per_channel/0/mean", 40.0),
        ("duplus/contexts/mr/spacing", [3.0, 2.0, 1.0]),
    ],
)
def test_a_training_refuses_images_that_its_plans_would_make_differently(
    images: Path, plans: dict[str, Any], path: str, value: Any
) -> None:
    with pytest.raises(DataError, match=r"nnUNetv2_preprocess -d 7 -plans_name Mine -c 3d_fullres") as refused:
        require_fit(images, change(plans, path, value), FULL)
    assert path.rpartition("/")[2] in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plans_name", "Ablation"),
        ("configurations/3d_fullres/batch_size", 9),
        ("configurations/3d_fullres/spacing", [3.0, 1.5, 1.2500001]),
        ("foreground_intensity_properties_per_channel/0/max", 40.0),
        ("duplus/contexts/mr/foreground_intensity_properties_per_channel", {"0": {}}),
        ("duplus/settings", {"epochs": 3}),
    ],
)
def test_what_does_not_touch_the_images_may_change(images: Path, plans: dict[str, Any], path: str, value: Any) -> None:
    require_fit(images, change(plans, path, value), FULL)


@pytest.mark.parametrize(("spacing", "fits"), [([3.0, 1.0, 1.0], True), ([2.0, 1.0, 1.0], False)])
def test_a_context_may_be_renamed(images: Path, plans: dict[str, Any], spacing: list[float], fits: bool) -> None:
    contexts = plans["duplus"]["contexts"]
    contexts["mri"] = {**contexts.pop("mr"), "spacing": spacing}
    assert json.loads((images / RECORD).read_text())["version"] == 1
    if fits:
        require_fit(images, plans, FULL)
    else:
        with pytest.raises(DataError, match="mri"):
            require_fit(images, plans, FULL)


def test_images_of_earlier_versions_are_accepted(tmp_path: Path, plans: dict[str, Any]) -> None:
    require_fit(tmp_path / "Mine_3d_fullres", plans, FULL)


@pytest.mark.parametrize("content", ["{", "{}", '{"version": 1}', '{"version": 7}'])
def test_a_damaged_record_is_refused(images: Path, plans: dict[str, Any], content: str) -> None:
    (images / RECORD).write_text(content)
    with pytest.raises(DataError, match=RECORD.name):
        require_fit(images, plans, FULL)


def test_images_are_preprocessed_while_the_plans_call_for_the_same(images: Path, plans: dict[str, Any]) -> None:
    file = images.with_name("Mine.json")
    assert not is_preprocessed(images.parent, "Mine", FULL)
    file.write_text(json.dumps(plans))
    assert is_preprocessed(images.parent, "Mine", FULL)
    file.write_text(json.dumps(change(plans, "transpose_forward", [2, 1, 0])))
    assert not is_preprocessed(images.parent, "Mine", FULL)


def test_images_of_earlier_versions_get_a_record_before_their_plans_are_overwritten(
    tmp_path: Path, plans: dict[str, Any]
) -> None:
    file = tmp_path / "Mine.json"
    keep_records(file)
    file.write_text(json.dumps(plans))
    keep_records(file)
    assert list(tmp_path.iterdir()) == [file]
    (tmp_path / "Mine_3d_fullres").mkdir()
    keep_records(file)
    keep_records(file)
    assert read_record(tmp_path / "Mine_3d_fullres") == describe_preprocessing(plans, FULL)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"duplus": {}, "configurations": {"3d_fullres": {}}}'])
def test_damaged_plans_can_be_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "Mine.json").write_text(content)
    keep_records(tmp_path / "Mine.json")
    assert len(list(tmp_path.iterdir())) == 1
