"""Whether a target is there at all, and how large it is where it is."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json, save_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.data.volume_ranges import VolumeRange, read_volume_ranges, summarise_volumes
from duplus_nnunet.errors import DataError, PlansError
from duplus_nnunet.planners import planner as planners
from duplus_nnunet.planners.survey import survey_case
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.reporting.case_scores import CaseScore, TargetScore
from duplus_nnunet.reporting.presence import Calibration, Curve, fit_curves, measure_evidence
from duplus_nnunet.reporting.presence_files import (
    EVIDENCE_NAME,
    calibrate_fold,
    gather_evidence,
    read_calibration,
    write_evidence,
)
from duplus_nnunet.trainers.cases import bind_each_case, score

from .partial_plans import NAMES, make_plans, make_table

WRITTEN = f"validation/{EVIDENCE_NAME}"


# What logits say.


def test_evidence_is_the_mean_of_the_largest_logits_of_100_cubic_millimetres() -> None:
    logits = torch.zeros(1, 10, 10, 10)
    logits[0, 3, 3, :4], logits[0, 7, 7, 7] = 6.0, 30.0
    assert measure_evidence(logits, (5, 2, 2)) == [(4 * 6 + 30) / 5]


def test_a_coarse_grid_gives_its_strongest_voxel() -> None:
    logits = torch.arange(8.0).reshape(1, 2, 2, 2) - 20
    assert measure_evidence(logits, (8, 8, 8)) == [-13]


def test_an_image_smaller_than_the_peak_is_taken_whole() -> None:
    assert measure_evidence(torch.full((1, 2, 2, 2), 3.0), (0.1, 0.1, 0.1)) == [3]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1, 1), (2, 2, 5), (3, 1, 1)]))
def test_evidence_is_that_of_all_voxels_sorted(seed: int, spacing: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, *rng.integers(1, 9, 3))).round(1)
    count = round(100 / math.prod(spacing))
    expected = [np.sort(channel.ravel())[-count:].mean() for channel in logits]
    assert measure_evidence(torch.from_numpy(logits), spacing) == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_each_target_has_its_own_evidence_in_any_order(order: list[int]) -> None:
    logits = torch.randn(4, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    found = measure_evidence(logits, (2, 2, 2))
    assert measure_evidence(logits[order], (2, 2, 2)) == [found[place] for place in order]


def test_half_precision_is_enough() -> None:
    logits = 10 * torch.randn(1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert measure_evidence(logits.half(), (1, 1, 1)) == pytest.approx(measure_evidence(logits, (1, 1, 1)), abs=0.01)


# What evidence means.


def draw(count: int, shift: float = 0.0, seed: int = 0, share: float = 0.5) -> list[tuple[float, bool]]:
    """Draw evidence of a known meaning: log odds are those of the share, plus 1.5 times what exceeds the shift."""
    rng = np.random.default_rng(seed)
    present = rng.random(count) < share
    evidence = shift + rng.normal(np.where(present, 3.0, -3.0), 2.0)
    return [(float(found), bool(there)) for found, there in zip(evidence, present, strict=True)]


def calibrate(**samples: Sequence[tuple[float, bool]]) -> Calibration:
    curves = fit_curves(samples)
    return Calibration((curves,) if curves else ())


def test_the_curve_is_that_of_another_program() -> None:
    from sklearn.linear_model import LogisticRegression

    samples = draw(60, seed=3)
    evidence, present = np.array(samples).T
    there = present.sum()
    wanted = np.where(present == 1, (there + 1) / (there + 2), 1 / (60 - there + 2))
    other = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000)
    other.fit(np.tile(evidence, 2)[:, None], np.repeat([1, 0], 60), np.concatenate([wanted, 1 - wanted]))
    curve = next(iter(fit_curves({"a": samples[:0], "b": samples}).values()))
    assert (curve.slope, curve.offset) == pytest.approx((other.coef_[0, 0], other.intercept_[0]), rel=1e-3)


def test_probabilities_hold_in_images_that_were_not_fitted() -> None:
    calibration, fresh = calibrate(a=draw(300)), draw(6000, seed=1)
    found = np.array([calibration.judge("a", evidence) for evidence, _ in fresh])
    present = np.array([there for _, there in fresh])
    for low in np.arange(0, 1, 0.2):
        chosen = (found >= low) & (found < low + 0.2)
        error = (found[chosen] * (1 - found[chosen])).sum() ** 0.5 / chosen.sum()
        assert present[chosen].mean() == pytest.approx(found[chosen].mean(), abs=4 * error + 0.05)


SAMPLES = st.lists(st.tuples(st.floats(-100, 100), st.booleans()), max_size=8)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES, st.lists(st.floats(-1000, 1000), min_size=2, max_size=5))
def test_more_evidence_is_never_less_presence_and_nothing_is_certain(
    one: list[tuple[float, bool]], other: list[tuple[float, bool]], evidence: list[float]
) -> None:
    calibration = calibrate(one=one, other=other)
    for target in ("one", "other"):
        found = [calibration.judge(target, value) for value in sorted(evidence)]
        if len({present for _, present in one + other}) < 2:
            assert found == [None] * len(evidence)
        else:
            known = [value for value in found if value is not None]
            assert len(known) == len(evidence)
            assert known == sorted(known)
            assert all(0 < value < 1 for value in known)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_cases_changes_nothing(random: Any) -> None:
    samples = draw(20)
    shuffled = random.sample(samples, len(samples))
    assert asdict(fit_curves({"a": shuffled})["a"]) == pytest.approx(asdict(fit_curves({"a": samples})["a"]))


def test_a_target_that_is_always_there_has_the_curve_of_all() -> None:
    curves = fit_curves({"always": [(8.0, True), (9.0, True)], "mixed": draw(20), "unseen": []})
    assert not curves["always"].own
    assert curves["mixed"].own
    assert curves["unseen"] == curves["always"]


def test_a_target_with_many_images_has_a_curve_of_its_own() -> None:
    calibration = calibrate(far=draw(300, shift=20.0, seed=1), near=draw(300, seed=2))
    assert calibration.judge("far", 17) == pytest.approx(0, abs=0.1)
    assert calibration.judge("far", 23) == pytest.approx(1, abs=0.1)
    assert calibration.judge("near", 3) == pytest.approx(1, abs=0.1)


def test_two_images_do_not_outweigh_those_of_all_targets() -> None:
    calibration = calibrate(few=[(6.0, False), (5.9, True)], many=draw(200), none=[])
    few, common = (calibration.judge(target, 6.0) for target in ("few", "none"))
    assert few is not None
    assert common is not None
    assert (few > 0.5) == (common > 0.5)
    assert few < common


def test_evidence_that_speaks_against_presence_is_taken_for_none() -> None:
    curve = fit_curves({"a": [(5.0, False), (5.0, False), (-5.0, True), (-5.0, True)]})["a"]
    assert curve.slope == 0
    assert curve.judge(5.0) == pytest.approx(0, abs=1e-6)


def test_few_absent_images_do_not_make_absence_certain() -> None:
    calibration = calibrate(a=[*[(8.0, True)] * 20, (-8.0, False)])
    assert calibration.judge("a", -100.0) == pytest.approx(1 / 3)
    assert calibration.judge("a", 100.0) == pytest.approx(21 / 22)


@pytest.mark.parametrize("samples", [[], [(8.0, True)] * 5, [(-8.0, False)] * 5])
def test_without_both_kinds_of_image_there_is_no_answer(samples: list[tuple[float, bool]]) -> None:
    assert calibrate(a=samples).judge("a", 3.0) is None


def test_a_text_that_is_none_of_the_models_targets_has_no_answer() -> None:
    assert calibrate(a=draw(20)).judge("renal pelvis", 3.0) is None


def test_evidence_that_is_no_number_has_no_answer() -> None:
    assert calibrate(a=draw(20)).judge("a", math.nan) is None


def test_folds_are_averaged_in_log_odds() -> None:
    folds = [Curve(slope, offset, 0.001, 0.999, True) for slope, offset in ((1.0, 0.0), (3.0, 1.0))]
    found = Calibration(tuple({"a": curve} for curve in folds)).judge("a", 0.5)
    assert found == pytest.approx(1 / (1 + math.exp(-(0.5 + 2.5) / 2)))


# On disk.


def make_score(**present: bool) -> CaseScore:
    """Make the score of a case in which these targets are annotated."""
    targets = {name: TargetScore(math.nan, math.nan, there, there) for name, there in present.items()}
    return CaseScore("one", "p", (1.0, 1.0, 1.0), targets)


def make_fold(model: Path, fold: int | str = 0, gap: float = 5.0, cases: int = 6, **options: Any) -> str:
    """Calibrate a fold; half of the cases have a spleen, its evidence that much above 0 or below."""
    folder = model / f"fold_{fold}" / "validation"
    folder.mkdir(parents=True)
    means = {1: {"Dice": 0.5}}
    save_summary_json({"metric_per_case": [], "mean": means, "foreground_mean": means[1]}, str(folder / "summary.json"))
    scores = {}
    for number in range(cases):
        write_evidence(folder, f"c{number}", {"spleen": gap if number % 2 else -gap, "liver": gap})
        scores[f"c{number}"] = make_score(spleen=bool(number % 2))
    held_out = options.get("held_out", scores)
    return calibrate_fold(folder, options.get("scores", scores), held_out, ["spleen", "liver"])


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_what_is_calibrated_is_read_back(tmp_path: Path) -> None:
    said = make_fold(tmp_path)
    calibration = read_calibration(tmp_path, [0])
    assert calibration.notes == ()
    present, absent = (calibration.judge("spleen", evidence) for evidence in (5.0, -5.0))
    assert present == pytest.approx(0.8, abs=0.05)
    assert absent == pytest.approx(0.2, abs=0.05)
    assert "on 6 validation case(s), 3 times a target that is present and 3 times one that is absent" in said
    assert "own: spleen." in said


def test_nnunet_reads_its_summary_as_before(tmp_path: Path) -> None:
    make_fold(tmp_path)
    summary = load_summary_json(str(tmp_path / "fold_0/validation/summary.json"))
    assert summary["foreground_mean"] == {"Dice": 0.5}
    assert summary["mean"] == {1: {"Dice": 0.5}}
    assert summary["duplus"]["presence"]["absent"] == 3


def test_single_files_of_evidence_become_one(tmp_path: Path) -> None:
    make_fold(tmp_path)
    assert sorted(file.name for file in (tmp_path / "fold_0/validation").iterdir()) == [EVIDENCE_NAME, "summary.json"]
    assert read(tmp_path / "fold_0" / WRITTEN)["cases"]["c1"] == {"spleen": 5.0, "liver": 5.0}


def test_evidence_is_still_there_when_it_is_gathered_again(tmp_path: Path) -> None:
    write_evidence(tmp_path, "a.b", {"spleen": math.nan, "leber ü": 2.0})
    first = gather_evidence(tmp_path)
    assert first == {"a.b": {"spleen": None, "leber ü": 2.0}}
    assert gather_evidence(tmp_path) == first


def test_damaged_evidence_is_named_and_nothing_is_removed(tmp_path: Path) -> None:
    write_evidence(tmp_path, "a", {"spleen": 2.0})
    (tmp_path / "evidence" / "b.json").write_text('{"spleen": "much"}')
    with pytest.raises(DataError, match=r"b\.json cannot be read as evidence"):
        gather_evidence(tmp_path)
    assert (tmp_path / "evidence" / "a.json").is_file()


def test_targets_that_are_not_annotated_do_not_count(tmp_path: Path) -> None:
    make_fold(tmp_path)
    note = read(tmp_path / "fold_0/validation/summary.json")["duplus"]["presence"]
    assert (note["present"], note["absent"]) == (3, 3)
    assert not note["targets"]["liver"]["own"]


def test_cases_that_were_trained_on_do_not_count(tmp_path: Path) -> None:
    make_fold(tmp_path, held_out={"c0", "c1", "c2"})
    note = read(tmp_path / "fold_0/validation/summary.json")["duplus"]["presence"]
    assert (note["cases"], note["present"], note["absent"]) == (3, 1, 2)


def test_a_fold_that_trained_on_everything_is_not_calibrated(tmp_path: Path) -> None:
    assert "no validation case that was not trained on" in make_fold(tmp_path, "all", held_out=())
    calibration = read_calibration(tmp_path, ["all"])
    assert calibration.judge("spleen", 5.0) is None
    assert calibration.notes[0].startswith("Fold all: The presence of targets is not calibrated")


@pytest.mark.parametrize("there", [True, False])
def test_targets_that_are_in_every_case_or_in_none_are_not_calibrated(tmp_path: Path, there: bool) -> None:
    said = make_fold(tmp_path, scores={f"c{number}": make_score(spleen=there) for number in range(6)})
    assert f"of 6 validation case(s), {6 * there} are present and {6 * (not there)} absent" in said
    assert read_calibration(tmp_path, [0]).judge("spleen", 5.0) is None


def test_two_folds_are_averaged(tmp_path: Path) -> None:
    make_fold(tmp_path, 0, gap=2.0)
    make_fold(tmp_path, 1, gap=8.0)
    calibrations = [read_calibration(tmp_path, folds) for folds in ([0], [1], [0, 1])]
    one, other, both = (calibration.judge("spleen", 1.0) for calibration in calibrations)
    odds = [math.log(found / (1 - found)) for found in (one, other, both) if found is not None]
    assert odds[2] == pytest.approx((odds[0] + odds[1]) / 2)
    assert odds[0] != pytest.approx(odds[1])


def test_a_fold_without_a_validation_is_left_out_and_named(tmp_path: Path) -> None:
    make_fold(tmp_path)
    calibration = read_calibration(tmp_path, [0, 3])
    assert calibration.judge("spleen", 5.0) == read_calibration(tmp_path, [0]).judge("spleen", 5.0)
    assert len(calibration.notes) == 1
    assert calibration.notes[0].startswith("Fold 3: ")
    assert "Run the validation again" in calibration.notes[0]


CURVE = {"slope": 1.0, "offset": 0.0, "least": 0.1, "most": 0.9, "own": True}
DAMAGED = {
    "no json": "{",
    "a list": "[]",
    "ours is no mapping": '{"duplus": 3}',
    "an older model": "{}",
    "another version": '{"duplus": {"presence": {"version": 99}}}',
    "no curves": '{"duplus": {"presence": {"version": 1}}}',
    **{
        f"{name} is {value}": json.dumps(
            {"duplus": {"presence": {"version": 1, "targets": {"spleen": {**CURVE, name: value}}}}}
        )
        for name, value in {"slope": -1.0, "offset": math.nan, "most": 1.0, "least": 0, "more": 1}.items()
    },
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_cannot_be_read_is_a_note_and_no_answer(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fold_0" / "validation" / "summary.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    calibration = read_calibration(tmp_path, [0])
    assert calibration.judge("spleen", 5.0) is None
    assert "summary.json" in calibration.notes[0]
    assert "Run the validation again" in calibration.notes[0]


def test_a_summary_that_cannot_be_read_stays(tmp_path: Path) -> None:
    make_fold(tmp_path)
    file = tmp_path / "fold_0" / "validation" / "summary.json"
    file.write_text("{")
    with pytest.raises(DataError, match=r"summary\.json cannot be read"):
        calibrate_fold(file.parent, {}, (), [])
    assert file.read_text() == "{"


# In a validation.


class Dataset:
    def load_case(self, identifier: str) -> str:
        return identifier


def make_trainer(folder: Path, **changes: Any) -> Any:
    """Make what `bind_each_case` and `score` need of a trainer."""
    plans = make_plans()
    labels = {"background": 0, **{name.title(): value for value, name in enumerate(NAMES, 1)}}
    return SimpleNamespace(
        output_folder=str(folder / "fold_0"),
        preprocessed_dataset_folder_base=str(folder / "preprocessed"),
        bank=PromptBank(plans),
        table=make_table(),
        plans_manager=SimpleNamespace(plans=plans, image_reader_writer_class=SimpleITKIO),
        configuration_manager=ConfigurationManager({"architecture": {}, "spacing": [5.0, 2.0, 2.0]}),
        dataset_json={"labels": labels, "file_ending": ".nii.gz"},
        dataset_class=Dataset,
        bind=lambda context: None,
        **changes,
    )


def predict(trainer: Any, logits: dict[str, torch.Tensor]) -> None:
    """Walk through cases as nnU-Net's validation does."""
    with bind_each_case(trainer):
        dataset = trainer.dataset_class()
        for case, found in logits.items():
            dataset.load_case(case)
            nnUNetPredictor.predict_sliding_window_return_logits(SimpleNamespace(found=found), None)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nnU-Net's predictor return logits that were stored in it."""
    name = "predict_sliding_window_return_logits"
    monkeypatch.setattr(nnUNetPredictor, name, lambda self, image: self.found)


@pytest.mark.usefixtures("stored")
def test_validation_writes_the_evidence_of_each_case_for_the_targets_of_its_context(tmp_path: Path) -> None:
    logits = torch.zeros(3, 4, 4, 4)
    logits[1, 0, 0, :], logits[1, 1, 0, 0] = 5.0, 10.0
    predict(make_trainer(tmp_path), {"a_0": logits, "b_0": logits[:1] - 7})
    assert gather_evidence(tmp_path / "fold_0" / "validation") == {
        "a_0": {"liver": 0.0, "left kidney": 6.0, "right kidney": 0.0},
        "b_0": {"liver": -7.0},
    }


@pytest.mark.usefixtures("stored")
def test_ranks_that_share_the_cases_and_runs_that_come_again_fill_one_file(tmp_path: Path) -> None:
    for case, value in (("a_1", 1.0), ("b_0", 2.0), ("b_0", 3.0)):
        predict(make_trainer(tmp_path), {case: torch.full((1 if case == "b_0" else 3, 4, 4, 4), value)})
    found = gather_evidence(tmp_path / "fold_0" / "validation")
    assert [(case, targets["liver"]) for case, targets in found.items()] == [("a_1", 1.0), ("b_0", 3.0)]


@pytest.mark.usefixtures("stored")
def test_nnunets_predictor_is_its_own_again_after_the_validation(tmp_path: Path) -> None:
    before = nnUNetPredictor.predict_sliding_window_return_logits
    with pytest.raises(ValueError, match="strict"), bind_each_case(make_trainer(tmp_path)):
        raise ValueError("strict")
    assert nnUNetPredictor.predict_sliding_window_return_logits is before


def save(file: Path, *values: int) -> str:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels.flat[: len(values)] = values
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), file)
    return str(file)


def validate(folder: Path, training: list[str]) -> str:
    """Predict and score three cases: all organs, the left kidney annotated alone, no liver."""
    table = make_table()
    table = CaseTable(table.sources, {**table.cases, "trained": Case("A", "p9", NAMES, ())})
    trainer = make_trainer(folder, do_split=lambda: (training, ["a_0", "a_1", "b_0"]))
    trainer.table = table
    truth = {"a_0": (1, 2, 3), "a_1": (2,), "b_0": (), "trained": ()}
    results = [
        compute_metrics(
            save(folder / "preprocessed" / "gt_segmentations" / f"{case}.nii.gz", *values),
            save(folder / "fold_0" / "validation" / f"{case}.nii.gz", *values),
            SimpleITKIO(),
            [1, 2, 3],
        )
        for case, values in truth.items()
    ]
    empty = {label: dict.fromkeys(results[0]["metrics"][1], math.nan) for label in (1, 2, 3)}
    for result in results:
        recursive_fix_for_json_export(result)
    summary = {"metric_per_case": results, "mean": empty, "foreground_mean": empty[1]}
    save_summary_json(summary, str(folder / "fold_0" / "validation" / "summary.json"))
    three = torch.ones(3, 4, 4, 4)
    predict(trainer, {"a_0": 9 * three, "a_1": 9 * three, "b_0": -9 * three[:1], "trained": 9 * three})
    return score(trainer)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duplus_nnunet.trainers.cases.default_num_processes", 1)


@pytest.mark.usefixtures("stored", "one_process")
def test_scoring_calibrates_presence_on_annotated_targets_of_held_out_cases(tmp_path: Path) -> None:
    said = validate(tmp_path, ["trained"])
    assert "on 3 validation case(s), 4 times a target that is present and 1 times one that is absent" in said
    calibration = read_calibration(tmp_path, [0])
    present, absent = (calibration.judge("right kidney", evidence) for evidence in (9.0, -9.0))
    assert present is not None
    assert absent is not None
    assert absent < 0.5 < present


@pytest.mark.usefixtures("stored", "one_process")
def test_scoring_a_fold_that_trained_on_its_validation_calibrates_nothing(tmp_path: Path) -> None:
    assert "not calibrated" in validate(tmp_path, ["a_0", "a_1", "b_0"])
    assert read_calibration(tmp_path, [0]).judge("liver", 9.0) is None


# How large targets are.

SOURCES = {
    "A": Source("Dataset001_A", "ct", ("liver", "kidneys"), ("CT",)),
    "B": Source("Dataset002_B", "mr", ("liver",), ("MR",)),
}
BOTH = ("liver", "kidneys")


def summarise(**cases: Case) -> dict[str, dict[str, dict[str, float]]]:
    volumes = {name: {0: 9000.0, 1: 100.0 + 10 * number, 2: 5.0, 3: 6.0} for number, name in enumerate(cases)}
    return summarise_volumes(CaseTable(SOURCES, cases), volumes, {"liver": {1}, "kidneys": {2, 3}})


def test_volumes_are_those_of_each_context() -> None:
    found = summarise(a=Case("A", "a", BOTH, BOTH), b=Case("B", "b", ("liver",), ("liver",)))
    assert found["ct"]["liver"]["max"] == 100
    assert found["mr"]["liver"]["max"] == 110
    assert "kidneys" not in found["mr"]


def test_a_target_of_several_values_is_as_large_as_all_of_them() -> None:
    assert summarise(a=Case("A", "a", BOTH, BOTH))["ct"]["kidneys"]["p99"] == 11


def test_cases_where_a_target_is_not_annotated_do_not_count() -> None:
    cases = {"a": Case("A", "a", BOTH, BOTH), "b": Case("A", "b", ("kidneys",), ("kidneys",))}
    assert summarise(**cases)["ct"]["liver"] == {"min": 100, "p1": 100, "p99": 100, "max": 100, "cases": 1}


def test_cases_where_a_target_is_absent_do_not_count() -> None:
    table = CaseTable(SOURCES, {"a": Case("A", "a", BOTH, ("liver",))})
    assert list(summarise_volumes(table, {"a": {1: 2.0}}, {"liver": {1}, "kidneys": {2}})["ct"]) == ["liver"]


def test_percentiles_lie_inside_the_extremes() -> None:
    cases = {f"c{number}": Case("A", str(number), BOTH, BOTH) for number in range(11)}
    assert summarise(**cases)["ct"]["liver"] == {"min": 100, "p1": 101, "p99": 199, "max": 200, "cases": 11}


def test_ranges_are_read_from_plans_and_older_plans_have_none() -> None:
    plans = make_plans()
    assert read_volume_ranges(plans, "ct") == {}
    plans["duplus"]["contexts"]["ct"]["volumes"] = summarise(a=Case("A", "a", BOTH, BOTH))["ct"]
    assert read_volume_ranges(plans, "ct")["liver"] == VolumeRange(100, 100, 100, 100, 1)


def test_ranges_that_are_no_numbers_are_named() -> None:
    plans = make_plans()
    plans["duplus"]["contexts"]["ct"]["volumes"] = {"liver": {"min": 1, "p1": 1, "p99": "much", "max": 3, "cases": 1}}
    with pytest.raises(PlansError, match=r"duplus\.contexts\.ct\.volumes\.liver\.p99"):
        read_volume_ranges(plans, "ct")


def survey(raw: Path, case: str) -> Any:
    return survey_case(
        [str(raw / "imagesTr" / f"{case}_0000.nii.gz")], str(raw / "labelsTr" / f"{case}.nii.gz"), SimpleITKIO, 9
    )


def test_a_survey_measures_each_label_in_millilitres(write_raw: Callable[..., Path]) -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[:, 0, 0] = 1
    found = survey(write_raw("Dataset001_A", {"a": labels}), "a")
    voxel = 0.7 * 0.8 * 2.5 / 1000
    assert found.volumes == pytest.approx({0: 116 * voxel, 1: 4 * voxel}, rel=1e-6)


def test_plans_hold_the_ranges_of_their_cases(
    write_raw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_raw(
        "Dataset007_Test", {"a": np.eye(16, dtype=np.uint8)[None].repeat(16, 0), "b": np.zeros((16,) * 3, np.uint8)}
    )
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset007_Test"
    folder.mkdir()
    fingerprint = {
        "spacings": [[2.5, 0.8, 0.7]] * 2,
        "shapes_after_crop": [[16, 16, 16]] * 2,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    monkeypatch.setattr(
        planners, "survey_dataset", lambda dataset, reader: {name: survey(raw, name) for name in dataset}
    )
    plans = planners.DuPLUSPlanner("Dataset007_Test").plan_experiment()
    context = plans["duplus"]["default_context"]
    volume = pytest.approx(256 * 0.7 * 0.8 * 2.5 / 1000, abs=1e-4)
    found = read_volume_ranges(PlansManager(str(folder / "DuPLUSPlans.json")).plans, context)
    assert asdict(found["liver"]) == {"min": volume, "p1": volume, "p99": volume, "max": volume, "cases": 1}
