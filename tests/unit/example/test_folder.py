"""What `duplus example` writes, and what it refuses to overwrite."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.example import folder as example
from duplus_nnunet.example.folder import MODEL_FILE, hash_model, read_record, require_free, write_example
from duplus_nnunet.example.sources import TARGETS
from duplus_nnunet.reporting.volumes import read_label_map

CONTEXTS = {"ct": "phantom_ct", "mr": "phantom_mr", "pet": "phantom_pet"}
LARGEST = 2_000_000  # bytes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("example")
    write_example(path)
    return path


def test_checksum_of_the_shipped_model_is_that_of_the_record() -> None:
    assert hash_model() == read_record().sha256


def test_shipped_files_are_small() -> None:
    assert sum(file.stat().st_size for file in MODEL_FILE.parent.iterdir()) <= LARGEST


def test_recorded_scores_are_good_in_all_contexts() -> None:
    dice = read_record().dice
    assert set(dice) == set(CONTEXTS.values())
    for scores in dice.values():
        assert set(scores) == set(TARGETS)
        assert np.mean(list(scores.values())) >= 0.9
        assert min(scores.values()) >= 0.8


def test_a_wrong_context_prompt_costs_dice() -> None:
    record = read_record()
    for context, scores in record.wrong_context.items():
        assert np.mean(list(scores.values())) < np.mean(list(record.dice[context].values())) - 0.1


def test_folder_has_images_labels_contexts_and_a_model(written: Path) -> None:
    names = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    assert names == {
        "contexts.json", "example.json", "model/plans.json", "model/dataset.json", "model/dataset_fingerprint.json",
        "model/fold_0/checkpoint_final.pth",
        *(f"images/{case}_0000.nii.gz" for case in CONTEXTS),
        *(f"labels/{case}.nii.gz" for case in CONTEXTS),
    }  # fmt: skip
    assert json.loads((written / "contexts.json").read_text()) == CONTEXTS


@pytest.mark.parametrize("case", CONTEXTS)
def test_labels_have_the_values_of_the_model(case: str, written: Path) -> None:
    declared = json.loads((written / "model" / "dataset.json").read_text())["labels"]
    assert {name: value for name, value in declared.items() if value} == {n: declared[n] for n in TARGETS}
    assert set(np.unique(read_label_map(written / "labels" / f"{case}.nii.gz"))) == {0, *range(1, len(TARGETS) + 1)}


def test_command_prints_commands_with_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my example"
    assert cli.main(["example", "-o", str(folder)]) == 0
    output = capsys.readouterr().out
    assert f"'{folder}'/model" in output
    assert "--targets liver" in output


def test_an_earlier_example_is_written_again(written: Path) -> None:
    (written / "contexts.json").unlink()
    write_example(written)
    assert (written / "contexts.json").is_file()


def test_a_folder_with_other_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    assert cli.main(["example", "-o", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwrite_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text")
    write_example(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "text"
    assert (tmp_path / "model" / "plans.json").is_file()


def test_an_example_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(DataError, match="--overwrite"):
        require_free(tmp_path, read_record(), overwrite=False)


def test_a_file_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"):
        require_free(tmp_path / "file", read_record(), overwrite=True)


def test_a_changed_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = replace(read_record(), sha256="0" * 64)
    monkeypatch.setattr(example, "read_record", lambda: record)
    with pytest.raises(ValueError, match="checksum"):
        write_example(tmp_path / "new")
    assert not (tmp_path / "new").exists()
