"""Adapters on disk: what is written is read back, and what is damaged or of another kind is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from duplus_nnunet.adaptation.base import Base, check_checkpoint, fit_contexts, fit_section, read_base
from duplus_nnunet.adaptation.export import find_fold, open_adapted
from duplus_nnunet.adaptation.files import CARD, WEIGHTS, Card, read_adapter, read_card, write_adapter
from duplus_nnunet.adaptation.loading import load_adapters
from duplus_nnunet.adaptation.planning_base import keep_plans, take_mirroring
from duplus_nnunet.errors import DataError, ModelError, PlansError
from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.settings import Settings
from duplus_nnunet.trainers.schedule import GroupSchedule, always, from_epoch, separate

from ..partial_plans import make_plans

HOST_PLANS = json.loads(
    (Path(__file__).parents[2] / "compatibility" / "files" / "models" / "segmentation" / "plans.json").read_text()
)
SPEC = {"name": "new", "r": 2, "lora_alpha": 2, "lora_dropout": 0.0, "layers": ["a"], "film": True, "head": False}
WEIGHT = {
    "encoder.a.lora_A.new.weight": torch.arange(6.0).reshape(2, 3),
    "encoder.a.lora_B.new.weight": torch.ones(4, 2),
    "adapters.new.film.out.bias": torch.zeros(2),
}


def make_card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": "new", "base": "Dataset001/model", "checksum": "ab" * 32, "adapter": SPEC, "mirroring_axes": [0, 2],
        "targets": {"pet": ["tumour"]},
        "parameters": {"base": 100, "lora": 2, "generators": 3}, "scores": {"PET": {"tumour": 0.5, "cyst": None}},
        "prompts": {}, "dataset": {"labels": {"background": 0, "tumour": 1}},
    }  # fmt: skip
    return Card(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", WEIGHT, make_card())
    return tmp_path / "adapter"


@pytest.mark.parametrize("name", ["", WEIGHTS, CARD])
def test_what_is_written_is_read_back(folder: Path, name: str) -> None:
    found = read_adapter(folder / name)
    assert found.weights.keys() == WEIGHT.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in WEIGHT.items())
    assert found.card.spec.layers == ("a",)
    assert found.card == make_card(sha256=found.card.sha256)
    assert sorted(file.name for file in folder.iterdir()) == [CARD, WEIGHTS]


def test_a_file_that_was_cut_off_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-3])
    with pytest.raises(ModelError, match=rf"{WEIGHTS}.*{CARD}"):
        read_adapter(folder)


def test_a_missing_file_of_weights_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=WEIGHTS):
        read_adapter(folder)


def test_a_folder_without_a_card_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=CARD):
        read_card(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 2}'])
def test_a_card_of_another_form_is_refused(folder: Path, content: str) -> None:
    (folder / CARD).write_text(content)
    with pytest.raises(DataError, match=CARD):
        read_card(folder)


def test_an_adapter_of_another_base_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"'new'.*Dataset001/model"):
        load_adapters(None, [{"generator.base": torch.zeros(1)}], [read_adapter(folder)])


def test_an_adapter_whose_texts_are_elsewhere_is_refused(tmp_path: Path) -> None:
    prompts = {"settings": {"text_adapter": {"enabled": True}}}
    write_adapter(tmp_path, WEIGHT, make_card(prompts=prompts))
    with pytest.raises(ModelError, match=r"'new' .* text encoder"):
        load_adapters(None, [{"generator.base": torch.zeros(1)}], [read_adapter(tmp_path)])


def test_an_adapter_belongs_to_one_fold(folder: Path) -> None:
    with pytest.raises(ModelError, match="2 folds"):
        load_adapters(None, [{}, {}], [read_adapter(folder)])


def write_model(folder: Path, section: Any) -> Path:
    folder.mkdir()
    plans = {**HOST_PLANS, "experiment_planner_used": "ExperimentPlanner", "duplus": section}
    if section is None:
        del plans["duplus"]
    (folder / "plans.json").write_text(json.dumps(plans))
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "fold_0").mkdir()
    torch.save(
        {"network_weights": {}, "inference_allowed_mirroring_axes": (0, 2)}, folder / "fold_0" / "checkpoint_final.pth"
    )
    return folder


SECTION = {**make_plans()["duplus"], "settings": Settings().to_dict()}


def test_a_base_is_found_from_a_checkpoint_in_it_too(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", SECTION)
    assert read_base(model).plans == read_base(model / "fold_0" / "checkpoint_final.pth").plans


@pytest.mark.parametrize(("trained", "expected"), [("3d_fullres", "3d_fullres"), ("gone", "3d_fullres"), (None,) * 2])
def test_the_configuration_to_train_is_that_of_the_checkpoint(tmp_path: Path, trained: Any, expected: Any) -> None:
    model = write_model(tmp_path / "model", SECTION)
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file), "init_args": {"configuration": trained}}, file)
    assert read_base(model).configuration == (expected or "3d_fullres")


def test_a_base_says_along_which_axes_it_saw_mirror_images(tmp_path: Path) -> None:
    assert read_base(write_model(tmp_path / "model", SECTION)).mirroring == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_weights": {"a": torch.tensor([float("nan")])}}, "NaN"),
        (
            {"init_args": {"plans": {**HOST_PLANS, "image_reader_writer": "X", "duplus": SECTION}}},
            "image_reader_writer",
        ),
    ],
)
def test_a_base_whose_weights_are_of_other_plans_or_not_finite_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    model = write_model(tmp_path / "model", SECTION)
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file), **changes}, file)
    with pytest.raises(ModelError, match=rf"checkpoint_final\.pth.*{message}"):
        read_base(model)


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_base_without_a_whole_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    model = write_model(tmp_path / "model", SECTION)
    file = model / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:100])
    if damage == "missing":
        file.unlink()
    with pytest.raises(ModelError, match="checkpoint"):
        read_base(model)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, "'ExperimentPlanner'"),
        ({**SECTION, "base": {"model": "first"}}, r"\bfirst\b.*duplus adapt merge"),
        ({**SECTION, "settings": {"text_adapter": {"enabled": True}}}, r"settings\.text_adapter"),
    ],
)
def test_what_cannot_be_a_base_is_refused(tmp_path: Path, section: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_base(write_model(tmp_path / "model", section))


def test_a_folder_without_plans_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"plans\.json"):
        read_base(tmp_path)


def test_images_are_preprocessed_as_the_base_does_those_of_their_kind() -> None:
    plans = {**make_plans(), "transpose_backward": [1, 0, 2]}
    kind = {"modality": "CT", "region": "abdomen"}
    plans["duplus"]["contexts"]["ct"] |= {**kind, "spacing": [3.0, 1.0, 2.0], "normalization_schemes": ["CT"]}
    found: dict[str, Any] = {"ours": {"spacing": [9.0] * 3}, "other": {"spacing": [9.0] * 3}}
    prompts = {"sentences": ["A scan"], "target_prompts": {"liver": ["the liver"]}}
    named = {
        "ours": PlannedContext(**prompts, **kind),
        "other": PlannedContext(**prompts, modality="MR", region="abdomen"),
    }
    notes = fit_contexts(found, named, Base("base", plans, {}))
    assert found["ours"] == {"spacing": [1.0, 3.0, 2.0], "normalization_schemes": ["CT"]}
    assert found["other"] == {"spacing": [9.0] * 3}
    assert [note.split(":")[0] for note in notes] == ["context ours", "context other"]
    assert notes[0].endswith("ct")


def fit(target_prompt: str, **settings: Any) -> dict[str, Any]:
    plans = make_plans()
    encoder = {"name": "e", "pooling": "mean", "sha256": "ab", "dimension": 4}
    plans["duplus"] |= {"encoder": encoder, "settings": {"target_prompt": target_prompt, **settings}}
    return fit_section({"encoder": encoder, "settings": {}}, Base("base", plans, {}))["settings"]


@pytest.mark.parametrize("target_prompt", ["text", "name"])
def test_an_adapter_has_the_kind_of_target_prompts_of_its_base(target_prompt: str) -> None:
    assert fit(target_prompt)["target_prompt"] == target_prompt


def test_images_are_mirrored_as_the_bases_were() -> None:
    plans: dict[str, Any] = {
        "duplus": {"left_right_axis": 2, "settings": {"epochs": 3}, "targets": [{"name": "liver", "partner": None}]},
        "configurations": {"3d_fullres": {"patch_size": [8, 8, 8]}, "mine": {"inherits_from": "3d_fullres"}},
    }
    take_mirroring(plans, (0, 1))
    assert plans["duplus"]["settings"] == {"epochs": 3, "mirror_left_right": False, "mirror_other_axes": True}


def test_a_base_of_numbers_is_refused() -> None:
    with pytest.raises(PlansError, match="one-hot"):
        fit("one-hot")


def make_checkpoint(**changes: Any) -> dict[str, Any]:
    section = {**SECTION, "base": {"model": "first"}}
    plans = {"plans_name": "P", "configurations": {"3d": {"patch_size": [8], "architecture": {}}}, "duplus": section}
    return {"init_args": {"plans": {**plans, **changes}}}


def test_a_checkpoint_of_the_base_is_accepted() -> None:
    plans = make_checkpoint()["init_args"]["plans"]
    check_checkpoint(make_checkpoint(), "file", plans, "3d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configurations": {"3d": {"patch_size": [9], "architecture": {}}}}, "patch_size"),
        ({"configurations": {"3d": {"patch_size": [8], "architecture": {"n": 1}}}}, "architecture"),
        ({"duplus": {**SECTION, "centres": {"name": 2}}}, "centres"),
        ({"duplus": {**SECTION, "settings": {"network": {"film": False}}}}, r"settings\.network"),
    ],
)
def test_a_checkpoint_of_another_base_is_refused(changes: dict[str, Any], message: str) -> None:
    plans = make_checkpoint()["init_args"]["plans"]
    with pytest.raises(ModelError, match=message):
        check_checkpoint(make_checkpoint(**changes), "file", plans, "3d")


def test_a_stock_checkpoint_is_no_base() -> None:
    with pytest.raises(ModelError, match=r"file .*first"):
        check_checkpoint({"init_args": {"plans": {}}}, "file", make_checkpoint()["init_args"]["plans"], "3d")


@pytest.mark.parametrize("inside", ["", "fold_3", "fold_3/checkpoint_final.pth"])
def test_a_fold_is_found_by_its_folder(inside: str) -> None:
    folder, fold = find_fold(Path("/models/one") / inside)
    assert (folder, fold) == (Path("/models/one"), "3" if inside else None)


def test_a_plain_model_holds_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"DuPLUSLoRATrainer"):
        open_adapted(write_model(tmp_path / "model", SECTION), "0", {})


def test_groups_learn_at_rates_of_their_own() -> None:
    layers = [torch.nn.Linear(2, 2) for _ in range(3)]
    everything = torch.nn.ModuleList(layers)
    optimizer = torch.optim.SGD(everything.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    separate(optimizer, layers[1].parameters())
    separate(optimizer, layers[2].parameters())
    schedule = GroupSchedule(optimizer, PolyLRScheduler(optimizer, 0.1, 10), [always(1), from_epoch(2), always(0.5)])
    rates = []
    for epoch in range(3):
        schedule.step(epoch)
        rates.append([group["lr"] for group in optimizer.param_groups])
    plain = [0.1 * (1 - epoch / 10) ** 0.9 for epoch in range(3)]
    assert rates == [pytest.approx([lr, lr if epoch >= 2 else 0, lr / 2]) for epoch, lr in enumerate(plain)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_a_group_that_waits_does_not_move_at_all() -> None:
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    optimizer = torch.optim.SGD(layers.parameters(), 0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    separate(optimizer, layers[1].parameters())
    schedule = GroupSchedule(optimizer, PolyLRScheduler(optimizer, 0.1, 10), [always(1), from_epoch(1)])
    before = [value.clone() for value in layers[1].parameters()]
    for epoch in range(2):
        schedule.step(epoch)
        layers[1](layers[0](torch.ones(1, 2))).sum().backward()
        optimizer.step()
        still = all(torch.equal(old, new) for old, new in zip(before, layers[1].parameters(), strict=True))
        assert still == (epoch == 0)


def test_an_adapter_is_readable_as_other_new_files_are(tmp_path: Path) -> None:
    write_adapter(tmp_path, WEIGHT, make_card())
    (tmp_path / "other").write_text("")
    assert (tmp_path / WEIGHTS).stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", 0), ("r", "4"), ("r", None), ("lora_alpha", math.nan), ("lora_dropout", 1), ("head", "yes"), ("layers", 5)],
)
def test_a_card_whose_adapter_cannot_be_is_named_with_its_key(folder: Path, key: str, value: Any) -> None:
    card = json.loads((folder / CARD).read_text())
    card["adapter"][key] = value
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(DataError, match=rf"adapter\.json.*{key}"):
        read_card(folder)


@pytest.mark.parametrize("model", [None, "other/model"])
def test_plans_that_were_not_made_for_the_base_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | None
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    file = tmp_path / "Dataset001_A" / "DuPLUSPlans.json"
    file.parent.mkdir()
    base = Base("our/model", {}, {})
    keep_plans("Dataset001_A", "DuPLUSPlans", base)
    file.write_text(json.dumps({"duplus": {} if model is None else {"base": {"model": model}}}))
    with pytest.raises(PlansError, match=r"DuPLUSPlans\.json.*--plans-name"):
        keep_plans("Dataset001_A", "DuPLUSPlans", base)
    file.write_text(json.dumps({"duplus": {"base": {"model": "our/model"}}}))
    keep_plans("Dataset001_A", "DuPLUSPlans", base)
