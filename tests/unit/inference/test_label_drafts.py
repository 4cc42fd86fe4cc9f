"""Predicted label files: put where there are none, in the dataset's own values, recorded, never over another."""

import json
import re
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.errors import DataError, HostError, ModelError
from duplus_nnunet.inference import label_drafts
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.label_drafts import draft_labels
from duplus_nnunet.outputs.predicted_labels import describe_predicted, list_predicted, read_predicted
from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset
from duplus_nnunet.survival.command.masks import draft_masks

from ..partial_plans import make_plans

THEIRS = {"background": 0, "Liver": 1, "Left Kidney": 2, "Right Kidney": 3}
TARGETS: list[tuple[str, ...]] = []


def write(file: Path, values: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.array(values, np.uint8).reshape(1, 1, -1)), str(file))


def read(file: Path) -> list[int]:
    return [int(value) for value in SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).ravel()]


CHECKPOINTS = {"fold_0/checkpoint_final.pth": "0" * 64}


def predict(bound: Any, call: PredictionCall) -> None:
    """Stand in for the prediction of files; it finds a voxel of each label."""
    assert isinstance(call.output, list)
    TARGETS.append(bound.targets)
    for own, output in zip(call.source, call.output, strict=True):
        if "bad" in own[0]:
            raise DataError("1 of 3 cases failed")
        write(Path(output + ".nii.gz"), [0, 1, 2, 3])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "MODEL"
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(make_plans()))
    (folder / "dataset.json").write_text(json.dumps({"labels": THEIRS, "file_ending": ".nii.gz"}))
    loaded = SimpleNamespace(
        plans=SimpleNamespace(image_reader_writer_class=SimpleITKIO), record=SimpleNamespace(checkpoints=CHECKPOINTS)
    )
    monkeypatch.setattr(label_drafts, "_load", lambda folder, device: loaded)
    monkeypatch.setattr(
        label_drafts, "bind", lambda model, selection: SimpleNamespace(model=model, targets=selection.targets)
    )
    monkeypatch.setattr(label_drafts, "predict_files", predict)
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three images, of which the first has a label file."""
    folder = tmp_path / "Dataset001_Raw"
    for case in ("a", "b", "c"):
        write(folder / "imagesTr" / f"{case}_0000.nii.gz", [1, 2, 3, 4])
    write(folder / "labelsTr" / "a.nii.gz", [1, 1, 1, 1])
    declare(folder)
    return folder


def declare(folder: Path, **content: Any) -> None:
    (folder / "dataset.json").write_text(
        json.dumps({"file_ending": ".nii.gz", "channel_names": {"0": "CT"}, **content})
    )


def draft(folder: Path, model: Path) -> list[str]:
    return draft_labels(open_raw_dataset(str(folder)), model, "ct", torch.device("cpu"))


def test_missing_files_alone_are_written_and_recorded(raw: Path, model: Path) -> None:
    assert draft(raw, model) == ["b", "c"]
    assert read(raw / "labelsTr" / "a.nii.gz") == [1, 1, 1, 1]
    assert read(raw / "labelsTr" / "b.nii.gz") == [0, 1, 2, 3]
    declared = json.loads((raw / "dataset.json").read_text())
    assert declared["labels"] == THEIRS
    assert declared["channel_names"] == {"0": "CT"}
    (record,) = read_predicted(raw)
    assert (record.model, record.checkpoints) == ("MODEL", CHECKPOINTS)
    assert list_predicted(raw, ".nii.gz") == {"b": "MODEL", "c": "MODEL"}
    assert re.match(r"2 .*\(MODEL\)", describe_predicted({"b": "MODEL", "c": "MODEL"}))
    assert draft(raw, model) == []
    assert sorted(file.name for file in raw.iterdir()) == [
        "dataset.json", "imagesTr", "labelsTr", "predicted_labels.json",
    ]  # fmt: skip


def test_who_corrects_a_prediction_makes_it_one_no_more(raw: Path, model: Path) -> None:
    draft(raw, model)
    write(raw / "labelsTr" / "b.nii.gz", [0, 0, 1, 1])
    assert set(list_predicted(raw, ".nii.gz")) == {"c"}
    (raw / "labelsTr" / "c.nii.gz").unlink()
    assert list_predicted(raw, ".nii.gz") == {}
    assert draft(raw, model) == ["c"]
    assert len(read_predicted(raw)) == 2


def test_labels_of_the_dataset_keep_their_values(raw: Path, model: Path) -> None:
    declare(raw, labels={"background": 0, "right kidney": 1, "liver": 5})
    draft(raw, model)
    assert TARGETS[-1] == ("right kidney", "liver")
    assert read(raw / "labelsTr" / "b.nii.gz") == [0, 5, 0, 1]


def test_what_was_predicted_before_a_failure_is_kept(raw: Path, model: Path) -> None:
    write(raw / "imagesTr" / "d_bad_0000.nii.gz", [1, 2, 3, 4])
    with pytest.raises(DataError, match="1 of 3"):
        draft(raw, model)
    assert set(list_predicted(raw, ".nii.gz")) == {"b", "c"}
    assert not (raw / "labelsTr" / "d_bad.nii.gz").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"labels": {"background": 0, "spleen": 1}}, "'spleen'"),
        ({"labels": {"background": 0, "liver": [1, 2]}}, "'liver'"),
        ({"file_ending": ".mha"}, r"'\.mha'.*'\.nii\.gz'"),
    ],
)
def test_datasets_of_another_form_are_refused(raw: Path, model: Path, content: dict[str, Any], said: str) -> None:
    declare(raw, **content)
    before = (raw / "dataset.json").read_text()
    with pytest.raises(DataError, match=said):
        draft(raw, model)
    assert (raw / "dataset.json").read_text() == before
    assert not (raw / "predicted_labels.json").exists()


def test_a_model_of_stock_nnunet_is_refused(raw: Path, model: Path) -> None:
    (model / "plans.json").write_text("{}")
    with pytest.raises(ModelError, match=r"MODEL .*--masks-from"):
        draft(raw, model)


def test_a_device_that_is_not_there_or_a_folder_that_cannot_be_written_is_told_at_once(
    raw: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = Namespace(masks_from=model, context=None, device="gpu")
    with pytest.raises(HostError, match=r"'gpu'.*cpu, cuda or mps"):
        draft_masks(open_raw_dataset(str(raw)), args)

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        draft_masks(open_raw_dataset(str(raw)), args)


def test_a_damaged_record_is_said_to_be_one(raw: Path) -> None:
    (raw / "predicted_labels.json").write_text("{")
    with pytest.raises(DataError, match=r"predicted_labels\.json"):
        list_predicted(raw, ".nii.gz")
