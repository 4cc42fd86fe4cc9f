"""Predictions as users make them: files beside the label map, bad cases, killed runs, jobs, and Python."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from .conftest import read_environment

MORE = ("--split", "--probabilities", "--statistics", "--preview")


def read(file: Path) -> Any:
    return np.asarray(nibabel.load(file).dataobj)


CASES = ["train_000", "train_001", "train_002"]


@pytest.fixture(scope="module")
def images(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images."""
    folder = tmp_path_factory.mktemp("images")
    for case in CASES:
        shutil.copy(project.raw / "imagesTr" / f"{case}_0000.nii.gz", folder)
    return folder


@pytest.fixture(scope="module")
def everything(project: Any, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that can be written of the images, undisturbed."""
    out = tmp_path_factory.mktemp("everything") / "out"
    done = project.predict(out, *MORE, "--targets", "liver", "spine", "aorta", images=images)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_masks_lie_on_the_images_grid_and_make_up_the_label_map(images: Path, everything: Path) -> None:
    values = json.loads((everything / "dataset.json").read_text())["labels"]
    for case in CASES:
        image = nibabel.load(images / f"{case}_0000.nii.gz")
        labels = read(everything / f"{case}.nii.gz")
        for name in ("liver", "spine", "aorta"):
            mask = nibabel.load(everything / case / f"{name}.nii.gz")
            assert np.array_equal(np.asarray(mask.dataobj), labels == values[name])
            assert np.allclose(mask.affine, image.affine)


def test_probabilities_are_above_one_half_in_the_masks(images: Path, everything: Path) -> None:
    from duplus_nnunet.api import read_probabilities

    case = CASES[0]
    array, what = read_probabilities(everything / case / "liver.b2nd")
    mask = read(everything / case / "liver.nii.gz").transpose(2, 1, 0) > 0
    assert (what.case, what.target) == (case, "liver")
    assert bool((array[:][mask] > 0.5).all())
    assert array.shape == mask.shape


def test_statistics_say_what_the_masks_say(images: Path, everything: Path) -> None:
    rows = list(csv.DictReader((everything / "statistics.csv").read_text().splitlines()))
    assert [(row["case"], row["target"]) for row in rows] == [
        (case, name) for case in CASES for name in ("liver", "aorta", "spine")
    ]
    for row in rows:
        mask = nibabel.load(everything / row["case"] / f"{row['target']}.nii.gz")
        ml = np.count_nonzero(mask.dataobj) * np.prod(mask.header.get_zooms()) / 1000
        assert float(row["volume_ml"]) == pytest.approx(ml, rel=1e-3, abs=1e-3)


def test_the_manifest_lists_files_that_are_there(images: Path, everything: Path) -> None:
    manifest = json.loads((everything / "manifest.json").read_text())
    assert set(manifest["cases"]) == set(CASES)
    for case in manifest["cases"].values():
        assert case["status"] == "complete"
        assert all((everything / file["path"]).stat().st_size == file["size"] for file in case["outputs"])
        assert set(case["seconds"]) - {"rivals"} == {"read", "network", "resample", "write"}
    assert next(iter(manifest["run"]["targets"].values()))["liver"].endswith("liver")
    assert all((everything / f"{case}_preview.png").is_file() for case in manifest["cases"])


def test_one_bad_case_does_not_end_a_folder(project: Any, images: Path, tmp_path: Path) -> None:
    folder, good = tmp_path / "in", CASES[0]
    folder.mkdir()
    shutil.copy(images / f"{good}_0000.nii.gz", folder)
    whole = gzip.decompress((images / f"{good}_0000.nii.gz").read_bytes())
    (folder / "a_bad_0000.nii.gz").write_bytes(gzip.compress(whole[: len(whole) // 2]))
    done = project.predict(tmp_path / "out", "--targets", "liver", images=folder)
    assert done.returncode == 1
    assert "1 of 2 cases failed" in done.stderr
    assert (tmp_path / "out" / f"{good}.nii.gz").is_file()
    cases = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert (cases["a_bad"]["status"], cases[good]["status"]) == ("failed", "complete")
    assert "cut off" in cases["a_bad"]["message"]


def test_a_killed_run_goes_on_and_ends_with_the_same_files(
    project: Any, images: Path, everything: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", (*MORE, "--targets", "liver", "spine", "aorta")
    script = Path(sys.executable).with_name("nnUNetv2_predict")
    words = [script, "-i", images, "-o", out, *project.options, *project.fast, *options]
    folders = {f"nnUNet_{name}": str(project.folder / name) for name in ("raw", "preprocessed", "results")}
    first = f"{CASES[0]}.nii.gz"
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            list(map(str, words)), env={**read_environment(), **folders}, stdout=log, stderr=log, start_new_session=True
        )
        while not (out / first).is_file() and run.poll() is None:
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert (out / first).is_file(), (tmp_path / "log").read_text()[-2000:]
    done = project.predict(out, *options, "--continue_prediction", images=images)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "are complete and left out" in done.stdout
    differing = {"manifest.json", "predict_from_raw_data_args.json"}
    names = {str(file.relative_to(everything)) for file in everything.rglob("*") if file.is_file()} - differing
    assert {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} - differing == names
    assert all((out / name).read_bytes() == (everything / name).read_bytes() for name in names if "b2nd" not in name)


def test_a_folder_of_other_prompts_is_not_continued(project: Any, images: Path, everything: Path) -> None:
    done = project.predict(everything, *MORE, "--targets", "spleen", "--continue_prediction", images=images)
    assert done.returncode == 1
    assert "(targets differ)" in done.stderr


def test_jobs_ask_each_image_for_something_else(project: Any, images: Path, tmp_path: Path) -> None:
    image = images / f"{CASES[0]}_0000.nii.gz"
    table = [{"case": "a", "image": str(image), "targets": ["liver"]}, {"case": "b", "image": str(image)}]
    (tmp_path / "jobs.json").write_text(json.dumps(table))
    options = (*project.options, *project.fast, "--jobs", tmp_path / "jobs.json", "-o", tmp_path / "out")
    done = project.run("nnUNetv2_predict", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    labels = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert len(labels) == 8
    assert set(np.unique(read(tmp_path / "out" / "a.nii.gz"))) <= {0, labels["liver"]}
    cases = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert [case["status"] for case in cases.values()] == ["complete", "complete"]
    table[0]["targets"] = ["spleen"]
    (tmp_path / "jobs.json").write_text(json.dumps(table))
    again = project.run("nnUNetv2_predict", *options, "--continue_prediction")
    assert again.returncode == 0, again.stderr[-2000:]
    changed = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert list(changed["a"]["prompts"]) == ["spleen"]
    assert changed["b"] == cases["b"]


def test_python_finds_what_the_command_finds(project: Any, images: Path, everything: Path) -> None:
    from duplus_nnunet.api import DuPLUSPredictor

    file = images / f"{CASES[0]}_0000.nii.gz"
    predictor = DuPLUSPredictor.from_folder(project.model, (0,), device="cpu", mirroring=False, step_size=1.0)
    found = predictor.predict(file, ["liver", "spine", "aorta"])
    again = predictor.predict(nibabel.load(file), ["aorta", "spine", "liver"])
    for name, mask in found.masks.items():
        assert np.array_equal(mask, read(everything / CASES[0] / f"{name}.nii.gz").transpose(2, 1, 0) > 0)
        assert np.array_equal(mask, again.masks[name])
    written = found.to_nibabel("liver")
    assert written.shape == nibabel.load(file).shape
    assert np.allclose(written.affine, nibabel.load(file).affine)


def test_groups_that_fit_little_memory_give_the_same_files(
    project: Any, images: Path, everything: Path, tmp_path: Path
) -> None:
    options = ("--targets", "liver", "spine", "aorta")
    too_little = project.predict(tmp_path / "none", *options, "--memory", "1MB", images=images)
    assert too_little.returncode == 1
    least = re.search(r"--memory to (\w+)", too_little.stderr)
    assert least is not None
    done = project.predict(tmp_path / "out", *options, "--memory", least[1], images=images)
    assert done.returncode == 0, done.stderr[-2000:]
    for case in CASES:
        assert np.array_equal(read(tmp_path / "out" / f"{case}.nii.gz"), read(everything / f"{case}.nii.gz"))
