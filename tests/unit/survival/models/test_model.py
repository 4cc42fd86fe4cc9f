"""The prognosis model finds a planted effect and no effect in noise, and never uses held-out patients."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.image_inputs import fit_image_code
from duplus_nnunet.survival.models.methods import IMAGE_METHODS, forecast
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.models.network import InputDropout, Inputs
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "t"},
        "event": {"column": "e", "seen": [1], "censored": [0]},
        "covariates": {"age": {"type": "numeric"}, "sex": {"type": "categorical"}},
    }
)
WITHOUT_RECORD = SCHEMA.model_copy(update={"covariates": {}})
SMALL = SurvivalSettings(networks=2)
TIMES = np.array([100.0, 300.0])
CONTEXTS, POOLED = ("ct", "pet"), 10
MEASURES = ("lesion volume", "lesion mean", "lesion max", "lesion found")
Cohort = tuple[list[Record], FeatureTable]


def name_features() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    rows = [
        (f"{context}: {kind} {number}", context, kind)
        for context in CONTEXTS
        for kind, count in (("pooled", POOLED), ("lesion", POOLED), ("measure", len(MEASURES)))
        for number in range(count)
    ]
    rows = [(f"{c}: {MEASURES[int(name.split()[-1])]}" if k == "measure" else name, c, k) for name, c, k in rows]
    names, contexts, kinds = zip(*rows, strict=True)
    return names, contexts, kinds


def make_cohort(count: int, age_effect: float, volume_effect: float, seed: int = 0) -> Cohort:
    """Make patients whose log hazard grows with age and with the lesion's log volume, a standard deviation each."""
    rng = np.random.default_rng(seed)
    records, rows = [], {}
    for number in range(count):
        age, volume = rng.normal(size=2)
        event = rng.exponential(400 * math.exp(-age_effect * age - volume_effect * volume))
        end = rng.exponential(800)
        values = {"age": 60 + 10 * age, "sex": "fm"[number % 2]}
        outcome = (max(1.0, min(event, end)), SEEN if event <= end else CENSORED)
        patient = f"p{number:03d}"
        records.append(Record(number + 1, patient, "", *outcome, 0.0, values))
        numbers: list[float] = []
        for _ in CONTEXTS:
            measures = [math.exp(3 + volume + 0.2 * rng.normal()), *rng.normal(size=2), 1.0]
            numbers += [*rng.normal(size=2 * POOLED), *measures]
        rows[patient] = np.array(numbers, np.float32)
    return records, FeatureTable(*name_features(), rows)


def measure(records: Sequence[Record], found: Forecast) -> float:
    return pool([concordance(read_outcome(records), found.risk)])


def has_note(notes: Sequence[str], *parts: str) -> bool:
    """Whether one note has all parts in it."""
    return any(all(part in note for part in parts) for note in notes)


def is_image_note(note: str) -> bool:
    """Whether a note says that images do not help."""
    return has_note([note], "Images add", "validation loss")


@pytest.fixture(scope="module")
def planted() -> Cohort:
    return make_cohort(400, 0.8, 0.8)


@pytest.fixture(scope="module")
def model(planted: Cohort) -> SurvivalModel:
    return fit_model(planted[0][:200], SCHEMA, planted[1], SMALL, 0)


def test_image_and_record_together_predict_better_than_either_alone(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    train, test = records[:200], records[200:]
    image = fit_model(train, WITHOUT_RECORD, images, SMALL, 0).forecast(test, images, TIMES)
    ehr = fit_model(train, SCHEMA, None, SMALL, 0).forecast(test, None, TIMES)
    alone = [measure(test, image), measure(test, ehr)]
    assert min(alone) > 0.6
    assert measure(test, model.forecast(test, images, TIMES)) > max(alone) + 0.03
    # The same model without one of them still has the other.
    assert measure(test, model.forecast(test, images, TIMES, use=("image",))) > 0.6
    assert measure(test, model.forecast(test, images, TIMES, use=("record",))) > 0.6
    assert not any(is_image_note(note) for note in model.notes)


@pytest.mark.parametrize("name", ["mtlr", "deephit", "cox"])
def test_every_loss_finds_a_planted_effect(name: str, planted: Cohort) -> None:
    if name == "cox":
        pytest.importorskip("torchsurv", reason="torchsurv is not installed: pip install 'duplus-nnunet[survival]'")
    records, images = planted
    settings = SurvivalSettings(networks=1, loss=name)
    found = fit_model(records[:120], SCHEMA, images, settings, 0).forecast(records[200:], images, TIMES)
    assert measure(records[200:], found) > 0.7
    assert (np.diff(found.survival, axis=1) <= 0).all()
    assert ((found.survival > 0) & (found.survival <= 1)).all()


def test_noise_is_not_taken_for_a_signal() -> None:
    concordances, notes = [], []
    for seed in range(8):
        records, images = make_cohort(240, 0.0, 0.0, seed)
        fitted = fit_model(records[:40], SCHEMA, images, SMALL, seed)
        concordances.append(measure(records[40:], fitted.forecast(records[40:], images, TIMES)))
        notes.append(any(map(is_image_note, fitted.notes)))
    assert np.mean(concordances) == pytest.approx(0.5, abs=0.03)
    assert sum(notes) >= 4


def flatten(model: SurvivalModel) -> str:
    return json.dumps(model.to_plain(), default=lambda tensor: tensor.tolist())


def test_a_fit_uses_training_patients_only_and_not_their_order(planted: Cohort) -> None:
    records, images = planted[0][:60], planted[1]
    settings = SurvivalSettings(networks=1)
    one = fit_model(records, SCHEMA, images, settings, 3)
    others = {patient: row if int(patient[1:]) < 60 else np.full_like(row, 1e6) for patient, row in images.rows.items()}
    poisoned = FeatureTable(images.names, images.contexts, images.kinds, others)
    assert flatten(fit_model(records[::-1], SCHEMA, poisoned, settings, 3)) == flatten(one)
    assert flatten(fit_model(records, SCHEMA, images, settings, 4)) != flatten(one)


def test_a_prediction_does_not_depend_on_the_other_patients(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    test = records[200:230]
    strange = [replace(record, time=1.0, event=CENSORED, values={"age": 1e6}) for record in test[1:]]
    alone, among = (model.forecast(some, images, TIMES) for some in (test[:1], [test[0], *strange]))
    np.testing.assert_allclose(alone.risk[0], among.risk[0], rtol=1e-5)
    backwards = model.forecast(test[::-1], images, TIMES)
    np.testing.assert_allclose(backwards.survival[::-1], model.forecast(test, images, TIMES).survival, rtol=1e-5)


def test_unused_inputs_are_treated_as_missing(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    bare = [replace(record, values={}) for record in records[:9]]
    blind, sighted = (model.forecast(records[:9], given, TIMES, use=("record",)) for given in (None, images))
    np.testing.assert_array_equal(blind.risk, sighted.risk)
    np.testing.assert_allclose(
        model.forecast(records[:9], images, TIMES, use=("image",)).risk, model.forecast(bare, images, TIMES).risk
    )
    assert np.ptp(model.forecast(bare, None, TIMES).risk) < 1e-9


def test_the_former_name_of_records_is_accepted(planted: Cohort, model: SurvivalModel) -> None:
    former, now = (model.forecast(planted[0][:9], None, TIMES, use=(name,)).risk for name in ("ehr", "record"))
    np.testing.assert_array_equal(former, now)


@pytest.mark.parametrize("use", [(), ("images",)])
def test_an_unknown_input_is_refused(use: tuple[str, ...], model: SurvivalModel, planted: Cohort) -> None:
    with pytest.raises(ModelError, match="'record'"):
        model.forecast(planted[0][:3], None, TIMES, use=use)


def test_missing_images_are_noted(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    rows = {record.patient: images.rows[record.patient].copy() for record in records[:4]}
    rows["p001"][[context == "pet" for context in images.contexts]] = np.nan
    rows["p002"][images.names.index("ct: lesion found")] = 0
    some = FeatureTable(images.names, images.contexts, images.kinds, rows)
    notes = model.forecast(records[:5], some, TIMES).notes
    assert has_note(notes, "'pet'", "missing", "2 of 5")
    assert has_note(notes, "'ct'", "missing", "1 of 5")
    assert has_note(notes, "'ct'", "lesion", "1 of 4")
    assert has_note(model.forecast(records[:2], None, TIMES).notes, "no images")
    ct = images.select(contexts=["ct"])
    assert has_note(model.forecast(records[:2], ct, TIMES).notes, "'pet'", "all patients")
    few = images.choose([name for name in images.names if name != "ct: lesion mean"])
    assert has_note(model.forecast(records[:2], few, TIMES).notes, "'ct'", "1 image feature", "'ct: lesion mean'")
    mr = FeatureTable(("mr: pooled 0",), ("mr",), ("pooled",), {"p000": np.ones(1, np.float32)})
    assert has_note(model.forecast(records[:2], mr, TIMES).notes, "'mr'", "not use")


def test_missing_columns_and_unknown_categories_are_noted_and_predicted(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    strange = [replace(record, values={"sex": "x"}) for record in records[:3]]
    found = model.forecast(strange, images, TIMES)
    assert np.isfinite(found.risk).all()
    assert has_note(found.notes, "'age'", "missing", "all")
    assert has_note(found.notes, "'sex'", "'x'")


def test_unused_images_are_noted(planted: Cohort) -> None:
    records, images = planted
    fitted = fit_model(records[:40], SCHEMA, None, SurvivalSettings(networks=1), 0)
    assert has_note(fitted.forecast(records[:2], images, TIMES).notes, "without images")


def test_times_beyond_the_follow_up_are_noted(planted: Cohort, model: SurvivalModel) -> None:
    found = model.forecast(planted[0][:2], planted[1], np.array([model.follow_up, model.follow_up + 500]))
    assert has_note(found.notes, f"{model.follow_up + 500:g} days", f"{model.follow_up:g} days")
    assert not model.forecast(planted[0][:2], planted[1], TIMES).notes


def test_a_model_reads_back_from_a_file_without_pickle(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    file = io.BytesIO()
    torch.save(model.to_plain(), file)
    again = SurvivalModel.from_plain(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    one, other = (fitted.forecast(records[200:], images, TIMES) for fitted in (model, again))
    np.testing.assert_array_equal(one.risk, other.risk)
    np.testing.assert_array_equal(one.survival, other.survival)
    assert (again.schema, again.settings, again.patients) == (model.schema, model.settings, model.patients)
    assert (again.follow_up, again.notes) == (model.follow_up, model.notes)
    assert flatten(again) == flatten(model)
    assert json.loads(json.dumps(model.to_plain()["encoder"])) == model.to_plain()["encoder"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("members", [{"weights": {}, "loss": {"name": "mtlr", "edges": [1.0]}}]),
        ("encoder", [{"name": "age"}]),
        ("images", {"names": []}),
        ("settings", {"bin": 3}),
        ("settings", {"bins": 0}),
        ("schema", {"patient": 3}),
        ("risks", None),
    ],
)
def test_a_damaged_model_is_refused(key: str, value: Any, model: SurvivalModel) -> None:
    with pytest.raises(ModelError, match=r"stored|Stored"):
        SurvivalModel.from_plain({**model.to_plain(), key: value})


def test_the_cut_off_halves_the_training_patients(planted: Cohort, model: SurvivalModel) -> None:
    risks = model.forecast(planted[0][:200], planted[1], TIMES).risk
    np.testing.assert_allclose(np.sort(risks), model.risks)
    cut_off = choose_cut_off(model.risks)
    assert cut_off is not None
    assert (risks > cut_off).sum() == 100
    assert choose_cut_off(np.full(5, 0.3)) is None


def test_gradients_reach_the_image_features_and_the_networks(planted: Cohort, model: SurvivalModel) -> None:
    records, images = planted
    numbers = torch.from_numpy(images.take([record.patient for record in records[:8]]))
    numbers[0, : 2 * POOLED + 4] = math.nan
    numbers.requires_grad_()
    network, loss = model.members[0].network, model.members[0].loss
    logits = network(model.join(torch.from_numpy(model.encoder.encode(records[:8])[0]), numbers))
    loss.compute(logits, loss.make_targets(read_outcome(records[:8]))).backward()  # type: ignore[no-untyped-call]
    assert numbers.grad is not None
    assert numbers.grad.isfinite().all()
    assert (numbers.grad[1:].abs().sum(1) > 0).all()
    assert numbers.grad[0, : 2 * POOLED + 4].abs().sum() == 0
    projection = network.project
    assert projection is not None
    assert projection.weight.grad is not None
    assert projection.weight.grad.abs().sum() > 0
    network.zero_grad()


def test_one_event_is_too_few_and_two_are_not() -> None:
    records, images = make_cohort(20, 0.0, 0.0)
    few = [replace(record, event=SEEN if place < 2 else CENSORED) for place, record in enumerate(records)]
    fitted = fit_model(few, SCHEMA, images, SMALL, 0)
    assert has_note(fitted.notes, "2 time bin(s)", "10")
    assert np.isfinite(fitted.forecast(few, images, TIMES).risk).all()
    for events in (0, 1):
        fewer = [replace(record, event=SEEN if place < events else CENSORED) for place, record in enumerate(records)]
        with pytest.raises(DataError, match=f"{events} of 20 .*expected 2 or more"):
            fit_model(fewer, SCHEMA, images, SMALL, 0)


def test_all_events_at_one_time_are_fitted() -> None:
    records, images = make_cohort(20, 0.0, 0.0)
    tied = [replace(record, time=50.0, event=SEEN) for record in records]
    fitted = fit_model(tied, SCHEMA, images, SurvivalSettings(networks=1), 0)
    assert np.isfinite(fitted.forecast(tied, images, np.array([10.0, 50.0])).survival).all()


def test_a_model_without_inputs_is_refused() -> None:
    records, _ = make_cohort(20, 0.0, 0.0)
    with pytest.raises(DataError, match="no inputs"):
        fit_model(records, WITHOUT_RECORD, None, SMALL, 0)


def test_modalities_without_any_lesion_are_noted() -> None:
    records, images = make_cohort(30, 0.5, 0.0)
    place = images.names.index("ct: lesion found")
    rows = {patient: np.where(np.arange(len(row)) == place, 0, row) for patient, row in images.rows.items()}
    bare = FeatureTable(images.names, images.contexts, images.kinds, rows)
    notes = fit_model(records, SCHEMA, bare, SurvivalSettings(networks=1), 0).notes
    assert has_note(notes, "'ct'", "no lesion", "any training patient")


def test_pooled_features_have_the_variance_of_one_measure_and_volumes_are_log_transformed(planted: Cohort) -> None:
    records, images = planted
    patients = [record.patient for record in records[:50]]
    code, notes = fit_image_code(images, patients, 4)
    assert not notes
    numbers = torch.from_numpy(images.take(patients))
    inputs, there = code.encode(numbers.double())
    assert there.all()
    assert code.owners.tolist() == [0] * 7 + [1] * 7  # "lesion found" is constant, and gives no input
    spread = inputs.var(0, correction=0)
    np.testing.assert_allclose(spread[:3], 1, rtol=1e-4)
    assert float(spread[3:7].sum()) == pytest.approx(1, rel=1e-4)
    volumes = np.log1p(numbers[:, images.names.index("ct: lesion volume")].numpy())
    np.testing.assert_allclose(inputs[:, 0], (volumes - volumes.mean()) / volumes.std(), atol=1e-4)


def test_a_missing_modality_is_zeros_with_a_missing_indicator(planted: Cohort) -> None:
    records, images = planted
    code, _ = fit_image_code(images, [record.patient for record in records[:30]], 3)
    numbers = torch.from_numpy(images.take(["p000", "nobody"]))
    numbers[0, [context == "ct" for context in images.contexts]] = math.nan
    inputs, there = code.encode(numbers.double())
    assert there.tolist() == [[False, True], [False, False]]
    assert inputs[0, code.owners == 0].abs().sum() == 0
    assert inputs[0, code.owners == 1].abs().sum() > 0
    assert inputs[1].abs().sum() == 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_imaged_patients_give_few_components(count: int, planted: Cohort) -> None:
    code, _ = fit_image_code(planted[1], [f"p{place:03d}" for place in range(count)] + ["nobody"], 8)
    pooled = code.weights.shape[1] - 2 * (3 if count > 1 else 0)
    assert pooled == 2 * (count - 1)
    assert code.weights.isfinite().all()


def test_hidden_columns_records_and_modalities_look_like_missing_ones() -> None:
    columns, modalities = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1])
    absent = torch.tensor([0.0, 0.5, 1.0, -1.0])
    given = Inputs(torch.full((500, 4), 7.0), torch.full((500, 3), 7.0), torch.ones(500, 2, dtype=torch.bool))
    input_dropout = InputDropout(absent, columns, modalities, SurvivalSettings(column_dropout=0.3, table_dropout=0.2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown = input_dropout(given)
    hidden = shown.ehr != 7
    assert (shown.ehr == torch.where(hidden, absent, 7.0)).all()
    assert (hidden[:, 1] == hidden[:, 2]).all()
    assert float(hidden[:, 0].float().mean()) == pytest.approx(0.2 + 0.8 * 0.3, abs=0.06)
    assert float(hidden.all(1).float().mean()) == pytest.approx(0.2 + 0.8 * 0.3**3, abs=0.06)
    gone = ~shown.there
    assert float(gone.float().mean()) == pytest.approx(0.1, abs=0.04)
    assert (shown.images == torch.where(gone[:, modalities], 0.0, 7.0)).all()
    unchanged = input_dropout.eval()(given)
    assert (unchanged.ehr == 7).all()
    assert (unchanged.images == 7).all()


def test_image_methods_find_a_planted_effect_and_never_use_held_out_patients(planted: Cohort) -> None:
    pytest.importorskip("sksurv")
    records, images = planted
    train, test, settings = records[:80], records[200:], SurvivalSettings(networks=1)
    poisoned = [replace(record, event=CENSORED, time=1.0, values={"age": 1e5}) for record in test[1:3]]
    for method in IMAGE_METHODS:
        found = forecast(method, Task(train, test, SCHEMA, TIMES, 0, images, settings))
        assert measure(test, found) > 0.6, method
        among = forecast(method, Task(train, [test[0], *poisoned], SCHEMA, TIMES, 0, images, settings))
        np.testing.assert_allclose(found.risk[0], among.risk[0], rtol=1e-4, err_msg=method)
        np.testing.assert_allclose(found.survival[0], among.survival[0], rtol=1e-4, err_msg=method)


def test_image_methods_without_images_are_refused(planted: Cohort) -> None:
    task = Task(planted[0][:40], planted[0][40:50], SCHEMA, TIMES, 0)
    for method in IMAGE_METHODS:
        with pytest.raises(DataError, match=f"'{method}' needs images"):
            forecast(method, task)
    with pytest.raises(DataError, match=r"'coxnet'.*'Coxnet'"):
        forecast("coxnet", task)


def test_a_lesion_baseline_without_lesions_predicts_the_same_for_all(planted: Cohort) -> None:
    pytest.importorskip("sksurv")
    records, images = planted
    task = Task(records[:40], records[40:50], SCHEMA, TIMES, 0, images.select(kinds=["pooled"]))
    found = forecast("lesion volume Cox", task)
    assert len(np.unique(found.risk)) == 1
    assert has_note(found.notes, "no covariate")
