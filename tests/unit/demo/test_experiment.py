"""The steps of the demonstration: the commands, their options and their inputs."""

import json
from pathlib import Path

import pytest

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.demo import experiment as steps
from duplus_nnunet.demo.experiment import DemoOptions, Experiment
from duplus_nnunet.demo.workspace import Workspace
from duplus_nnunet.errors import HostError


class Recorder:
    """Takes commands down instead of running them."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def run(self, *words: str) -> float:
        self.calls.append(list(words))
        return 0.0

    def run_in_few_processes(self, calls: list[list[str]]) -> None:
        self.calls.extend(list(words) for words in calls)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    options = DemoOptions(5, 2, seed=7, epochs=3, iterations=4, targets=("liver",), device="cpu")
    return Experiment(options, Workspace(tmp_path), Recorder())


def read_calls(experiment: Experiment) -> list[list[str]]:
    return experiment.commands.calls


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_unseen_images_are_gathered_with_a_table_of_their_contexts(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_images(raw: Path, _: int, test_cases: int, __: int) -> None:
        for case in steps.list_cases(test_cases):
            file = raw / case.source.dataset / "imagesTs" / f"{case.name}_0000.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    monkeypatch.setattr(steps, "write_phantom_sources", write_images)
    experiment.write_data()
    work = experiment.workspace
    assert len(list(work.images.iterdir())) == 6
    assert sorted(path.name[:11] for path in work.one_body.iterdir()) == ["ct_test_000", "mr_test_000", "pet_test_00"]
    lines = work.contexts.read_text().splitlines()
    assert lines[0] == "case,context"
    assert "mr_test_001,phantom_mr" in lines


def test_datasets_are_composed_by_the_command(experiment: Experiment) -> None:
    experiment.compose()
    assert read_calls(experiment) == [["duplus", "compose", "-o", "999", "-n", "Phantom", "901", "902", "903"]]


def test_plans_are_changed_for_a_short_run(experiment: Experiment) -> None:
    plans = {
        "duplus": {
            "settings": {"epochs": 1000},
            "sources": {name: {"weight": 2.0} for name in ("PhantomCT", "PhantomMR", "PhantomPET")},
        },
        "configurations": {"3d_fullres": {"architecture": {"arch_kwargs": {"features_per_stage": [32, 64]}}}},
    }
    experiment.workspace.plans.parent.mkdir(parents=True)
    experiment.workspace.plans.write_text(json.dumps(plans))
    experiment.plan()
    changed = json.loads(experiment.workspace.plans.read_text())
    assert changed["duplus"]["settings"]["epochs"] == 3
    assert changed["duplus"]["settings"]["iterations_per_epoch"] == 4
    assert changed["duplus"]["settings"]["seed"] == experiment.options.seed
    assert changed["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32]
    assert {name: source["weight"] for name, source in changed["duplus"]["sources"].items()} == {
        "PhantomCT": 2.0, "PhantomMR": 2.5, "PhantomPET": 2.0,
    }  # fmt: skip


@pytest.fixture
def predictions(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The words of each prediction, by the name of its output folder."""
    monkeypatch.setattr(steps, "copy_model", lambda *_: None)
    experiment.predict()
    return {Path(after(words, "-o")).name: words for words in read_calls(experiment)}


def find(predictions: dict[str, list[str]], experiment: Experiment, selection: str) -> list[str]:
    return predictions[experiment.workspace.predictions(selection).name]


def test_one_call_predicts_all_contrasts_by_the_table(
    experiment: Experiment, predictions: dict[str, list[str]]
) -> None:
    words = find(predictions, experiment, steps.ALL)
    assert after(words, "--context") == str(experiment.workspace.contexts)
    assert "--targets" not in words


def test_targets_of_the_picture_are_asked_for_one_by_one(
    experiment: Experiment, predictions: dict[str, list[str]]
) -> None:
    words = find(predictions, experiment, "liver")
    assert words[words.index("--targets") + 1 :] == ["liver"]
    assert after(words, "-i") == str(experiment.workspace.one_body)


def test_transfer_asks_for_every_target(experiment: Experiment, predictions: dict[str, list[str]]) -> None:
    words = find(predictions, experiment, steps.TRANSFER)
    assert words[words.index("--targets") + 1 :] == list(LABELS)


def test_each_control_uses_its_own_copy_of_the_model(experiment: Experiment, predictions: dict[str, list[str]]) -> None:
    work = experiment.workspace
    names = [
        "context prompts exchanged",
        "target prompts exchanged CT",
        "target prompts exchanged MR",
        "target prompts exchanged PET",
    ]
    controls = [find(predictions, experiment, name) for name in names]
    assert [after(words, "-m") for words in controls] == [str(work.control_model(name)) for name in names]
    assert [Path(after(words, "-i")).parent.name for words in controls[1:]] == [
        source.dataset for source in steps.PHANTOM_SOURCES
    ]
    assert all(after(words, "--context") == str(work.contexts) for words in predictions.values())


def test_a_failed_command_ends_the_demonstration(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str) -> float:
        raise HostError("exit code 1")

    monkeypatch.setattr(experiment.commands, "run", fail)
    with pytest.raises(HostError, match="exit code 1"):
        experiment.train()


def test_the_report_is_on_the_trained_model(experiment: Experiment) -> None:
    experiment.write_report()
    [words] = read_calls(experiment)
    assert words[:3] == ["duplus", "report", str(experiment.workspace.model)]
    assert after(words, "-o") == str(experiment.workspace.report)
