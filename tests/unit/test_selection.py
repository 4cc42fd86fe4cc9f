"""Options of the prediction commands."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.inference.selection import Selection, _find_model_folder, get_selection, wrap_entry_point


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], Selection]]:
    """Run a wrapped command with arguments; return what nnU-Net's parser sees and what is selected meanwhile."""
    seen: list[tuple[list[str], Selection]] = []

    def run(*arguments: str) -> tuple[list[str], Selection]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        wrap_entry_point(lambda: seen.append((sys.argv[1:], get_selection())), "folder")()
        return seen[-1]

    return run


def test_our_options_are_taken_out(call: Callable[..., tuple[list[str], Selection]]) -> None:
    rest, selection = call("-m", "M", "--targets", "spleen", "left kidney", "-i", "IN", "--context", "amos_ct")
    assert rest == ["-m", "M", "-i", "IN"]
    assert selection == Selection(("spleen", "left kidney"), "amos_ct")


def test_nnunets_abbreviation_of_continue_prediction_is_not_ours(
    call: Callable[..., tuple[list[str], Selection]],
) -> None:
    rest, selection = call("-m", "M", "--c")
    assert rest == ["-m", "M", "--c"]
    assert not selection


def test_device_is_not_taken_for_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs to know the model"):
        _find_model_folder(["-device", "cpu", "-c", "3d_fullres"])
    assert _find_model_folder(["-device", "cpu", "-m", str(tmp_path)]) == tmp_path


def test_nothing_is_selected_outside_of_a_command(call: Callable[..., tuple[list[str], Selection]]) -> None:
    call("-m", "M", "--targets", "spleen")
    assert not get_selection()


def test_variables_select_too_and_options_win(
    call: Callable[..., tuple[list[str], Selection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPLUS_TARGETS", "spleen, left kidney")
    monkeypatch.setenv("DUPLUS_CONTEXT", "ct")
    assert call("-m", "M")[1] == Selection(("spleen", "left kidney"), "ct")
    assert call("-m", "M", "--targets", "liver")[1] == Selection(("liver",), "ct")


def test_an_output_folder_that_is_a_file_is_refused(
    call: Callable[..., tuple[list[str], Selection]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("out") / "file"
    file.write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        call("-m", "M", "-o", str(file))
