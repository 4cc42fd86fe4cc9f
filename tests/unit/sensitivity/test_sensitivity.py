"""Sensitivity of predictions to the wording of prompts."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.cli import main
from duplus_nnunet.commands.prompts_sensitivity import describe_report, to_json
from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.prompt_bank import PromptBank, encode_vector
from duplus_nnunet.sensitivity.study import (
    SensitivityReport,
    _plan_rounds,
    _predict,
    _summarise,
    compute_dice,
    find_folds,
)
from duplus_nnunet.sensitivity.wordings import Score, TargetScores, Wording, list_wordings, plan_passes

from ..inference.test_rivals import make_image, make_model

CT = "computed tomography"
T2 = {"liver": f"A {CT} of liver", "spleen": f"A {CT} of spleen"}
PROMPTS = {"liver": [T2["liver"], f"liver in {CT}", f"A {CT} of hepar"], "spleen": [T2["spleen"]]}
T1 = [f"A {CT} of abdomen", f"abdomen in {CT}"]


@pytest.fixture
def plans() -> dict[str, Any]:
    texts = [*T1, *PROMPTS, *(text for wordings in PROMPTS.values() for text in wordings)]
    vectors = {text: np.eye(len(texts), dtype=np.float32)[row] for row, text in enumerate(texts)}
    section = {
        "version": 1,
        "default_context": "ct",
        "contexts": {"ct": {"modality": CT, "sentences": T1, "target_prompts": PROMPTS}},
        "targets": [
            {"name": "liver", "label": "liver", "synonyms": ["hepar"]},
            {"name": "spleen", "label": "spleen", "synonyms": []},
        ],
        "embeddings": {text: encode_vector(vector) for text, vector in vectors.items()},
        "centres": {
            kind: {"centre": encode_vector(np.zeros(len(texts))), "scale": 1.0}
            for kind in ("context", "sentence", "name")
        },
    }
    return {"plans_name": "Test", "duplus": section}


@pytest.fixture
def bank(plans: dict[str, Any]) -> PromptBank:
    return PromptBank(plans)


def score(kind: Any, dice: float, target: str = "liver", **by_case: float) -> Score:
    text = f"{kind} {target} {dice}"
    return Score(Wording(target, kind, text, text), by_case or {"a": dice})


def test_every_wording_of_a_target_is_listed_by_kind(bank: PromptBank) -> None:
    wordings = [(wording.kind, wording.text) for wording in list_wordings(bank, "ct", ["liver"], with_contexts=False)]
    assert wordings == list(zip(("target prompt", "paraphrase", "synonym"), PROMPTS["liver"], strict=True))


def test_paraphrases_of_the_context_prompt_come_with_each_default_target_prompt(bank: PromptBank) -> None:
    wordings = list_wordings(bank, "ct", ["liver", "spleen"], with_contexts=True)[4:]
    assert [(wording.kind, wording.text, wording.target_prompt) for wording in wordings] == [
        ("context paraphrase", T1[1], T2[name]) for name in ("liver", "spleen")
    ]


@pytest.mark.parametrize(("most", "sizes"), [(100, [4, 2]), (3, [3, 1, 2]), (0, [1] * 6)])
def test_a_pass_holds_one_context_prompt_and_no_more_maps_than_memory_has_room_for(
    bank: PromptBank, most: int, sizes: list[int]
) -> None:
    wordings = list_wordings(bank, "ct", bank.names, with_contexts=True)
    passes = list(plan_passes(wordings, most))
    assert [len(chosen) for chosen in passes] == sizes
    assert all(len({wording.context_prompt for wording in chosen}) == 1 for chosen in passes)
    assert [wording for chosen in passes for wording in chosen] == wordings


def test_dice_of_masks() -> None:
    mask, truth = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 1], dtype=bool)
    assert compute_dice(mask, truth) == pytest.approx(0.4)
    assert compute_dice(truth, truth) == 1
    assert compute_dice(~truth, truth) == 0


def test_an_absent_target_has_no_dice() -> None:
    assert math.isnan(compute_dice(np.ones(3, dtype=bool), np.zeros(3, dtype=bool)))


def test_cases_without_the_target_do_not_count() -> None:
    assert score("target prompt", 0, a=0.4, b=math.nan, c=0.8).dice == pytest.approx(0.6)
    assert math.isnan(score("target prompt", 0, a=math.nan).dice)


def test_spread_and_worst_wording() -> None:
    scores = TargetScores("liver", 1, (score("target prompt", 0.9), score("paraphrase", 0.5), score("synonym", 0.95)))
    assert scores.spread == pytest.approx(0.45)
    assert scores.worst.wording.kind == "paraphrase"
    assert math.isnan(TargetScores("liver", 1, (score("target prompt", math.nan),)).spread)


def test_available_folds_are_averaged(tmp_path: Path) -> None:
    for fold in ("1", "0", "all"):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "c.pth").write_bytes(b"")
    assert find_folds(str(tmp_path), "c.pth") == ("0", "1")
    with pytest.raises(ModelError, match=r"d\.pth.*\bc\.pth"):
        find_folds(str(tmp_path), "d.pth")


def test_fold_all_is_taken_where_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "fold_all").mkdir()
    (tmp_path / "fold_all" / "c.pth").write_bytes(b"")
    assert find_folds(str(tmp_path), "c.pth") == ("all",)


def test_all_wordings_of_a_pass_are_bound_at_once(bank: PromptBank) -> None:
    bound: list[Any] = []

    def predict(data: torch.Tensor, prompts: Any, _: Any) -> torch.Tensor:
        bound.append(prompts)
        return torch.zeros(prompts.count, *data.shape[1:])

    model: Any = SimpleNamespace(bank=bank, predictor=SimpleNamespace(predict_logits=predict))
    wordings = list_wordings(bank, "ct", bank.names, with_contexts=False)
    assert _predict(model, torch.zeros(1, 2, 2, 2), wordings).shape == (4, 2, 2, 2)
    assert bound[0].targets.shape[0] == 4


@pytest.mark.parametrize("folds", [1, 2])
def test_wordings_that_do_not_fit_together_share_a_pass_of_the_network(folds: int) -> None:
    model, image, calls = make_model(folds=folds), make_image()[0], list[int]()
    model.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    texts = [(name, f"CT of {name}") for name in model.bank.names] * 10
    wordings = [Wording(name, "paraphrase", "CT of the body", text) for name, text in texts]
    each = 4 * image[0].numel() + 12 * 8**3
    prompts = model.bank.compose("CT of the body", [(wording.target_prompt, wording.target) for wording in wordings])
    limit = model.predictor.measure_calls(image.shape[1:], prompts) + 5 * each
    (planned,) = _plan_rounds(model, image.shape[1:], wordings, limit, (8, 8, 8))
    assert [len(group) for group in planned.groups] == [5] * 12
    with torch.inference_mode():
        expected = model.predictor.predict_logits(image, prompts)
        windows = len(calls)
        maps = KeptMaps(planned.kept, uses_file=False)
        found = [_predict(model, image, group, maps) for group in planned.groups]
    assert len(calls) == 2 * windows
    assert torch.equal(torch.cat(found), expected)


def test_wordings_that_fit_together_keep_nothing() -> None:
    model = make_model()
    wordings = [Wording(name, "target prompt", "CT of the body", f"CT of {name}") for name in model.bank.names]
    (planned,) = _plan_rounds(model, make_image()[0].shape[1:], wordings, 1 << 30, (8, 8, 8))
    assert planned.groups == [wordings]
    assert planned.kept == 0


@pytest.fixture
def report(bank: PromptBank) -> SensitivityReport:
    wordings = list_wordings(bank, "ct", bank.names, with_contexts=True)
    dice = (0.9, 0.5, 0.7, math.nan, 0.8, math.nan)
    scores = [Score(wording, {"a": value}) for wording, value in zip(wordings, dice, strict=True)]
    return _summarise(bank, "ct", bank.names, scores, {"liver": 1, "spleen": 2})


def test_wordings_of_context_and_target_prompts_are_reported_apart(report: SensitivityReport) -> None:
    assert [score.wording.kind for score in report.targets[0].scores] == ["target prompt", "paraphrase", "synonym"]
    assert [score.wording.text for score in report.contexts[0].scores] == T1


def test_the_text_names_spread_worst_wording_and_what_is_absent(report: SensitivityReport) -> None:
    lines = list(describe_report(report))
    assert f"  liver (label value 1): spread 0.400, worst 0.500 by 'liver in {CT}'" in lines
    assert ["0.900", "target", "prompt", *T2["liver"].split()] in [line.split() for line in lines]
    assert "  spleen (label value 2): not in the label map" in lines
    assert any(re.match(r"wordings of target .*1 of 2 target.*0\.400", line) for line in lines)
    assert any(re.match(r"wordings of the context .*1 of 2 target.*0\.100", line) for line in lines)


def test_json_holds_everything_and_no_nan(report: SensitivityReport) -> None:
    content = json.loads(json.dumps(to_json(report), allow_nan=False))
    liver, spleen = content["targets"]
    assert (liver["spread"], liver["worst"]) == (0.4, f"liver in {CT}")
    assert liver["wordings"][2] == {"text": f"A {CT} of hepar", "kind": "synonym", "dice": 0.7, "by_case": {"a": 0.7}}
    assert spleen["spread"] is None
    assert spleen["wordings"][0]["dice"] is None


ARGUMENTS = ("prompts", "sensitivity", "-i", "image", "-l", "label")


def test_a_folder_that_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "-m", str(tmp_path)]) == 1
    assert "plans.json" in capsys.readouterr().err


def test_a_stock_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plans.json").write_text('{"plans_name": "nnUNetPlans"}')
    assert main([*ARGUMENTS, "-m", str(tmp_path)]) == 1
    assert "DuPLUSTrainer" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "report.json", tmp_path):
        assert main([*ARGUMENTS, "-m", "none", "--json", str(path)]) == 1
        error = capsys.readouterr().err
        assert str(path.parent if path.name == "report.json" else path) in error
        assert "--json" in error


def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*ARGUMENTS, "-m", "none", "-device", "cuda"]) == 1
    error = capsys.readouterr().err
    assert "'cuda'" in error
    assert "cpu" in error


@pytest.mark.parametrize("option", [("-step_size", "0"), ("-step_size", "2"), ("--memory", "0"), ("--memory", "much")])
def test_numbers_out_of_range_are_refused(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*ARGUMENTS, "-m", "none", *option])
    assert caught.value.code == 2
