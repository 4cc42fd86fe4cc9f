"""The part of the plug-in without a window: answers lie on the layer, and files equal those of `duplus predict`."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError, ModelError, PromptError
from duplus_nnunet.example.folder import write_example
from duplus_nnunet.inference.jobs import read_jobs
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.napari_plugin.layers import ORIENTATIONS, LayerImage, Place, read_file
from duplus_nnunet.napari_plugin.session import AnsweredLayer, CancelledError, Question, Session, _check_values
from duplus_nnunet.napari_plugin.turning import Turn

CONTEXT = "phantom_ct"
DICOM, FRONT, NIBABEL, BACK = ORIENTATIONS
# What each orientation says of the world: how right, anterior, superior lie in it.
WORLDS = {
    DICOM: np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]),
    FRONT: np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    NIBABEL: np.eye(3),
    BACK: np.diag([-1, -1, 1]),
}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    write_example(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(example: Path) -> Iterator[DuPLUSPredictor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield DuPLUSPredictor.from_folder(example / "model", device="cpu")
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def file(example: Path) -> Path:
    return example / "images" / "ct_0000.nii.gz"


@pytest.fixture(scope="module")
def masks(predictor: DuPLUSPredictor, file: Path) -> dict[str, Any]:
    """Masks (z, y, x) of an ordinary prediction without mirror images."""
    with predictor.open(file, CONTEXT) as scan:
        np.testing.assert_array_equal(scan.read_image(), read_file(file)[0][None])
        return {name: scan.segment(name) for name in ("left kidney", "liver")}


@pytest.fixture
def session(predictor: DuPLUSPredictor, example: Path) -> Iterator[Session]:
    own = Session(predictor, example / "model")
    yield own
    own.close()


def show_file(file: Path) -> LayerImage:
    """Take the layer that the plug-in itself makes of a file."""
    values, keywords = read_file(file)
    own = keywords["metadata"]["duplus"]
    return LayerImage("ct", values, keywords["affine"], file, np.asarray(own["to_ras"]))


def ask(session: Session, target: str) -> AnsweredLayer:
    return session.ask(Question(target))


def test_an_image_file_is_answered_on_its_layer(session: Session, file: Path, masks: dict[str, Any]) -> None:
    session.open([show_file(file)], CONTEXT)
    shown = ask(session, "left kidney")
    assert len(session.channels) == 1
    assert session.contexts[CONTEXT][: len(session.targets[CONTEXT])] == session.targets[CONTEXT]
    assert masks["left kidney"].any()
    np.testing.assert_array_equal(shown.mask, masks["left kidney"])
    voxel = float(np.prod(nibabel.load(file).header.get_zooms())) / 1000  # type: ignore[attr-defined]
    assert shown.volume == pytest.approx(masks["left kidney"].sum() * voxel)
    assert session.asked == ["left kidney"]
    assert ask(session, "liver").colour != shown.colour


def test_texts_that_were_not_seen_in_training_have_colours_of_their_own(session: Session, file: Path) -> None:
    session.open([show_file(file)], CONTEXT)
    colours = [session.ask(Question(None, text)).colour for text in ("Left kidney.", "Right kidney.", "Left kidney.")]
    assert colours[0] == colours[2] != colours[1]


@pytest.mark.parametrize("turn", [Turn((2, 1, 0), (False, False, False)), Turn((1, 0, 2), (True, False, True))])
def test_a_layer_of_any_reader_is_answered_in_its_own_axes(
    session: Session, file: Path, masks: dict[str, Any], turn: Turn
) -> None:
    """Some readers reorder the axes of a file; left and right must not be exchanged by that."""
    values = turn.apply(read_file(file)[0])
    session.open([LayerImage("ct", values, np.eye(4), file)], CONTEXT)
    np.testing.assert_array_equal(ask(session, "left kidney").mask, turn.apply(masks["left kidney"]))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_layer_without_a_file_is_answered_by_what_its_axes_mean(
    session: Session, file: Path, masks: dict[str, Any], orientation: str
) -> None:
    image = nibabel.load(file)
    to_world = np.eye(4)
    to_world[:3, :3] = WORLDS[orientation] if orientation != DICOM else np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]])
    layer = LayerImage("in memory", np.asarray(image.dataobj), to_world @ image.affine)  # type: ignore[attr-defined]
    session.open([layer], CONTEXT, Place(orientation))
    np.testing.assert_array_equal(ask(session, "left kidney").mask, masks["left kidney"].transpose(2, 1, 0))


def test_a_wrong_side_gives_another_mask(session: Session, file: Path, masks: dict[str, Any]) -> None:
    image = nibabel.load(file)
    layer = LayerImage("in memory", np.asarray(image.dataobj), image.affine)  # type: ignore[attr-defined]
    session.open([layer], CONTEXT, Place(BACK))
    assert (ask(session, "left kidney").mask != masks["left kidney"].transpose(2, 1, 0)).any()


def test_a_layer_that_was_changed_is_refused(session: Session, file: Path) -> None:
    shown = show_file(file)
    changed = shown.values.copy()
    changed[0, 0, 0] += 1000
    with pytest.raises(DataError, match="ct_0000"):
        session.open([LayerImage("ct", changed, shown.to_world, file, shown.to_ras)], CONTEXT)
    assert not session.is_open


def test_saved_masks_equal_the_answers(session: Session, file: Path, masks: dict[str, Any], tmp_path: Path) -> None:
    session.open([show_file(file)], CONTEXT)
    shown = {name: ask(session, name).mask for name in ("left kidney", "liver")}
    kidney, liver = session.save_masks(tmp_path, shown)
    assert (kidney.name, liver.name) == ("left_kidney.nii.gz", "liver.nii.gz")
    for path, name in ((kidney, "left kidney"), (liver, "liver")):
        image: Any = nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), masks[name])
        np.testing.assert_allclose(image.affine, nibabel.load(file).affine, atol=1e-4)  # type: ignore[attr-defined]


def test_what_was_drawn_into_a_layer_is_saved(session: Session, file: Path, tmp_path: Path) -> None:
    turn = Turn((2, 0, 1), (True, False, False))
    session.open([LayerImage("ct", turn.apply(read_file(file)[0]), np.eye(4), file)], CONTEXT)
    edited = ask(session, "liver").mask.copy()
    edited[:2] = 1
    (path,) = session.save_masks(tmp_path, {"liver": edited})
    saved: Any = nibabel.load(path)
    np.testing.assert_array_equal(turn.apply(np.asarray(saved.dataobj).transpose(2, 1, 0)), edited)
    with pytest.raises(DataError, match="shape"):
        session.save_masks(tmp_path, {"liver": edited[1:]})
    with pytest.raises(DataError, match="No answer"):
        session.save_masks(tmp_path, {})


def test_jobs_repeat_what_was_asked_of_every_image(
    session: Session, predictor: DuPLUSPredictor, file: Path, masks: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError):
        session.save_jobs(tmp_path / "jobs.json")
    session.open([show_file(file)], CONTEXT)
    ask(session, "liver")
    image = nibabel.load(file)
    layer = LayerImage("a/b", np.asarray(image.dataobj), image.affine)  # type: ignore[attr-defined]
    session.open([layer], CONTEXT, Place(NIBABEL))
    ask(session, "left kidney")
    command = session.save_jobs(tmp_path / "jobs.json")
    session.close()
    assert command.split()[:2] == ["duplus", "predict"]
    assert "--disable_tta" in command
    first, second = read_jobs(tmp_path / "jobs.json", ".nii.gz")
    assert (first.images, first.targets) == ((str(file),), ("liver",))
    assert second.context == CONTEXT
    with predictor.open(list(second.images), second.context) as scan:
        np.testing.assert_array_equal(scan.segment(*second.targets), masks["left kidney"])


def test_wrong_questions_leave_the_image_open(session: Session, file: Path) -> None:
    with pytest.raises(DataError, match="open"):
        ask(session, "liver")
    with pytest.raises(PromptError, match="phantom_ct"):
        session.open([show_file(file)], "phantom_xr")
    session.open([show_file(file)], CONTEXT)
    with pytest.raises(PromptError, match="'liver'"):
        ask(session, "livre")
    assert session.is_open
    assert ask(session, "liver").mask.any()


def test_the_number_of_layers_is_that_of_the_channels(session: Session, file: Path) -> None:
    with pytest.raises(DataError, match="2 layer"):
        session.open([show_file(file)] * 2, CONTEXT)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        Session.load(tmp_path)


def test_cancelling_ends_the_look_and_the_session_goes_on(session: Session, file: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = session._report_progress

    def cancel_at_second(done: int, windows: int) -> None:
        seen.append((done, windows))
        if done == 1:
            session.cancel()
        report(done, windows)

    session._report_progress = cancel_at_second  # type: ignore[method-assign]
    with pytest.raises(CancelledError):
        session.open([show_file(file)], CONTEXT)
    assert [done for done, _ in seen] == [0, 1]
    assert seen[0][1] > 2
    assert not session.is_open
    session._report_progress = report  # type: ignore[method-assign]
    session.open([show_file(file)], CONTEXT)
    assert ask(session, "liver").mask.any()
    session.close_image()
    assert not session.is_open
    with pytest.raises(DataError, match="open"):
        ask(session, "liver")


def test_cancelling_before_work_has_begun_keeps_it_from_beginning(session: Session, file: Path) -> None:
    asked_at = session.cancels
    session.cancel()
    with pytest.raises(CancelledError):
        session.open([show_file(file)], CONTEXT, cancels=asked_at)
    assert not session.is_open
    session.open([show_file(file)], CONTEXT, cancels=session.cancels)
    asked_at = session.cancels
    session.cancel()
    with pytest.raises(CancelledError):
        session.ask(Question("liver"), asked_at)
    assert session.is_open
    assert session.asked == []
    assert ask(session, "liver").mask.any()


def test_closing_in_the_middle_returns_at_once_and_frees_everything(session: Session, file: Path) -> None:
    folder = Path(session._folder.name)
    looking, closed = threading.Event(), threading.Event()
    report, ends = session._report_progress, list[BaseException]()

    def wait(done: int, windows: int) -> None:
        looking.set()
        assert closed.wait(30)
        report(done, windows)

    def work() -> None:
        try:
            session.open([show_file(file)], CONTEXT)
        except CancelledError as error:
            ends.append(error)

    session._report_progress = wait  # type: ignore[method-assign]
    thread = threading.Thread(target=work)
    thread.start()
    assert looking.wait(30)
    session.close()  # while the other thread looks
    assert folder.exists()
    closed.set()
    thread.join(30)
    assert len(ends) == 1
    assert not folder.exists()
    assert not session.is_open
    with pytest.raises(CancelledError):
        ask(session, "liver")


def make_channels(tmp_path: Path, values: Any, turns: list[Turn]) -> list[LayerImage]:
    files = [tmp_path / f"scan_{channel:04d}.nii.gz" for channel in range(len(turns))]
    shown = zip(turns, values, files, strict=True)
    return [LayerImage(file.name, turn.apply(own), np.eye(4), file) for turn, own, file in shown]


def test_a_symmetric_channel_is_told_apart_by_the_other(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    values[0] += values[0, :, :, ::-1].copy()
    turn = Turn((2, 1, 0), (False, True, True))
    images = make_channels(tmp_path, values, [turn, turn])
    assert _check_values(images, values, None) == turn
    with pytest.raises(DataError, match="2 orientations"):
        _check_values(images[:1], values[:1], None)


def test_channels_that_lie_differently_are_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 3, 3))
    turns = [Turn((0, 1, 2), (False, False, False)), Turn((0, 1, 2), (False, False, True))]
    with pytest.raises(DataError, match="scan_0000"):
        _check_values(make_channels(tmp_path, values, turns), values, None)
