"""A dataset is planned for the weights of a stock nnU-Net model, of which every version's plans are read."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from duplus_nnunet.adaptation.planning_base import keep_plans
from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.networks import condition
from duplus_nnunet.planners.planner import name_plans
from duplus_nnunet.planners.stock_base import StockBase, read_planning_base, read_stock_base
from duplus_nnunet.settings import Settings, parse_settings

from .stock_models import BLOCKS, CT, make_configuration, make_old_configuration, make_plans, make_weights, write_model

KINDS = tuple(BLOCKS)


def read(folder: Path, configuration: dict[str, Any] | None = None, **changes: Any) -> StockBase:
    plans = make_plans(configuration or make_configuration(), **changes)
    return read_stock_base(write_model(folder, plans, make_weights()))


def make_context(way: str = "CTNormalization", **statistics: float) -> dict[str, Any]:
    return {
        "spacing": [9.0, 9.0, 9.0],
        "normalization_schemes": [way],
        "use_mask_for_norm": [True],
        "foreground_intensity_properties_per_channel": {"0": {"mean": -1.0, "log_mean": 7.0, **statistics}},
    }


def test_a_model_of_a_trainer_that_is_not_installed_is_read(tmp_path: Path) -> None:
    base = read(tmp_path)
    assert (base.trainer, base.configuration) == ("nnUNetTrainer_4000epochs_NoMirroring", "3d_fullres")
    assert base.name == f"Dataset291_Stock/{base.checkpoint.parent.parent.name}"
    assert set(base.plans["configurations"]) == {"3d_fullres"}


@pytest.mark.parametrize("part", ["", "fold_0", "fold_0/checkpoint_final.pth"])
def test_a_model_is_found_from_what_lies_in_it(tmp_path: Path, part: str) -> None:
    model = write_model(tmp_path, make_plans(make_configuration()), make_weights())
    assert isinstance(read_planning_base(model / part), StockBase)


@pytest.mark.parametrize("make", [make_configuration, make_old_configuration])
@pytest.mark.parametrize("kind", KINDS)
def test_encoder_and_decoder_are_taken_over_whole(tmp_path: Path, kind: str, make: Any) -> None:
    base = read_stock_base(write_model(tmp_path, make_plans(make(kind)), make_weights(kind)))
    network = base.plans["configurations"]["3d_fullres"]["architecture"]
    names = network["network_class_name"], network["arch_kwargs"], network["_kw_requires_import"]
    ours = condition(get_network_from_plans(*names, 1, 1, deep_supervision=True), (6, 6))
    stock = read_checkpoint(base.checkpoint)["network_weights"]
    fresh = ours.load_pretrained(stock)
    shared = [name for name in ours.state_dict() if name not in fresh]
    assert shared == [name for name in stock if "seg_layers" not in name]
    assert all(torch.equal(ours.state_dict()[name], stock[name]) for name in shared)


def test_old_plans_give_the_configuration_of_new_ones(tmp_path: Path) -> None:
    new, old = (
        read(tmp_path / make.__name__, make()).plans["configurations"]["3d_fullres"]
        for make in (make_configuration, make_old_configuration)
    )
    assert old == new


def test_statistics_of_the_oldest_plans_are_found(tmp_path: Path) -> None:
    plans = make_plans(make_old_configuration(), foreground_intensity_properties_by_modality={"0": CT})
    del plans["foreground_intensity_properties_per_channel"]
    base = read_stock_base(write_model(tmp_path, plans, make_weights()))
    assert base.plans["foreground_intensity_properties_per_channel"] == {"0": CT}


def test_a_configuration_that_inherits_stands_alone(tmp_path: Path) -> None:
    configurations = {"3d_fullres": make_configuration(), "3d_high": {"inherits_from": "3d_fullres", "batch_size": 7}}
    base = read(tmp_path, configurations=configurations)
    assert base.plans["configurations"]["3d_high"] == {**base.plans["configurations"]["3d_fullres"], "batch_size": 7}


def test_the_configuration_of_the_checkpoint_is_the_one_to_train(tmp_path: Path) -> None:
    both = {"3d_fullres": make_configuration(), "3d_lowres": make_configuration()}
    model = write_model(tmp_path, make_plans({}, configurations=both), make_weights())
    file = model / "fold_0" / "checkpoint_final.pth"
    content = read_checkpoint(file)
    torch.save({**content, "init_args": {"configuration": "3d_lowres"}}, file)
    assert read_stock_base(model).configuration == "3d_lowres"


@pytest.mark.parametrize(("reader", "name"), [("NibabelIOWithReorient", "RAS"), ("SimpleITKIO", None)])
def test_the_orientation_is_that_of_the_reader(tmp_path: Path, reader: str, name: str | None) -> None:
    assert read(tmp_path, image_reader_writer=reader).orientation == name


def test_each_context_has_the_spacing_of_the_model(tmp_path: Path) -> None:
    contexts = {"ct": make_context(), "mr": make_context("ZScoreNormalization")}
    read(tmp_path).fit_contexts(contexts, {}, {"ct": ("CT",), "mr": ("MR",)})
    assert [context["spacing"] for context in contexts.values()] == [[1.5, 3.0, 1.25]] * 2


def test_ct_is_normalised_by_the_statistics_of_the_model(tmp_path: Path) -> None:
    contexts = {"ct": make_context()}
    read(tmp_path).fit_contexts(contexts, {}, {"ct": ("another CT",)})
    assert contexts["ct"]["foreground_intensity_properties_per_channel"] == {"0": {**CT, "log_mean": 7.0}}
    assert contexts["ct"]["use_mask_for_norm"] == [False]


def test_another_modality_keeps_its_normalisation(tmp_path: Path) -> None:
    contexts, before = {"mr": make_context("ZScoreNormalization")}, make_context("ZScoreNormalization")
    read(tmp_path).fit_contexts(contexts, {}, {"mr": ("MR",)})
    assert contexts["mr"] == {**before, "spacing": contexts["mr"]["spacing"]}


@pytest.mark.parametrize(("way", "taken"), [("NoNormalization", "NoNormalization"), ("NotThere", "CTNormalization")])
def test_a_channel_of_the_same_name_is_normalised_as_the_models_if_that_is_installed(
    tmp_path: Path, way: str, taken: str
) -> None:
    contexts = {"ct": make_context()}
    read(tmp_path, {**make_configuration(), "normalization_schemes": [way]}).fit_contexts(contexts, {}, {"ct": ("ct",)})
    assert contexts["ct"]["normalization_schemes"] == [taken]


@pytest.mark.parametrize(("name", "notes"), [("DefaultPreprocessor", 0), ("TheirPreprocessor", 1)])
def test_another_preprocessor_is_mentioned(tmp_path: Path, name: str, notes: int) -> None:
    base = read(tmp_path, {**make_configuration(), "preprocessor_name": name})
    found = base.fit_contexts({"ct": make_context()}, {}, {"ct": ("CT",)})
    assert sum(name in note for note in found) == notes


def test_plans_take_patch_batch_network_and_order_of_axes(tmp_path: Path) -> None:
    own = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}
    plans: dict[str, Any] = {"configurations": {"2d": {}, "3d_fullres": {**own, "patch_size": [1, 1, 1]}}}
    base = read(tmp_path)
    base.take_configurations(plans, "Mine")
    values = plans["configurations"].pop("3d_fullres")
    kept = make_configuration()
    names = ("patch_size", "batch_size", "spacing", "architecture", "batch_dice", "resampling_fn_data_kwargs")
    assert {name: values[name] for name in names} == {name: kept[name] for name in names}
    assert {name: values[name] for name in own} == own
    assert values["data_identifier"] == "Mine_3d_fullres"
    assert plans == {"configurations": {}, "transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}


def test_plans_name_the_model_and_those_of_another_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, channels = read(tmp_path), {"channel_names": {"0": "CT"}}
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    plans: dict[str, Any] = {"dataset_name": "Dataset001_A", "plans_name": "Mine", "configurations": {}}
    plans["duplus"] = section = {"left_right_axis": 2, "targets": []}
    base.declare(plans, channels)
    assert plans["duplus"]["start"]["weights"] == base.weights != ""
    file = tmp_path / "Dataset001_A" / "Mine.json"
    file.parent.mkdir()
    file.write_text(json.dumps(plans))
    keep_plans("Dataset001_A", "Mine", base)
    plans["duplus"]["settings"] = {"epochs": 7}
    file.write_text(json.dumps(plans))
    again: dict[str, Any] = {**plans, "duplus": {**section, "settings": {"epochs": 1000}}}
    assert "epochs 7" in base.declare(again, channels)[-1]
    assert again["duplus"]["settings"]["epochs"] == 7
    plans["duplus"]["start"]["model"] = "another"
    file.write_text(json.dumps(plans))
    with pytest.raises(PlansError, match="another"):
        base.declare(plans, channels)


@pytest.mark.parametrize(
    ("axes", "across", "left_right", "others"),
    [
        (None, 2, False, False), ((0, 1, 2), 2, True, True), ((0, 1), 2, False, True), ((2,), 2, True, False),
        ((1, 2), 2, True, False), (None, None, False, False), ([0, 1, 2], None, True, True), ("all", 2, False, False),
    ],
)  # fmt: skip
def test_images_are_mirrored_as_the_models_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: Any, across: int | None, left_right: bool, others: bool
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    model = write_model(tmp_path, make_plans(make_configuration()), make_weights())
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "inference_allowed_mirroring_axes": axes}, file)
    section = {"settings": Settings().to_dict(), "settings_version": 3, "left_right_axis": across, "targets": []}
    plans: dict[str, Any] = {"duplus": section, "configurations": {"3d_fullres": {"patch_size": [8, 8, 8]}}}
    (note,) = read_stock_base(model).declare(plans, {"channel_names": {"0": "CT"}})
    settings = parse_settings(plans["duplus"]["settings"])
    assert (settings.mirror_left_right, settings.mirror_other_axes) == (left_right, others)
    assert ("not known" in note) == (axes == "all")


def test_plans_for_a_stock_model_have_a_name_of_their_own(tmp_path: Path) -> None:
    assert name_plans("DuPLUSPlannerResEncL", read(tmp_path)) == "DuPLUSResEncUNetLPretrainedPlans"
    assert name_plans("DuPLUSPlanner", None) == "DuPLUSPlans"


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlansError, match=r"\b1 channel.*\b2\b"):
        read(tmp_path).check_dataset({"channel_names": {"0": "CT", "1": "PET"}})


def make_two_channels(folder: Path) -> StockBase:
    """Read a model of CT and PET."""
    two = {"normalization_schemes": ["CTNormalization", "ZScoreNormalization"], "use_mask_for_norm": [False, False]}
    plans = make_plans({**make_configuration(), **two})
    named = {"channel_names": {"0": "CT", "1": "PET"}}
    return read_stock_base(write_model(folder, plans, make_weights(channels=2), named))


@pytest.mark.parametrize(("own", "lines"), [(("CT", "PET"), 0), (("CT", "SUV"), 1)])
def test_channels_with_other_names_are_mentioned(tmp_path: Path, own: tuple[str, str], lines: int) -> None:
    context = make_context() | {"normalization_schemes": ["CTNormalization"] * 2, "use_mask_for_norm": [True] * 2}
    notes = make_two_channels(tmp_path).fit_contexts({"pet": context}, {}, {"pet": own})
    assert sum("channel 1: 'SUV'" in note and "'PET'" in note for note in notes) == lines


def test_channels_in_another_order_are_refused(tmp_path: Path) -> None:
    base = make_two_channels(tmp_path)
    with pytest.raises(PlansError, match=r"'PET', 'CT'.*'CT', 'PET'"):
        base.check_dataset({"channel_names": {"0": "PET", "1": "CT"}})
    with pytest.raises(PlansError, match="Context 'pet'"):
        base.fit_contexts({"pet": make_context()}, {}, {"pet": ("PET", "CT")})


def with_layers(**changes: Any) -> dict[str, Any]:
    configuration = make_configuration()
    configuration["architecture"]["arch_kwargs"] |= changes
    return {"3d_fullres": configuration}


def with_network(name: str) -> dict[str, Any]:
    configuration = make_configuration()
    configuration["architecture"]["network_class_name"] = name
    return {"3d_fullres": configuration}


@pytest.mark.parametrize(
    ("configurations", "message"),
    [
        ({"2d": {**make_configuration(), "patch_size": [8, 8]}}, "3d_fullres"),
        ({"3d_fullres": {**make_configuration(), "patch_size": [8, 8]}}, "2D"),
        ({"3d_fullres": {**make_configuration(), "previous_stage": "3d_lowres"}}, "cascade"),
        (with_layers(norm_op="torch.nn.BatchNorm3d"), r"BatchNorm3d.*InstanceNorm3d"),
        (with_layers(norm_op_kwargs={}), "affine"),
        (with_layers(features_per_stage=[5, 8]), r"expected \(5,"),
        (with_layers(n_conv_per_stage=[1, 2]), "missing"),
        (with_layers(conv_op="os.system"), r"conv_op.*torch\.nn"),
        (with_network("dynamic_network_architectures.architectures.primus.Primus"), "Primus"),
        (with_network("os.system"), r"os\.system"),
        ({"3d_fullres": {"inherits_from": "3d_fullres"}}, "inherited"),
        ({"3d_fullres": 3}, r"plans\.json"),
        (None, r"plans\.json"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, configurations: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read(tmp_path, configurations=configurations)


def test_a_deeper_network_than_the_plans_say_is_refused(tmp_path: Path) -> None:
    weights = {**make_weights(), "encoder.stages.2.0.convs.0.conv.weight": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"encoder\.stages\.2"):
        read_stock_base(write_model(tmp_path, make_plans(make_configuration()), weights))


@pytest.mark.parametrize("dataset", [{}, {"channel_names": {"0": "CT", "1": "PET"}}, {"channel_names": 3}])
def test_channels_that_contradict_the_plans_are_refused(tmp_path: Path, dataset: dict[str, Any]) -> None:
    model = write_model(tmp_path, make_plans(make_configuration()), make_weights(), dataset)
    with pytest.raises(ModelError, match="channel"):
        read_stock_base(model)


@pytest.mark.parametrize(
    ("key", "value"), [("image_reader_writer", "NibabelIOWithReorient"), ("transpose_forward", [0, 1, 2])]
)
def test_weights_beside_plans_of_another_model_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    model = write_model(tmp_path, make_plans(make_configuration()), make_weights())
    plans = make_plans(make_configuration(), **{key: value})
    plans["transpose_backward"] = plans["transpose_forward"]
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=rf"checkpoint_final\.pth.*plans\.json.*{key}"):
        read_stock_base(model)


def test_plans_in_another_form_of_nnunet_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    model = write_model(tmp_path, make_plans(make_old_configuration()), make_weights())
    (model / "plans.json").write_text(json.dumps(make_plans(make_configuration())))
    assert read_stock_base(model).configuration == "3d_fullres"


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = make_weights()
    next(iter(weights.values())).fill_(float("nan"))
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth.*NaN"):
        read_stock_base(write_model(tmp_path, make_plans(make_configuration()), weights))


def test_a_model_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path, make_plans(make_configuration()), make_weights())
    (model / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(ModelError, match="checkpoint"):
        read_stock_base(model)


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """Write a model with checkpoints of the folds 0 and 1, and a fold 2 without one."""
    model = write_model(tmp_path, make_plans(make_configuration()), make_weights())
    for name in ("fold_1", "fold_2"):
        (model / name).mkdir()
    shutil.copy(model / "fold_0" / "checkpoint_final.pth", model / "fold_1" / "checkpoint_best.pth")
    return model


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("", "fold_0/checkpoint_final.pth"),
        ("fold_1", "fold_1/checkpoint_best.pth"),
        ("fold_1/checkpoint_best.pth", "fold_1/checkpoint_best.pth"),
    ],
)
def test_the_named_fold_or_checkpoint_is_started_from(folds: Path, part: str, file: str) -> None:
    assert read_stock_base(folds / part).checkpoint == folds / file


@pytest.mark.parametrize("part", ["fold_7", "fold_2", "fold_0/checkpoint_best.pth", "plans.json"])
def test_a_named_fold_or_checkpoint_that_is_missing_is_not_replaced_by_another(folds: Path, part: str) -> None:
    with pytest.raises(ModelError, match=r"fold_0/checkpoint_final\.pth, fold_1/checkpoint_best\.pth") as refused:
        read_stock_base(folds / part)
    assert str(folds / part) in str(refused.value)


def test_a_checkpoint_that_holds_other_objects_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path, make_plans(make_configuration()), {"encoder": Path("x")})  # type: ignore[dict-item]
    with pytest.raises(ModelError, match="malicious"):
        read_stock_base(model)


def test_numbers_and_devices_of_a_trainers_log_are_read(tmp_path: Path) -> None:
    content = read_checkpoint(read(tmp_path).checkpoint)
    assert (content["_best_ema"], type(content["_best_ema"])) == (0.4, np.float64)
    assert content["init_args"]["device"] == torch.device("cpu")


def test_the_command_line_to_type_starts_from_the_given_checkpoint(tmp_path: Path) -> None:
    base = read(tmp_path / "with space")
    words = base.write_training("7", "3d_fullres", "Mine")
    assert words == (f"nnUNetv2_train 7 3d_fullres 0 -tr DuPLUSTrainer -p Mine -pretrained_weights '{base.checkpoint}'")
