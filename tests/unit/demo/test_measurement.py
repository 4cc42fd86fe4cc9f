"""Scores and picture of the demonstration: label values are translated, and only annotated targets are scored."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_CT, PHANTOM_MR, PHANTOM_SOURCES, TRUTH_FOLDER
from duplus_nnunet.demo.cases import UnseenCase, list_annotated, list_cases, list_unannotated
from duplus_nnunet.demo.measurement import Measurement
from duplus_nnunet.demo.picture import draw
from duplus_nnunet.demo.workspace import Workspace

# The composed dataset's values run the other way than those of `LABELS`.
COMPOSED = {"background": 0, **{name: value for value, name in enumerate(reversed(LABELS), start=1)}}


def save(values: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-2.0, -2.0, 2.0, 1.0])), file)


def make_truth() -> np.ndarray:
    """A rod of each structure, side by side."""
    truth = np.zeros((16, 8, 6), dtype=np.uint8)
    for value in LABELS.values():
        truth[2 * value - 1, 2:6, 1:5] = value
    return truth


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One unseen body, predicted without a fault under every selection."""
    work = Workspace(tmp_path)
    work.dataset.mkdir(parents=True)
    (work.dataset / "dataset.json").write_text(json.dumps({"labels": COMPOSED}))
    sentences = {name: [f"a scan of {name}"] for name in LABELS}
    contexts = {source.context: {"target_prompts": sentences} for source in PHANTOM_SOURCES}
    work.model.mkdir(parents=True)
    (work.model / "plans.json").write_text(json.dumps({"duplus": {"contexts": contexts}}))
    for case in list_cases(1):
        truth = make_truth()
        save(truth, work.raw / case.source.dataset / TRUTH_FOLDER / f"{case.name}.nii.gz")
        save(truth.astype(np.float32), work.images / f"{case.name}_0000.nii.gz")
        predict(work, case, "all", truth)
        predict(work, case, "liver", truth * (truth == LABELS["liver"]))
        predict(work, case, "aorta", truth * (truth == LABELS["aorta"]))
    return work


def predict(work: Workspace, case: UnseenCase, selection: str, labels: np.ndarray) -> None:
    values = np.array([0, *(COMPOSED[name] for name in LABELS)], dtype=np.uint8)
    save(values[labels], work.predictions(selection) / f"{case.name}.nii.gz")


def test_a_body_is_scanned_in_every_contrast() -> None:
    names = [case.name for case in list_cases(2)]
    assert names[:3] == ["ct_test_000", "ct_test_001", "mr_test_000"]
    assert len(set(names)) == 6


@pytest.mark.parametrize("source", PHANTOM_SOURCES)
def test_what_is_annotated_and_what_is_not_make_up_all(source: object) -> None:
    assert sorted([*list_annotated(source), *list_unannotated(source)]) == sorted(LABELS)


def test_values_of_the_composed_dataset_are_translated(workspace: Workspace) -> None:
    measurement = Measurement(workspace, 1)
    for case in list_cases(1):
        assert np.array_equal(measurement.read_prediction(case, "all"), measurement.read_truth(case))


def test_each_contrast_is_scored_by_what_is_annotated_in_it(workspace: Workspace) -> None:
    scores = Measurement(workspace, 1).score("all")
    assert set(scores["PET"]) == {"liver", "spleen", "aorta"}
    assert all(values == [1.0] for targets in scores.values() for values in targets.values())


def test_targets_of_other_contrasts_are_scored_when_asked_for(workspace: Workspace) -> None:
    assert set(Measurement(workspace, 1).score("all", list_unannotated)["CT"]) == {"stomach", "aorta"}


def test_exchanged_kidneys_are_confusion_where_kidneys_are_annotated(workspace: Workspace) -> None:
    truth = make_truth()
    left, right = (truth == LABELS[f"{side} kidney"] for side in ("left", "right"))
    truth[left], truth[right] = LABELS["right kidney"], LABELS["left kidney"]
    predict(workspace, UnseenCase(PHANTOM_MR, 0), "all", truth)
    assert Measurement(workspace, 1).measure_sides("all") == {
        "share of the left kidney in CT inside the true right kidney": 0.0,
        "share of the right kidney in CT inside the true left kidney": 0.0,
        "share of the left kidney in MR inside the true right kidney": 1.0,
        "share of the right kidney in MR inside the true left kidney": 1.0,
    }


def test_picture_shows_the_first_target_in_every_contrast(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list = []
    monkeypatch.setattr("duplus_nnunet.demo.picture.save_figure", lambda _, found, __: rows.extend(found))
    draw(Measurement(workspace, 1), ["aorta", "liver"], "all")
    assert [row.prompt for row in rows] == [*["a scan of aorta"] * 3, "a scan of liver", "all targets of CT"]
    assert [row.note for row in rows] == [
        "Dice 1.00, never annotated in CT",
        "Dice 1.00, never annotated in MR",
        "Dice 1.00",
        "Dice 1.00",
        "mean Dice 1.00",
    ]
    assert set(np.unique(rows[-1].truth)) == {0, *(LABELS[name] for name in list_annotated(PHANTOM_CT))}


def test_picture_is_written(workspace: Workspace) -> None:
    draw(Measurement(workspace, 1), ["liver"], "all")
    assert workspace.picture.exists()
