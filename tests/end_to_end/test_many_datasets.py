"""Three raw datasets become one model: composed, planned, trained and predicted by the commands that a user types."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.data.phantom_sources import PHANTOM_SOURCES, write_phantom_sources

from .conftest import FAST, WORKER, Project

pytestmark = pytest.mark.slow

MODEL = ("-d", "997", "-c", "3d_fullres", "-f", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
NAME = "Dataset997_Three"
IDS = ("901", "902", "903")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """nnU-Net's three folders with three phantom datasets and their composition."""
    made = Project(tmp_path_factory.mktemp("composed"), MODEL, dataset=NAME)
    raw = made.folder / "raw"
    raw.mkdir()
    write_phantom_sources(raw, 5, 1, 0)
    made.do("duplus", "compose", "-o", "997", "-n", "Three", *IDS)
    made.do("nnUNetv2_plan_and_preprocess", "-d", "997", "-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "1", "1")
    mirrored = {"mirror_left_right": True, "mirror_other_axes": True}
    made.change_settings(epochs=1, iterations_per_epoch=4, validation_iterations=2, **mirrored)
    words = ("997", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    made.do("nnUNetv2_train", *words, **WORKER)
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


@pytest.fixture(scope="module")
def by_table(composed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All test cases predicted in one run, each in the context that a table gives it."""
    folder = tmp_path_factory.mktemp("by_table")
    table = folder / "contexts.csv"
    table.write_text(
        "case,context\n" + "".join(f"{name},{context}\n" for name, context in list_tests(composed).items())
    )
    images = composed.raw / "imagesTs"
    done = predict(composed, folder / "out", images, "--save_probabilities", "--context", str(table))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return folder / "out"


def list_tests(composed: Any) -> dict[str, str]:
    """Map each test case to its context."""
    table = json.loads((composed.raw / "duplus_cases.json").read_text())
    return {name: table["sources"][case["source"]]["context"] for name, case in sorted(table["tests"].items())}


def require_equal(first: Path, second: Path, case: str) -> None:
    one, other = (np.load(folder / f"{case}.npz")["probabilities"] for folder in (first, second))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_table_gives_each_case_its_own_context_and_geometry(composed: Any, by_table: Path) -> None:
    tests = list_tests(composed)
    declared = json.loads((by_table / "dataset.json").read_text())
    assert declared["duplus"]["contexts"].keys() == set(tests.values())
    for name in tests:
        reference = nibabel.load(composed.raw / "imagesTs" / f"{name}_0000.nii.gz")
        mask = nibabel.load(by_table / f"{name}.nii.gz")
        assert mask.shape == reference.shape
        assert np.allclose(mask.affine, reference.affine, atol=1e-4)


def test_a_case_by_table_is_predicted_as_it_is_alone(composed: Any, by_table: Path, tmp_path: Path) -> None:
    (name,) = (name for name, context in list_tests(composed).items() if context == "phantom_mr")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{name}_0000.nii.gz").symlink_to(composed.raw / "imagesTs" / f"{name}_0000.nii.gz")
    done = predict(composed, tmp_path / "out", tmp_path / "in", "--save_probabilities", "--context", "phantom_mr")
    assert done.returncode == 0, done.stderr
    require_equal(tmp_path / "out", by_table, name)


def test_sequential_prediction_knows_the_context_too(composed: Any, by_table: Path, tmp_path: Path) -> None:
    tests = list_tests(composed)
    (tmp_path / "contexts.json").write_text(json.dumps(tests))
    options = ("-i", composed.raw / "imagesTs", "-o", tmp_path, *MODEL, "-device", "cpu", "-npp", "0", "-nps", "0")
    chosen = ("--disable_tta", "-step_size", "1", "--save_probabilities", "--context", tmp_path / "contexts.json")
    done = composed.run("nnUNetv2_predict", *options, *chosen)
    assert done.returncode == 0, done.stderr
    for name in tests:
        require_equal(tmp_path, by_table, name)


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


def test_each_part_is_switched_off_by_a_word_in_the_plans(composed: Any) -> None:
    plans = json.loads(composed.plans.read_text())
    plans["plans_name"] = "Ablation"
    settings = plans["duplus"]["settings"]
    settings |= {"epochs": 1, "context_prompt": "none", "target_prompt": "one-hot", "paraphrase_probability": 0}
    settings["network"]["film"] = False
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
