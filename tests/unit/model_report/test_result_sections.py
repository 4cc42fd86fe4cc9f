"""Sections that are made from the files of other commands."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.model_report.adapters import make_ablations, make_adapters
from duplus_nnunet.model_report.calibration import make_calibration
from duplus_nnunet.model_report.group_curves import estimate_curve
from duplus_nnunet.model_report.prognosis import make_prognosis
from duplus_nnunet.model_report.wording import make_wording

from .report_sources import find_chart, find_table, list_charts, list_kind, make_source

ADAPTER = Path(__file__).parents[2] / "compatibility" / "files" / "adapter"


def write(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content))
    return file


def make_wordings(**dice: float | None) -> list[dict[str, Any]]:
    kinds = {"own": "target prompt", "former": "T2", "other": "paraphrase"}
    return [{"text": name, "kind": kinds[name], "dice": value, "by_case": {}} for name, value in dice.items()]


def make_sensitivity() -> dict[str, Any]:
    return {
        "context": "ct",
        "context_prompt": "A CT",
        "cases": ["case_0"],
        "targets": [
            {"name": "liver", "spread": 0.1, "worst": "other", "wordings": make_wordings(former=0.9, other=0.8)},
            {"name": "spleen", "spread": 0.3, "worst": "other", "wordings": make_wordings(own=0.7, other=0.4)},
            {"name": "aorta", "spread": None, "worst": None, "wordings": make_wordings(own=None)},
        ],
        "contexts": [],
    }


def test_the_target_that_depends_most_on_its_wording_comes_first(tmp_path: Path) -> None:
    section = make_wording(write(tmp_path / "w.json", make_sensitivity()))
    assert [row[:3] for row in find_table(section, "wording_spread").rows] == [
        ("spleen", 0.3, 0.7),
        ("liver", 0.1, 0.9),
    ]
    assert any("aorta" in text for text in list_kind(section, "absent"))
    assert len(find_chart(section, "wording").numbers) == 4


@pytest.mark.parametrize("content", [[], {}, {"context": "ct"}, {**make_sensitivity(), "targets": [{"name": 3}]}])
def test_a_file_of_another_command_is_refused(tmp_path: Path, content: Any) -> None:
    file = write(tmp_path / "other.json", content)
    for make in (make_wording, make_calibration, make_ablations):
        with pytest.raises(DataError, match=r"other\.json"):
            make(file)


def test_files_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    for make in (make_wording, make_calibration, make_ablations, make_prognosis):
        with pytest.raises(DataError, match="none"):
            make(tmp_path / "none")
    with pytest.raises(DuplusError):
        make_adapters(make_source(), [tmp_path / "none"])


def test_without_a_file_sections_say_how_to_get_it() -> None:
    for make, command in (
        (make_wording, "duplus prompts sensitivity"),
        (make_calibration, "duplus evaluate --calibration"),
        (make_prognosis, "duplus survival evaluate"),
    ):
        [text] = list_kind(make(None), "absent")
        assert command in text


def make_reliability(ece: float) -> dict[str, Any]:
    bins = [
        {"low": 0.0, "high": 0.5, "count": 90, "mean_probability": 0.1, "observed_share": 0.1},
        {"low": 0.5, "high": 1.0, "count": 10, "mean_probability": 0.8, "observed_share": 0.8 - ece},
        {"low": 1.0, "high": 1.0, "count": 0, "mean_probability": None, "observed_share": None},
    ]
    binning = {"bins": bins, "ece": {"value": ece, "interval": [ece / 2, ece * 2]}, "mce": 0.3}
    counts = {"cases": 2, "patients": 2, "voxels": 100, "observed_share": 0.2}
    return {**counts, "equal_width": binning, "equal_mass": binning, "brier": {"value": 0.05, "interval": None}}


def test_the_worst_calibrated_target_comes_first(tmp_path: Path) -> None:
    presence = {"cases": 4, "present": 2}
    presence |= {name: {"value": 1.0, "interval": None} for name in ("brier", "sensitivity", "specificity", "auc")}
    presence |= {"equal_width": make_reliability(0.1)["equal_width"]}
    rows = [
        {
            "source": "A",
            "target": "liver",
            "near": make_reliability(0.1),
            "all": make_reliability(0.01),
            "presence": None,
        },
        {"source": "A", "target": "spleen", "near": make_reliability(0.4), "all": None, "presence": presence},
        {"source": "A", "target": "aorta", "near": None, "all": None, "presence": None},
    ]
    content = {"version": 1, "neighbourhood_mm": 10.0, "rows": rows, "notes": []}
    section = make_calibration(write(tmp_path / "calibration.json", content))
    table = find_table(section, "calibration")
    assert [row[1:3] for row in table.rows] == [("spleen", "near"), ("liver", "near"), ("liver", "all")]
    assert table.rows[0][5] == "0.400 (0.200 to 0.800)"
    curve = find_chart(section, "reliability").figure.axes[0].get_lines()[1]
    assert np.allclose(np.asarray(curve.get_ydata(), dtype=float), [0.1, 0.4])
    assert [row[1] for row in find_table(section, "presence").rows] == ["spleen"]


def test_a_calibration_without_any_voxel_says_so(tmp_path: Path) -> None:
    content = {"version": 1, "rows": [{"source": "A", "target": "liver", "near": None, "all": None}]}
    section = make_calibration(write(tmp_path / "calibration.json", content))
    assert list_charts(section) == []
    assert len(list_kind(section, "absent")) == 2


FOLLOWED = {"low": [(100.0, True), (200.0, False), (300.0, True), (400.0, False)], "high": [(50.0, True), (80.0, True)]}


def test_a_curve_is_the_product_limit_estimate() -> None:
    curve = estimate_curve([(1.0, True), (2.0, False), (3.0, True), (3.0, False), (3.0, True), (4.0, False)])
    assert list(curve.days) == [1.0, 3.0]
    assert curve.survival == pytest.approx([5 / 6, 5 / 6 * (1 - 2 / 4)])
    assert list(curve.at_risk) == [6, 4]
    assert list(curve.censored) == [2.0, 3.0, 4.0]
    assert curve.last == 4.0
    assert [curve.at(day) for day in (0.5, 1.0, 2.9)] == pytest.approx([1.0, 5 / 6, 5 / 6])


@pytest.mark.parametrize("seed", range(3))
def test_a_curve_is_that_of_scikit_survival(seed: int) -> None:
    nonparametric = pytest.importorskip("sksurv.nonparametric")
    rng = np.random.default_rng(seed)
    times, events = rng.integers(1, 20, 40).astype(float), rng.random(40) < 0.6
    days, survival = nonparametric.kaplan_meier_estimator(events, times)
    curve = estimate_curve(list(zip(times.tolist(), events.astype(int).tolist(), strict=True)))
    assert [curve.at(day) for day in days] == pytest.approx(survival.tolist(), abs=1e-12)


def write_study(folder: Path, shift: float = 0.0, has_times: bool = True, **changes: Any) -> Path:
    survival = {name: estimate_curve(patients).at(150.0) for name, patients in FOLLOWED.items()}
    groups = [
        {
            "name": name,
            "patients": len(patients),
            "events": sum(event for _, event in patients),
            "survival_at_horizons": [{"value": survival[name] + shift, "interval": [0.1, 0.9]}],
        }
        for name, patients in FOLLOWED.items()
    ]
    score = {"value": 0.7, "interval": [0.5, 0.9]}
    content = {
        "version": 4,
        "scored": {"patients": 6, "events": 4},
        "horizons_days": [150.0],
        "higher_is_better": {"Harrell's C": True, "integrated Brier": False},
        "first_method": "both",
        "scores": {
            "both": {"Harrell's C": score, "integrated Brier": {"value": 0.2, "interval": None}},
            "Cox": {"Harrell's C": {"value": None, "interval": None}},
        },
        "first_less_others": {"Cox": {"Harrell's C": {"value": 0.1, "interval": [-0.1, 0.3]}}},
        "at_horizons": {"both": [{"horizon_days": 150.0, "AUC": score, "Brier": score}]},
        "calibration": {
            "both": [{
                "horizon_days": 150.0,
                "observed_less_predicted": score,
                "slope": {"value": 1.1, "interval": [0.5, None], "at_bound": None},
            }]
        },
        "calibration_groups": [
            {"horizon_days": 150.0, "groups": [{"patients": 3, "predicted": 0.5, "observed": 0.6, "interval": [0, 1]}]}
        ],
        "risk_groups": [{"seed": 0, "groups": groups, "log_rank_p_descriptive": 0.03, "without_a_cut": 0}],
        "centres": None,
        "notes": ["Few events."],
        **changes,
    }  # fmt: skip
    write(folder / "metrics.json", content)
    rows = [
        ("both", 0, 0, f"{name}{number}", f"{time:g}", int(event), name)
        for name, patients in FOLLOWED.items()
        for number, (time, event) in enumerate(patients)
    ]
    head = ("method", "seed", "fold", "patient", "time (days)" if has_times else "risk", "event", "risk group")
    (folder / "predictions.csv").write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]) + "\n")
    if has_times:  # files of earlier versions have neither
        write_evidence(folder)
    return folder


def write_evidence(folder: Path) -> None:
    tables = {
        "decision_curves": """\
method,horizon (days),threshold of predicted risk,net benefit,net benefit of treating all
both,150,0.10,0.25,0.2
both,150,0.50,,0.1
""",
        "hazard_ratios": """\
covariate,per,hazard ratio,lower limit (95 %),upper limit (95 %)
age,9.5,2.0,1.5,2.5
sex=m,,,,
""",
        "permutation_importance": """\
method,column,drop of Harrell's C,lower limit (95 %),upper limit (95 %),standard deviation over shuffles,shuffles,\
Harrell's C before
both,age,0.1,0.05,0.15,0.01,20,0.7
both,sex,-0.01,,,0.01,20,0.7
""",
    }
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)


def test_a_prognosis_is_shown_from_its_files(tmp_path: Path) -> None:
    section = make_prognosis(write_study(tmp_path))
    assert list_charts(section) == [
        "prognosis_methods", "kaplan_meier", "time_dependent_auc", "brier_scores", "prognosis_calibration",
        "decision_curves_150", "hazard_ratios", "permutation_importance",
    ]  # fmt: skip
    assert find_table(section, "prognosis_scores").rows == [
        ("both", "0.700 (0.500 to 0.900)", "0.200"),
        ("Cox", None, None),
    ]
    steps = [row for row in find_chart(section, "kaplan_meier").numbers if row["kind"] == "step"]
    assert [(row["group"], row["days"], row["value"]) for row in steps] == [
        ("low", 100.0, 0.75),
        ("low", 300.0, 0.375),
        ("high", 50.0, 0.5),
        ("high", 80.0, 0.0),
    ]
    assert find_table(section, "prognosis_slopes").rows[0][3] == "1.100"
    assert list_kind(section, "warning") == ["Few events."]
    assert list_kind(section, "absent") == []


def test_a_prognosis_of_other_patients_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    patients = {row["patient"] for row in csv.DictReader((folder / "predictions.csv").read_text().splitlines())}
    for strange in ("hippocampus_001", f"CT_{min(patients)}9", f"x{min(patients)}"):
        assert any("None of the" in text for text in list_kind(make_prognosis(folder, {strange}), "warning"))
    for known in ({f"CT/{min(patients)}"}, {f"Source_{min(patients)}"}, set[str]()):
        assert not any("None of the" in text for text in list_kind(make_prognosis(folder, known), "warning"))


def test_a_prognosis_has_a_report_of_its_own(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    assert cli.main(["report", "--prognosis", str(folder), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "Scores of all methods" in page
    assert "0.700 (0.500 to 0.900)" in page
    for words in ([], ["--prognosis", str(folder), "--feature-map"], ["--scores", str(folder / "metrics.json")]):
        assert cli.main(["report", *words, "-o", str(tmp_path / "no.html")]) == 1
    assert not (tmp_path / "no.html").exists()


def test_curves_that_contradict_the_scores_are_not_drawn(tmp_path: Path) -> None:
    """As with delayed entry, of which predictions.csv says nothing."""
    section = make_prognosis(write_study(tmp_path, shift=-0.1))
    assert {row["kind"] for row in find_chart(section, "kaplan_meier").numbers} == {"at the horizon"}
    assert any("differs" in text for text in list_kind(section, "absent"))


def test_files_of_an_earlier_version_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    folder = write_study(tmp_path, has_times=False, at_horizons={}, version=3, scored=None)
    section = make_prognosis(folder)
    assert {row["kind"] for row in find_chart(section, "kaplan_meier").numbers} == {"at the horizon"}
    assert "time_dependent_auc" not in list_charts(section)
    assert len(list_kind(section, "absent")) == 3


def test_decision_curves_hazard_ratios_and_importance_are_those_of_the_tables(tmp_path: Path) -> None:
    section = make_prognosis(write_study(tmp_path))
    curve = find_chart(section, "decision_curves_150")
    assert [row["net benefit"] for row in curve.numbers] == [0.25, None]
    assert "10%: both 0.250, treat all 0.200" in curve.description
    assert find_chart(section, "hazard_ratios").numbers[0] == {
        "covariate": "age", "per": "9.5", "hazard ratio": 2.0, "lower limit (95 %)": 1.5, "upper limit (95 %)": 2.5,
    }  # fmt: skip
    assert [row["drop of Harrell's C"] for row in find_chart(section, "permutation_importance").numbers] == [0.1, -0.01]
    assert find_chart(section, "brier_scores").numbers[0]["value"] == 0.7


def test_hazard_ratios_that_are_not_estimated_have_their_reason(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    (folder / "hazard_ratios.csv").write_text("not estimated\n3 events do not allow 9 parameters.\n")
    assert list_kind(make_prognosis(folder), "absent") == ["3 events do not allow 9 parameters."]


def test_tables_that_are_not_there_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    (folder / "permutation_importance.csv").unlink()
    [text] = list_kind(make_prognosis(folder), "absent")
    assert "permutation_importance.csv" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("decision_curves.csv", "method,horizon (days)\nCox,150\n"),
        ("hazard_ratios.csv", "covariate,per,hazard ratio,lower limit (95 %),upper limit (95 %)\nage,1,soon,1,2\n"),
        ("permutation_importance.csv", "method\nCox,age\n"),
    ],
)
def test_a_damaged_table_of_evidence_is_refused(tmp_path: Path, name: str, content: str) -> None:
    folder = write_study(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=name):
        make_prognosis(folder)


def test_with_competing_events_cumulative_incidences_are_shown(tmp_path: Path) -> None:
    codes = {"low": [(100.0, 2), (200.0, 1), (300.0, 0), (400.0, 1)], "high": [(50.0, 1), (80.0, 2)]}
    curves = {name: estimate_curve(patients) for name, patients in codes.items()}
    # By hand: of four, one has the competing event, then one of three has the event, then the last one.
    np.testing.assert_allclose(curves["low"].survival, [1, 0.75, 0.25])
    np.testing.assert_allclose(curves["low"].competing, [0.25, 0.25, 0.25])
    groups = [
        {"name": name, "patients": len(patients), "events": 1,
         "survival_at_horizons": [{"value": curves[name].at(150.0), "interval": [0.2, 0.9]}]}
        for name, patients in codes.items()
    ]  # fmt: skip
    folder = write_study(tmp_path, risk_groups=[{"seed": 0, "groups": groups, "log_rank_p_descriptive": 0.1}])
    rows = [("both", 0, 0, f"{name}{n}", f"{time:g}", code, name) for name, each in codes.items()
            for n, (time, code) in enumerate(each)]  # fmt: skip
    head = ("method", "seed", "fold", "patient", "time (days)", "event", "risk group")
    (folder / "predictions.csv").write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]) + "\n")
    chart = find_chart(make_prognosis(folder), "cumulative_incidence")
    kinds = {(row["group"], row["kind"], row["days"]): row for row in chart.numbers}
    assert kinds["low", "event, step", 200.0]["value"] == pytest.approx(0.25)
    assert kinds["low", "competing event, step", 400.0]["value"] == pytest.approx(0.25)
    point = kinds["high", "event, at the horizon", 150.0]
    assert (point["value"], point["low"], point["high"]) == pytest.approx((0.5, 0.1, 0.8))


def test_a_method_without_a_cut_off_has_no_risk_groups(tmp_path: Path) -> None:
    section = make_prognosis(write_study(tmp_path, risk_groups=[]))
    assert "kaplan_meier" not in list_charts(section)


def test_a_damaged_table_of_predictions_is_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    file = folder / "predictions.csv"
    file.write_text(file.read_text().replace(",100,", ",soon,"))
    with pytest.raises(DataError, match=r"Line 2 of .*predictions\.csv"):
        make_prognosis(folder)


def test_adapters_are_listed_with_their_scores(tmp_path: Path) -> None:
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    card = json.loads((ADAPTER / "adapter.json").read_text())
    section = make_adapters(make_source(), [tmp_path / "adapter"])
    row = find_table(section, "adapters").rows[0]
    assert row[0] == card["name"]
    assert row[3] == card["parameters"]["lora"] + card["parameters"]["generators"]
    assert any(card["base"] in text for text in list_kind(section, "warning"))
    assert list_kind(make_adapters(make_source(), []), "absent")


MEAN = {"mean": 0.8, "interval_95": [0.7, 0.9], "interval_over": "patients", "trainings": [1], "patients": 9}
LESS = {**MEAN, "mean": 0.1, "interval_95": [0.05, 0.2]}


def test_differences_of_both_benchmarks_have_one_direction(tmp_path: Path) -> None:
    """One benchmark writes variant less reference, the other one reference less variant."""
    learning = {
        "set 1/x": {
            "reference": "full",
            "variants": {"full": {"dice": MEAN}, "less": {"dice": MEAN, "difference": LESS}},
        }
    }
    universal = {
        "models": {"full": {"dice": MEAN}, "less": {"dice": MEAN}},
        "differences": {"full - less": {"all": LESS}},
    }
    first = make_ablations(write(tmp_path / "learning.json", learning))
    second = make_ablations(write(tmp_path / "universal.json", universal))
    assert [row[2] for row in find_table(first, "ablations_set_1_x_differences").rows] == [
        "(reference)",
        "0.100 (0.050 to 0.200)",
    ]
    assert [row[2] for row in find_table(second, "ablations_universal_differences").rows] == [
        "(reference)",
        "-0.100 (-0.200 to -0.050)",
    ]
