"""A model, the image that it has open, and what was asked: all of the plug-in that needs no window.

One thread works at a time; `cancel` and `close` may be called from another one and return at once.
"""

import shlex
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError, PromptError, describe_unknown
from duplus_nnunet.inference.prediction import Prediction
from duplus_nnunet.napari_plugin.jobs import Done, write_jobs
from duplus_nnunet.napari_plugin.layers import LayerImage, Place, name_image, require_one_grid, write_image
from duplus_nnunet.napari_plugin.libraries import load_torch
from duplus_nnunet.napari_plugin.turning import (
    Matrix,
    Turn,
    Volume,
    find_turn_by_affine,
    find_turns_by_values,
    require_one_turn,
)
from duplus_nnunet.outputs.naming import name_case, name_files
from duplus_nnunet.reporting.colours import colour_answer

if TYPE_CHECKING:
    from duplus_nnunet.inference.predictor import DuPLUSPredictor
    from duplus_nnunet.inference.scan import Scan

Mask = NDArray[np.uint8]


class CancelledError(Exception):
    """The user cancelled the work, or closed the window; not an error to be shown."""


@dataclass(frozen=True)
class Question:
    """What is asked: exactly one of both.

    Attributes:
        target: Name, label or synonym of a target.
        prompt: Any other text.
    """

    target: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class AnsweredLayer:
    """An answer as a window shows it.

    Attributes:
        question: What was asked.
        name: Name of the target, marked if it was not seen in training.
        target: Name of the target alone, or the text.
        mask: In the axes of the layer, 1 in the target and 0 elsewhere.
        colour: As in legends and pictures, such as `#0072b2`.
        volume: In ml.
        presence: Probability, 0 to 1, that the target is in the image; None if the model was not calibrated.
    """

    question: Question
    name: str
    target: str
    mask: Mask
    colour: str
    volume: float
    presence: float | None


@dataclass
class _Open:
    """The opened image.

    Attributes:
        scan: What the network computed of it.
        files: One a channel.
        case: Its name in a table of jobs.
        to_ras: (4, 4) from the layer's indices to right, anterior, superior; None: `turn` is known.
        turn: From the image's array to the layer; None: not known before the first answer.
    """

    scan: "Scan"
    files: tuple[Path, ...]
    case: str
    to_ras: Matrix | None
    turn: Turn | None

    def find_turn(self, answer: Prediction) -> Turn:
        """Return how the layer lies in the image.

        Raises:
            DataError: The voxels of both do not lie on each other.
        """
        if self.turn is None:
            if answer.affine is None or self.to_ras is None:
                raise DataError(f"{self.files[0].name} has no world coordinates. Convert it to NIfTI.")
            self.turn = find_turn_by_affine(self.to_ras, answer.affine, answer.answer.geometry.shape)
        return self.turn


class Session:
    """A model in memory, with at most one opened image.

    Args:
        predictor: The model.
        model: Its folder.
        mirror: Whether mirror images are predicted, too.

    Attributes:
        contexts: Words by which targets may be asked for, names first, by context.
        targets: Names of targets by context.
        channels: Names of the channels of an image.
        progress: Number of windows that were predicted, and of all, while an image is opened.
    """

    def __init__(self, predictor: "DuPLUSPredictor", model: Path, mirror: bool = False) -> None:
        self._predictor, self._model, self._mirror = predictor, model, mirror
        self.contexts, self.targets, self.channels = predictor.words, predictor.contexts, predictor.channels
        self.progress = 0, 0
        self._lock, self._is_closed = threading.Lock(), False
        # Number of cancels so far, and that at which the present work was asked for.
        self._cancels, self._asked_at = 0, 0
        self._folder = tempfile.TemporaryDirectory(prefix="duplus-")
        self._open: _Open | None = None
        self._images = 0
        self._asked: dict[str, Question] = {}
        self._texts: list[str] = []  # those asked about the open image that were not seen in training
        self._done: list[Done] = []

    @classmethod
    def load(cls, model: Path, mirror: bool = False) -> "Session":
        """Load a model.

        Raises:
            ModelError: The folder does not hold a DuPLUS model, or is incomplete.
        """
        # In the thread that loads the model, so that the window opens at once.
        load_torch()
        from duplus_nnunet.inference.predictor import DuPLUSPredictor

        return cls(DuPLUSPredictor.from_folder(model), model, mirror)

    @property
    def is_open(self) -> bool:
        """Whether an image is open."""
        return self._open is not None

    @property
    def asked(self) -> list[str]:
        """Names of what was asked about the opened image, in this order."""
        return list(self._asked)

    @property
    def cancels(self) -> int:
        """Number of cancels so far; work that is given it ends by later ones, also before it has begun."""
        return self._cancels

    def cancel(self) -> None:
        """Let the work in progress end at the next window of the network, and work that has not begun not begin."""
        self._cancels += 1

    def close(self) -> None:
        """Close the image and forget its files: at once, or by the working thread when its work ends."""
        self._is_closed = True
        self._cancels += 1
        self._forget_if_closed()

    def close_image(self) -> None:
        """Close the image that is open; the model stays."""
        with self._work():
            self._close_image()

    def open(
        self, images: Sequence[LayerImage], context: str, place: Place | None = None, cancels: int | None = None
    ) -> None:
        """Let the network look at an image; the one that was open is closed.

        Args:
            images: One a channel.
            context: Name of a context.
            place: What the user said of layers that do not know their place.
            cancels: Number of cancels when it was asked for; None: it is asked for now.

        Raises:
            DataError: The image cannot be read, or its place is not known.
            PromptError: The model does not know the context.
            CancelledError: The user cancelled.
        """
        with self._work(cancels):
            self._close_image()
            if len(images) != len(self.channels):
                raise DataError(f"{len(images)} layer(s) were chosen; the model takes {', '.join(self.channels)}.")
            require_one_grid(images)
            files, to_ras = self._find_files(images, place or Place())
            scan = self._predictor.open(
                list(map(str, files)), context, mirror=self._mirror, progress=self._report_progress
            )
            try:
                turn = _check_values(images, scan.read_image(), to_ras)
                self._open = _Open(scan, files, name_image(files[0]), to_ras, turn)
            except BaseException:
                scan.close()
                raise

    def ask(self, question: Question, cancels: int | None = None) -> AnsweredLayer:
        """Segment one structure in the opened image.

        Args:
            question: What is asked.
            cancels: As in `open`.

        Raises:
            DataError: No image is open, or its file was changed.
            PromptError: The context does not have the target.
            CancelledError: The user cancelled before it began.
        """
        with self._work(cancels):
            opened = self._require_open()
            answer = self._answer(opened.scan, question)
            (found,) = answer.answer.targets
            self._asked[found.name] = question
            if not found.seen and found.name not in self._texts:
                self._texts.append(found.name)
            done = Done(opened.files, opened.case, opened.scan.context, found.name, found.seen)
            if done not in self._done:
                self._done.append(done)
            texts = 0 if found.seen else self._texts.index(found.name)
            return _show(question, answer, opened.find_turn(answer), colour_answer(found.value, found.seen, texts))

    def save_masks(self, folder: Path, edited: Mapping[str, Mask]) -> list[Path]:
        """Write masks as NIfTI on the image's grid, as `duplus predict --split` names them.

        Args:
            folder: Is created if needed.
            edited: Mask of each target as its layer has it now, by name; only these are written.

        Raises:
            DataError: No image is open, nothing was asked, or a layer has another shape than the image.
        """
        from duplus_nnunet.inference.conversation import write_mask

        with self._work():
            opened = self._require_open()
            chosen = [name for name in self._asked if name in edited]
            if not chosen:
                raise DataError(
                    "No answer is chosen to be saved. Ask for a target, or check the box of one that was answered."
                )
            answers = [opened.scan.ask(self._asked[name].target, self._asked[name].prompt) for name in chosen]
            names = name_files([answer.answer.targets[0].file_title for answer in answers])
            return [
                write_mask(
                    _replace_mask(answer, opened.find_turn(answer), edited[name]), name, folder / f"{file}.nii.gz"
                )
                for answer, name, file in zip(answers, chosen, names, strict=True)
            ]

    def save_jobs(self, file: Path) -> str:
        """Write a table of jobs that repeats all that was asked since the model was loaded.

        Images of layers without a file are written beside it.

        Returns:
            The command that repeats it.

        Raises:
            DataError: Nothing was asked, or the file cannot be written.
        """
        with self._work():
            write_jobs(file, self._done, Path(self._folder.name))
            return _describe_command(self._model, file, self._mirror)

    def _answer(self, scan: "Scan", question: Question) -> Prediction:
        try:
            return scan.ask(question.target, question.prompt)
        except PromptError as error:
            target = question.target
            if target is None or any(target in names for names in self.targets.values()):
                raise
            known = describe_unknown("target", target, scan.targets)
            raise PromptError(f"{known} For a structure that is none of these, check `any other text`.") from error

    @contextmanager
    def _work(self, cancels: int | None = None) -> Iterator[None]:
        """Do one thing at a time.

        Args:
            cancels: Number of cancels when it was asked for; None: it is asked for now.

        Raises:
            CancelledError: The session was closed, or the user cancelled since it was asked for.
        """
        asked_at = self._cancels if cancels is None else cancels
        try:
            with self._lock:
                if self._is_closed or self._cancels != asked_at:
                    raise CancelledError
                self._asked_at = asked_at
                self.progress = 0, 0
                yield
        finally:
            self._forget_if_closed()

    def _forget_if_closed(self) -> None:
        if self._is_closed and self._lock.acquire(blocking=False):
            try:
                self._close_image()
                self._folder.cleanup()
            finally:
                self._lock.release()

    def _close_image(self) -> None:
        self._asked.clear()
        self._texts.clear()
        if self._open is not None:
            self._open.scan.close()
            self._open = None

    def _require_open(self) -> _Open:
        if self._open is None:
            raise DataError("No image is open. Choose a layer and open it first.")
        return self._open

    def _report_progress(self, done: int, windows: int) -> None:
        self.progress = done, windows
        if self._cancels != self._asked_at:
            raise CancelledError

    def _find_files(self, images: Sequence[LayerImage], place: Place) -> tuple[tuple[Path, ...], Matrix | None]:
        """Return the files of an image, and the affine of its layers where it is known without them."""
        if all(image.file is not None for image in images):
            return tuple(image.file for image in images if image.file is not None), images[0].to_ras
        to_ras = place.find_ras(replace(images[0], file=None))
        self._images += 1
        folder = Path(self._folder.name, str(self._images))
        files = tuple(folder / f"{name_case(images[0].name)}_{channel:04d}.nii.gz" for channel in range(len(images)))
        for image, file in zip(images, files, strict=True):
            write_image(image, to_ras, file)
        return files, to_ras


def _check_values(images: Sequence[LayerImage], values: Volume, to_ras: Matrix | None) -> Turn | None:
    """Check that layers show what their files hold, and find how they lie in the files.

    Args:
        images: One a channel.
        values: Of the files, (C, z, y, x).
        to_ras: (4, 4) from the layers' indices to the patient, where it is known.

    Returns:
        None if the affine of the layers says how they lie.

    Raises:
        DataError: A layer was changed, or the image looks the same in several orientations.
    """
    named = [(image, own, image.file.name) for image, own in zip(images, values, strict=True) if image.file is not None]
    found = [find_turns_by_values(image.values, own, name) for image, own, name in named]
    if to_ras is not None or not found:
        return None
    common = [turn for turn in found[0] if all(turn in others for others in found)]
    return require_one_turn(common, named[0][2])


def _show(question: Question, answer: Prediction, turn: Turn, colour: str) -> AnsweredLayer:
    (found,) = answer.answer.targets
    mask = np.ascontiguousarray(turn.apply(answer.masks[found.name]), dtype=np.uint8)
    return AnsweredLayer(question, found.title, found.name, mask, colour, answer.volumes[found.name], found.presence)


def _replace_mask(answer: Prediction, turn: Turn, mask: Mask) -> Prediction:
    """Put the mask of a layer, which may have been edited, in the place of the answer's.

    Raises:
        DataError: It has another shape.
    """
    (target,) = answer.answer.targets
    shape = answer.answer.geometry.shape
    voxels: Volume = np.asarray(mask) > 0
    whole = turn.undo(voxels) if voxels.ndim == len(shape) else voxels
    if whole.shape != shape:
        raise DataError(f"The layer {target.title!r} has the shape {np.shape(mask)}; it was made from one of {shape}.")
    box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    changed = replace(target, box=box, mask=whole, logits=np.zeros(shape, np.float16))
    return Prediction(replace(answer.answer, targets=(changed,)))


def _describe_command(model: Path, file: Path, mirror: bool) -> str:
    words = ["duplus", "predict", "-m", str(model), "--jobs", str(file), "-o", str(file.with_suffix("")), "--split"]
    return shlex.join(words if mirror else [*words, "--disable_tta"])
