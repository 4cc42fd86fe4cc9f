"""`duplus demo`: options are checked before anything is written, and the exit code depends on the criteria."""

from pathlib import Path

import pytest

from duplus_nnunet import cli
from duplus_nnunet.commands import demo
from duplus_nnunet.demo.scores import Criterion


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--targets", "livver"], "'livver'. Did you mean 'liver'?"),
        (["--training-cases", "4"], "--training-cases is 4; expected 5 or more."),
        (["--epochs", "0"], "--epochs is 0; expected 1 or more."),
    ],
)
def test_bad_words_end_with_a_message_and_write_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--folder", str(tmp_path / "demo"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_folder_with_other_files_ends_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").touch()
    assert cli.main(["demo", "--folder", str(tmp_path), "--device", "cpu"]) == 1
    assert f"{tmp_path} " in (error := capsys.readouterr().err)
    assert "--folder" in error


@pytest.mark.parametrize(("value", "code"), [(0.9, 0), (0.7, 1)])
def test_exit_code_says_whether_every_criterion_is_met(
    value: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_run_experiment", lambda *_: [Criterion("dice", value, 0.8, at_least=True)])
    assert cli.main(["demo", "--folder", str(tmp_path / "demo"), "--device", "cpu"]) == code


@pytest.mark.parametrize(("words", "kept"), [([], False), (["--keep"], True)])
def test_nnunets_folders_stay_only_when_asked_for(
    words: list[str], kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_a_model(experiment: object, _: object) -> list[Criterion]:
        experiment.workspace.model.mkdir(parents=True)
        return []

    monkeypatch.setattr(demo, "_run_experiment", leave_a_model)
    cli.main(["demo", "--folder", str(tmp_path / "demo"), "--device", "cpu", *words])
    assert (tmp_path / "demo" / "nnUNet_results").exists() == kept


def test_a_kept_model_can_be_tried_by_the_words_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_run_experiment", lambda *_: [])
    cli.main(["demo", "--folder", str(tmp_path / "demo"), "--device", "cpu", "--keep"])
    out = capsys.readouterr().out
    assert f'nnUNet_results="{tmp_path / "demo" / "nnUNet_results"}"' in out
    assert f'-d 999 -c 3d_fullres -f 0 -tr DuPLUSTrainer -p DuPLUSPlans --context "{tmp_path}/demo/contexts.csv"' in out


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--help"])
    assert caught.value.code == 0
    assert "examples:\n  duplus demo" in capsys.readouterr().out
