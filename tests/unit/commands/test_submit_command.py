"""`duplus submit` checks, shows, sends and follows trainings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet import cli
from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table
from duplus_nnunet.errors import DataError
from duplus_nnunet.submission import experiments
from duplus_nnunet.submission.progress import TaskState, write_state
from duplus_nnunet.submission.record import name_state_file, read_record
from duplus_nnunet.submission.resources import Resources

pytest.importorskip("submitit")
# To find a trainer, nnU-Net imports all that it has.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")

DATASET = "Dataset007_Test"
SETTINGS = {"epochs": 5}
PLANS: dict[str, Any] = {
    "plans_name": "DuPLUSPlans",
    "configurations": {"3d_fullres": {"data_identifier": "data", "batch_size": 2}},
    "duplus": {"version": 1, "settings": SETTINGS},
}


@pytest.fixture(autouse=True)
def folder(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preprocessed dataset of one case, and an empty working directory."""
    made = tmp_path / "nnUNet_preprocessed" / DATASET
    for name in ("data/a.pkl", "gt_segmentations/a.nii.gz"):
        (made / name).parent.mkdir(parents=True)
        (made / name).touch()
    (made / "DuPLUSPlans.json").write_text(json.dumps(PLANS))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what would be given to the scheduler."""
    orders: list[Any] = []

    def send(given: Any, resources: Resources, folder: Path) -> list[str]:
        orders.extend(given)
        return [f"1_{number}" for number in range(len(given))]

    monkeypatch.setattr(experiments, "send", send)
    return orders


def list_commands(text: str) -> list[str]:
    return [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("task ")]


def test_a_dry_run_shows_script_and_commands_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    words = ["submit", "folds", "7", "--folds", "0", "2", "--dry-run", "--partition", "gpu", "--", "--npz"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    common = f"nnUNetv2_train {DATASET} 3d_fullres {{}} -tr DuPLUSTrainer -p DuPLUSPlans --npz --c"
    assert list_commands(text) == [common.format(0), common.format(2)]
    assert "#SBATCH --partition=gpu" in text
    assert list(Path().iterdir()) == []


def test_variants_and_seeds_are_combined_and_their_plans_written(
    capsys: pytest.CaptureFixture[str], folder: Path, sent: list[Any]
) -> None:
    words = ["submit", "ablations", "7", "--variant", "full", "--variant", "short", "epochs=2", "network.film=false"]
    words += ["--seeds", "1", "2", "--executor", "local", "--gpus", "0"]
    assert cli.main([*words, "--dry-run"]) == 0
    names = [f"DuPLUSPlans_{variant}_seed{seed}" for variant in ("full", "short") for seed in (1, 2)]
    plans = [command.split()[command.split().index("-p") + 1] for command in list_commands(capsys.readouterr().out)]
    assert plans == names
    assert not sent
    assert sorted(file.stem for file in folder.glob("*.json")) == ["DuPLUSPlans"]
    assert cli.main(words) == 0
    assert sorted(file.stem for file in folder.glob("*.json")) == sorted(["DuPLUSPlans", *names])
    settings = json.loads((folder / f"{names[3]}.json").read_text())["duplus"]["settings"]
    assert settings == {"epochs": 2, "network": {"film": False}, "seed": 2}
    record = read_record(Path("duplus_jobs/ablations_7/jobs.json"))
    assert [task.epochs for task in record.tasks] == [5, 5, 2, 2]
    assert [task.job for task in record.tasks] == ["1_0", "1_1", "1_2", "1_3"]
    assert {"duplus-nnunet", "nnunetv2", "torch"} <= set(record.versions)


def test_a_wrong_variant_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], folder: Path, sent: list[Any]
) -> None:
    words = ["submit", "ablations", "7", "--variant", "good", "epochs=2", "--variant", "bad", "epoch=2"]
    assert cli.main([*words, "--executor", "local", "--gpus", "0"]) == 1
    assert "epochs" in capsys.readouterr().err
    assert not sent
    assert sorted(file.stem for file in folder.glob("*.json")) == ["DuPLUSPlans"]


@pytest.mark.parametrize(
    "words",
    [
        ["folds", "8"],
        ["folds", "7", "--folds", "5"],
        ["folds", "7", "-p", "OtherPlans"],
        ["folds", "7", "-tr", "DuPLUSTrainr"],
        ["folds", "7", "-c", "2d"],
        ["folds", "7", "--gpus", "4"],
        ["folds", "7", "--", "--val"],
        ["folds", "7", "--time", "soon"],
        ["folds", "7", "--executor", "local", "--partition", "gpu"],
        ["sources", "7"],
        ["seeds", "7", "--seeds", "-1"],
        ["ablations", "7", "--variant", "a", "--variant", "a"],
    ],
)
def test_what_cannot_run_is_refused(words: list[str], sent: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", *words]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not sent


def test_what_is_trained_is_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "nnUNet_results" / DATASET / "DuPLUSTrainer__DuPLUSPlans__3d_fullres" / "fold_0"
    (output / "validation").mkdir(parents=True)
    for name in ("checkpoint_final.pth", "validation/summary.json"):
        (output / name).touch()
    assert cli.main(["submit", "folds", "7", "--folds", "0", "1", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "trained already, and left out: Dataset007_Test DuPLUSPlans fold 0" in text
    assert len(list_commands(text)) == 1


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(SystemExit):
        cli.main(["submit", "folds", "7", "--dry-rum"])


def test_a_second_record_does_not_replace_the_first(sent: list[Any]) -> None:
    for _ in range(2):
        assert cli.main(["submit", "folds", "7", "--executor", "local", "--gpus", "0"]) == 0
    assert sorted(path.name for path in Path("duplus_jobs").iterdir()) == ["folds_7", "folds_7_2"]


def test_the_state_of_each_training_is_shown(capsys: pytest.CaptureFixture[str], sent: list[Any]) -> None:
    assert cli.main(["submit", "folds", "7", "--executor", "local", "--gpus", "0", "--folds", "0", "1", "2"]) == 0
    capsys.readouterr()
    folder = Path("duplus_jobs/folds_7").absolute()
    for number, state in enumerate(("running", "failed")):
        write_state(name_state_file(folder, number), TaskState(state, "node1", 1, "2026-01-01T00:00:00+00:00"))
    output = Path(sent[0].output)
    output.mkdir(parents=True)
    (output / "training_log_x.txt").write_text("Epoch 0\nEpoch 3\n")
    (folder / "1_1_0_log.out").write_text("CUDA out of memory\n")
    assert cli.main(["submit", "status", str(folder), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["running", "failed", "waiting"]
    assert (rows[0]["epoch"], rows[0]["epochs"]) == (3, 5)
    assert rows[1]["end"] == ["CUDA out of memory"]
    assert cli.main(["submit", "status", str(folder / "jobs.json")]) == 1
    text = capsys.readouterr().out
    assert "3/5" in text
    assert "CUDA out of memory" in text


def test_a_file_that_is_no_record_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["submit", "status", str(tmp_path / "none.json")]) == 1
    (tmp_path / "other.json").write_text('{"version": 1, "kind": 3}')
    assert cli.main(["submit", "status", str(tmp_path / "other.json")]) == 1
    assert "jobs.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("resources", "devices", "slots"),
    [
        (Resources("local", gpus=1), 4, 4),
        (Resources("local", gpus=2), 5, 2),
        (Resources("local", gpus=1, parallel=3), 4, 3),
        (Resources("local", gpus=0, parallel=2), 0, 2),
        (Resources("local", gpus=1), 0, 1),
    ],
)
def test_as_many_train_at_once_as_have_gpus(resources: Resources, devices: int, slots: int) -> None:
    assert experiments.count_slots(resources, devices) == slots


def test_where_gpus_are_missing_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, folder: Path, sent: list[Any]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cli.main(["submit", "seeds", "7", "--seeds", "1", "--executor", "local", "--gpus", "2"]) == 1
    assert list(Path().iterdir()) == []
    assert sorted(file.stem for file in folder.glob("*.json")) == ["DuPLUSPlans"]


@pytest.mark.parametrize(("gpus", "parallel", "devices"), [(2, 0, 1), (1, 5, 4), (2, 0, 0)])
def test_more_gpus_than_there_are_is_refused(gpus: int, parallel: int, devices: int) -> None:
    with pytest.raises(DataError, match="--gpus"):
        experiments.count_slots(Resources("local", gpus=gpus, parallel=parallel), devices)


def test_each_source_of_a_composed_dataset_is_trained(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    composed = folder.with_name("Dataset009_All")
    composed.mkdir()
    shutil.copytree(folder, folder.with_name("Dataset008_Other"))
    names = {"ct": DATASET, "mr": "Dataset008_Other"}
    sources = {name: Source(dataset, name, ("liver",), ("CT",)) for name, dataset in names.items()}
    write_case_table(CaseTable(sources, {"a": Case("ct", "a", ("liver",), ())}), composed)
    assert cli.main(["submit", "sources", "9", "--dry-run"]) == 0
    trained = [command.split()[1] for command in list_commands(capsys.readouterr().out)]
    assert trained == [DATASET, "Dataset008_Other"]
