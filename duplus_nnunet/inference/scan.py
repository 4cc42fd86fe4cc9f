"""An opened image: the network looks at it once, and each question about it costs its target's head alone.

What encoder and decoder compute depends on the image and the context prompt alone. A target prompt makes the weights of
a small head, which is all that a further target costs. Answers are equal to those of an ordinary prediction with the
same settings.

Example:
    scan = predictor.open("ct.nii.gz", context="amos_ct")
    mask = scan.segment("left kidney")
    mask = scan.segment(prompt="A computed tomography of the renal pelvis")
    scan.targets, scan.volume("liver"), scan.preview("liver").save("liver.png")
    scan.close()
"""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.prediction import Prediction
from duplus_nnunet.notebook.display import MAX_VOXELS
from duplus_nnunet.outputs.answer import Geometry

if TYPE_CHECKING:
    from duplus_nnunet.notebook.view import ScanView

# Answers that are held ready for the same question: a mask, its volume and its picture are one answer.
_HELD_ANSWERS = 4

Question = tuple[tuple[str, ...], tuple[str, ...]]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Picture:
    """A picture of masks on their image, as PNG; notebooks show it.

    Attributes:
        png: Content of the file.
    """

    png: bytes

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write the picture to a file, and return its path."""
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_new_file(path) as new:
            new.write_bytes(self.png)
        return path

    def _repr_png_(self) -> bytes:
        """Return the picture for notebooks."""
        return self.png


@dataclass(frozen=True)
class Kept:
    """How much is kept of an opened image.

    Attributes:
        in_memory: Compressed bytes in memory.
        in_file: Compressed bytes in the temporary file.
        uncompressed: Bytes before compression.
        calls_again: Number of windows that had to be predicted again, for want of room.
    """

    in_memory: int
    in_file: int
    uncompressed: int
    calls_again: int


@dataclass(frozen=True)
class Source:
    """Where an opened image came from.

    Attributes:
        image: As it was given to `open`; an object is kept alive by it.
        states: Size in bytes and time of change of each file, by path.
    """

    image: Any
    states: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, image: Any, files: Sequence[str]) -> "Source":
        """Note in what state some files are; one that is not there is left to the reader."""
        return cls(image, {file: _look_at(file) for file in files if os.path.exists(file)})

    def require_unchanged(self) -> None:
        """Check that the files are as they were.

        Raises:
            DataError: A file was changed or removed.
        """
        for file, before in self.states.items():
            try:
                now = _look_at(file)
            except OSError as error:
                raise DataError(f"{file} is not there any more ({error.strerror}); it was opened before.") from error
            if now != before:
                raise DataError(f"{file} was changed after it was opened. Open it again.")


@dataclass(frozen=True)
class Opened:
    """What a predictor knows of an image that it opened.

    Attributes:
        context: Name of its context.
        targets: Targets that the model knows in this context.
        words: Their names, then their labels and synonyms.
        contexts: Contexts of the model.
        geometry: The image's grid.
        mirror: Whether mirror images are predicted, too.
        source: Where it came from.
        lock: Held while the network, or what is kept of the image, is used.
        answer: Answers a question about it.
        read: Reads it again, as (C, D, H, W).
        reopen: Opens it in another context; the second argument is called with the progress.
    """

    context: str
    targets: tuple[str, ...]
    words: tuple[str, ...]
    contexts: tuple[str, ...]
    geometry: Geometry
    mirror: bool
    source: Source
    lock: AbstractContextManager[Any]
    answer: Callable[[Question], Prediction]
    read: Callable[[], NDArray[Any]]
    reopen: Callable[[str, Callable[[int, int], object] | None], "Scan"]


class Scan(AbstractContextManager["Scan"]):
    """An opened image. Made by `DuPLUSPredictor.open`; may be used by several threads, whose questions wait in line.

    Args:
        opened: What its predictor knows of it.
        maps: What the network computed.
    """

    def __init__(self, opened: Opened, maps: KeptMaps) -> None:
        self._opened: Opened | None = opened
        self._lock, self._maps, self._answers = opened.lock, maps, OrderedDict[Question, Prediction]()
        self.context, self.targets, self.mirror = opened.context, list(opened.targets), opened.mirror
        self.words, self.contexts = list(opened.words), list(opened.contexts)
        self._views: list[ScanView] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the image."""
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._opened is not None

    @property
    def kept(self) -> Kept:
        """How much is kept of it."""
        maps = self._maps
        return Kept(maps.in_memory, maps.in_file, maps.uncompressed, maps.calls_again)

    def segment(self, target: str | None = None, *, prompt: str | None = None) -> NDArray[np.bool_]:
        """Segment one structure.

        Args:
            target: Name or synonym of a target of the context.
            prompt: Instead, the text of a structure that the model was not trained on, or the target prompt of one that
                it was.

        Returns:
            Mask on the image's grid, in the order (z, y, x); empty if the structure is not in the image.

        Raises:
            DataError: The image was closed, or its file was changed.
            PromptError: The context does not have the target, or not exactly one of both is given.
        """
        return _only(self.ask(target, prompt).masks)

    def volume(self, target: str | None = None, *, prompt: str | None = None) -> float:
        """Measure the volume of one structure, in ml; see `segment`."""
        return _only(self.ask(target, prompt).volumes)

    def presence(self, target: str | None = None, *, prompt: str | None = None) -> float | None:
        """Return the probability, 0 to 1, that a structure is in the image; None if the model was not calibrated."""
        return _only(self.ask(target, prompt).presence)

    def preview(self, target: str | None = None, *, prompt: str | None = None) -> Picture:
        """Draw one structure in three slices; see `segment`."""
        from duplus_nnunet.outputs.preview import write_preview

        answer, image = self.ask(target, prompt).answer, self.read_image()
        with tempfile.TemporaryDirectory() as folder:
            (file, *_) = write_preview(answer, image, Path(folder))
            return Picture(file.read_bytes())

    def read_image(self) -> NDArray[Any]:
        """Read the image again, without preprocessing.

        Returns:
            Array (C, z, y, x), on the grid of the masks.

        Raises:
            DataError: The image was closed, or its file was changed.
        """
        with self._lock:
            opened = self._require_open()
            opened.source.require_unchanged()
            return opened.read()

    def view(self, *, height: int = 480, max_voxels: int = MAX_VOXELS, channel: int = 0) -> "ScanView":
        """Show the image in a notebook, in three planes and in 3D, with a line that takes questions.

        Image and masks go through the notebook to the browser, which needs no access to files or to the network.

        Args:
            height: Of the pictures, in pixels.
            max_voxels: Above it, neighbouring voxels are shown as one; masks are computed on the full grid.
            channel: Number of the channel that is shown, from 0.

        Returns:
            What a cell shows; closing the image ends it.

        Raises:
            DataError: The image was closed, its file was changed, or the channel does not exist.
            HostError: The extra `notebook` is not installed.
        """
        from duplus_nnunet.notebook.view import ScanView, ViewSettings

        image = self.read_image()
        view = ScanView(self, image, self._require_open().geometry, ViewSettings(height, max_voxels, channel))
        self._views.append(view)
        return view

    def reopen(self, context: str, progress: Callable[[int, int], object] | None = None) -> "Scan":
        """Let the network look at the same image in another context; this one stays open.

        Args:
            context: Name of the context.
            progress: As for `DuPLUSPredictor.open`.

        Raises:
            DataError: The image was closed, or its file was changed.
            PromptError: The model does not know the context.
        """
        opened = self._require_open()
        opened.source.require_unchanged()
        return opened.reopen(context, progress)

    def ask(self, target: str | None = None, prompt: str | None = None) -> Prediction:
        """Ask for one structure, as `segment` does, and return all of the answer."""
        if (target is None) == (prompt is None):
            raise PromptError("Ask for a target by its name, or by prompt='...' for any other text; not for both.")
        return self.predict([] if target is None else [target], [] if prompt is None else [prompt])

    def predict(self, targets: Sequence[str] = (), prompts: Sequence[str] = ()) -> Prediction:
        """Answer a question about several structures; see `DuPLUSPredictor.predict`.

        Raises:
            DataError: The image was closed, or its file was changed.
            PromptError: The context does not have a target.
        """
        if isinstance(targets, str) or isinstance(prompts, str):
            raise PromptError("targets and prompts are lists of texts, such as targets=['liver'].")
        question = tuple(targets), tuple(prompts)
        with self._lock:
            opened = self._require_open()
            opened.source.require_unchanged()
            if question not in self._answers:
                self._answers[question] = opened.answer(question)
                if len(self._answers) > _HELD_ANSWERS:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(question)
            return self._answers[question]

    def close(self) -> None:
        """Forget the image and what was computed of it, and delete its temporary file; further calls do nothing.

        Views of it end.
        """
        with self._lock:
            self._opened = None
            self._answers.clear()
            self._maps.close()
        while self._views:
            self._views.pop().end()

    def _require_open(self) -> Opened:
        """Return what is known of the image.

        Raises:
            DataError: It was closed.
        """
        if self._opened is None:
            raise DataError("The image was closed. Open it again.")
        return self._opened


def _only(values: Mapping[str, Value]) -> Value:
    return next(iter(values.values()))


def _look_at(file: str) -> tuple[int, int]:
    state = os.stat(file)
    return state.st_size, state.st_mtime_ns
