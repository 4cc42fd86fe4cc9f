"""Trained models are scored on their held-out patients, beside all other methods."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.reporting.folds import list_trained_folds
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.command.trained_models import NAME, arrange
from duplus_nnunet.survival.evaluation.study import Design, run_study
from duplus_nnunet.survival.models import methods
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record
from duplus_nnunet.survival.report.model_card import write_card
from duplus_nnunet.survival.training.checkpoint import TABLE_NAME, VERSION
from duplus_nnunet.survival.training.folds import CHECKPOINT_NAME, group_folds, read_folds
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "t"},
        "event": {"column": "e", "seen": [1], "censored": [0]},
        "covariates": {"age": {"type": "numeric"}},
    }
)
COUNT, FOLDS = 45, 3


def make_data() -> tuple[list[Record], FeatureTable]:
    """Draw patients whose hazard grows with an image feature, and not with age."""
    rng = np.random.default_rng(3)
    records, rows = [], {}
    for number in range(COUNT):
        x = rng.normal()
        event, censoring = rng.exponential(400 * math.exp(-2 * x)), rng.exponential(900)
        kind, time = SEEN if event <= censoring else CENSORED, max(1.0, min(event, censoring))
        records.append(Record(number + 1, f"p{number:02d}", "", time, kind, 0.0, {"age": float(rng.normal())}))
        rows[f"p{number:02d}"] = np.array([x, rng.normal()], np.float32)
    return records, FeatureTable(("CT: 0", "CT: 1"), ("CT", "CT"), ("pooled", "pooled"), rows)


RECORDS, IMAGES = make_data()


def write_fold(model: Path, number: int, held: Sequence[str], fitted: SurvivalModel, **more: Any) -> None:
    """Write the files of a finished fold that are read."""
    folder = model / f"fold_{number}"
    folder.mkdir(parents=True, exist_ok=True)
    train = [record.patient for record in RECORDS if record.patient not in set(held)]
    state = {"version": VERSION, "model": fitted.to_plain(), "kept": False, "patients": train, "held_out": list(held),
             "notes": [], **more}  # fmt: skip
    torch.save({"network_weights": {}, SURVIVAL_KEY: state}, folder / CHECKPOINT_NAME)
    IMAGES.to_npz(folder / TABLE_NAME)


def fit(held: Sequence[str]) -> SurvivalModel:
    train = [record for record in RECORDS if record.patient not in set(held)]
    return fit_model(train, SCHEMA, IMAGES, SurvivalSettings(networks=3), 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two draws of three folds, numbered on."""
    pytest.importorskip("sksurv")
    made = tmp_path_factory.mktemp("model")
    for number, fold in enumerate(fold for seed in range(2) for fold in make_folds(RECORDS, FOLDS, seed)):
        held = [RECORDS[place].patient for place in fold.test]
        write_fold(made, number, held, fit(held))
    return made


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    """Links to the folds, which a test may remove or add to."""
    for fold in model.iterdir():
        (tmp_path / fold.name).symlink_to(fold)
    return tmp_path


def test_each_draw_is_a_cross_validation_on_held_out_patients(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", {"Cox": methods.METHODS["Cox"]})
    arranged = arrange(model, RECORDS[::-1], Design(horizons=(100.0, 300.0)))
    assert arranged.design.seeds == (0, 1)
    assert "(0, 1, 2; 3, 4, 5)" in arranged.notes[0]
    study = run_study(arranged.records, SCHEMA, arranged.design, features=arranged.features)
    assert study.methods == (NAME, "Cox")
    own = {(one.seed, one.patient): one for one in study.predictions if one.method == NAME}
    assert len(own) == 2 * COUNT
    for number, fold in enumerate(read_folds(model)):
        held = [record for record in RECORDS if record.patient in fold.held_out]
        found = fold.model.forecast(held, IMAGES, np.array(study.horizons))
        for record, risk, survival in zip(held, found.risk, found.survival, strict=True):
            one = own[number // FOLDS, record.patient]
            assert one.fold == number % FOLDS
            assert one.risk == pytest.approx(float(risk), rel=1e-5)
            assert one.survival == pytest.approx(tuple(survival), rel=1e-4)
            assert one.group == ("high" if risk > np.median(fold.model.risks) else "low")
    difference = study.differences["Cox"]["Harrell's C"]
    assert difference.interval is not None
    assert difference.interval[0] > 0.0  # the image was planted, and Cox sees the age alone
    assert [groups.seed for groups in study.risk_groups] == [0, 1]


def test_an_unfinished_draw_is_named(copied: Path) -> None:
    (copied / "fold_4").unlink()
    with pytest.raises(ModelError, match=r"0, 1, 2 .*45.*3, 5 .*30"):
        group_folds(read_folds(copied))


def test_a_fold_of_another_split_is_no_part_of_the_draw(copied: Path) -> None:
    for number in (2, 3, 4):
        (copied / f"fold_{number}").unlink()
    with pytest.raises(ModelError, match="different splits"):
        group_folds(read_folds(copied))


def test_a_single_fold_and_a_part_of_one_draw_are_taken_as_they_are(copied: Path) -> None:
    for number in range(1, 6):
        (copied / f"fold_{number}").unlink()
    assert [[fold.number for fold in folds] for folds in group_folds(read_folds(copied))] == [[0]]


def test_a_model_trained_on_its_held_out_patients_is_refused(copied: Path) -> None:
    held = [RECORDS[place].patient for place in make_folds(RECORDS, FOLDS, 0)[0].test]
    write_fold(copied, 9, held, fit([]))
    with pytest.raises(ModelError, match=r"fold_9.* 15 patient"):
        read_folds(copied)


def test_a_renamed_fold_is_not_read(copied: Path) -> None:
    (copied / "fold_0_old").symlink_to((copied / "fold_0").resolve())
    assert len(read_folds(copied)) == 2 * FOLDS
    assert list_trained_folds(copied, CHECKPOINT_NAME) == tuple("012345")


def test_features_of_another_training_are_refused_and_absent_ones_can_be_written_again(copied: Path) -> None:
    held = [RECORDS[place].patient for place in make_folds(RECORDS, FOLDS, 0)[0].test]
    write_fold(copied, 9, held, fit(held), tables={"": "these weights"})
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth.* 9 --val"):
        read_folds(copied)
    replace(IMAGES, key="these weights").to_npz(copied / "fold_9" / TABLE_NAME)
    before, *_, now = read_folds(copied)
    assert now.notes == ()
    assert "survival_table.npz" in before.notes[0]
    (copied / "fold_9" / TABLE_NAME).unlink()
    with pytest.raises(ModelError, match=r"survival_table\.npz.* 9 --val"):
        read_folds(copied)


def test_the_card_of_trained_models_mentions_images_and_held_out_patients(model: Path) -> None:
    arranged = arrange(model, RECORDS, Design(horizons=(100.0,), methods=(NAME,)))
    design = replace(arranged.design, methods=(NAME, "Kaplan-Meier"))
    study = run_study(arranged.records, SCHEMA, design, features=arranged.features)
    card = "\n".join(write_card(study, design, Cohort("Dataset001_A", arranged.records, SCHEMA)))
    assert "image" in card
    assert "held-out" in card


def test_a_patient_without_a_record_is_named(model: Path) -> None:
    with pytest.raises(ModelError, match=f"'{RECORDS[0].patient}'"):
        arrange(model, RECORDS[1:], Design())
