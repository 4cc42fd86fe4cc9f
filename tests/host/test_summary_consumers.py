"""nnU-Net's own functions go on with a summary.json that was put right."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table

NAME = "Dataset777_Partly"
LABELS = {"background": 0, "liver": 1, "spleen": 2, "gallbladder": 3}
DATASET_JSON = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
PLANS = {
    "dataset_name": NAME,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "configurations": {"3d_fullres": {"architecture": {"network_class_name": "-", "arch_kwargs": {}}}},
}
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"

# As a trainer does: nnU-Net's validation scores a fold, then ours. After that, nnU-Net's functions. Their short-lived
# workers are forked from one that has nnU-Net imported.
CODE = """
import json, multiprocessing, os, sys
from multiprocessing import context
from pathlib import Path

def main():
    multiprocessing.set_forkserver_preload(["nnunetv2.evaluation.evaluate_predictions"])
    context._concrete_contexts["spawn"] = context._concrete_contexts["forkserver"]
    from nnunetv2.evaluation.accumulate_cv_results import accumulate_cv_results
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from duplus_nnunet.data.case_table import read_case_table
    from duplus_nnunet.reporting.validation import read_scoring_settings, score_validation

    name, model = sys.argv[1:]
    raw, results = Path(os.environ["nnUNet_raw"]) / name, Path(os.environ["nnUNet_results"]) / name / model
    dataset_json, table = json.loads((raw / "dataset.json").read_text()), read_case_table(raw)
    targets = [(label, label) for label in dataset_json["labels"] if label != "background"]
    merged = results / "crossval_results_folds_0"
    found = {}
    for folder in (results / "fold_0" / "validation", merged):
        if folder == merged:
            accumulate_cv_results(str(results), str(merged), (0,), 1)
        else:
            arguments = str(folder / "summary.json"), SimpleITKIO(), ".nii.gz", [1, 2, 3]
            compute_metrics_on_folder(str(raw / "labelsTr"), str(folder), *arguments, num_processes=1)
        before = load_summary_json(str(folder / "summary.json"))
        settings = read_scoring_settings(SimpleITKIO, dataset_json, targets)
        scores = score_validation(folder, raw / "labelsTr", settings, table, 1)
        after = load_summary_json(str(folder / "summary.json"))
        found[folder.name] = [summary["foreground_mean"]["Dice"] for summary in (before, after)]
        found[folder.name].append(scores.sources["one"]["dice"].value)
    models = [{"plans": "nnUNetPlans", "configuration": "3d_fullres", "trainer": "nnUNetTrainer"}]
    best = find_best_configuration(777, models, False, 1, overwrite=False, folds=(0,))
    found["best"] = best["all_results"][model]
    print("FOUND" + json.dumps(found))

if __name__ == "__main__":
    main()
"""


def save(folder: Path, name: str, *values: int) -> None:
    """Save a label map with a slab of each value."""
    labels = np.zeros((8, 8, 8), np.uint8)
    for row, value in enumerate(values):
        labels[row] = value
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / f"{name}.nii.gz")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Make a dataset with partial annotation, and a model with a fold's predictions."""
    raw, preprocessed, results = (tmp_path / kind / NAME for kind in ("raw", "preprocessed", "results"))
    model = results / MODEL
    for name in "ab":
        for folder in (raw / "labelsTr", preprocessed / "gt_segmentations"):
            save(folder, name, 1, 1, *([2, 2] if name == "b" else []))
        save(model / "fold_0" / "validation", name, 1, 0, 2, 2)
    cases = {"a": Case("one", "a", ("liver",), ("liver",)), "b": Case("one", "b", ("liver", "spleen"), ("liver",))}
    write_case_table(CaseTable({"one": Source(NAME, "ct", ("liver", "spleen"), ("CT",))}, cases), raw)
    for file in (raw / "dataset.json", model / "dataset.json"):
        file.write_text(json.dumps(DATASET_JSON))
    for file in (preprocessed / "nnUNetPlans.json", model / "plans.json"):
        file.write_text(json.dumps(PLANS))
    return {f"nnUNet_{path.parent.name}": str(path.parent) for path in (raw, preprocessed, results)}


@pytest.mark.slow
def test_nnunet_finds_the_best_configuration_by_corrected_means(
    run_python: Callable[..., Any], folders: dict[str, str]
) -> None:
    done = run_python(CODE, NAME, MODEL, **folders)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("FOUND")[1].splitlines()[0])
    expected = (2 / 3 + 1) / 2  # liver in two cases, spleen in the one where it was looked for
    for folder in ("validation", "crossval_results_folds_0"):
        before, after, ours = found[folder]
        assert math.isnan(before)
        assert after == pytest.approx(expected)
        assert ours == pytest.approx(expected)
    assert found["best"] == pytest.approx(expected)
