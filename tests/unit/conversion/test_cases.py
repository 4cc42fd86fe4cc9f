"""The table of cases that `duplus convert` writes, and what it is compared with when it is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.data.case_table import FILE_NAME, CaseTable
from duplus_nnunet.data.converted_table import read_raw_table, update_present
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import find_entry

from .trees import make_image, make_labels, save

RECIPE = """\
title: Mine
source: here
licence: mine
size: small
dataset: Mine
channels: [CT]
labels: {liver: 1, tumor: 2}
layouts:
  - name: mine
    groups:
      - case: "{patient}_{visit}"
        patient: "{patient}"
        images: ["train/{patient}/{visit:d}.nii.gz"]
        label: "train/{patient}/{visit}_seg.nii.gz"
      - {case: "test_{id}", images: ["test/{id:d}.nii.gz"], test: true}
"""
PROMPTS = """\
dataset: Mine
contexts:
  early: {modality: computed tomography, region: abdomen, CASES}
  late: {modality: computed tomography, region: thorax, not_annotated: [liver tumor], RULES}
targets:
  liver:
  liver tumor: {labels: [tumor]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Convert two patients, one with two visits, by a recipe of one's own."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    (tmp_path / "raw").mkdir()
    for case, values in {"a/1": (0, 1, 2), "a/2": (0, 1), "b/1": (0, 1)}.items():
        save(tmp_path / "download/train", f"{case}.nii.gz", make_image())
        save(tmp_path / "download/train", f"{case}_seg.nii.gz", make_labels(values))
    save(tmp_path / "download", "test/7.nii.gz", make_image())
    (tmp_path / "mine.yaml").write_text(RECIPE)
    assert convert(tmp_path) == 0
    return tmp_path / "raw" / "Dataset300_Mine"


def convert(tmp_path: Path) -> int:
    return main(["convert", str(tmp_path / "mine.yaml"), str(tmp_path / "download"), "-d", "300"])


def load(folder: Path, training: tuple[str, ...] = ("a_1", "a_2", "b_1")) -> CaseTable:
    table = read_raw_table(folder, *describe(folder), training)
    assert table is not None
    return table


def describe(folder: Path) -> tuple[Any, Any]:
    dataset_json = json.loads((folder / "dataset.json").read_text())
    return find_entry(folder.name, dataset_json, folder), dataset_json


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads((folder / FILE_NAME).read_text())
    edit(content)
    (folder / FILE_NAME).write_text(json.dumps(content))


def test_the_table_has_patient_and_targets_of_each_case(folder: Path) -> None:
    table = load(folder)
    assert {name: case.patient for name, case in table.cases.items()} == {"a_1": "a", "a_2": "a", "b_1": "b"}
    assert table.cases["a_1"].annotated == table.cases["a_2"].annotated == ("liver", "tumor")
    assert table.cases["a_1"].present == ("liver", "tumor")
    assert table.cases["a_2"].present == ("liver",)
    assert table.tests["test_7"].annotated == ()


def test_a_target_that_was_given_another_name_since_is_followed(folder: Path) -> None:
    prompts = PROMPTS.replace(", CASES", "").replace(
        "  late: {modality: computed tomography, region: thorax, not_annotated: [liver tumor], RULES}\n", ""
    )
    (folder / "prompts.yaml").write_text(prompts)
    table = load(folder)
    assert table.cases["a_1"].present == ("liver", "liver tumor")
    assert {source.context for source in table.sources.values()} == {"early"}


def test_a_case_that_was_removed_since_is_left_out(folder: Path) -> None:
    assert set(load(folder, ("a_1", "b_1")).cases) == {"a_1", "b_1"}


def test_a_case_that_is_not_in_the_table_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="1 of 4 training cases: 'c_1'"):
        load(folder, ("a_1", "a_2", "b_1", "c_1"))


def write_two_contexts(folder: Path, early: str, late: str) -> None:
    """Give the dataset two contexts by rules, and the table the contexts of `a` and `b`."""
    (folder / "prompts.yaml").write_text(
        PROMPTS.replace("CASES", f"cases: ['{early}']").replace("RULES", f"cases: ['{late}']")
    )

    def edit(content: Any) -> None:
        source = next(iter(content["sources"].values()))
        content["sources"] = {"E": {**source, "context": "early"}, "L": {**source, "context": "late"}}
        for name, case in content["cases"].items():
            case["source"] = "E" if name.startswith("a") else "L"
        content["tests"] = {}
        content["cases"]["b_1"]["annotated"] = ["liver"]

    change(folder, edit)


def test_contexts_that_agree_with_the_rules_are_taken(folder: Path) -> None:
    write_two_contexts(folder, "a_.*", "b_.*")
    table = load(folder)
    contexts = {name: table.sources[case.source].context for name, case in table.cases.items()}
    assert contexts == {"a_1": "early", "a_2": "early", "b_1": "late"}
    assert table.cases["b_1"].annotated == ("liver",)
    assert table.sources["Mine-late"].targets == ("liver",)


def test_the_table_says_contexts_that_the_rules_do_not(folder: Path) -> None:
    write_two_contexts(folder, "x_.*", "y_.*")
    assert load(folder).sources["Mine-late"].context == "late"


def test_contexts_that_contradict_the_rules_are_refused(folder: Path) -> None:
    write_two_contexts(folder, "b_.*", "a_.*")
    with pytest.raises(DataError, match="'a_1' has the context 'early' in it, and 'late' by the rules"):
        load(folder)


def test_prompts_check_says_what_planning_would_refuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "check", "300"]) == 0
    assert "3 training cases by context: " in capsys.readouterr().out
    write_two_contexts(folder, "b_.*", "a_.*")
    assert main(["prompts", "check", "300"]) == 1
    shown = capsys.readouterr()
    assert "'a_1' has the context 'early' in it" in shown.out + shown.err
    change(folder, lambda content: content["sources"]["E"].update(context="pelvis"))
    assert main(["prompts", "check", "300"]) == 1
    shown = capsys.readouterr()
    assert "'pelvis'" in shown.out + shown.err


def test_scores_of_a_converted_dataset_count_what_is_annotated_in_each_case(tmp_path: Path, folder: Path) -> None:
    write_two_contexts(folder, "a_.*", "b_.*")
    words = ["-p", str(folder / "labelsTr"), "-r", str(folder / "labelsTr"), "-m", str(folder)]
    assert main(["evaluate", *words, "-o", str(tmp_path / "scores")]) == 0
    lines = (tmp_path / "scores" / "scores.csv").read_text().splitlines()
    # The table names the target by the registry, dataset.json by its label; it is not annotated in b_1, of `late`.
    assert len([line for line in lines if "Mine-early" in line and "tumor" in line]) == 1
    assert [line for line in lines if "Mine-late" in line and "tumor" in line] == []
    assert len([line for line in lines if "Mine-late" in line and "liver" in line]) == 1


def test_a_target_that_the_context_does_not_annotate_is_refused(folder: Path) -> None:
    write_two_contexts(folder, "a_.*", "b_.*")
    change(folder, lambda content: content["cases"]["b_1"].update(annotated=["liver", "tumor"]))
    with pytest.raises(DataError, match="'tumor' is annotated in case 'b_1' by it, and not annotated by"):
        load(folder)


@pytest.mark.parametrize(("part", "message"), [("context", "Its context 'pelvis'"), ("target", "Its target 'spleen'")])
def test_what_the_registry_does_not_have_is_named(folder: Path, part: str, message: str) -> None:
    write_two_contexts(folder, "a_.*", "b_.*")

    def edit(content: Any) -> None:
        if part == "context":
            content["sources"]["E"]["context"] = "pelvis"
        else:
            content["cases"]["a_1"]["annotated"].append("spleen")

    change(folder, edit)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_label_maps_say_what_is_present_and_may_not_contradict(folder: Path) -> None:
    write_two_contexts(folder, "a_.*", "b_.*")
    table, (entry, dataset_json) = load(folder), describe(folder)
    labels = {"a_1": (0,), "a_2": (0, 1, 2), "b_1": (0, 1)}
    assert update_present(table, entry, dataset_json, labels).cases["a_2"].present == ("liver", "liver tumor")
    assert update_present(table, entry, dataset_json, labels).cases["a_1"].present == ()
    with pytest.raises(DataError, match="'b_1' contains 'liver tumor'"):
        update_present(table, entry, dataset_json, {**labels, "b_1": (0, 1, 2)})


def test_without_a_record_of_conversion_a_table_is_that_of_a_composed_dataset(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "conversion.json").unlink()
    assert main(["compose", "-o", "501", "-n", "All", "300"]) == 1
    assert "itself a composed dataset" in capsys.readouterr().err


def test_composing_takes_patients_and_annotated_targets_from_the_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_two_contexts(folder, "a_.*|test_.*", "b_.*")
    change(folder, lambda content: content["cases"]["a_2"].update(annotated=["liver"]))
    (folder.parent.parent / "spec.yaml").write_text("folds: 2\n")
    words = ("compose", "-o", "501", "-n", "All", "300", "--spec", str(folder.parent.parent / "spec.yaml"))
    assert main([*words]) == 0
    cases = json.loads((folder.parent / "Dataset501_All" / FILE_NAME).read_text())["cases"]
    assert cases["Mine-early_a_1"]["patient"] == cases["Mine-early_a_2"]["patient"]
    assert cases["Mine-early_a_1"]["annotated"] == ["liver", "liver tumor"]
    assert cases["Mine-early_a_2"]["annotated"] == ["liver"]
    # A label map with a target that the table does not know there is refused.
    save(folder, "labelsTr/a_2.nii.gz", make_labels((0, 1, 2)))
    capsys.readouterr()
    assert main([*words, "--overwrite"]) == 1
    assert "'liver tumor', which is not annotated in 'a_2'" in capsys.readouterr().err


def test_a_changed_table_is_noticed_by_composing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent.parent / "spec.yaml").write_text("folds: 2\n")
    words = ("compose", "-o", "501", "-n", "All", "300", "--spec", str(folder.parent.parent / "spec.yaml"))
    assert main([*words]) == 0
    change(folder, lambda content: content["cases"]["a_2"].update(patient="c", annotated=["liver"]))
    assert main([*words]) == 1
    assert f"changed: {FILE_NAME}" in capsys.readouterr().err


def test_a_recipe_gives_a_group_its_context(tmp_path: Path, folder: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    (registry / "mine.yaml").write_text(PROMPTS.replace(", CASES", "").replace(", RULES", ""))
    recipe = RECIPE.replace('        patient: "{patient}"', '        patient: "{patient}"\n        context: late')
    recipe = recipe.replace("test: true", "test: true, context: late")
    (tmp_path / "other.yaml").write_text(recipe.replace("dataset: Mine", "dataset: Mine2"))
    for number, (registered, expected) in enumerate(((False, 1), (True, 0)), start=310):
        with pytest.MonkeyPatch.context() as patch:
            if registered:
                text = (registry / "mine.yaml").read_text()
                (registry / "mine.yaml").write_text(text.replace("dataset: Mine", "dataset: Mine2"))
                patch.setenv("DUPLUS_REGISTRY", str(registry))
            words = ["convert", str(tmp_path / "other.yaml"), str(tmp_path / "download"), "-d", str(number)]
            assert main(words) == expected
    table = json.loads((tmp_path / "raw/Dataset311_Mine2" / FILE_NAME).read_text())
    assert {source["context"] for source in table["sources"].values()} == {"late"}
    # The context does not annotate the tumor, but one case contains it.
    assert table["cases"]["a_1"]["annotated"] == ["liver", "liver tumor"]
    assert table["cases"]["a_2"]["annotated"] == ["liver"]


def test_several_contexts_without_a_rule_leave_the_table_to_the_user(tmp_path: Path, folder: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    text = PROMPTS.replace(", CASES", "").replace(", RULES", "").replace("dataset: Mine", "dataset: Mine2")
    (registry / "mine.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(RECIPE.replace("dataset: Mine", "dataset: Mine2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUPLUS_REGISTRY", str(registry))
        words = ["convert", str(tmp_path / "other.yaml"), str(tmp_path / "download"), "-d", "310"]
        assert main(words) == 0
    assert not (tmp_path / "raw/Dataset310_Mine2" / FILE_NAME).exists()


def test_a_channel_whose_grid_is_taken(tmp_path: Path, folder: Path) -> None:
    import nibabel

    coarse = np.diag([-4.0, -4.0, 4.0, 1.0])
    download = tmp_path / "petct"
    save(download, "imagesTr/CHUM-001__CT.nii.gz", make_image())
    save(download, "imagesTr/CHUM-001__PT.nii.gz", np.ones((5, 5, 5), np.float32), coarse)
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    save(download, "labelsTr/CHUM-001.nii.gz", labels)
    assert main(["convert", "hecktor2022", str(download), "-d", "320", "--grid", "MR"]) == 1
    assert main(["convert", "hecktor2022", str(download), "-d", "320", "--grid", "PET"]) == 0
    written = tmp_path / "raw/Dataset320_HECKTOR2022"
    for name in ("imagesTr/CHUM-001_0000.nii.gz", "imagesTr/CHUM-001_0001.nii.gz", "labelsTr/CHUM-001.nii.gz"):
        image = nibabel.load(written / name)
        assert image.shape == (5, 5, 5)
        assert np.allclose(image.affine, coarse)
    assert np.asarray(nibabel.load(written / "labelsTr/CHUM-001.nii.gz").dataobj).sum() == 8
    # The PET is as it was, and linked; the others say what was done.
    assert "by nearest voxels" in (written / "conversion.json").read_text()
