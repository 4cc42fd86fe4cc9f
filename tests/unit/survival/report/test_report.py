"""Output of `duplus survival evaluate`: tables, figures and a model card that agree with the results."""

import csv
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from duplus_nnunet.survival.evaluation.calibration import SurvivalCalibration
from duplus_nnunet.survival.evaluation.cross_validation import HeldOut
from duplus_nnunet.survival.evaluation.intervals import Value
from duplus_nnunet.survival.evaluation.risk_groups import split_by_risk
from duplus_nnunet.survival.evaluation.study import Design, Study, run_study
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record
from duplus_nnunet.survival.report import figures
from duplus_nnunet.survival.report.figures import _caption_groups
from duplus_nnunet.survival.report.files import write_study
from duplus_nnunet.survival.report.limits import list_limits
from duplus_nnunet.survival.report.metrics_json import to_plain
from duplus_nnunet.survival.report.text import describe_study, format_slope

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "centre": "hospital",
        "time": {"column": "t", "unit": "months"},
        "event": {"column": "e", "seen": ["yes"], "censored": ["no"], "competing": ["other"]},
        "covariates": {
            "age": {"type": "numeric"},
            "tumour | size": {"type": "ordinal", "order": ["small", "large"]},
            "sex": {"type": "categorical"},
        },
        "ignored": {"note": "another value in each patient"},
    }
)
CODES = {SEEN: "1", CENSORED: "0"}
DESIGN = Design(folds=3, seeds=(0, 1), methods=("Cox", "Kaplan-Meier"))
FILES = ["metrics.json", "predictions.csv", "survival_curves.csv", "kaplan_meier.png", "calibration.png"]
FILES += ["decision_curves.csv", "decision_curves.png", "hazard_ratios.csv", "hazard_ratios.png"]


def make_cohort(effect: float = 2.0, count: int = 51) -> Cohort:
    rng = np.random.default_rng(1)
    records = []
    for number in range(count):
        x, size = rng.normal(), float(rng.integers(2))
        event, censoring = rng.exponential(400 * math.exp(-effect * x)), rng.exponential(900)
        values = {"age": 60 + 10 * x if number else None, "tumour | size": size, "sex": "fm"[number % 2]}
        kind = SEEN if event <= censoring else "other" if number % 9 == 0 else CENSORED
        time = max(1.0, min(event, censoring))
        records.append(Record(number + 1, f"p{number:03d}", "AB"[number % 2], time, kind, 0.0, values))
    return Cohort("Dataset007_Sarcoma", records, SCHEMA)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    pytest.importorskip("sksurv")
    return make_cohort()


@pytest.fixture(scope="module")
def study(cohort: Cohort) -> Study:
    return run_study(cohort.records, SCHEMA, DESIGN)


@pytest.fixture(scope="module")
def folder(study: Study, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    files = write_study(study, DESIGN, cohort, out)
    assert [file.name for file in files] == [*FILES, "model_card.md"]
    return out


def read_table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_nothing_else_is_left_in_the_folder(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "model_card.md"])


def test_every_held_out_patient_has_a_row_a_method_and_seed(folder: Path, study: Study, cohort: Cohort) -> None:
    rows = read_table(folder / "predictions.csv")
    assert len({(row["method"], row["seed"], row["patient"]) for row in rows}) == len(rows) == 51 * 2 * 2
    first = [row for row in rows if row["method"] == "Cox"]
    assert {row["risk group"] for row in first} == {"high", "low"}
    assert {row["risk group"] for row in rows if row["method"] == "Kaplan-Meier"} == {""}
    missing = {row["patient"] for row in rows if row["record values missing"] != "0"}
    assert missing == {"p000"}
    warned = [row["warnings"] for row in first if row["patient"] == "p000"]
    assert len(warned) == 2
    assert all(warning.startswith("'age' is missing") for warning in warned)
    own = {row["patient"]: (float(row["time (days)"]), row["event"]) for row in rows}
    assert own == {r.patient: (pytest.approx(r.time, rel=1e-5), CODES.get(r.event, "2")) for r in cohort.records}
    columns = [f"survival at {horizon:g} days" for horizon in study.horizons]
    assert all(1 >= float(row[columns[0]]) >= float(row[columns[-1]]) >= 0 for row in rows)


def test_curves_and_median_times_agree(folder: Path, study: Study) -> None:
    curves = {(row["seed"], row["patient"]): row for row in read_table(folder / "survival_curves.csv")}
    assert len(curves) == 51 * 2
    reached = set()
    for row in read_table(folder / "predictions.csv"):
        if row["method"] != "Cox":
            continue
        curve = [float(curves[row["seed"], row["patient"]][f"{day:g} days"]) for day in study.curve_days]
        assert curve[0] == 1
        assert all(before >= after for before, after in itertools.pairwise(curve))
        median = row["median survival (days)"]
        reached.add(median != "")
        if not median:
            assert curve[-1] >= 0.5
            continue
        after = int(np.searchsorted(study.curve_days, float(median) + 0.05))
        assert curve[max(0, after - 1)] >= 0.49
        assert curve[min(after, len(curve) - 1)] <= 0.51
    assert reached == {True, False}


def test_metrics_are_plain_json_of_a_version(folder: Path, study: Study) -> None:
    content = json.loads((folder / "metrics.json").read_text())
    assert content["version"] == 4
    assert content["first_method"] == "Cox"
    assert content["scores"]["Cox"]["pooled AUC"]["value"] == study.scores["Cox"]["pooled AUC"].value
    brier = {name: content["scores"][name]["integrated Brier"]["value"] for name in study.methods}
    skill = content["scores"]["Cox"]["Brier skill"]["value"]
    assert skill == pytest.approx(1 - brier["Cox"] / brier["Kaplan-Meier"])
    assert content["horizons_days"] == list(study.horizons)
    assert content["uno_tau_days"] == content["integrated_brier_days"][1] == study.horizons[-1]
    assert content["integrated_brier_days"][0] == min(held.time for held in study.predictions if held.event)
    assert [row["horizon_days"] for row in content["at_horizons"]["Cox"]] == list(study.horizons)
    null = content["at_horizons"]["Kaplan-Meier"][0]
    assert null["AUC"] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert content["at_horizons"]["Cox"][0]["Brier"]["value"] < null["Brier"]["value"] < 0.3
    assert content["claims"]["encoded_parameters"] == 4  # age, age is missing, size, sex
    assert content["calibration"]["Kaplan-Meier"][0]["slope"]["value"] is None
    assert [len(one["groups"]) for one in content["risk_groups"]] == [2, 2]
    assert sum(group["patients"] for group in content["risk_groups"][0]["groups"]) == 51
    assert content["risk_groups"][0]["log_rank_p_descriptive"] < 0.01
    assert [one["name"] for one in content["centres"]["each"]] == ["A", "B"]


def test_figures_are_drawn(folder: Path) -> None:
    for name in ("kaplan_meier.png", "calibration.png"):
        picture = imread(folder / name)[..., :3]
        assert picture.shape[1] > 600
        assert 0.01 < float((picture < 0.9).any(axis=2).mean()) < 0.6  # something on white


def test_the_card_reports_what_the_data_answer_and_lists_the_rest(folder: Path) -> None:
    card = (folder / "model_card.md").read_text()
    for part in (
        ": 51 ",
        "`e`",
        "'yes'",
        "'no'",
        "`t`, in months",
        "('other')",
        "| tumour \\| size | ordinal | small: ",
        "note (another value in each patient)",
        "| A | 26 | ",
        "ethical approval",
        "(17)",
        "100 or more",
    ):
        assert part in card, part
    assert "nan" not in card.split()
    rows = [line.replace("\\|", "") for line in card.splitlines()]
    for before, row in itertools.pairwise(rows):
        assert not (before.startswith("|") and row.startswith("|")) or before.count("|") == row.count("|")


def test_limits_follow_from_intervals(study: Study, cohort: Cohort) -> None:
    strong = list(list_limits(study, cohort))
    assert not any("chance" in limit for limit in strong)
    noise = make_cohort(effect=0.0)
    weak = list(list_limits(run_study(noise.records, SCHEMA, DESIGN), noise))
    assert any("Harrell's C of Cox includes 0.5" in limit and "chance" in limit for limit in weak)
    assert any("Cox" in limit and "Kaplan-Meier" in limit and "includes 0)" in limit for limit in weak)


def test_performance_below_chance_or_below_another_method_is_a_limit(study: Study, cohort: Cohort) -> None:
    low = {"Harrell's C": Value(0.35, (0.25, 0.44)), "integrated Brier": Value(0.2, (0.1, 0.3))}
    less = {"Harrell's C": Value(-0.15, (-0.25, -0.06)), "integrated Brier": Value(0.05, (0.02, 0.08))}
    limits = list(list_limits(replace(study, scores={"Cox": low}, differences={"Kaplan-Meier": less}), cohort))
    assert any("Harrell's C of Cox lies below 0.5" in limit and "worse than chance" in limit for limit in limits)
    assert not any("includes 0" in limit for limit in limits)
    for score in ("Harrell's C", "integrated Brier"):
        assert any(limit.startswith(f"{score}: Cox is worse than Kaplan-Meier") for limit in limits)


def test_an_undefined_slope_has_its_reason(study: Study, cohort: Cohort) -> None:
    def find_limit(horizon: float, slope: Value, predictions: tuple[HeldOut, ...] = study.predictions) -> str:
        measured = {"Cox": (SurvivalCalibration(horizon, slope, slope),)}
        limits = list_limits(replace(study, calibration=measured, predictions=predictions), cohort)
        (limit,) = (limit for limit in limits if "calibration slope of Cox" in limit)
        assert limit.startswith(f"At {horizon:g} days")
        return limit

    undefined = Value(math.nan, None)
    assert "no held-out patient had the event" in find_limit(0.1, undefined)
    same = tuple(replace(held, survival=(0.5,) * len(held.survival)) for held in study.predictions)
    assert "the same predicted survival" in find_limit(400.0, undefined, same)
    assert "hardly differs" in find_limit(400.0, undefined)
    events = sum(record.event == SEEN and record.time <= 400 for record in cohort.records)
    assert f"{events} events" in find_limit(400.0, Value(1.0, (-1.0, 3.0)))
    assert "(-20)" in find_limit(400.0, Value(-20.0, None))


def test_a_slope_at_its_bound_has_no_value(study: Study) -> None:
    def convert(slope: Value) -> Any:
        calibration = {"Cox": (SurvivalCalibration(400.0, Value(0.0, None), slope),)}
        return to_plain(replace(study, calibration=calibration), DESIGN)["calibration"]["Cox"][0]["slope"]

    assert convert(Value(-20.0, None)) == {"value": None, "interval": None, "at_bound": -20.0}
    assert convert(Value(1.0, (0.5, 2.0))) == {"value": 1.0, "interval": (0.5, 2.0), "at_bound": None}
    assert "-20.00" not in format_slope(Value(-20.0, None))
    assert format_slope(Value(1.0, (0.5, 2.0))) == "1.00 (0.50 to 2.00)"


def test_only_scored_patients_are_counted(cohort: Cohort) -> None:
    """One of three folds."""
    (fold, *_) = make_folds(cohort.records, 3, 0)
    study = run_study(cohort.records, SCHEMA, replace(DESIGN, seeds=(0,), given=((fold,),), folds=1))
    events = sum(cohort.records[row].event == SEEN for row in fold.test)
    assert (study.patients, study.events) == (len(fold.test), events)
    assert to_plain(study, DESIGN)["scored"] == {"patients": len(fold.test), "events": events}
    assert any(limit.startswith(f"{events} of the {len(fold.test)} ") for limit in list_limits(study, cohort))


def test_on_an_error_earlier_files_are_kept(
    folder: Path, study: Study, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(figures, "save_calibration", fail)
    with pytest.raises(OSError, match="disk full"):
        write_study(study, DESIGN, cohort, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_a_risk_cut_off_there_is_no_kaplan_meier_figure(cohort: Cohort, tmp_path: Path) -> None:
    design = Design(folds=3, seeds=(0,), methods=("Kaplan-Meier",))
    result = run_study(cohort.records, SCHEMA, design)
    assert result.risk_groups[0].ungrouped == 51
    files = {file.name for file in write_study(result, design, cohort, tmp_path)}
    assert files == {*FILES, "model_card.md"} - {"kaplan_meier.png"}
    assert "## Risk groups" not in (tmp_path / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("groups", "events", "reason"),
    [
        (["high", *["low"] * 6], [0, *[1] * 6], "both groups at risk"),
        (["low"] * 7, [1] * 7, "one group"),
        (["high", *["low"] * 6], [0] * 7, "no events"),
        (["low", "low", "high", "low", "high", "low", "low"], [1] * 7, "p = "),
    ],
)
def test_a_missing_p_value_has_its_reason(study: Study, groups: list[str], events: list[int], reason: str) -> None:
    held = [replace(study.predictions[n], group=name) for n, name in enumerate(groups)]
    split = split_by_risk(0, held, Outcome(np.array(events, bool), np.arange(1.0, 8.0)), (3.0,))
    caption = _caption_groups((split,))
    assert reason in caption
    assert (split.p is None) == ("no p value" in caption)


def test_nothing_to_compare_is_null_in_json() -> None:
    study = Study({"Cox": {"pooled AUC": Value(math.nan, None)}}, {}, (), (1.0,), ())
    assert (
        json.loads(json.dumps(to_plain(study, Design()), allow_nan=False))["scores"]["Cox"]["pooled AUC"]["value"]
        is None
    )


def test_lines_for_the_terminal_have_differences_and_centres(study: Study) -> None:
    lines = list(describe_study(study))
    assert lines[0].split()[:2] == ["Harrell's", "C"]
    assert any(line.startswith("Cox less") for line in lines)
    assert "pooled AUC" in lines[0]
    assert "pooled AUC" in lines[-1]
    assert any(line.startswith("2 centres left out") for line in lines)


def test_follow_up_is_estimated_by_reverse_kaplan_meier() -> None:
    pytest.importorskip("sksurv")
    golden = json.loads((Path(__file__).parents[3] / "golden" / "calibration_slopes.json").read_text())["follow-up"]
    kinds = (CENSORED, SEEN, "other")
    records = [
        Record(number, f"p{number}", "", time, kinds[code])
        for number, (time, code) in enumerate(zip(golden["time"], golden["code"], strict=True))
    ]
    assert Cohort("x", records, SCHEMA).median_follow_up() == golden["median"]
    records = [
        Record(number, f"p{number}", "", float(number), CENSORED if number > 2 else SEEN) for number in range(1, 8)
    ]
    # Of five that were censored at 3 to 7, half of the follow-up is reached at the third.
    assert Cohort("x", records, SCHEMA).median_follow_up() == 5.0
    assert Cohort("x", records[:2], SCHEMA).median_follow_up() is None
