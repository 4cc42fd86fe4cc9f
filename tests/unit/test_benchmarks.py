"""The benchmark programs: intervals over trainings and patients, training logs, plans of trainings, and their help."""

import importlib
import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if "__main__" in file.read_text(encoding="utf-8"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Give what imports a benchmark by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def intervals(load: Callable[[str], Any]) -> Any:
    return load("intervals")


def make_scores(intervals: Any, table: Any, stratum: str = "", name: str = "") -> list[Any]:
    """Make the scores of one target from a table (trainings, patients)."""
    pairs = product(range(len(table)), range(len(table[0])))
    return [intervals.Score(f"{name}{t}", f"p{p}", "liver", float(table[t][p]), stratum=stratum) for t, p in pairs]


def find_half_width(row: dict[str, Any]) -> float:
    low, high = row["interval_95"]
    return (high - low) / 2


def test_interval_of_one_training_is_that_of_patients(intervals: Any) -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, (1, 200))
    row = intervals.estimate(make_scores(intervals, values))
    assert row["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert find_half_width(row) == pytest.approx(1.96 * values.std() / np.sqrt(200), rel=0.1)
    assert row["interval_over"].startswith("patients only")


def test_two_trainings_that_differ_span_the_interval(intervals: Any) -> None:
    row = intervals.estimate(make_scores(intervals, [[0.2] * 10, [0.8] * 10]))
    assert row["interval_95"] == [0.2, 0.8]
    assert row["mean"] == 0.5


def test_variance_between_trainings_is_unbiased(intervals: Any) -> None:
    trainings = np.array([0.1, 0.5, 0.9])
    draws = intervals.draw_trainings({"": "abc"}, draws=20000)
    means = draws.counts @ trainings / 3
    assert means.var() == pytest.approx(trainings.var(ddof=1) / 3, rel=0.05)


def test_interval_over_both_is_wider_than_over_either(intervals: Any) -> None:
    patients = np.random.default_rng(1).normal(0, 0.1, 30)
    trainings = np.array([0.5, 0.55, 0.6])
    both, one, same = (
        find_half_width(intervals.estimate(make_scores(intervals, table)))
        for table in (trainings[:, None] + patients, patients[None] + 0.5, np.tile(trainings[:, None], 30))
    )
    assert both > max(one, same)


def test_trainings_of_a_stratum_keep_their_share(intervals: Any) -> None:
    draws = intervals.draw_trainings({"0": "abc", "1": "d"}, draws=50)
    assert draws.counts[:, :3].sum(1) == pytest.approx(3)
    assert (draws.counts[:, 3] == 1).all()


def test_training_in_two_strata_is_refused(intervals: Any) -> None:
    with pytest.raises(ValueError, match="stratum"):
        intervals.draw_trainings({"0": "a", "1": "a"})


def test_difference_of_patients_in_pairs_has_no_variance(intervals: Any) -> None:
    values = np.random.default_rng(2).normal(0.5, 0.2, (1, 20))
    first, second = (make_scores(intervals, table) for table in (values + 0.1, values))
    row = intervals.compare(first, second)
    assert (row["mean"], *row["interval_95"]) == pytest.approx((0.1, 0.1, 0.1), abs=1e-4)


def test_trainings_in_pairs_cancel_and_others_do_not(intervals: Any) -> None:
    values = np.array([[0.2] * 5, [0.5] * 5, [0.8] * 5])
    first, second = (make_scores(intervals, table) for table in (values + 0.1, values))
    assert intervals.compare_pairs(first, second)["interval_95"] == pytest.approx([0.1, 0.1])
    assert find_half_width(intervals.compare(first, second)) > 0.2


def test_patients_that_one_side_lacks_are_not_compared(intervals: Any) -> None:
    first, second = make_scores(intervals, [[0.5, 0.5, 0.9]]), make_scores(intervals, [[0.4, 0.4]])
    assert intervals.compare(first, second)["patients"] == 2


def test_sources_count_alike_whatever_their_number_of_patients(intervals: Any) -> None:
    many = [intervals.Score("1", f"a{n}", "liver", 1.0, "CT") for n in range(9)]
    assert intervals.estimate([*many, intervals.Score("1", "b", "liver", 0.0, "MR")])["mean"] == 0.5


def test_no_scores_give_no_mean(intervals: Any) -> None:
    assert intervals.estimate([])["mean"] is None


LOG = """
2026-11-28 18:13:02: Pseudo dice is of: liver (CT); spleen (MR)
2026-11-28 18:13:03: Epoch 0
2026-11-28 18:13:04: Pseudo dice [np.float64(0.6), np.float32(0.0)]
2026-11-28 18:13:05: Epoch 1
2026-11-28 18:13:06: Pseudo dice [0.7, nan]
2026-11-28 18:13:07: Epoch 1
2026-11-28 18:13:08: Pseudo dice [np.float64(0.55), np.float64(0.8)]
"""


def test_log_is_read_by_target_and_a_repeated_epoch_counts_once(load: Callable[[str], Any]) -> None:
    online = load("training_logs").parse_log(LOG)
    assert online.names == ("liver (CT)", "spleen (MR)")
    assert online.rows == ((0.6, 0.0), (0.55, 0.8))


def test_start_is_the_end_of_the_first_epoch_above_the_threshold(load: Callable[[str], Any]) -> None:
    online = load("training_logs").parse_log(LOG)
    assert online.find_start(0.5, 50) == 100
    assert online.find_start(0.7, 50) == -1
    assert online.list_starts(0.5, 50) == {"liver (CT)": 50, "spleen (MR)": 100}


def test_log_without_names_numbers_its_targets(load: Callable[[str], Any]) -> None:
    logs = load("training_logs")
    assert logs.parse_log("Epoch 0\nPseudo dice [0.1, 0.2]").names == ("1", "2")
    assert logs.parse_log("").find_start(0.5, 50) == -1


def test_target_without_voxels_has_not_started(load: Callable[[str], Any]) -> None:
    assert load("training_logs").parse_log("Epoch 0\nPseudo dice [0.9, np.float64(nan)]").find_start(0.5, 50) == -1


def test_logs_are_joined_in_the_order_of_their_dates(load: Callable[[str], Any], tmp_path: Path) -> None:
    for name, value in (("2026_9_30_01_00_00", 0.1), ("2026_10_1_01_00_00", 0.9)):
        (tmp_path / f"training_log_{name}.txt").write_text(f"Epoch 0 \nPseudo dice [{value}]\n")
    assert load("training_logs").read_fold(tmp_path).rows == ((0.9,),)


@pytest.mark.parametrize(
    ("starts", "median", "never"), [([50, 100, 400], 100, 0), ([50, -1, -1], -1, 2), ([50, 150], 100, 0)]
)
def test_starts_are_summarised(load: Callable[[str], Any], starts: list[int], median: int, never: int) -> None:
    row = load("training_logs").summarise(starts)
    assert (row["median"], row["never"]) == (median, never)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_what_can_be_run(name: str, load: Callable[[str], Any], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        load(name).main()
    assert end.value.code == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


@pytest.fixture
def make_job(load: Callable[[str], Any], tmp_path: Path) -> Callable[..., Any]:
    """Give what makes a job of a line of Python, for which one minute is expected."""

    def make(name: str, code: str, needs: tuple[str, ...] = (), **options: Any) -> Any:
        (tmp_path / f"{name}.py").write_text(code)
        options = {"minutes": 1.0, "kind": "short", **options}
        return load("job_queue").Job(name, (str(tmp_path / f"{name}.py"),), needs=needs, **options)

    return make


@pytest.fixture
def run_jobs(load: Callable[[str], Any], tmp_path: Path) -> Callable[..., Any]:
    """Give what runs jobs in a folder, and returns the queue."""

    def run(*jobs: Any, minutes: float | None = None, in_parts: bool = False) -> Any:
        queue = load("job_queue").JobQueue(tmp_path / "folder", jobs, 2, minutes, in_parts)
        queue.run()
        return queue

    return run


def read_result(folder: Path, name: str) -> Any:
    return json.loads((folder / "folder" / "results" / f"{name}.json").read_text())["result"]


def test_jobs_are_run_in_order_and_once(make_job: Any, run_jobs: Any, tmp_path: Path) -> None:
    first = make_job("first", "open('made', 'a').write('x')")
    second = make_job("second", "import json; print(json.dumps(open('made').read()))", needs=("first",))
    for _ in range(2):
        run_jobs(second, first)
    assert read_result(tmp_path, "second") == "x"
    assert (tmp_path / "folder" / "made").read_text() == "x"


def test_failed_job_holds_back_those_that_need_it(make_job: Any, run_jobs: Any) -> None:
    jobs = [make_job("bad", "raise SystemExit(3)"), make_job("next", "", needs=("bad",)), make_job("other", "")]
    queue = run_jobs(*jobs)
    assert list(queue.failed) == ["bad"]
    assert [queue.is_done(job) for job in jobs] == [False, False, True]


def test_job_that_does_not_fit_is_not_started(make_job: Any, run_jobs: Any, tmp_path: Path) -> None:
    long, short = make_job("long", "", minutes=5.0, kind="long"), make_job("short", "")
    queue = run_jobs(long, short, minutes=2.0)
    assert [queue.is_done(long), queue.is_done(short)] == [False, True]
    assert not (tmp_path / "folder" / "logs" / "long.log").exists()


def test_measured_minutes_replace_the_expected_ones(make_job: Any, run_jobs: Any) -> None:
    queue = run_jobs(make_job("first", ""))
    assert queue.estimate(make_job("second", "", minutes=5.0)) < 1
    assert queue.estimate(make_job("third", "", minutes=5.0, kind="other")) == 5


def test_training_in_parts_is_ended_at_the_limit_and_lacks_less(make_job: Any, run_jobs: Any) -> None:
    job = make_job("training", "import time; time.sleep(600)", minutes=9.0, resumable=True)
    queue = run_jobs(job, minutes=0.01, in_parts=True)
    assert queue.interrupted == {"training"}
    assert 8 < queue.estimate(job) < 9


def test_lines_of_json_become_a_list(make_job: Any, run_jobs: Any, tmp_path: Path) -> None:
    run_jobs(make_job("lines", "print('{\"a\": 1}'); print('{\"a\": 2}')"))
    assert read_result(tmp_path, "lines") == [{"a": 1}, {"a": 2}]


def test_long_versions_are_named_apart_and_need_what_is_there(load: Callable[[str], Any], tmp_path: Path) -> None:
    long = load("long")
    jobs = {job.name: job for part in long.PARTS.values() for job in part.list_jobs(long.Plan(tmp_path, (1, 2)))}
    assert len({job.words for job in jobs.values()}) == len(jobs)
    assert {name for job in jobs.values() for name in job.needs} <= set(jobs)


def test_part_without_its_datasets_is_left_out(load: Callable[[str], Any], tmp_path: Path) -> None:
    long = load("long")
    jobs, left_out = long.list_jobs(long.Plan(tmp_path, (1,)), ["conditioning", "parity"], tmp_path)
    assert [job.name for job in jobs] == ["conditioning"]
    assert len(left_out) == 1


def test_only_the_cost_of_conditioning_is_measured_alone(load: Callable[[str], Any], tmp_path: Path) -> None:
    long = load("long")
    alone = [job for part in long.PARTS.values() for job in part.list_jobs(long.Plan(tmp_path, (1,))) if job.alone]
    assert [job.name for job in alone] == ["conditioning"]


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_log(fold: Path, *rows: list[float]) -> None:
    fold.mkdir(parents=True, exist_ok=True)
    lines = [f"Epoch {number} \nPseudo dice {row}\n" for number, row in enumerate(rows)]
    (fold / "training_log_2026_1_1_00_00_00.txt").write_text("".join(lines))


PLANNED = {"patch_size": [8, 8, 8], "batch_size": 9, "architecture": {"arch_kwargs": {"n_stages": 2}}}


@pytest.fixture
def dataset(raw: Path) -> Path:
    """Make Dataset004 with plans of both planners, which differ in size; what comes back is nnUNet_results."""
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    write_json(raw / "Dataset004_Hippocampus" / "dataset.json", {"labels": labels})
    folder = raw.parent / "nnUNet_preprocessed" / "Dataset004_Hippocampus"
    write_json(folder / "nnUNetPlans.json", {"configurations": {"3d_fullres": PLANNED}})
    own = {**PLANNED, "patch_size": [4, 4, 4], "batch_size": 2}
    section = {"settings": {"initial_learning_rate": 0.01, "network": {"film": True, "film_hidden": 8}}}
    write_json(folder / "DuPLUSPlans.json", {"configurations": {"3d_fullres": own}, "duplus": section})
    return raw.parent / "nnUNet_results"


def test_trainings_of_the_parity_study_have_equal_sizes(load: Callable[[str], Any], dataset: Path) -> None:
    parity = load("parity")
    size = parity.Size(4, 10, 50, 5, 3)
    ours, stock = (parity.make_plans(parity.Run(kind, 0, 7, size)) for kind in ("ours", "stock_adamw"))
    assert ours["configurations"] == stock["configurations"]
    assert (ours["duplus"]["settings"]["seed"], ours["duplus"]["settings"]["optimizer"]) == (7, "adamw")
    assert ours["duplus"]["settings"]["initial_learning_rate"] is None
    assert (stock["benchmark"]["seed"], stock["benchmark"]["optimizer"], stock["benchmark"]["iterations"]) == (
        7,
        "adamw",
        50,
    )


def write_parity(run: Any, dice: list[float]) -> None:
    """Write what a parity training leaves: two held-out cases, and a log of two epochs."""
    cases = [
        {"reference_file": f"labels/case_{n}.nii.gz", "metrics": {"1": {"Dice": value}, "2": {"Dice": float("nan")}}}
        for n, value in enumerate(dice)
    ]
    write_json(run.find_summary(False), {"metric_per_case": cases})
    write_log(run.folder, [0.4, 0.6], [0.6, 0.6])


def test_parity_is_reported_with_its_worst_run(load: Callable[[str], Any], dataset: Path) -> None:
    parity = load("parity")
    size = parity.Size(4, 10, 50, 5, 2)
    runs = [parity.Run(kind, 0, seed, size) for kind in ("ours", "stock") for seed in (1, 2)]
    for run, dice in zip(runs, ([0.9, 0.9], [0.7, 0.7], [0.6, 0.6]), strict=False):
        write_parity(run, dice)
    result = parity.report(runs, "stock", False)
    ours = result["trainings"]["ours"]
    assert (ours["dice"]["mean"], ours["worst_run"]["run"]) == (0.8, "fold 0, seed 2")
    assert (ours["difference"]["mean"], ours["starts"]["median"]) == (0.2, 100)
    assert result["missing"] == ["stock, fold 0, seed 2"]


def test_model_trained_with_other_plans_is_not_continued(load: Callable[[str], Any], dataset: Path) -> None:
    running = load("running")
    running.write_plans(4, "own", {"batch_size": 2})
    running.write_plans(4, "own", {"batch_size": 3})
    write_json(running.find_model(4, "Trainer", "own") / "fold_0" / "checkpoint_latest.pth", None)
    running.write_plans(4, "own", {"batch_size": 3})
    with pytest.raises(SystemExit, match="own"):
        running.write_plans(4, "own", {"batch_size": 4})


def write_universal(raw: Path) -> None:
    """Write the table of the composed dataset: hippocampus and head and neck."""
    write_json(raw / "Dataset050_HeadNeckCT" / "dataset.json", {"labels": {"background": 0, "cord": 1}})
    sources = {"Hippocampus": {"dataset": "Dataset004_Hippocampus"}, "HeadNeckCT": {"dataset": "Dataset050_HeadNeckCT"}}
    write_json(raw / "Dataset501_Universal" / "duplus_cases.json", {"sources": sources})


def test_one_model_is_reported_beside_specialists(load: Callable[[str], Any], dataset: Path, raw: Path) -> None:
    universal = load("universal")
    write_universal(raw)
    runs = [universal.Run("universal", 1, 100, False), universal.Run("universal", 2, 100, False)]
    runs += [universal.Run("stock", 1, 50, False)]
    for run, dice in zip(runs, (0.8, 0.6, 0.5), strict=True):
        rows = [
            ("a", "Hippocampus", "anterior", dice),
            ("b", "HeadNeckCT", "cord", 0.1),
            ("c", "HeadNeckCT", "cord", None),
        ]
        cases = {p: {"source": s, "patient": p, "targets": {t: {"dice": d}}} for p, s, t, d in rows}
        write_json(raw.parent / "out" / run.plans / "scores.json", {"cases": cases})
        for number, model in run.models.items() if run.is_ours else ():
            write_log(model / "fold_0", [0.6 * number / 501])
    table = universal.report_difference(
        *(
            [score for run in group for score in universal.read_scores(run, raw.parent / "out")]
            for group in (runs[:2], runs[2:])
        )
    )
    assert {name: row["mean"] for name, row in table.items()} == {
        "all": 0.1,
        "without head and neck": 0.2,
        "Hippocampus": 0.2,
        "HeadNeckCT": 0.0,
    }
    assert table["Hippocampus"]["interval_over"].startswith("patients, and trainings")
    assert universal.report_starts(runs[0]) == {"Dataset501_Universal": {"1": 100}}


def test_iterations_that_are_no_whole_epochs_are_refused(load: Callable[[str], Any], monkeypatch: Any) -> None:
    universal = load("universal")
    monkeypatch.setattr(sys, "argv", ["universal.py", "train", "universal", "--iterations", "1550"])
    with pytest.raises(SystemExit, match="1550"):
        universal.list_runs(universal.read_arguments())


def test_choices_of_learning_are_compared_by_seed(load: Callable[[str], Any], raw: Path) -> None:
    learning = load("learning")
    (raw / "Dataset902_PhantomMR").mkdir()
    for variant, gain in (("adamw", 0.0), ("sgd", -0.1)):
        for seed in (1, 2):
            fold = learning.find_fold("bodies", variant, seed)
            cases = {
                f"c{n}": {"source": "MR", "patient": f"p{n}", "targets": {"liver": {"dice": 0.5 + 0.1 * seed + gain}}}
                for n in (1, 2)
            }
            write_json(fold / "validation" / "scores.json", {"cases": cases})
            write_log(fold, [0.6], [0.8])
    result = learning.report("bodies", learning.list_trained("bodies"), [1, 2, 3], "adamw")
    sgd = result["variants"]["sgd"]
    assert sgd["difference"]["interval_95"] == pytest.approx([-0.1, -0.1])
    assert (sgd["dice"]["mean"], sgd["worst"]["seed"], sgd["difference"]["trainings"]) == (0.55, 1, [2])
    assert {name: row["median"] for name, row in sgd["starts"].items()} == {"0.5": 50, "0.7": 100}
    assert result["missing"] == ["adamw, seed 3", "sgd, seed 3"]


@pytest.fixture
def trainers(load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the trainers of the benchmarks."""
    monkeypatch.syspath_prepend(str(FOLDER / "trainers"))
    return load("short_trainers")


def test_stock_trainer_reads_what_the_plans_say(load: Callable[[str], Any], dataset: Path, trainers: Any) -> None:
    parity, universal = load("parity"), load("universal")
    first = parity.make_plans(parity.Run("stock", 0, 7, parity.Size(4, 10, 50, 5, 3)))["benchmark"]
    second = universal.make_plans(universal.Run("stock_adamw", 8, 1000, True), 4)["benchmark"]
    assert trainers.Choice(**first) == trainers.Choice(7, "sgd", 10, 50, 5)
    assert trainers.Choice(**second) == trainers.Choice(8, "adamw", 20, 50, 5)


@pytest.mark.parametrize(("mirrored", "axes", "folder"), [("0", None, ""), ("1", (0, 1), "mirrored")])
def test_held_out_cases_are_mirrored_on_request(
    trainers: Any, tmp_path: Path, monkeypatch: Any, mirrored: str, axes: Any, folder: str
) -> None:
    trainer = SimpleNamespace(output_folder=str(tmp_path), inference_allowed_mirroring_axes=(0, 1))
    seen: list[Any] = []
    monkeypatch.setenv(trainers.MIRRORED, mirrored)
    trainers.validate(trainer, lambda: seen.append((trainer.output_folder, trainer.inference_allowed_mirroring_axes)))
    assert seen == [(str(tmp_path / folder), axes)]
    assert trainer.output_folder == str(tmp_path)
