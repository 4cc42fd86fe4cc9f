"""Models as a report sees them, without files: two kidneys and a liver in CT and MR."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.model_report.blocks import Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.fold_files import FoldSource, TrainingLog
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.score_files import Tolerances
from duplus_nnunet.reporting.target_scores import TargetScore
from duplus_nnunet.trainers.training_cases import TrainingCases

from ..partial_plans import make_plans, make_table

SOURCES = {
    "A": {"context": "ct", "weight": 3.0, "cases": 30, "targets": {"liver": 30, "left kidney": 20, "right kidney": 10}},
    "B": {"context": "mr", "weight": 1.0, "cases": 5, "targets": {"liver": 5}},
}


def make_bank(sources: Mapping[str, Any] = SOURCES) -> PromptBank:
    plans = make_plans()
    for key, modality in (("ct", "computed tomography"), ("mr", "magnetic resonance imaging")):
        plans["duplus"]["contexts"][key]["modality"] = modality
    plans["duplus"]["sources"] = dict(sources)
    return PromptBank(plans)


def make_source(folds: Sequence[FoldSource] = (), **changes: Any) -> ReportSource:
    known = {
        "folder": Path("DuPLUSTrainer__DuPLUSPlans__3d_fullres"),
        "is_model": True,
        "dataset": "Dataset501_Two",
        "plans": {"plans_name": "DuPLUSPlans", "configurations": {"3d_fullres": {"patch_size": [32, 32, 32]}}},
        "dataset_json": {"labels": {"background": 0}, "file_ending": ".nii.gz"},
        "bank": make_bank(),
        "table": make_table(),
        "folds": folds,
    }
    return ReportSource(**{**known, **changes})


def make_score(dice: float, present: bool = True, predicted: bool = True) -> TargetScore:
    return TargetScore(dice, dice, present, predicted)


def make_case(source: str, patient: str, **dice: float) -> CaseScore:
    targets = {name.replace("_", " "): make_score(value) for name, value in dice.items()}
    return CaseScore(source, patient, (1.0, 1.0, 1.0), targets)


def make_fold(
    name: str = "0", scores: Mapping[str, CaseScore] | None = None, trained: Sequence[str] = (), **changes: Any
) -> FoldSource:
    cases = TrainingCases("Dataset501_Two", name, tuple(trained), tuple(trained))
    known = {"checkpoint": "checkpoint_final.pth", "scores": scores or {}, "tolerances": Tolerances(2.0)}
    return FoldSource(name, Path(f"fold_{name}"), training_cases=cases, **{**known, **changes})


def make_log(epochs: int = 6) -> TrainingLog:
    gap = [0.5] * (epochs - 1) + [math.nan]
    dice = {("A", "liver"): [0.8] * epochs, ("A", "left kidney"): gap, ("B", "liver"): [0.2] * epochs}
    return TrainingLog([1.0] * epochs, [0.9] * epochs, [0.01] * epochs, dice, [60.0] * epochs, 1.0e9)


def list_kind(section: Section, kind: str) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Paragraph) and block.kind == kind]


def find_chart(section: Section, name: str) -> Chart:
    return next(block for block in section.blocks if isinstance(block, Chart) and block.name == name)


def find_table(section: Section, name: str) -> Table:
    return next(block for block in section.blocks if isinstance(block, Table) and block.name == name)


def list_charts(section: Section) -> list[str]:
    return [block.name for block in section.blocks if isinstance(block, Chart)]
