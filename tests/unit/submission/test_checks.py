"""What cannot be trained is refused before anything is sent."""

from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table
from duplus_nnunet.errors import DataError, HostError, PlansError
from duplus_nnunet.submission.checks import (
    check_trainings,
    find_dataset,
    list_source_datasets,
    load_trainer,
    read_plans,
    require_folders,
)
from duplus_nnunet.submission.trainings import Training

from .conftest import DATASET, PLANS, write_plans

OURS = type("DuPLUSTrainer", (), {"__module__": "duplus_nnunet.trainers.segmentation"})
STOCK = type("nnUNetTrainer", (), {"__module__": "nnunetv2.training"})
TRAINERS = {"DuPLUSTrainer": OURS, "nnUNetTrainer": STOCK}


def check(processes: int = 1, **changes: Any) -> list[int | None]:
    names = {"configuration": "3d_fullres", "fold": "0", "trainer": "DuPLUSTrainer", "plans": "DuPLUSPlans", **changes}
    return check_trainings([Training(DATASET, **names)], processes, TRAINERS.__getitem__)


def test_epochs_are_those_of_our_settings(preprocessed: Path) -> None:
    assert check() == [5]
    assert check(trainer="nnUNetTrainer", plans="nnUNetPlans") == [None]
    assert check(fold="all") == [5]
    assert check(fold="4") == [5]


@pytest.mark.parametrize("fold", ["5", "x", "-1"])
def test_a_fold_that_does_not_exist_is_refused(preprocessed: Path, fold: str) -> None:
    with pytest.raises(DataError, match="0 to 4"):
        check(fold=fold)


def test_folds_are_those_of_the_split(preprocessed: Path) -> None:
    (preprocessed / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    check(fold="0")
    with pytest.raises(DataError, match="0 to 0"):
        check(fold="1")


def test_an_unknown_configuration_is_refused_with_the_known_ones(preprocessed: Path) -> None:
    with pytest.raises(PlansError, match="3d_fullres"):
        check(configuration="3d_fulres")


def test_plans_that_do_not_exist_are_refused(preprocessed: Path) -> None:
    with pytest.raises(PlansError, match="DuPLUSPlans"):
        check(plans="DuPLUSPlan")
    with pytest.raises(PlansError, match="DuPLUSPlans"):
        read_plans(DATASET, "DuPLUSPlan")


def test_a_case_that_is_not_preprocessed_is_noticed(preprocessed: Path) -> None:
    (preprocessed / "DuPLUSPlans_3d_fullres" / "a.pkl").unlink()
    with pytest.raises(DataError, match="1 of 2"):
        check()


def test_a_trainer_that_does_not_fit_the_plans_is_refused(preprocessed: Path) -> None:
    with pytest.raises(PlansError, match="nnUNetTrainer"):
        check(trainer="nnUNetTrainer")


def test_a_batch_smaller_than_the_gpus_is_refused_with_inherited_values(preprocessed: Path) -> None:
    check(2)
    with pytest.raises(PlansError, match="batch of 2 cannot be divided over 4"):
        check(4)
    assert check(8, configuration="3d_large") == [5]


def test_a_wrong_setting_is_refused(preprocessed: Path) -> None:
    write_plans(preprocessed, "Wrong", {**PLANS, "duplus": {"version": 1, "settings": {"epoch": 5}}})
    with pytest.raises(PlansError, match="epochs"):
        check(plans="Wrong")


@pytest.mark.parametrize("name", ["7", "007", "Test", DATASET])
def test_a_dataset_is_found_by_number_and_name(preprocessed: Path, name: str) -> None:
    assert find_dataset(name) == DATASET


def test_an_unknown_dataset_is_refused_with_the_known_ones(preprocessed: Path) -> None:
    with pytest.raises(DataError, match=DATASET):
        find_dataset("8")


# To find a trainer, nnU-Net imports all that it has.
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_an_unknown_trainer_is_refused() -> None:
    with pytest.raises(HostError, match="NoSuchTrainer"):
        load_trainer("NoSuchTrainer")


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_folders_that_are_not_set_are_refused(raw: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    require_folders()
    monkeypatch.setenv(variable, "/no/such/folder")
    with pytest.raises(DataError, match="/no/such/folder"):
        require_folders()
    monkeypatch.delenv(variable)
    with pytest.raises(DataError, match=variable):
        require_folders()


def test_datasets_of_a_composed_one_are_listed_once(preprocessed: Path) -> None:
    with pytest.raises(DataError, match="not a composed dataset"):
        list_source_datasets(DATASET)
    names = {"ct": "Dataset002_B", "mr": "Dataset001_A", "t2": "Dataset001_A"}
    sources = {name: Source(dataset, name, ("liver",), ("CT",)) for name, dataset in names.items()}
    write_case_table(CaseTable(sources, {"a": Case("ct", "a", ("liver",), ())}), preprocessed)
    assert list_source_datasets(DATASET) == ["Dataset001_A", "Dataset002_B"]
