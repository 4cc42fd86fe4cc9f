"""What nnU-Net's commands are asked for is checked before they begin."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from duplus_nnunet import command_checks, plugin
from duplus_nnunet.command_checks import (
    TrainingCall,
    check_training,
    check_training_first,
    refuse_misspelt,
    with_device,
)
from duplus_nnunet.errors import DataError, HostError, PlansError
from duplus_nnunet.inference.devices import add_device, choose_device

OURS = type("DuPLUSTrainer", (), {"__module__": "duplus_nnunet.trainers.segmentation"})
DERIVED = type("Mine", (OURS,), {"__module__": "elsewhere"})
STOCK = type("nnUNetTrainer", (), {"__module__": "nnunetv2.training"})
TRAINERS = {"DuPLUSTrainer": OURS, "Mine": DERIVED, "nnUNetTrainer": STOCK}
PLAIN: dict[str, Any] = {"configurations": {}}


@pytest.fixture
def folder(raw: Path, tmp_path: Path) -> Path:
    made = tmp_path / "nnUNet_preprocessed" / "Dataset007_Test"
    made.mkdir()
    return made


def put(folder: Path, **plans: Any) -> None:
    for name, content in plans.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def check(trainer: str, plans: str, dataset: str = "7") -> None:
    check_training(TrainingCall(dataset, "3d_fullres", "0", trainer, plans), TRAINERS.__getitem__)


@pytest.mark.parametrize("trainer", ["DuPLUSTrainer", "Mine"])
def test_our_trainers_and_derived_ones_take_our_plans(folder: Path, trainer: str) -> None:
    put(folder, DuPLUSPlans={**PLAIN, "duplus": {}}, nnUNetPlans=PLAIN)
    check(trainer, "DuPLUSPlans")
    check("nnUNetTrainer", "nnUNetPlans")


def test_another_trainer_on_our_plans_is_refused_with_the_line_to_type(folder: Path) -> None:
    put(folder, DuPLUSPlans={**PLAIN, "duplus": {}})
    with pytest.raises(PlansError, match=r"nnUNetv2_train 7 3d_fullres 0 -tr DuPLUSTrainer -p DuPLUSPlans$"):
        check("nnUNetTrainer", "DuPLUSPlans")


def test_plans_of_an_adapter_suggest_its_trainer(folder: Path) -> None:
    put(folder, Own={**PLAIN, "duplus": {"base": {}}})
    with pytest.raises(PlansError, match="-tr DuPLUSLoRATrainer -p Own"):
        check("nnUNetTrainer", "Own")


@pytest.mark.parametrize("trainer", ["DuPLUSTrainer", "nnUNetTrainer"])
def test_plans_that_do_not_exist_name_those_that_do(folder: Path, trainer: str) -> None:
    put(folder, DuPLUSPlans={**PLAIN, "duplus": {}}, dataset={"labels": {}})
    with pytest.raises(PlansError, match=r"has DuPLUSPlans\. Type: .* -p DuPLUSPlans"):
        check(trainer, "nnUNetPlans")


def test_our_trainer_refuses_other_plans(folder: Path) -> None:
    put(folder, nnUNetPlans=PLAIN)
    with pytest.raises(PlansError, match="not DuPLUS plans"):
        check("DuPLUSTrainer", "nnUNetPlans")


def test_a_stock_training_is_left_to_nnunet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check("nnUNetTrainer", "nnUNetPlans")
    check("nnUNetTrainer", "nnUNetPlans", dataset="8")
    monkeypatch.delenv("nnUNet_preprocessed")
    check("nnUNetTrainer", "nnUNetPlans")


def test_a_dataset_that_is_not_planned_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"'8'.*'Dataset007_Test'"):
        check("DuPLUSTrainer", "DuPLUSPlans", dataset="8")


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_folders_that_are_not_set_are_named(folder: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(DataError, match=f"{variable} is not set"):
        check("DuPLUSTrainer", "DuPLUSPlans")


def test_nnunets_function_is_not_called_with_what_is_refused(folder: Path) -> None:
    def run_training(
        dataset_name_or_id: str,
        configuration: str,
        fold: int,
        trainer_class_name: str = "nnUNetTrainer",
        plans_identifier: str = "nnUNetPlans",
    ) -> None:
        pytest.fail("was called")

    put(folder, DuPLUSPlans={**PLAIN, "duplus": {}})
    with pytest.raises(PlansError):
        check_training_first(run_training)("7", "3d_fullres", 0, plans_identifier="DuPLUSPlans")


@pytest.mark.parametrize("name", ["DuplusPlanner", "duplusplanner", "DUPLUSPLANNER"])
def test_a_class_in_the_wrong_case_is_corrected(name: str) -> None:
    with pytest.raises(HostError, match="Did you mean 'DuPLUSPlanner'"):
        refuse_misspelt(["plan", "-pl", name], "-pl", ["DuPLUSPlanner"])


@pytest.mark.parametrize("words", [["-pl", "DuPLUSPlanner"], ["-pl", "MyDuplusPlanner"], ["-p", "duplusplanner"], []])
def test_other_names_are_left_alone(words: list[str]) -> None:
    refuse_misspelt(words, "-pl", ["DuPLUSPlanner"])


def test_look_up_of_a_trainer_in_the_wrong_case_is_refused() -> None:
    find = plugin.wrap_lookup(lambda *args: None)
    with pytest.raises(HostError, match="Did you mean 'DuPLUSTrainer'"):
        find("folder", "duplustrainer", "nnunetv2.training.nnUNetTrainer")
    assert find("folder", "MyTrainer", "nnunetv2.training.nnUNetTrainer") is None


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu_the_cpu_is_used_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_device(None).type == "cpu"
    assert add_device(["-d", "7"]) == ["-d", "7", "-device", "cpu"]
    assert capsys.readouterr().err.count("CPU is used") == 2


@pytest.mark.usefixtures("without_gpu")
def test_a_gpu_that_was_asked_for_is_never_replaced() -> None:
    with pytest.raises(HostError, match="'cuda' is not available"):
        add_device(["-device", "cuda"])


@pytest.mark.parametrize("words", [["-device", "cpu"], ["-h"], ["--help"]])
@pytest.mark.usefixtures("without_gpu")
def test_a_device_that_is_named_or_not_needed_is_left_alone(words: list[str]) -> None:
    assert add_device(words) == words


def test_with_a_gpu_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert add_device(["-d", "7"]) == ["-d", "7"]


@pytest.mark.usefixtures("without_gpu", "raw")
def test_a_command_sees_the_device_and_the_line_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "7"])
    assert with_device(lambda: list(sys.argv))() == ["train", "7", "-device", "cpu"]
    assert sys.argv == ["train", "7"]


@pytest.mark.parametrize("words", [["-device", "cpu"], ["-device=cpu"], ["-dev", "cpu"], ["-de=cpu"]])
def test_a_device_that_is_named_is_kept(words: list[str]) -> None:
    assert add_device(["998", *words]) == ["998", *words]


@pytest.mark.parametrize("words", [["-device", "tpu"], ["-device=tpu"], ["-dev", "tpu"]])
def test_a_device_that_is_not_known_is_refused(words: list[str]) -> None:
    with pytest.raises(HostError):
        add_device(["998", *words])


def test_only_the_plans_that_are_asked_for_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, DuPLUSPlans={**PLAIN, "duplus": {}}, duplus_cases={})
    (folder / "nnUNetPlans.json").mkdir()
    read: list[str] = []
    original = command_checks.load_json
    monkeypatch.setattr(command_checks, "load_json", lambda file: read.append(file.name) or original(file))
    check("DuPLUSTrainer", "DuPLUSPlans")
    assert read == ["DuPLUSPlans.json"]
