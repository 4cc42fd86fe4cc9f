"""A target that was not seen in training is marked in what a prediction writes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.outputs.masks import write_masks
from duplus_nnunet.outputs.statistics import StatisticsTable

from .outputs_answers import SHAPE, make_answer, make_cube


def make_unseen() -> CaseAnswer:
    answer = make_answer({"liver": make_cube((1, 1, 1), (2, 2, 2)), "ureter": make_cube((4, 1, 1), (2, 2, 2))})
    return replace(answer, targets=(answer.targets[0], replace(answer.targets[1], seen=False)), rivals="asked")


def test_names_of_masks(tmp_path: Path) -> None:
    files = write_masks(make_unseen(), tmp_path, SimpleITKIO(), ".nii.gz")
    assert [file.name for file in files] == ["liver.nii.gz", "UNSEEN_ureter.nii.gz"]


def test_rows_of_statistics() -> None:
    rows = StatisticsTable().add(make_unseen(), np.zeros((1, *SHAPE), np.float32))
    assert [(row.seen_in_training, row.rivals) for row in rows] == [(True, "asked"), (False, "asked")]
