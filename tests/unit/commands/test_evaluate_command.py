"""`duplus evaluate`, and the evaluation after a trainer's validation."""

import json
import math
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet import cli
from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_bank import encode_vector
from duplus_nnunet.reporting.validation import read_scoring_settings, score_validation

LABELS = {"background": 0, "Liver": 1, "spleen": 2, "Kidneys": [3, 4]}
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": LABELS,
    "regions_class_order": [1, 2, 3],
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
TARGETS = [("liver", "Liver"), ("spleen", "spleen"), ("both kidneys", "Kidneys")]


def save(folder: Path, name: str, *values: int, spacing: float = 1.0) -> None:
    """Save a label map with a slab of each value."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((6, 6, 6), np.uint8)
    for row, value in enumerate(values):
        labels[row] = value
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([spacing, 1.0, 1.0, 1.0])), folder / f"{name}.nii.gz")


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_table(folder: Path) -> CaseTable:
    """Write a table by which spleen is annotated in c only, and kidneys nowhere but in a."""
    names = tuple(name for name, _ in TARGETS)
    annotated = {"a": ("liver", "both kidneys"), "b": ("liver",), "c": ("liver", "spleen")}
    cases = {
        name: Case("mr" if name == "c" else "ct", f"patient of {name}", targets, ())
        for name, targets in annotated.items()
    }
    table = CaseTable({name: Source("D", name, names, ("CT",)) for name in ("ct", "mr")}, {}, cases)
    write_case_table(table, folder)
    return table


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make predictions and references of three cases, and a dataset's folder."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    save(tmp_path / "r", "a", 1, 1, 3, 4)
    save(tmp_path / "p", "a", 1, 1, 3, 3, 2)
    save(tmp_path / "r", "b", 1, 1)
    save(tmp_path / "p", "b", 1, 0, 2)
    save(tmp_path / "r", "c", 1)
    save(tmp_path / "p", "c", 1, 2)
    write_json(tmp_path / "Dataset009_Test" / "dataset.json", DATASET_JSON)
    return tmp_path


def evaluate(home: Path, *options: str, model: str = "Dataset009_Test") -> int:
    words = ["evaluate", "-p", str(home / "p"), "-r", str(home / "r"), "-m", str(home / model), "-np", "1", *options]
    return cli.main(words)


def read(home: Path) -> Any:
    return json.loads((home / "p" / "scores.json").read_text())


def make_model(home: Path, **plans: Any) -> str:
    names = [name for name, _ in TARGETS]
    centre = {"centre": encode_vector(np.zeros(2)), "scale": 1.0}
    section = {
        "version": 1,
        "default_context": "ct",
        "contexts": {"ct": {"sentences": ["CT"], "target_prompts": {name: [name] for name in names}}},
        "targets": [{"name": name, "label": label} for name, label in TARGETS],
        "centres": dict.fromkeys(("context", "sentence", "name"), centre),
        "embeddings": dict.fromkeys(("CT", *names), encode_vector(np.ones(2))),
    }
    content = {"image_reader_writer": "NibabelIO", "duplus": section, **plans}
    write_json(home / "model" / "plans.json", content)
    write_json(home / "model" / "dataset.json", DATASET_JSON)
    return "model"


def test_dataset_without_a_table_is_one_source_with_everything_annotated(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(home) == 0
    targets = read(home)["sources"]["Dataset009_Test"]["targets"]
    assert targets["Liver"]["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3, abs=1e-6)
    assert targets["Kidneys"] | {"dice_interval": 0} == targets["Kidneys"] | {"dice_interval": 0, "dice": 1.0}
    assert (targets["spleen"]["present"], targets["spleen"]["false_positives"]) == (0, 3)
    assert "every target counts as annotated in every case" in capsys.readouterr().err


def test_table_of_a_model_says_what_counts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(home)
    write_table(home / model)
    assert evaluate(home, model=model) == 0
    sources = read(home)["sources"]
    assert set(sources["ct"]["targets"]) == {"liver", "both kidneys"}
    assert sources["mr"]["targets"]["spleen"]["false_positives"] == 1
    assert read(home)["mean"]["dice"] == pytest.approx(((5 / 6 + 1) / 2 + 0.5) / 2, abs=1e-6)
    assert read(home)["mean_over_targets"]["dice"] == pytest.approx((5 / 6 + 1 + 1 + 0) / 4, abs=1e-6)
    out = capsys.readouterr().out
    assert "(all sources) (mean over targets)" in out
    assert "ct\n  both kidneys" in out
    assert "(mean over sources)" in out
    assert out.splitlines()[-1].startswith("Wrote ")


def test_table_of_a_models_dataset_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(home, dataset_name="Dataset009_Test")
    write_table(home / "Dataset009_Test")
    monkeypatch.setenv("nnUNet_raw", str(home))
    assert evaluate(home, model=model) == 0
    assert set(read(home)["sources"]) == {"ct", "mr"}


def test_dataset_whose_table_has_names_without_a_label_asks_for_the_model(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(home / "Dataset009_Test")
    assert evaluate(home) == 1
    error = capsys.readouterr().err
    assert "'both kidneys'" in error
    assert "dataset.json" in error


def test_selected_targets_only_are_scored(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {"labels": {"background": 0, "spleen": 2, "renal pelvis": 5}, "duplus": {"legend": {"2": "spleen"}}}
    write_json(home / "p" / "dataset.json", DATASET_JSON | chosen)
    assert evaluate(home) == 0
    assert list(read(home)["sources"]["Dataset009_Test"]["targets"]) == ["spleen"]
    err = capsys.readouterr().err
    assert ": Liver, Kidneys." in err
    assert ": renal pelvis." in err


def test_selection_without_an_annotated_target_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(home)
    write_table(home / model)
    for name in "abc":
        save(home / "r", name, 1)
    write_json(home / "p" / "dataset.json", {"labels": {"spleen": 2}, "duplus": {"legend": {"2": "spleen"}}})
    (home / "p" / "c.nii.gz").unlink()
    (home / "r" / "c.nii.gz").unlink()
    assert evaluate(home, model=model) == 1
    assert re.search(r"\(spleen\) .*\b2 cases", capsys.readouterr().err)


def test_predictions_with_other_values_are_scored_by_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home) == 0
    expected = read(home)["sources"]["Dataset009_Test"]["targets"]
    for name, values in {"a": (4, 4, 5, 5, 9), "b": (4, 0, 9), "c": (4, 9)}.items():
        save(home / "p", name, *values)
    labels = {"background": 0, "Liver": 4, "spleen": 9, "Kidneys": 5, "aorta": 1}
    legend = {"1": "aorta", "4": "liver", "5": "both kidneys", "9": "spleen"}
    write_json(home / "p" / "dataset.json", {"labels": labels, "duplus": {"legend": legend}})
    capsys.readouterr()
    assert evaluate(home) == 0
    assert read(home)["sources"]["Dataset009_Test"]["targets"] == expected
    err = capsys.readouterr().err
    assert f"{home / 'p' / 'dataset.json'}: Liver, spleen, Kidneys." in err
    assert ": aorta." in err


def test_a_label_by_another_name_is_found_by_what_it_means(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(home)
    for name, values in {"a": (4, 4, 0, 0, 9), "b": (4, 0, 9), "c": (4, 9)}.items():
        save(home / "p", name, *values)
    labels, legend = {"background": 0, "hepar": 4, "lien": 9}, {"4": "hepar", "9": "lien"}
    meant = {"Liver": "hepar", "spleen": "lien"}
    write_json(home / "p" / "dataset.json", {"labels": labels, "duplus": {"legend": legend, "targets": meant}})
    assert evaluate(home, model=model) == 0
    (source,) = read(home)["sources"].values()
    assert source["targets"].keys() == {"liver", "spleen"}
    assert source["targets"]["liver"]["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3, abs=1e-6)
    err = capsys.readouterr().err
    assert "hepar" not in err
    assert ": both kidneys." in err


def test_missing_predictions_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b", "c"):
        (home / "p" / f"{name}.nii.gz").unlink()
    assert evaluate(home) == 1
    assert "2 of 3 references" in (err := capsys.readouterr().err)
    assert ": b, c. " in err
    assert "--allow-missing" in err
    assert not (home / "p" / "scores.json").exists()
    assert evaluate(home, "--allow-missing") == 0
    assert list(read(home)["cases"]) == ["a"]
    assert "2 reference(s) without a prediction are left out: b, c." in capsys.readouterr().err


def test_predictions_without_a_reference_are_left_out_and_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "r" / "b.nii.gz").unlink()
    assert evaluate(home) == 0
    assert "1 prediction(s) without a reference are left out: b." in capsys.readouterr().err


def test_other_grid_names_the_case(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(home / "p", "b", 1, spacing=2.0)
    assert evaluate(home) == 1
    assert "Case 'b': the prediction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "message"),
    [("r", "zz"), ("nowhere", "nowhere"), ("a.nii.gz", "a.nii.gz")],
)
def test_wrong_folders_are_told(folder: str, message: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(home / "elsewhere", "zz", 1)
    predictions = home / ("elsewhere" if folder == "r" else folder)
    words = ["-p", str(predictions), "-r", str(home / "r"), "-m", str(home / "Dataset009_Test"), "-np", "1"]
    assert cli.main(["evaluate", *words]) == 1
    assert message in capsys.readouterr().err


def test_case_that_the_table_does_not_hold_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(home)
    write_table(home / model)
    for folder in ("p", "r"):
        save(home / folder, "d", 1)
    assert evaluate(home, model=model) == 1
    assert "Unknown case 'd'" in capsys.readouterr().err


def test_case_that_a_table_of_one_source_does_not_hold_is_of_that_source(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(home)
    source = Source("D", "ct", ("liver", "spleen"), ("CT",))
    write_case_table(CaseTable({"only": source}, {"a": Case("only", "p", ("liver",), ("liver",))}), home / model)
    assert evaluate(home, model=model) == 0
    assert "2 case(s) are not in the case table (b, c): every target of its source 'only'" in capsys.readouterr().err
    assert list(read(home)["cases"]["a"]["targets"]) == ["liver"]
    assert list(read(home)["cases"]["b"]["targets"]) == ["liver", "spleen"]


def test_json_goes_to_the_output_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--json", "--tolerance", "0.5", "-o", str(home / "new" / "scores")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nsd_tolerance_mm"] == 0.5
    assert json.loads((home / "new" / "scores" / "scores.json").read_text()) == found
    assert not (home / "p" / "scores.json").exists()


def test_comparison_is_printed_with_its_sign(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "-o", str(home / "first")) == 0
    save(home / "p", "b", 1, 1)
    assert evaluate(home, "--compare", str(home / "first" / "scores.json")) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Dataset009_Test, Liver"))
    assert "+0.111 [+0.000, +0.333]" in line
    assert evaluate(home, "--json", "--compare", str(home / "first" / "scores.json")) == 0
    first = json.loads(capsys.readouterr().out)["comparison"]["differences"][1]
    assert (first["target"], first["difference"]) == ("Liver", pytest.approx(1 / 9, abs=1e-6))


def test_comparison_at_another_tolerance_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "-o", str(home / "first")) == 0
    assert evaluate(home, "--tolerance", "3", "--compare", str(home / "first" / "scores.json")) == 1
    assert '"Liver=2"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "labels",
    [
        {"7": "liver", "8": "Spleen", "9": "aorta"},
        {"liver": 7, "Spleen": 8, "aorta": 9},
        {"labels": {"background": 0, "liver": 7, "Spleen": 8, "aorta": 9}},
    ],
)
def test_labels_of_another_program_may_be_given(
    labels: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, values in {"a": (7, 7, 0, 0, 8), "b": (7, 0, 8), "c": (7, 8)}.items():
        save(home / "p", name, *values)
    write_json(home / "classes.json", labels)
    assert evaluate(home, "--labels", str(home / "classes.json")) == 0
    targets = read(home)["sources"]["Dataset009_Test"]["targets"]
    assert targets.keys() == {"Liver", "spleen"}
    assert targets["Liver"]["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3, abs=1e-6)
    err = capsys.readouterr().err
    assert ": Kidneys." in err
    assert ": aorta." in err


def test_labels_without_a_target_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(home / "classes.json", {"1": "aorta"})
    assert evaluate(home, "--labels", str(home / "classes.json")) == 1
    assert "aorta" in (err := capsys.readouterr().err)
    assert "Liver, spleen, Kidneys" in err
    write_json(home / "classes.json", {"liver": "one"})
    assert evaluate(home, "--labels", str(home / "classes.json")) == 1
    assert "classes.json" in capsys.readouterr().err


def test_stock_predictions_with_labels_of_other_names_count_as_the_references(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(home / "p" / "dataset.json", DATASET_JSON | {"labels": {"background": 0, "a": 1, "b": 2, "c": [3, 4]}})
    assert evaluate(home) == 0
    assert read(home)["sources"]["Dataset009_Test"]["targets"].keys() == {"Liver", "spleen", "Kidneys"}
    assert "references' values" in capsys.readouterr().err


def test_dataset_of_the_references_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "r").rename(home / "Dataset009_Test" / "labelsTs")
    words = ["evaluate", "-p", str(home / "p"), "-r", str(home / "Dataset009_Test" / "labelsTs"), "-np", "1"]
    assert cli.main(words) == 0
    assert read(home)["sources"].keys() == {"Dataset009_Test"}
    (home / "Dataset009_Test" / "dataset.json").unlink()
    assert cli.main(words) == 1
    assert " -m" in capsys.readouterr().err


def test_tolerances_by_target(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--tolerance", "0.2", "liver=9") == 0
    found = read(home)
    assert (found["nsd_tolerance_mm"], found["nsd_tolerance_mm_by_target"]) == (0.2, {"Liver": 9.0})
    assert found["cases"]["b"]["targets"]["Liver"]["nsd"] == 1
    assert "Liver 9 mm" in capsys.readouterr().out


def test_tolerances_of_the_registry(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
      dataset: Test
      contexts: {ct: {modality: computed tomography, region: abdomen}}
      targets: {liver: {tolerance_mm: 9}, spleen: , Kidneys: }
    """
    (home / "Dataset009_Test" / "prompts.yaml").write_text(text)
    assert evaluate(home) == 0
    assert read(home)["nsd_tolerance_mm_by_target"] == {"Liver": 9.0}
    assert read(home)["cases"]["b"]["targets"]["Liver"]["nsd"] == 1
    assert evaluate(home, "--tolerance", "0.2") == 0
    assert read(home)["nsd_tolerance_mm_by_target"] == {}
    (home / "Dataset009_Test" / "prompts.yaml").write_text(text.replace("9", "-9"))
    capsys.readouterr()
    assert evaluate(home) == 0
    assert "tolerance_mm" in capsys.readouterr().err


def test_lesions_are_those_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--lesions", "liver") == 0
    targets = read(home)["sources"]["Dataset009_Test"]["targets"]
    assert (targets["Liver"]["false_lesions"], targets["Liver"]["lesion_f1"]) == (0, 1)
    assert "lesion_f1" not in targets["spleen"]
    assert "lesion F1" in capsys.readouterr().out
    assert evaluate(home) == 0
    assert "lesion F1" not in capsys.readouterr().out


def test_chosen_metrics_are_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--metrics", "assd_mm", "precision") == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert "ASSD mm" in head
    assert "precision" in head
    assert "Dice" not in head


def test_comparison_has_a_p_value_of_patients(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "-o", str(home / "first")) == 0
    save(home / "p", "b", 1, 1)
    capsys.readouterr()
    assert evaluate(home, "--json", "--compare", str(home / "first" / "scores.json")) == 0
    found = json.loads(capsys.readouterr().out)["comparison"]["differences"]
    liver = next(each for each in found if (each["target"], each["metric"]) == ("Liver", "dice"))
    # One patient of three differs: one of the two signs is as extreme.
    assert (liver["patients"], liver["p"], liver["p_holm"]) == (3, 1.0, 1.0)
    assert any(each["metric"] == "hd95_mm" and each["difference"] < 0 for each in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "x"], "'x'"),
        (["--tolerance", "1", "2"], "2 numbers"),
        (["--tolerance", "heart=2"], "heart"),
        (["--lesions", "heart"], "heart"),
        (["--metrics", "iou"], "iou"),
        (["--labels", "nowhere.json"], "nowhere.json"),
        (["--tolerance", "-1"], "-1.0 mm"),
        (["-np", "0"], "-np is 0; expected 1 or more"),
        (["--compare", "nowhere.json"], "nowhere.json cannot be read"),
        (["-o", "/proc/scores"], "/proc/scores cannot be written to"),
    ],
)
def test_bad_options_end_with_a_message(
    options: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(home, *options) == 1
    assert message in capsys.readouterr().err


def test_coarse_voxels_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--tolerance", "0.5") == 0
    assert re.search(r"3 of 3 cases .*1\.00 mm", capsys.readouterr().out)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", "--help"])
    assert caught.value.code == 0
    assert "examples:\n  duplus evaluate -p" in capsys.readouterr().out


def test_validation_is_scored_by_name_without_a_summary(home: Path) -> None:
    table = write_table(home)
    scores = score_validation(
        home / "p", home / "r", read_scoring_settings(SimpleITKIO, DATASET_JSON, TARGETS), table, 1
    )
    assert scores.sources["ct"]["dice"].value == pytest.approx((5 / 6 + 1) / 2)
    assert {file.name for file in (home / "p").iterdir()} >= {"scores.json", "scores.csv"}
    assert [row.target for row in scores.rows if row.source == "ct"] == ["both kidneys", "liver"]


def test_a_training_scores_with_the_tolerances_of_evaluate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from duplus_nnunet.trainers import cases

    raw = home / "Dataset009_Test"
    text = "dataset: Test\ncontexts: {ct: {modality: computed tomography, region: abdomen}}\n"
    (raw / "prompts.yaml").write_text(
        text + "targets: {liver: {tolerance_mm: 9}, spleen: {tolerance_mm: 2}, Kidneys: }\n"
    )
    monkeypatch.setattr(cases, "nnUNet_raw", str(home))
    trainer = SimpleNamespace(plans_manager=SimpleNamespace(dataset_name=raw.name), dataset_json=DATASET_JSON)
    assert cases._find_tolerances(trainer, TARGETS) == ({"liver": 9.0}, "")
    assert evaluate(home) == 0
    assert read(home)["nsd_tolerance_mm_by_target"] == {"Liver": 9.0}
    (raw / "prompts.yaml").write_text(text + "targets: {liver: {tolerance_mm: -9}, spleen: , Kidneys: }\n")
    tolerances, note = cases._find_tolerances(trainer, TARGETS)
    assert tolerances == {}
    assert "tolerance_mm" in note


def test_validation_of_a_target_that_is_nowhere_present_has_no_value(home: Path) -> None:
    names = tuple(name for name, _ in TARGETS)
    case = Case("ct", "b", ("both kidneys",), ())
    table = CaseTable({"ct": Source("D", "ct", names, ("CT",))}, dict.fromkeys("abc", case))
    for name in "abc":
        save(home / "r", name, 1)
        save(home / "p", name, 2)
    scores = score_validation(
        home / "p", home / "r", read_scoring_settings(SimpleITKIO, DATASET_JSON, TARGETS), table, 1
    )
    assert math.isnan(scores.mean["dice"].value)
    assert scores.rows[0].correct_rejections == 3
    assert read(home)["mean"] == {"dice": None, "dice_interval": None, "nsd": None, "nsd_interval": None}


def test_validation_without_predictions_or_with_a_stray_label_is_reported(home: Path) -> None:
    table = write_table(home)
    with pytest.raises(DataError, match=r"'\.nii\.gz'"):
        score_validation(home, home / "r", read_scoring_settings(SimpleITKIO, DATASET_JSON, TARGETS), table, 1)
    with pytest.raises(DataError, match=r"(?i)target 'liver'.*dataset\.json.*label 'liver'"):
        score_validation(
            home / "p", home / "r", read_scoring_settings(SimpleITKIO, DATASET_JSON, [("liver", "liver")]), table, 1
        )
