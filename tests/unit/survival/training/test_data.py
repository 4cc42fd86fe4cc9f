"""Which patients are trained on, held out or left out, and which trainings can be continued."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.survival.imaging.feature_store import ImagedCase
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record
from duplus_nnunet.survival.training.checkpoint import _compare_endpoints, compare_patients, digest_outcomes
from duplus_nnunet.survival.training.data import (
    FoldPatients,
    InnerSplit,
    part_images,
    read_clinical_data,
    split_patients,
    split_within,
)
from duplus_nnunet.trainers.survival import DuPLUSSurvivalTrainer

from .parts import make_clinic, make_record


def test_patients_without_images_are_trained_on_and_cases_without_records_are_left_out() -> None:
    clinic = make_clinic("ann_ct", "bob_ct", "zoe_ct")
    found = split_patients(clinic, ["ann_ct", "zoe_ct"], ["bob_ct"], 0)
    assert [record.patient for record in found.train] == ["ann", "cid", "dot"]
    assert [record.patient for record in found.held_out] == ["bob"]
    assert clinic.list_images(["zoe_ct", "ann_ct"]) == [ImagedCase("ann_ct", "ann", "ct")]


def test_a_patient_on_both_sides_is_refused() -> None:
    with pytest.raises(DataError, match=r"Fold 0 .*'ann'"):
        split_patients(make_clinic("ann_ct", "ann_mr"), ["ann_ct"], ["ann_mr"], 0)


def test_the_fold_all_holds_nobody_out() -> None:
    found = split_patients(make_clinic("ann_ct"), ["ann_ct"], ["ann_ct"], "all")
    assert len(found.train) == 4
    assert found.held_out == ()


def test_the_inner_split_holds_out_patients_with_images_only() -> None:
    records = [make_record(f"p{n:02d}", event=SEEN if n % 2 else CENSORED) for n in range(20)]
    found = split_within(records, {f"p{n:02d}" for n in range(12)}, 0)
    assert found is not None
    assert {record.patient for record in found.held_out} <= {f"p{n:02d}" for n in range(12)}
    assert len(found.train) + len(found.held_out) == 20
    assert split_within(records, {"p01", "p02", "p03"}, 0) is None


def test_the_second_stage_trains_on_no_case_of_an_inner_held_out_patient() -> None:
    inner = InnerSplit((make_record("ann"), make_record("cid")), (make_record("bob"),))
    images = [ImagedCase("ann_ct", "ann", "ct"), ImagedCase("bob_ct", "bob", "ct"), ImagedCase("cid_ct", "cid", "ct")]
    assert part_images(images, inner) == (["ann_ct", "cid_ct"], ["bob_ct"])
    with pytest.raises(DataError, match=r"^2 images .* 0 "):
        part_images([images[0], images[2]], inner)


def test_the_trainer_loads_no_case_that_could_not_be_read() -> None:
    trainer: Any = SimpleNamespace(
        do_split=lambda: (["ann_ct", "bob_ct", "cid_ct"], ["dot_ct"]),
        clinic=make_clinic("ann_ct", "bob_ct", "cid_ct", "dot_ct"), unread=["cid_ct"],
        inner=InnerSplit((make_record("ann"), make_record("cid")), (make_record("bob"),)),
        dataset_class=lambda folder, cases: cases, preprocessed_dataset_folder="",
    )  # fmt: skip
    assert DuPLUSSurvivalTrainer.get_tr_and_val_datasets(trainer) == (["ann_ct"], ["bob_ct"])


def make_state(trainer: Any) -> dict[str, Any]:
    return {
        "patients": [record.patient for record in trainer.cohort.train], "model": None,
        "outcomes": digest_outcomes(trainer.cohort.train),
        "inner_held_out": [record.patient for record in trainer.inner.held_out],
    }  # fmt: skip


def make_trainer(*records: Record, held: int = 1) -> Any:
    inner = InnerSplit(records[held:], records[:held])
    return SimpleNamespace(cohort=FoldPatients(records, ()), inner=inner, notes=[])


def test_a_second_stage_is_continued_only_with_the_same_outcomes() -> None:
    ann, bob = make_record("ann"), make_record("bob")
    state = make_state(make_trainer(ann, bob))
    compare_patients(make_trainer(ann, bob), state, "checkpoint")
    changed = make_trainer(ann, make_record("bob", event=CENSORED))
    compare_patients(changed, {**state, "model": {}}, "a finished one")
    for other in (changed, make_trainer(bob, ann)):
        with pytest.raises(ModelError, match=r"checkpoint was written.*clinical\.csv"):
            compare_patients(other, state, "checkpoint")


def test_a_second_stage_of_an_earlier_version_is_continued_with_a_note() -> None:
    trainer = make_trainer(make_record("ann"), make_record("bob"))
    compare_patients(trainer, {"patients": ["ann", "bob"], "model": None}, "one of before")
    (note,) = trainer.notes
    assert "earlier version" in note
    assert "outcomes" in note


def test_a_training_takes_one_of_several_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Dataset001_A"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}'
    )
    (folder / "clinical.csv").write_text("id,days,dead\nann_ct,10,1\nbob_ct,20,0\n")
    (folder / "more.csv").write_text("id,weeks,relapse\nann_ct,1,0\nbob_ct,2,1\n")
    (folder / "clinical.yaml").write_text(
        "patient: id\ntables: {more.csv: id}\nendpoints:\n"
        "  death: {time: {column: days}, event: {column: dead, seen: [1], censored: [0]}}\n"
        "  relapse: {time: {column: weeks, unit: weeks}, event: {column: relapse, seen: [1], censored: [0]}}\n"
    )
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    table = make_clinic("ann_ct", "bob_ct").table
    clinic = read_clinical_data("Dataset001_A", table, "relapse")
    assert {name: (record.time, record.event) for name, record in clinic.records.items()} == {
        "ann_ct": (7.0, CENSORED), "bob_ct": (14.0, SEEN)}  # fmt: skip
    with pytest.raises(DataError, match=r"'death', 'relapse'.*settings\.survival"):
        read_clinical_data("Dataset001_A", table)


def test_a_training_is_not_continued_with_another_endpoint() -> None:
    death: dict[str, Any] = {
        "patient": "id",
        "time": {"column": "days"},
        "event": {"column": "dead", "seen": [1], "censored": [0]},
    }
    schema = ClinicalSchema.model_validate(death | {"endpoint": "death"})
    _compare_endpoints(schema, death, "of an earlier version")
    stored = {**death, "event": death["event"] | {"column": "relapse"}, "endpoint": "relapse"}
    with pytest.raises(ModelError, match=r"'relapse'.*'death'"):
        _compare_endpoints(schema, stored, "checkpoint_final.pth")


def test_a_clinical_table_without_a_schema_names_the_command_that_drafts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Dataset001_A"
    folder.mkdir()
    (folder / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0}}')
    (folder / "clinical.csv").write_text("id,days,dead\nann,10,1\n")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(DataError, match=r"clinical\.yaml.*`duplus survival draft D"):
        read_clinical_data("Dataset001_A", make_clinic("ann_ct").table)
