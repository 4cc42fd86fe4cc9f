"""Three raw datasets become one model: composed, planned, trained and predicted by the commands that a user types."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.data.phantom_sources import PHANTOM_SOURCES, write_phantom_sources

from .conftest import FAST, Project

pytestmark = pytest.mark.slow

MODEL = ("-d", "997", "-c", "3d_fullres", "-f", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
NAME = "Dataset997_Three"
IDS = ("901", "902", "903")


class Composed(Project):
    """nnU-Net's three folders with three phantom datasets and their composition."""

    @property
    def raw(self) -> Path:
        return self.folder / "raw" / NAME

    @property
    def plans(self) -> Path:
        return self.folder / "preprocessed" / NAME / "DuPLUSPlans.json"

    @property
    def model(self) -> Path:
        return self.folder / "results" / NAME / "DuPLUSTrainer__DuPLUSPlans__3d_fullres"


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Composed:
    made = Composed(tmp_path_factory.mktemp("composed"), MODEL)
    raw = made.folder / "raw"
    raw.mkdir()
    write_phantom_sources(raw, 5, 1, 0)
    made.do("duplus", "compose", "-o", "997", "-n", "Three", *IDS)
    made.do("nnUNetv2_plan_and_preprocess", "-d", "997", "-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "1", "1")
    made.change_settings(epochs=2, iterations_per_epoch=2, validation_iterations=2)
    made.do("nnUNetv2_train", "997", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    return made


def read_section(composed: Any) -> dict[str, Any]:
    section: dict[str, Any] = json.loads(composed.plans.read_text())["duplus"]
    return section


def predict(composed: Any, out: Path, images: Path, *options: str) -> Any:
    return composed.run("nnUNetv2_predict", "-i", images, "-o", out, *MODEL, *FAST, *options)


def test_each_context_has_a_spacing_and_a_normalisation_of_its_own(composed: Any) -> None:
    contexts = read_section(composed)["contexts"]
    assert {name: found["normalization_schemes"] for name, found in contexts.items()} == {
        "phantom_ct": ["CTNormalization"],
        "phantom_mr": ["ZScoreNormalization"],
        "phantom_pet": ["SUVNormalization"],
    }
    assert len({tuple(found["spacing"]) for found in contexts.values()}) == 3
    assert contexts["phantom_ct"]["intensities"][0]["min"][0] < -500


def test_the_fingerprint_stays_nnunets_own(composed: Any) -> None:
    fingerprint = json.loads((composed.plans.parent / "dataset_fingerprint.json").read_text())
    assert len(fingerprint["spacings"]) == 15
    assert len({tuple(spacing) for spacing in fingerprint["spacings"]}) == 3


def test_the_report_says_what_a_patch_covers(composed: Any) -> None:
    found = json.loads(composed.do("duplus", "plan-report", "997", "--json"))["3d_fullres"]
    assert found["patch"] == [32, 32, 32]
    assert sum(source["share"] for source in found["sources"].values()) == pytest.approx(1, abs=1e-3)
    assert all(0 < source["covered"] <= 1 for source in found["sources"].values())
    text = composed.do("duplus", "plan-report", "997")
    assert "of it in a patch" in text
    assert "phantom_pet" in text


def test_validation_scores_annotated_targets_a_source_at_a_time(composed: Any) -> None:
    folder = composed.model / "fold_0" / "validation"
    scores = json.loads((folder / "scores.json").read_text())
    assert (folder / "scores.csv").is_file()
    table = json.loads((composed.raw / "duplus_cases.json").read_text())
    pairs = {(name, target) for name, source in scores["sources"].items() for target in source["targets"]}
    known = {(name, target) for name, source in table["sources"].items() for target in source["targets"]}
    assert pairs <= known
    summary = json.loads((folder / "summary.json").read_text())
    assert np.isfinite(summary["foreground_mean"]["Dice"])


def test_several_contexts_and_none_named_is_an_error_that_lists_them(composed: Any, tmp_path: Path) -> None:
    done = predict(composed, tmp_path / "out", composed.folder / "raw" / "Dataset901_PhantomCT" / "imagesTs")
    assert done.returncode == 1
    assert all(name in done.stderr for name in ("phantom_ct", "phantom_mr", "phantom_pet", "--context"))
    assert "Traceback" not in done.stderr


def test_a_table_of_contexts_gives_each_case_its_own(composed: Any, tmp_path: Path) -> None:
    images = composed.raw / "imagesTs"
    cases = {file.name.removesuffix("_0000.nii.gz"): file for file in images.glob("*.nii.gz")}
    tests = json.loads((composed.raw / "duplus_cases.json").read_text())
    contexts = {name: tests["sources"][tests["tests"][name]["source"]]["context"] for name in cases}
    table = tmp_path / "contexts.csv"
    table.write_text("case,context\n" + "".join(f"{name},{context}\n" for name, context in contexts.items()))
    done = predict(composed, tmp_path / "all", images, "--save_probabilities", "--context", str(table))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    declared = json.loads((tmp_path / "all" / "dataset.json").read_text())
    assert declared["duplus"]["contexts"].keys() == set(contexts.values())
    for name, context in contexts.items():
        alone = tmp_path / context
        (alone / "in").mkdir(parents=True)
        (alone / "in" / cases[name].name).symlink_to(cases[name])
        done = predict(composed, alone / "out", alone / "in", "--save_probabilities", "--context", context)
        assert done.returncode == 0, done.stderr
        first, second = (np.load(folder / f"{name}.npz") for folder in (tmp_path / "all", alone / "out"))
        np.testing.assert_allclose(first["probabilities"], second["probabilities"], atol=1e-5)
        mask, reference = (nibabel.load(file) for file in (tmp_path / "all" / f"{name}.nii.gz", cases[name]))
        assert mask.shape == reference.shape
        assert np.allclose(mask.affine, reference.affine, atol=1e-4)


def test_sequential_prediction_knows_the_context_too(composed: Any, tmp_path: Path) -> None:
    images = composed.raw / "imagesTs"
    names = sorted(file.name.removesuffix("_0000.nii.gz") for file in images.glob("*.nii.gz"))
    tests = json.loads((composed.raw / "duplus_cases.json").read_text())
    contexts = {name: tests["sources"][tests["tests"][name]["source"]]["context"] for name in names}
    (tmp_path / "contexts.json").write_text(json.dumps(contexts))
    options = ("-i", images, "-o", tmp_path / "out", *MODEL, "-device", "cpu", "-npp", "0", "-nps", "0")
    chosen = ("--disable_tta", "-step_size", "1", "--save_probabilities", "--context", tmp_path / "contexts.json")
    done = composed.run("nnUNetv2_predict", *options, *chosen)
    assert done.returncode == 0, done.stderr
    done = predict(composed, tmp_path / "parallel", images, *map(str, chosen[3:]))
    assert done.returncode == 0, done.stderr
    for name in names:
        first, second = (np.load(tmp_path / folder / f"{name}.npz") for folder in ("out", "parallel"))
        np.testing.assert_allclose(first["probabilities"], second["probabilities"], atol=1e-5)


def test_an_image_that_cannot_be_of_the_context_is_warned_of(composed: Any, tmp_path: Path) -> None:
    images = composed.folder / "raw" / "Dataset901_PhantomCT" / "imagesTs"
    done = predict(composed, tmp_path, images, "--context", "phantom_pet")
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr
    assert "'phantom_ct'" in done.stderr


def test_a_target_of_another_source_can_be_asked_for(composed: Any, tmp_path: Path) -> None:
    images = composed.folder / "raw" / "Dataset903_PhantomPET" / "imagesTs"
    done = predict(composed, tmp_path, images, "--context", "phantom_pet", "--targets", "left kidney")
    assert done.returncode == 0, done.stderr
    labels = json.loads((tmp_path / "dataset.json").read_text())["labels"]
    assert len(labels) == 2


@pytest.mark.parametrize(
    "words",
    [
        {"context_prompt": "none"},
        {"target_prompt": "one-hot"},
        {"network": {"film": False, "film_hidden": 128, "head_features": 8, "head_hidden": 128}},
        {"paraphrase_probability": 0},
    ],
    ids=["T1 off", "T2 one-hot", "FiLM off", "no paraphrases"],
)
def test_an_ablation_is_one_word_in_the_plans(composed: Any, words: dict[str, Any]) -> None:
    plans = json.loads(composed.plans.read_text())
    plans["plans_name"] = "Ablation"
    plans["duplus"]["settings"] |= {"epochs": 1, **words}
    composed.plans.with_name("Ablation.json").write_text(json.dumps(plans))
    composed.do("nnUNetv2_train", "997", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "Ablation", "-device", "cpu")
    folder = composed.model.with_name("DuPLUSTrainer__Ablation__3d_fullres")
    assert (folder / "fold_0" / "validation" / "scores.json").is_file()


def test_a_patient_on_both_sides_of_a_fold_stops_the_training(composed: Any) -> None:
    file = composed.plans.parent / "splits_final.json"
    before = file.read_text()
    folds = json.loads(before)
    folds[0]["train"].append(folds[0]["val"][0])
    file.write_text(json.dumps(folds))
    try:
        words = ("997", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
        done = composed.run("nnUNetv2_train", *words)
    finally:
        file.write_text(before)
    assert done.returncode == 1
    assert "same patient" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_three_phantoms_are_in_the_composition(composed: Any) -> None:
    assert set(read_section(composed)["contexts"]) == {source.context for source in PHANTOM_SOURCES}
