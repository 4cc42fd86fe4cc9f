"""Models that were trained before are scored by whom they have not seen, beside all other methods."""

import math
from dataclasses import replace

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival import methods
from duplus_nnunet.survival import study as study_module
from duplus_nnunet.survival.features import FeatureTable
from duplus_nnunet.survival.model import fit_model
from duplus_nnunet.survival.schema import ClinicalSchema
from duplus_nnunet.survival.table import CENSORED, SEEN, Record
from duplus_nnunet.survival.trained import TrainedFold, evaluate_trained

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "t"},
        "event": {"column": "e", "seen": [1], "censored": [0]},
        "covariates": {"age": {"type": "numeric"}},
    }
)
COUNT = 45


def make_data() -> tuple[list[Record], FeatureTable]:
    """Draw patients whose hazard grows with what an image shows; the age knows nothing."""
    rng = np.random.default_rng(3)
    records, rows = [], {}
    for number in range(COUNT):
        x = rng.normal()
        event, censoring = rng.exponential(400 * math.exp(-2 * x)), rng.exponential(900)
        kind, time = SEEN if event <= censoring else CENSORED, max(1.0, min(event, censoring))
        records.append(Record(number + 1, f"p{number:02d}", "", time, kind, 0.0, {"age": float(rng.normal())}))
        rows[f"p{number:02d}"] = np.array([x, rng.normal()], np.float32)
    return records, FeatureTable(("CT: 0", "CT: 1"), ("CT", "CT"), ("pooled", "pooled"), rows)


@pytest.fixture(scope="module")
def data() -> tuple[list[Record], FeatureTable]:
    pytest.importorskip("sksurv")
    return make_data()


@pytest.fixture(scope="module")
def folds(data: tuple[list[Record], FeatureTable]) -> list[TrainedFold]:
    records, images = data
    made = []
    for number in range(3):
        held = {record.patient for place, record in enumerate(records) if place % 3 == number}
        train = [record for record in records if record.patient not in held]
        model = fit_model(train, SCHEMA, images, SurvivalSettings(), number)
        made.append(TrainedFold({record.patient for record in train}, held, model, images))
    return made


def test_each_patient_is_foretold_by_the_model_that_has_not_seen_them(
    data: tuple[list[Record], FeatureTable], folds: list[TrainedFold], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, images = data
    monkeypatch.setattr(study_module, "METHODS", {"Cox": methods.METHODS["Cox"]})
    study, design = evaluate_trained("trained", (records[::-1], SCHEMA), folds)
    assert study.methods == design.methods == ("trained", "Cox")
    own = {one.patient: one for one in study.predictions if one.method == "trained"}
    assert len(own) == COUNT
    for number, fold in enumerate(folds):
        held = [record for record in records if record.patient in fold.held]
        found = fold.model.forecast(held, images, np.array(study.horizons))
        for record, risk, survival in zip(held, found.risk, found.survival, strict=True):
            assert own[record.patient].fold == number
            assert own[record.patient].risk == pytest.approx(float(risk), rel=1e-5)
            assert own[record.patient].survival == pytest.approx(tuple(survival), rel=1e-4)
            assert own[record.patient].group == ("high" if risk > fold.model.find_cuts()[0] else "low")
    difference = study.differences["Cox"]["Harrell's C"]
    assert difference.interval is not None
    assert difference.interval[0] > 0.05  # the image was planted, and Cox sees the age alone


def test_a_model_that_has_seen_whom_it_shall_foretell_is_refused(
    data: tuple[list[Record], FeatureTable], folds: list[TrainedFold]
) -> None:
    wrong = [replace(folds[0], model=folds[1].model), *folds[1:]]
    with pytest.raises(DataError, match="The model of fold 0 was fitted on 15 patient"):
        evaluate_trained("trained", (data[0], SCHEMA), wrong)


def test_features_are_there_for_all_folds_or_for_none(
    data: tuple[list[Record], FeatureTable], folds: list[TrainedFold]
) -> None:
    with pytest.raises(DataError, match="Some folds have image features and others have none"):
        evaluate_trained("trained", (data[0], SCHEMA), [replace(folds[0], own=None), *folds[1:]])
