"""The shipped example answers, by Python and by the command, with the organ that the prompts name."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from duplus_nnunet.api import DuPLUSPredictor
from duplus_nnunet.demo.control import copy_model
from duplus_nnunet.demo.scores import measure_dice
from duplus_nnunet.example.sources import TARGETS

from .conftest import Project

CASES = ("ct", "mr", "pet")
SIDES = ("left kidney", "right kidney")


def load(folder: Path) -> DuPLUSPredictor:
    return DuPLUSPredictor.from_folder(folder, folds=(0,), device="cpu", mirroring=False)


def predict(predictor: DuPLUSPredictor, example: Path, case: str, context: str = "", targets: tuple[str, ...] = ()):
    image = example / "images" / f"{case}_0000.nii.gz"
    prediction = predictor.predict(image, targets, context or f"phantom_{case}")
    return np.asarray(prediction.to_nibabel().dataobj)


def read_truth(example: Path, case: str) -> np.ndarray:
    return np.asarray(nibabel.load(example / "labels" / f"{case}.nii.gz").dataobj)


@pytest.fixture(scope="module")
def predictor(example_model: Path) -> DuPLUSPredictor:
    return load(example_model / "model")


@pytest.fixture(scope="module")
def values(example_model: Path) -> dict[str, int]:
    return json.loads((example_model / "model" / "dataset.json").read_text())["labels"]


@pytest.mark.parametrize("case", CASES)
def test_each_target_is_found_in_each_context(case, predictor, values, example_model):
    labels, truth = predict(predictor, example_model, case), read_truth(example_model, case)
    dice = {name: measure_dice(labels, truth, values[name]) for name in TARGETS}
    assert min(dice.values()) > 0.8, dice


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_context_finds_less(case, predictor, values, example_model):
    truth = read_truth(example_model, case)
    other = f"phantom_{CASES[(CASES.index(case) + 1) % len(CASES)]}"
    right, wrong = (predict(predictor, example_model, case, context) for context in ("", other))
    means = [np.mean([measure_dice(labels, truth, values[name]) for name in TARGETS]) for labels in (right, wrong)]
    assert means[1] < means[0] - 0.1


def exchange_sides(plans):
    """Give each kidney the embeddings of the other one: those of its sentences in all contexts, and of its name."""
    section = plans["duplus"]
    sources = dict(zip(SIDES, reversed(SIDES), strict=True))
    for context in section["contexts"].values():
        prompts = context["target_prompts"]
        sources |= {prompts[name][0]: prompts[other][0] for name, other in zip(SIDES, reversed(SIDES), strict=True)}
    embeddings = section["embeddings"]
    exchanged = {text: embeddings[sources.get(text, text)] for text in embeddings}
    return {**plans, "duplus": {**section, "embeddings": exchanged}}


@pytest.mark.parametrize("case", CASES)
def test_exchanged_prompts_give_the_other_kidney(case, values, example_model, tmp_path):
    copy_model(example_model / "model", tmp_path / "model", exchange_sides)
    predictor, truth = load(tmp_path / "model"), read_truth(example_model, case)
    for name, other in zip(SIDES, reversed(SIDES), strict=True):
        labels = predict(predictor, example_model, case, targets=(name,))
        assert measure_dice(labels == values[name], truth == values[other], True) > 0.8
        assert measure_dice(labels == values[name], truth == values[name], True) < 0.1


def test_the_command_that_the_example_prints_writes_masks_and_pictures(example_model, tmp_path):
    project = Project(tmp_path)
    told = project.do("duplus", "example", "-o", "example")
    predicting, evaluating = (line.split()[1:] for line in told.splitlines() if line.startswith("  duplus"))
    project.do("duplus", *predicting, "-device", "cpu", "-npp", "1", "-nps", "1")
    written = {path.name for path in (tmp_path / "example" / "predicted").iterdir()}
    assert {f"{case}{ending}" for case in CASES for ending in (".nii.gz", "_preview.png")} <= written
    project.do("duplus", *evaluating)
    scores = (tmp_path / "example" / "predicted" / "scores.json").read_text()
    assert "liver" in scores


def test_questions_from_a_pipe_are_answered_line_by_line(example_model, predictor, values, tmp_path):
    image = example_model / "images" / "ct_0000.nii.gz"
    words = [
        "ask",
        "-m",
        example_model / "model",
        "-i",
        image,
        "--context",
        "phantom_ct",
        "-o",
        tmp_path,
        "-device",
        "cpu",
    ]
    asked = subprocess.run(
        [str(Path(sys.executable).with_name("duplus")), *map(str, words), "-device", "cpu"],
        input="liver\nsave\nsplean\nleft kidney\nvolumes\n", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = asked.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["liver", str(tmp_path / "liver.nii.gz"), "left kidney"]
    assert [line.split("  ")[0] for line in lines[3:]] == ["target", "liver", "left kidney"]
    assert asked.returncode == 1  # a word that is no target
    assert "'spleen'" in asked.stderr
    usual = predict(predictor, example_model, "ct", targets=("liver",))
    mask = np.asarray(nibabel.load(tmp_path / "liver.nii.gz").dataobj)
    np.testing.assert_array_equal(mask == 1, usual == values["liver"])
