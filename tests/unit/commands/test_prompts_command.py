"""`duplus prompts`: output and exit codes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.prompt_registry.checking import check_raw_dataset
from duplus_nnunet.prompt_registry.finding import shipped_files
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

LABELS = {"background": 0, "kidney_left": 1, "kidney_right": 2, "liver": 3}


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a raw dataset without images, and a place of its own for all that is written."""
    folder = tmp_path / "raw" / "Dataset501_Demo"
    folder.mkdir(parents=True)
    write_json(folder, {"channel_names": {"0": "CT"}, "labels": LABELS})
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("DUPLUS_EMBEDDINGS", str(tmp_path / "stores"))
    monkeypatch.delenv("DUPLUS_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def write_json(folder: Path, content: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def duplus(*words: str) -> int:
    return main(["prompts", *words])


@pytest.mark.parametrize("name", ["501", "Dataset501_Demo", "Demo", "demo"])
def test_a_dataset_goes_by_number_and_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("where", name) == 0
    assert "Dataset501_Demo: 3 targets, drafted from" in capsys.readouterr().out


def test_a_dataset_goes_by_its_folder(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert duplus("where", str(raw)) == 0


def test_an_unknown_dataset_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("where", "502") == 1
    error = capsys.readouterr().err
    assert "'502'" in error
    assert "'Dataset501_Demo'" in error


def test_without_nnunet_raw_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert duplus("where", "501") == 1
    assert "nnUNet_raw is not set" in capsys.readouterr().err


def test_two_datasets_of_a_name_are_distinguished(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw.parent / "Dataset502_Demo").mkdir()
    write_json(raw.parent / "Dataset502_Demo", {"labels": LABELS})
    assert duplus("where", "Demo") == 1
    assert "'Dataset501_Demo', 'Dataset502_Demo'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [("{", "JSON"), ("[]", "found a list")])
def test_a_broken_dataset_json(raw: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "dataset.json").write_text(text, encoding="utf-8")
    assert duplus("draft", "501") == 1
    assert said in capsys.readouterr().err


def test_draft_writes_a_file_and_says_what_to_review(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("draft", "501") == 0
    out = capsys.readouterr().out
    assert (raw / "prompts.yaml").is_file()
    assert "prompts.yaml:11: region: body  # review: which part of the body?" in out
    assert "duplus prompts check 501" in out


def test_what_draft_wrote_checks_clean_and_wins(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("draft", "501") == 0
    assert duplus("check", "501") == 0
    assert duplus("where", "501") == 0
    assert "prompts.yaml: used." in capsys.readouterr().out


def test_draft_never_replaces_a_file_unasked(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "prompts.yaml").write_text("mine", encoding="utf-8")
    assert duplus("draft", "501") == 1
    assert "prompts.yaml exists" in capsys.readouterr().err
    assert (raw / "prompts.yaml").read_text(encoding="utf-8") == "mine"
    assert duplus("draft", "501", "--force") == 0
    assert (raw / "prompts.yaml").read_text(encoding="utf-8") != "mine"


def test_draft_can_print_or_write_elsewhere(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("draft", "501", "--stdout") == 0
    printed = capsys.readouterr().out
    assert duplus("draft", "501", "--output", str(tmp_path / "own.yaml")) == 0
    assert (tmp_path / "own.yaml").read_text(encoding="utf-8") == printed
    assert not (raw / "prompts.yaml").exists()


def test_draft_into_a_folder_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("draft", "501", "--output", "none/own.yaml") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_draft_of_a_dataset_without_foreground(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(raw, {"labels": {"background": 0}})
    assert duplus("draft", "501") == 1
    assert "no foreground label" in capsys.readouterr().err


def test_all_shipped_files_check_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("check") == 0
    assert f"{len(shipped_files())} files: no problems." in capsys.readouterr().out


def test_check_includes_the_users_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("[]", encoding="utf-8")
    monkeypatch.setenv("DUPLUS_REGISTRY", str(tmp_path))
    assert duplus("check") == 1
    assert "mine.yaml:1: Expected a mapping" in capsys.readouterr().out


def test_check_reports_all_problems_at_once(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("draft", "501") == 0
    path = raw / "prompts.yaml"
    text = (
        path.read_text(encoding="utf-8").replace("computed tomography", "CT").replace("synonyms: []", "synonyms: no", 1)
    )
    path.write_text(text, encoding="utf-8")
    capsys.readouterr()
    for what in ("501", str(path)):
        assert duplus("check", what) == 1
        out = capsys.readouterr().out
        assert "prompts.yaml:10: contexts -> demo_ct -> modality: unknown modality 'CT'" in out
        assert "synonyms" in out
        assert "2 problems." in out


def test_check_of_a_file_compares_it_with_the_dataset_beside_it(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("draft", "501") == 0
    write_json(raw, {"channel_names": {"0": "CT"}, "labels": {**LABELS, "spleen": 4}})
    assert duplus("check", str(raw / "prompts.yaml")) == 1
    assert "no target for the label 'spleen'" in capsys.readouterr().out


def test_check_of_a_file_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("check", "none.yaml") == 1
    assert "none.yaml:1: Cannot read this file" in capsys.readouterr().out


def test_check_says_whether_an_encoder_will_be_needed(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("check", "501") == 0
    assert "planning needs no text encoder" in capsys.readouterr().out
    write_json(raw, {"channel_names": {"0": "CT"}, "labels": {"background": 0, "unheard of": 1}})
    assert duplus("check", "501") == 0
    assert "planning needs an encoder" in capsys.readouterr().out


def test_show_and_check_list_the_targets_that_images_cannot_show(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contexts = "{head: {modality: microscopy, region: head}, leg: {modality: microscopy, region: leg}}"
    text = f"dataset: D\ncontexts: {contexts}\ntargets: {{odd gyrus: {{labels: [a], regions: [head]}}}}\n"
    (raw / "prompts.yaml").write_text(text, encoding="utf-8")
    write_json(raw, {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}})
    for words in (("check", "501"), ("show", "501"), ("show", str(raw / "prompts.yaml"))):
        assert duplus(*words) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "cannot show" in line]
        assert "'leg'" in line
        assert "odd gyrus" in line


def test_list_counts_datasets_contexts_and_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("list") == 0
    assert f"{len(shipped_files())} datasets, " in capsys.readouterr().out


def test_list_shows_the_codes_of_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("list", "--codes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "left kidney: SCT 64033007 (Kidney), left" in lines
    assert "kidney with masses" in lines[-1]
    assert duplus("list", "--codes", "--json") == 0
    codes = json.loads(capsys.readouterr().out)
    assert codes["left kidney"]["modifier"] == ["SCT", "7771000", "Left"]
    assert codes["kidney with masses"] is None


def test_list_as_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("list", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["counts"]["datasets"] == len(summary["datasets"]) >= 12
    assert summary["counts"]["distinct_targets"] >= 100
    btcv = next(dataset for dataset in summary["datasets"] if dataset["dataset"] == "BTCV")
    assert btcv["contexts"]["btcv_ct"]["prompt"] == "A computed tomography of abdomen"
    spleen = {"name": "spleen", "synonyms": ["lien"], "partner": None, "missing": "absent", "regions": []} | {
        "tolerance_mm": None
    }
    assert spleen in btcv["targets"]


def test_show_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("show", "BTCV") == 0
    out = capsys.readouterr().out
    assert "'A computed tomography of abdomen'" in out
    assert re.search(r"spleen: .*'A computed tomography of spleen'", out)
    assert re.search(r"right kidney: .*: left kidney", out)
    assert "segment the spleen" not in out


def test_show_every_wording_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("show", "BTCV", "--paraphrases") == 0
    assert "segment the spleen in computed tomography" in capsys.readouterr().out


def test_show_a_raw_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("show", "501") == 0
    out = capsys.readouterr().out
    assert re.search(r"left kidney: .*'A computed tomography of left kidney'; label 'kidney_left'", out)


def test_show_a_file(raw: Path) -> None:
    assert duplus("draft", "501") == 0
    assert duplus("show", str(raw / "prompts.yaml")) == 0


def test_show_where_a_target_occurs(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("show", "spleen") == 0
    out = capsys.readouterr().out
    assert "btcv.yaml:" in out
    assert "context amos_mr" in out


def test_show_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("show", "spleeen") == 1
    assert re.search(r"'spleeen'.*: 'spleen'", capsys.readouterr().err)


def test_similar_prints_a_table_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("similar", "BTCV", "--png", "out/btcv.png") == 0
    out = capsys.readouterr().out
    assert "13  left adrenal gland" in out
    assert "No pairs at or above 0.97." in out
    assert (tmp_path / "out" / "btcv.png").read_bytes().startswith(b"\x89PNG")


def test_similar_names_the_pairs_that_are_too_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("similar", "BTCV", "--threshold", "0.9") == 0
    assert "'right adrenal gland' and 'left adrenal gland'" in capsys.readouterr().out


def test_similar_draws_a_long_list_without_printing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("similar", "TotalSegmentator MR") == 0
    out = capsys.readouterr().out
    assert "60 targets" in out
    assert "Wrote similar_TotalSegmentator_MR.png." in out


def test_similar_of_an_unknown_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("similar", "BTCW") == 1
    assert "'BTCW'. Did you mean 'BTCV'?" in capsys.readouterr().err


def test_where_lists_where_files_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUPLUS_REGISTRY", str(tmp_path))
    assert duplus("where") == 0
    out = capsys.readouterr().out
    assert f"2. folders of DUPLUS_REGISTRY: {tmp_path}" in out
    assert re.search(r"4\. .*dataset\.json", out)


class FakeEncoder:
    """Stands in for an encoder: a text's vector is made of its length."""

    def __init__(self, name: str | None, pooling: str | None, trusted: bool) -> None:
        self.identity = EncoderIdentity(str(name), pooling or "mean", "a" * 64, 2)

    def encode(self, texts: list[str]) -> Any:
        return np.array([[len(text), 1.0] for text in texts])


def test_embed_fills_a_store_with_a_datasets_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("duplus_nnunet.prompt_registry.encoder.TextEncoder", FakeEncoder)
    assert duplus("embed", "--encoder", "mine", "--pooling", "cls", "501") == 0
    assert duplus("embed", "--encoder", "mine", "--pooling", "cls", "501") == 0
    out = capsys.readouterr().out
    assert len(list((tmp_path / "stores").glob("mine.cls.*.npz"))) == 1
    assert re.search(r"\b0 texts .*\b27\b", out)
    assert "encoder mine, pooling cls, dimension 2" in out


def test_embed_takes_the_whole_registry_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("duplus_nnunet.prompt_registry.encoder.TextEncoder", FakeEncoder)
    assert duplus("embed", "--encoder", "mine", "--output", "here") == 0
    added = int(capsys.readouterr().out.split(": ")[1].split()[0])
    assert added > 2000


def test_embed_trusts_only_the_encoder_that_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert duplus("embed", "--encoder", "mine", "--trust-remote-code", "other", "501") == 1
    assert "--trust-remote-code names 'other', but the encoder is 'mine'." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["draft", "check", "list", "show", "similar", "embed", "where", "sensitivity"])
def test_every_sub_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        duplus(command, "--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert re.search(rf"examples?:\n  duplus prompts {command}", out)


TWO_CONTEXTS = """\
dataset: Demo
contexts:
  demo_ct: {modality: computed tomography, region: abdomen, channel: CT scan, ids: [1-5]}
  demo_mr: {modality: magnetic resonance imaging, region: abdomen, channel: MR scan, ids: [6-9]}
targets:
  left kidney: {labels: [kidney_left]}
  right kidney: {labels: [kidney_right]}
  liver:
"""


def write_cases(folder: Path, *names: str) -> None:
    (folder / "imagesTr").mkdir()
    for name in names:
        (folder / "imagesTr" / f"{name}_0000.nii.gz").touch()
    write_json(folder, {"channel_names": {"0": "image"}, "labels": LABELS, "file_ending": ".nii.gz"})
    (folder / "prompts.yaml").write_text(TWO_CONTEXTS)


def test_check_counts_the_cases_of_each_context(raw: Path) -> None:
    write_cases(raw, "a_1", "a_7", "a_8")
    assert any("demo_ct 1, demo_mr 2" in note for note in check_raw_dataset(open_raw_dataset("501")).notes)


def test_check_refuses_a_case_of_no_context(raw: Path) -> None:
    write_cases(raw, "a_1", "a_17")
    (problem,) = check_raw_dataset(open_raw_dataset("501")).problems
    assert "'a_17'" in problem


def test_labels_that_are_numbers_are_refused_and_marked_in_a_draft(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(raw, {"channel_names": {"0": "CT"}, "labels": {"background": 0, "1": 1, "2": 2}})
    assert duplus("check", "501") == 1
    output = capsys.readouterr()
    assert "'2'" in output.out + output.err
    assert duplus("draft", "501") == 0
    text = (raw / "prompts.yaml").read_text()
    assert duplus("check", "501") == 1
    named = text.replace('"1":', 'liver: {labels: ["1"]}').replace('"2":', 'spleen: {labels: ["2"]}')
    (raw / "prompts.yaml").write_text(named.replace("    synonyms: []\n", ""))
    assert duplus("check", "501") == 0
