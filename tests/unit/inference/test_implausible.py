"""A target that images of a context cannot show is predicted on request, with a warning in log and manifest."""

import json
import shutil
from pathlib import Path

import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.inference.binding import list_implausible
from duplus_nnunet.prompt_bank import PromptBank

from ..partial_plans import NAMES, make_plans

FILES = Path(__file__).parents[2] / "compatibility" / "files"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained with kidneys in images that cannot show a tumour."""
    folder = tmp_path_factory.mktemp("implausible") / "model"
    shutil.copytree(FILES / "models" / "segmentation", folder)
    plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    (context,) = plans["duplus"]["contexts"].values()
    context |= {"targets": ["left kidney", "right kidney"], "implausible": ["tumour"]}
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    return folder


def predict(model: Path, out: Path, *options: str) -> list[str]:
    """Predict the test image; returns the warnings in the manifest."""
    words = ["predict", "-i", FILES / "images" / "ct", "-o", out, "-m", model, "-f", "0", "-device", "cpu"]
    more = ["-npp", "1", "-nps", "1", "-step_size", "1", "--disable_tta", *options]
    assert main([str(word) for word in [*words, *more]]) in (0, None)
    (case,) = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["cases"].values()
    assert case["status"] == "complete"
    warnings: list[str] = case["warnings"]
    return [warning for warning in warnings if "not expected" in warning]


def test_only_implausible_targets_are_described() -> None:
    plans = make_plans()
    plans["duplus"]["contexts"]["mr"]["implausible"] = ["left kidney"]
    bank = PromptBank(plans)
    (sentence,) = list_implausible(bank, "mr", NAMES)
    assert sentence.startswith("left kidney: ")
    assert list_implausible(bank, "ct", NAMES) == []


def test_it_is_predicted_with_a_warning(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (warning,) = predict(model, tmp_path / "out", "--targets", "tumour", "left kidney")
    assert warning.startswith("tumour: ")
    assert f"warning: {warning}\n" in capsys.readouterr().err


def test_without_it_there_is_no_warning(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(model, tmp_path / "out") == []
    assert "not expected" not in capsys.readouterr().err
