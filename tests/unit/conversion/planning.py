"""Plans converted datasets in this process: nnU-Net's fingerprint, our survey and planner, without worker processes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.planners import planner as planners
from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.survey import survey_case


def plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Plan a dataset, and return its plans.

    What nnU-Net's and our worker processes do with each case is done here, one case after the other; all else is the
    real thing.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    def survey(dataset: Any, reader: type, known: Any = None) -> Any:
        return {name: survey_case(case["images"], case["label"], reader, 1000, known) for name, case in dataset.items()}

    monkeypatch.setattr(planners, "survey_dataset", survey)
    monkeypatch.setattr(planners, "nnUNet_raw", folder.parent)
    monkeypatch.setattr(planners, "nnUNet_preprocessed", folder.parents[1] / "preprocessed")
    preprocessed = folder.parents[1] / "preprocessed" / folder.name
    preprocessed.mkdir(parents=True, exist_ok=True)
    extractor = DatasetFingerprintExtractor(folder.name, 1)
    first = next(iter(extractor.dataset.values()))["images"][0]
    reader = determine_reader_writer_from_dataset_json(extractor.dataset_json, first, verbose=False)
    found = [
        DatasetFingerprintExtractor.analyze_case(case["images"], case["label"], reader, 1000)
        for case in extractor.dataset.values()
    ]
    statistics = {
        str(channel): describe(np.concatenate([case[2][channel] for case in found]))
        for channel in range(len(found[0][2]))
    }
    fingerprint = {
        "spacings": [list(map(float, case[1])) for case in found],
        "shapes_after_crop": [list(map(int, case[0])) for case in found],
        "foreground_intensity_properties_per_channel": statistics,
        "median_relative_size_after_cropping": float(np.median([case[4] for case in found])),
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    planners.DuPLUSPlanner(folder.name).plan_experiment()
    plans: dict[str, Any] = json.loads((preprocessed / "DuPLUSPlans.json").read_text())
    return plans


def describe(values: Any) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "mean": float(values.mean()), "median": float(median), "std": float(values.std()), "min": float(values.min()),
        "max": float(values.max()), "percentile_99_5": float(high), "percentile_00_5": float(low),
    }  # fmt: skip


def check_plans(folder: Path, plans: dict[str, Any]) -> Counter[str]:
    """Check plans and table of cases against the dataset, and return the number of training cases of each context."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset_json = json.loads((folder / "dataset.json").read_text())
    table = json.loads((folder.parents[1] / "preprocessed" / folder.name / "duplus_cases.json").read_text())
    names = {target["name"] for target in plans["duplus"]["targets"]}
    assert set(table["cases"]) == {
        file.name.removesuffix("_0000.nii.gz") for file in (folder / "imagesTr").glob("*_0000.*")
    }
    assert {target["label"] for target in plans["duplus"]["targets"]} == set(dataset_json["labels"]) - {"background"}
    assert all(set(case["present"]) <= set(case["annotated"]) <= names for case in table["cases"].values())
    configuration = plans["configurations"]["3d_fullres"]
    assert len(configuration["patch_size"]) == 3
    manager = PlansManager(plans).get_label_manager(dataset_json)
    assert isinstance(manager, DuPLUSLabelManager)
    assert manager.num_segmentation_heads == len(names)
    return Counter(table["sources"][case["source"]]["context"] for case in table["cases"].values())
