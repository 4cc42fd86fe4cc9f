"""Listing of the cases of a prediction."""

import multiprocessing.pool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.case_list import PredictionCall, list_cases


@pytest.fixture
def model() -> Any:
    import torch

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.dataset_json = {"file_ending": ".nii.gz"}
    return SimpleNamespace(predictor=predictor, dataset_json=predictor.dataset_json)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("b_0001", "b_0000", "a_0000", "a_0001", "C_0000", "a.b_0000", "aa_0000", "d_0000_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "notes.txt").touch()
    return tmp_path


@pytest.mark.parametrize("part", [(0, 1), (0, 2), (1, 2)])
def test_cases_are_those_of_nnunet_in_the_same_order(part: tuple[int, int], images: Path, model: Any) -> None:
    files, outputs, _ = model.predictor._manage_input_and_output_lists(str(images), "out", None, True, *part, False)
    cases = list_cases(model, PredictionCall(str(images), "out", part=part))
    assert [list(case.files) for case in cases] == files
    assert [case.output for case in cases] == outputs


def test_no_process_is_started(images: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.pool.Pool, "__init__", None)
    assert len(list_cases(model, PredictionCall(str(images), "out"))) == 6


def test_name_that_cannot_be_a_file_is_kept_as_the_identifier(tmp_path: Path, model: Any) -> None:
    (tmp_path / "CON_0000.nii.gz").touch()
    (case,) = list_cases(model, PredictionCall(str(tmp_path), "out"))
    assert case.name == "CON"
    assert Path(str(case.output)).name.startswith("_CON_")


def test_parts_give_a_case_the_same_file_as_the_whole(tmp_path: Path, model: Any) -> None:
    files = [[f"{name}_0000.nii.gz"] for name in ("Liver", "liver")]
    whole = [case.output for case in list_cases(model, PredictionCall(files, "out"))]
    parts = [list_cases(model, PredictionCall(files, "out", part=(number, 2)))[0].output for number in (0, 1)]
    assert whole == parts
    assert len({str(output).casefold() for output in whole}) == 2


def test_files_that_a_script_names_stay_as_they_are(model: Any) -> None:
    (case,) = list_cases(model, PredictionCall([["a_0000.nii.gz"]], ["out/-x"]))
    assert (case.name, case.output) == ("-x", "out/-x")


def test_two_images_of_one_name_are_refused(model: Any) -> None:
    with pytest.raises(DataError, match="'a'"):
        list_cases(model, PredictionCall([["x/a_0000.nii.gz"], ["y/a_0000.nii.gz"]], "out"))


def test_results_that_are_returned_need_no_names(model: Any) -> None:
    cases = list_cases(model, PredictionCall([["x/a_0000.nii.gz"], ["y/a_0000.nii.gz"]], None))
    assert [case.output for case in cases] == [None, None]
