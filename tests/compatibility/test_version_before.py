"""Models, adapters, tables and predictions that version 0.1.0 wrote are read by this one, and give the same answers.

`make_files.py` made the files. The same processor gives the same bits; another one adds up in another order, by which a
probability may move in its fourth digit, and a voxel whose probability is one half to that digit may change sides.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np
import pytest

from duplus_nnunet.cli import main

FILES = Path(__file__).parent / "files"
MODELS = FILES / "models"
TARGETS = ("tumour", "left kidney", "right kidney")
PREDICT = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "-step_size", "1", "--precision", "float32")
EVERYTHING = ("--split", "--statistics", "--probabilities", "--save_probabilities")
# Of probabilities, which are stored as float16 or summed up in it.
CLOSE = 2e-3
# Columns that were renamed since.
RENAMED = {"EHR values missing": "record values missing"}


@pytest.fixture(scope="module", autouse=True)
def _without_variables() -> Iterator[None]:
    """A model folder suffices: none of nnU-Net's folders is set, and none of this package's variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("nnUNet", "DUPLUS_")):
                patch.delenv(name)
        yield


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def predict(model: Path, images: Path, out: Path, *options: str | Path) -> Path:
    assert run("predict", "-i", images, "-o", out, "-m", model, *PREDICT, *options) in (0, None)
    return out


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that can be written of the test image, by the trained segmentation."""
    out = tmp_path_factory.mktemp("predicted") / "ct"
    return predict(MODELS / "segmentation", FILES / "images" / "ct", out, *EVERYTHING)


def read_volume(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def name_case(folder: Path) -> str:
    (file,) = folder.glob("*.npz")
    return file.stem


def require_same_probabilities(first: Path, second: Path) -> None:
    case = name_case(first)
    stored, made = (np.load(folder / f"{case}.npz")["probabilities"] for folder in (first, second))
    assert stored.shape == made.shape
    assert stored.dtype == made.dtype
    assert stored.max() > 0.5
    np.testing.assert_allclose(made, stored, atol=CLOSE)


def require_same_masks(first: np.ndarray, second: np.ndarray, probabilities: np.ndarray) -> None:
    """Require equal masks, or label maps, wherever no probability is close to one half."""
    decided = (np.abs(probabilities - 0.5) > CLOSE).all(axis=0)
    assert decided.mean() > 0.99
    assert first.dtype == second.dtype
    np.testing.assert_array_equal(first[decided], second[decided])


def require_same_numbers(first: list[dict[str, str]], second: list[dict[str, str]], within: float) -> None:
    """Require tables of equal texts, and of numbers that are equal within a share of them; columns may be new."""
    assert len(first) == len(second) > 0
    for stored, made in zip(first, second, strict=True):
        assert list(stored) == [name for name in made if name in stored]
        for name, value in stored.items():
            try:
                number = float(value)
            except ValueError:
                assert made[name] == value, name
                continue
            assert float(made[name]) == pytest.approx(number, rel=within, abs=within), name


def read_all_probabilities(folder: Path) -> np.ndarray:
    """Read what nnU-Net's option wrote, as (K, x, y, z)."""
    return np.load(folder / f"{name_case(folder)}.npz")["probabilities"].transpose(0, 3, 2, 1)


def test_label_map_masks_and_probabilities_are_the_same(predicted: Path) -> None:
    stored = FILES / "predictions" / "ct"
    case = name_case(stored)
    require_same_probabilities(stored, predicted)
    probabilities = read_all_probabilities(stored)
    names = [f"{case}.nii.gz", *(f"{case}/{name.replace(' ', '_')}.nii.gz" for name in TARGETS)]
    for name in names:
        first, second = (nibabel.load(folder / name) for folder in (stored, predicted))
        require_same_masks(np.asarray(first.dataobj), np.asarray(second.dataobj), probabilities)
        np.testing.assert_array_equal(first.affine, second.affine)
    assert np.asarray(nibabel.load(stored / names[0]).dataobj).any()
    for name in TARGETS:
        maps = [blosc2.open(str(folder / case / f"{name.replace(' ', '_')}.b2nd"))[:] for folder in (stored, predicted)]
        np.testing.assert_allclose(*maps, atol=CLOSE)


def test_files_of_a_prediction_have_the_same_names(predicted: Path) -> None:
    stored = FILES / "predictions" / "ct"
    first, second = (
        {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        for folder in (stored, predicted)
    )
    assert first == second


def test_statistics_are_the_same(predicted: Path) -> None:
    # A voxel that changes sides is a two-hundredth of the smallest target.
    require_same_numbers(
        *(read_rows(folder / "statistics.csv") for folder in (FILES / "predictions" / "ct", predicted)), within=0.01
    )


def test_labels_and_legend_are_the_same(predicted: Path) -> None:
    first, second = (
        json.loads((folder / "dataset.json").read_text()) for folder in (FILES / "predictions" / "ct", predicted)
    )
    assert first == second


def test_the_manifest_names_the_same_model_targets_and_options(predicted: Path) -> None:
    first, second = (
        json.loads((folder / "manifest.json").read_text()) for folder in (FILES / "predictions" / "ct", predicted)
    )
    assert first["version"] == second["version"]
    for name in ("model", "checkpoints", "folds", "contexts", "targets", "precision"):
        assert first["run"][name] == second["run"][name], name
    assert first["run"]["options"] == _keep_known(first["run"]["options"], second["run"]["options"])
    assert first["cases"].keys() == second["cases"].keys()
    for case, stored in first["cases"].items():
        assert stored.keys() <= second["cases"][case].keys()
        assert stored["prompts"] == second["cases"][case]["prompts"]
        assert [file["path"] for file in stored["outputs"]] == [
            file["path"] for file in second["cases"][case]["outputs"]
        ]


def test_a_prediction_of_the_version_before_is_complete_and_continued(tmp_path: Path) -> None:
    out = Path(shutil.copytree(FILES / "predictions" / "ct", tmp_path / "out"))
    files = [file for file in out.rglob("*") if file.is_file() and file.name.startswith(name_case(out))]
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    predict(MODELS / "segmentation", FILES / "images" / "ct", out, *EVERYTHING, "--continue_prediction")
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files} == before
    cases = [json.loads((folder / "manifest.json").read_text())["cases"] for folder in (FILES / "predictions/ct", out)]
    assert cases[0] == cases[1]


def test_an_adapter_beside_its_base_answers_as_it_did(tmp_path: Path) -> None:
    stored = FILES / "predictions" / "pet"
    options = ("--adapters", FILES / "adapter", "--context", "tiny_pet", "--save_probabilities", "--disable_tta")
    made = predict(MODELS / "segmentation", FILES / "images" / "pet", tmp_path / "out", *options)
    require_same_probabilities(stored, made)
    case = name_case(stored)
    first, second = (read_volume(folder / f"{case}.nii.gz") for folder in (stored, made))
    require_same_masks(first, second, read_all_probabilities(stored))


def test_an_adapters_card_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("adapt", "show", FILES / "adapter", "--json") == 0
    card = json.loads(capsys.readouterr().out)
    written = json.loads((FILES / "adapter" / "adapter.json").read_text())
    assert set(card["targets"]) == {"tiny_pet"}
    assert card["parameters"]["lora"] > 0
    assert card["scores"] == written["scores"]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Scores of the version before, with the source named as a model folder without a case table names it."""
    folder = tmp_path / "before"
    folder.mkdir()
    for file in (FILES / "scores").iterdir():
        text = file.read_text(encoding="utf-8").replace("Dataset980_TinyCT", "TinyCT")
        (folder / file.name).write_text(text.replace("TinyCT", "Dataset980_TinyCT"), encoding="utf-8")
    return folder


EVALUATE = (
    "evaluate",
    "-p",
    FILES / "predictions" / "ct",
    "-r",
    FILES / "labels" / "ct",
    "-m",
    MODELS / "segmentation",
)


def test_scores_of_stored_predictions_are_the_same(scores: Path, tmp_path: Path) -> None:
    assert run(*EVALUATE, "-o", tmp_path, "-np", "1") == 0
    first, second = (json.loads((folder / "scores.json").read_text()) for folder in (scores, tmp_path))
    assert (first.pop("version"), second.pop("version")) == (1, 2)  # the form has more metrics; the others are the same
    assert _leave_texts_out(first) == _keep_known(_leave_texts_out(first), _leave_texts_out(second))
    require_same_numbers(*(read_rows(folder / "scores.csv") for folder in (scores, tmp_path)), within=1e-9)


def test_scores_of_the_version_before_can_be_compared_with(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*EVALUATE, "-o", tmp_path / "out", "-np", "1", "--compare", scores / "scores.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)


def _keep_known(stored: Any, made: Any) -> Any:
    """Leave out the keys that the version before did not write."""
    if not isinstance(stored, dict) or not isinstance(made, dict):
        return made
    return {name: _keep_known(stored[name], value) for name, value in made.items() if name in stored}


def _leave_texts_out(content: Any) -> Any:
    """Leave sentences out of scores.json, which may be worded better; numbers, names and their places stay."""
    if isinstance(content, dict):
        return {name: _leave_texts_out(value) for name, value in content.items() if name != "notes"}
    if isinstance(content, list):
        return [_leave_texts_out(value) for value in content]
    return content


def test_a_prognosis_predicts_what_it_did(tmp_path: Path) -> None:
    words = ("-i", FILES / "images" / "ct", "--clinical", FILES / "clinical.csv", "--device", "cpu")
    assert run("survival", "predict", "-m", MODELS / "survival", *words, "-o", tmp_path) == 0
    for name in ("predictions.csv", "survival_curves.csv"):
        stored, made = (read_rows(folder / name) for folder in (FILES / "prognosis", tmp_path))
        for rows in (stored, made):
            for row in rows:
                row.pop("warnings", None)  # sentences
        stored = [{RENAMED.get(name, name): value for name, value in row.items()} for row in stored]
        require_same_numbers(stored, made, within=CLOSE)


def test_a_prognosis_segments_as_its_base(tmp_path: Path) -> None:
    made = predict(MODELS / "survival", FILES / "images" / "ct", tmp_path / "out", "--save_probabilities")
    require_same_probabilities(FILES / "predictions" / "ct", made)


def test_tables_of_a_composed_dataset_are_read(tmp_path: Path) -> None:
    from duplus_nnunet.data.case_table import read_case_table

    table = read_case_table(FILES / "composed")
    assert table is not None
    written = json.loads((FILES / "composed" / "duplus_cases.json").read_text())
    assert table.sources.keys() == written["sources"].keys()
    assert table.cases.keys() == written["cases"].keys()
    for name, case in written["cases"].items():
        assert table.cases[name].source == case["source"]
        assert list(table.cases[name].annotated) == case["annotated"]


def test_a_clinical_schema_and_its_table_are_read() -> None:
    from duplus_nnunet.survival.records.schema import read_schema
    from duplus_nnunet.survival.records.table import read_records
    from duplus_nnunet.survival.records.table import read_rows as read_table

    schema = read_schema(FILES / "composed" / "clinical.yaml")
    records, _ = read_records(read_table(FILES / "composed" / "clinical.csv"), schema)
    written = read_rows(FILES / "composed" / "clinical.csv")
    assert [record.patient for record in records] == [row["patient"] for row in written]
    assert [record.time for record in records] == pytest.approx([float(row["months"]) * 30.4375 for row in written])


def test_a_prompt_file_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prompts", "check", FILES / "composed") == 0
