"""Options of the prediction commands."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError, HostError, ModelError
from duplus_nnunet.inference.entry import _find_model_folder, wrap_entry_point
from duplus_nnunet.inference.host import HostPredictor
from duplus_nnunet.inference.model_folder import describe_targets
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.prompt_bank import encode_vector

SEEN: list[tuple[list[str], Selection]] = []
# Stands in for the name in nnU-Net's module; its command finds another class under it.
nnUNetPredictor = None


def predict_entry_point() -> None:
    """Stand in for nnU-Net's command, which makes its predictor."""
    predictor = nnUNetPredictor(device=torch.device("cpu"))  # type: ignore[misc]
    SEEN.append((sys.argv[1:], predictor.selection))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], Selection]]:
    """Run a wrapped command with arguments; return what nnU-Net's parser sees and what its predictor is to select."""

    def run(*arguments: str) -> tuple[list[str], Selection]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        wrap_entry_point(predict_entry_point)()
        return SEEN[-1]

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
    with pytest.raises(ModelError, match="-m"):
        _find_model_folder(["-device", "cpu", "-c", "3d_fullres"])
    assert _find_model_folder(["-device", "cpu", "-m", str(tmp_path)]) == tmp_path


def test_nothing_stays_selected_after_a_command(call: Callable[..., tuple[list[str], Selection]]) -> None:
    call("-m", "M", "--targets", "spleen")
    assert nnUNetPredictor is None
    assert not HostPredictor.selection
    assert not HostPredictor.was_used


def test_a_command_that_makes_no_predictor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        """Stand in for a command of another nnU-Net."""

    monkeypatch.setattr(sys, "argv", ["command", "-m", "M", "--targets", "spleen"])
    with pytest.raises(HostError, match="command"):
        wrap_entry_point(command)()


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
    with pytest.raises(DataError, match=r"file.* -o"):
        call("-m", "M", "-o", str(file))


def test_free_texts_and_the_encoders_place_are_taken_out(call: Callable[..., tuple[list[str], Selection]]) -> None:
    rest, selection = call("-m", "M", "--prompt", "a ureter", "the renal pelvis", "-i", "IN", "--encoder", "E")
    assert rest == ["-m", "M", "-i", "IN"]
    assert selection == Selection(prompts=("a ureter", "the renal pelvis"), encoder="E")
    assert selection


def test_an_option_cut_short_is_not_ours(call: Callable[..., tuple[list[str], Selection]]) -> None:
    rest, selection = call("-m", "M", "--prom", "a ureter")
    assert rest == ["-m", "M", "--prom", "a ureter"]
    assert not selection


def test_free_texts_of_the_variable_may_hold_commas(
    call: Callable[..., tuple[list[str], Selection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPLUS_PROMPT", "ureter, left; renal pelvis;")
    assert call("-m", "M")[1].prompts == ("ureter, left", "renal pelvis")
    assert call("-m", "M", "--prompt", "ureter")[1].prompts == ("ureter",)


def test_targets_are_listed_by_context_with_what_else_they_go_by(tmp_path: Path) -> None:
    texts = ["T1 of CT", "T1 of MR", "liver", "left kidney"]
    centre = {"centre": encode_vector(np.zeros(2)), "scale": 1.0}
    section = {
        "version": 1,
        "default_context": "mr",
        "contexts": {
            "ct": {"sentences": texts[:1], "target_prompts": {"liver": ["liver"], "left kidney": ["left kidney"]}},
            "mr": {"sentences": texts[1:2], "target_prompts": {"left kidney": ["left kidney"]}},
        },
        "targets": [
            {"name": "liver", "label": "Liver", "synonyms": ["hepar"]},
            {"name": "left kidney", "label": "LK", "synonyms": []},
        ],
        "embeddings": {text: encode_vector(np.ones(2)) for text in texts},
        "centres": dict.fromkeys(("context", "sentence", "name"), centre),
    }
    (tmp_path / "plans.json").write_text(json.dumps({"duplus": section}))
    assert describe_targets(tmp_path).splitlines() == [
        "2 context(s) for --context, 2 target(s) for --targets, in any case.",
        "",
        "context ct",
        "  context prompt: T1 of CT",
        "  2 target(s):",
        "    liver        also: hepar",
        "    left kidney  also: LK",
        "",
        "context mr (default)",
        "  context prompt: T1 of MR",
        "  1 target(s):",
        "    left kidney  also: LK",
    ]
