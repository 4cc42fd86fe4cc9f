"""Plans, trainers and reports of the benchmarks."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


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


def test_results_of_other_machines_are_added(load: Callable[[str], Any], dataset: Path, tmp_path: Path) -> None:
    parity = load("parity")
    size, file = parity.Size(4, 10, 50, 5, 2), tmp_path / "kept.json"
    runs = [parity.Run(kind, 0, seed, size) for kind in ("ours", "stock") for seed in (1, 2)]
    for run, dice in zip(runs, ([0.9, 0.8], [0.7, 0.7], [0.6, 0.6], [0.5, 0.6]), strict=True):
        write_parity(run, dice)
    whole = parity.report(runs, "stock", False)
    for run in runs:  # each as if it were trained on a machine of its own
        parity.keep(file, size, False, {run.name: parity.read_result(run, False)})
        run.find_summary(False).unlink()
    assert parity.report(runs, "stock", False, file) == whole
    with pytest.raises(SystemExit, match="20"):
        parity.keep(file, parity.Size(4, 20, 50, 5, 2), False, {})


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
    kept, out = raw.parent / "kept.json", raw.parent / "out"
    first = universal.report(runs[:2], out, kept)
    shutil.rmtree(out)
    assert universal.report(runs[:2], out, kept) == first
    assert universal.report(runs[:2], out)["missing"] == [run.plans for run in runs[:2]]
    assert list(first["models"]["universal"]["starts"]) == [run.plans for run in runs[:2]]
    with pytest.raises(SystemExit, match="planned"):
        universal.report([universal.Run("universal", 1, 100, True)], out, kept)


@pytest.mark.parametrize(("name", "weight", "share"), [("universal", 16.7, "present"), ("by_cases", 6.325, "present"),
    ("annotated", 16.7, "annotated"), ("by_cases_annotated", 6.325, "annotated")])  # fmt: skip
def test_sources_are_drawn_by_their_cases_alone_where_the_model_says_so(
    load: Callable[[str], Any], monkeypatch: Any, name: str, weight: float, share: str
) -> None:
    universal = load("universal")
    section = {
        "sources": {"HeadNeckCT": {"cases": 40, "weight": 16.7}},
        "settings": {"loss": {"dice_share": "present", "reduction": "mean"}},
    }
    monkeypatch.setattr(universal.running, "read_plans", lambda *_: {"duplus": section})
    plans = universal.make_plans(universal.Run(name, 1, 5000, True), 501)["duplus"]
    assert plans["sources"]["HeadNeckCT"]["weight"] == weight
    assert plans["settings"]["loss"] == {"dice_share": share, "reduction": "mean"}
    assert plans["settings"]["epochs"] == 50


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
    third = universal.make_plans(universal.Run("stock_unmirrored", 8, 1000, True), 4)["benchmark"]
    assert trainers.Choice(**third) == trainers.Choice(8, "sgd", 20, 50, 5, mirror=False)


@pytest.mark.parametrize(("mirror", "axes"), [(True, (0, 1, 2)), (False, None)])
def test_stock_trainer_mirrors_unless_the_plans_say_not_to(trainers: Any, mirror: bool, axes: Any) -> None:
    trainer = object.__new__(trainers.StockTrainer)
    trainer.choice = trainers.Choice(mirror=mirror)
    trainer.configuration_manager = SimpleNamespace(patch_size=[24, 32, 32])
    trainer.print_to_log_file = lambda *_: None
    found = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert found[-1] == trainer.inference_allowed_mirroring_axes == axes
    assert len(found) == 4


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


def write_transfer(model: Path, annotated: float, never: float, lacking: dict[str, tuple[str, ...]]) -> None:
    """Write what a scored model of the transfer study leaves: two bodies in two contrasts."""
    settings = {"epochs": 8, "iterations_per_epoch": 50}
    write_json(model / "plans.json", {"duplus": {"settings": settings}})
    lines = [
        f"{contrast},{body},{target},{(never if target in lacking[contrast] else annotated) + body / 10}"
        for contrast in ("CT", "MR")
        for body in (0, 1)
        for target in ("liver", "spleen")
    ]
    file = model / "prediction_plain" / "dice.csv"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(["contrast,body,target,dice", *lines]) + "\n")


def test_transfer_is_reported_over_trainings_and_bodies(
    load: Callable[[str], Any], raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = load("transfer")
    (raw / "Dataset919_TransferPhantoms").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    scores = {("names", 1): (0.8, 0.5), ("names", 2): (0.8, 0.3), ("one_hot", 1): (0.7, 0.1)}
    for (variant, seed), values in scores.items():
        write_transfer(transfer.find_model("phantoms", variant, seed), *values, transfer.LACKING)
    result = transfer.report("phantoms", ["names", "one_hot"], [1, 2], "plain", tmp_path / "kept.json")
    assert result["missing"] == ["one_hot-plain-2"]
    assert (result["names"]["never annotated"]["mean"], result["names"]["annotated"]["mean"]) == (0.45, 0.85)
    assert result["names"]["never annotated"]["interval_over"] == "trainings and patients"
    assert list(result["names"]["never annotated"]["pairs"]) == ["CT: liver", "MR: spleen"]
    assert result["names"]["iterations"] == [400]
    difference = result["one_hot"]["difference"]["never annotated"]
    assert (difference["mean"], difference["trainings"], difference["patients"]) == (0.3, [2, 1], 2)
    shutil.rmtree(tmp_path / "results")
    assert transfer.report("phantoms", ["names", "one_hot"], [1, 2], "plain", tmp_path / "kept.json") == result


def test_transfer_of_real_images_is_reported_over_trainings_and_patients(
    load: Callable[[str], Any], raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = load("transfer")
    (raw / "Dataset918_TransferSarcoma").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    for seed, never in ((1, 0.5), (2, 0.3)):
        model = transfer.find_model("sarcoma", "names", seed)
        write_json(model / "plans.json", {"duplus": {"settings": {"epochs": 12, "iterations_per_epoch": 50}}})
        dice = {"SarcomaCT": 0.8, "SarcomaMR": never, "SarcomaPET": 0.9}
        rows = [f"{source},P{n},sarcoma,{value + n / 10}" for source, value in dice.items() for n in range(2)]
        (model / "prediction_plain").mkdir()
        (model / "prediction_plain" / "dice.csv").write_text("\n".join(["contrast,body,target,dice", *rows]) + "\n")
    result = transfer.report("sarcoma", ["names"], [1, 2], "plain", None)
    assert (result["names"]["never annotated"]["mean"], result["names"]["annotated"]["mean"]) == (0.45, 0.9)
    assert list(result["names"]["never annotated"]["pairs"]) == ["SarcomaMR: sarcoma"]
    assert result["names"]["iterations"] == [600]
