"""The dock widget of napari: chooses a model and an image, takes questions, and shows answers as layers of labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QTreeWidgetItem, QWidget

from duplus_nnunet.errors import DataError, DuplusError, ModelError
from duplus_nnunet.example.folder import write_example
from duplus_nnunet.napari_plugin.answers import Answers
from duplus_nnunet.napari_plugin.form import NAME, Form, make_timer
from duplus_nnunet.napari_plugin.layers import (
    LayerImage,
    Place,
    find_file,
    read_file,
    read_layer,
)
from duplus_nnunet.napari_plugin.session import Question, Session
from duplus_nnunet.napari_plugin.tasks import Failure, Task, TaskLine

_POLL_MS = 100
_EXAMPLE_IMAGE = "images/ct_0000.nii.gz"


class _Owner:
    """Owns the session, and closes it when the widget is gone."""

    def __init__(self) -> None:
        self.session: Session | None = None

    def close(self, *_: Any) -> None:
        """Close the session; its thread ends at the next window of the network."""
        if self.session is not None:
            self.session.close()
            self.session = None


class SegmentWidget(QWidget):
    """The dock widget. One task is worked on at a time, in a thread; others wait in line.

    Args:
        napari_viewer: The viewer, which napari passes by this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer, self._owner = napari_viewer, _Owner()
        self.form, self.tasks = Form(self), TaskLine(self)
        self._answers = Answers(napari_viewer, self.form)
        self._wanted: tuple[Any, ...] = ()
        self._timer = make_timer(self, _POLL_MS, self._show_progress)
        self._connect()
        self._refresh_layers()
        self._show_state()
        self._say("Choose a model folder, or the example.")

    def load(self, folder: str) -> None:
        """Load a model; what was asked of the one before is forgotten, its layers stay."""
        with self._show_errors():
            if not folder.strip():
                raise ModelError("No model folder was chosen. Choose one, or the example.")
            work = partial(Session.load, Path(folder), self.form.mirror.isChecked())
            self._drop()
            self.tasks.add(Task("Loading the model", work, self._take_session, is_needed=True))

    def load_example(self, folder: Path) -> None:
        """Write the shipped model and its images into a folder, and load the model and an image."""

        def show(_: None) -> None:
            self.form.model.setText(str(folder / "model"))
            self.load(str(folder / "model"))
            self.add_file(folder / _EXAMPLE_IMAGE)

        self.form.complain("")
        self.tasks.add(Task("Writing the example", partial(write_example, folder), show, is_needed=True))

    def add_file(self, file: Path) -> None:
        """Read an image file, and show it as a layer."""
        self.form.complain("")
        self.tasks.add(Task(f"Reading {file.name}", partial(read_file, file), self._add_image))

    def open(self) -> None:
        """Let the network look at the chosen image in the chosen context."""
        with self._show_errors():
            self._wanted = ()
            self._open_if_needed()

    def ask(self, target: str | None = None, prompt: str | None = None) -> None:
        """Segment a structure; the chosen image is opened first if it is not open."""
        with self._show_errors():
            if not (target or prompt or "").strip():
                raise DataError("Nothing was typed. Type a target, or choose one in the list.")
            session = self._open_if_needed()
            work = partial(session.ask, Question(target, prompt), session.cancels)
            show = lambda shown: self._say(self._answers.show(shown))  # noqa: E731
            self.tasks.add(Task(f"Segmenting {target or prompt}", work, show))

    def cancel(self) -> None:
        """End what is worked on, and forget what waits."""
        if self.tasks.title:
            wanted = self._wanted
            if not self._drop():  # the image stays open
                self._wanted = wanted
            self._answers.uncheck_unanswered()
            self._say("Cancelled.")

    def save_masks(self, folder: Path) -> None:
        """Write the masks of the targets whose boxes are checked, as their layers have them now."""
        with self._show_errors():
            work = partial(self._require_session().save_masks, folder, self._answers.list_checked())
            self.tasks.add(Task("Saving masks", work, lambda files: self._say("\n".join(map(str, files)))))

    def save_jobs(self, file: Path) -> None:
        """Write a table of jobs that repeats what was asked."""
        with self._show_errors():
            work = partial(self._require_session().save_jobs, file)
            self.tasks.add(Task("Saving jobs", work, lambda command: self._say(f"To repeat it:\n{command}")))

    def _say(self, text: str) -> None:
        self.form.message.setText(text)

    def _connect_channels(self) -> None:
        for choice in self.form.channels:
            choice.currentIndexChanged.connect(self._change_image)

    def _connect(self) -> None:
        form, layers = self.form, self._viewer.layers
        form.browse.clicked.connect(self._choose_model)
        form.load.clicked.connect(lambda: self.load(form.model.text()))
        form.example.clicked.connect(self._choose_example)
        form.add_file.clicked.connect(self._choose_file)
        form.open.clicked.connect(self.open)
        form.cancel.clicked.connect(self.cancel)
        form.ask.clicked.connect(self._ask_line)
        form.line.returnPressed.connect(self._ask_line)
        form.context.currentTextChanged.connect(self._show_context)
        form.targets.itemChanged.connect(self._turn_on_or_off)
        form.save_masks.clicked.connect(self._choose_masks)
        form.save_jobs.clicked.connect(self._choose_jobs)
        self._connect_channels()
        self.tasks.changed.connect(self._show_state)
        self.tasks.failed.connect(self._show_failure)
        layers.events.inserted.connect(self._refresh_layers)
        layers.events.removed.connect(self._forget_layer)
        self.destroyed.connect(self._owner.close)
        application = QApplication.instance()
        if application is not None:
            application.lastWindowClosed.connect(self._owner.close)

    @contextmanager
    def _show_errors(self) -> Iterator[None]:
        try:
            self.form.complain("")
            yield
        except DuplusError as error:
            self.form.complain(str(error))

    def _show_failure(self, failure: Failure) -> None:
        self._wanted = self._wanted if self._session_is_open() else ()
        self._answers.uncheck_unanswered()
        self._say("" if failure.text else "Cancelled.")
        self.form.complain(failure.text, failure.details)

    def _session_is_open(self) -> bool:
        return self._owner.session is not None and self._owner.session.is_open

    def _require_session(self) -> Session:
        if self._owner.session is None:
            raise ModelError("No model is loaded. Choose a model folder, or the example.")
        return self._owner.session

    def _take_session(self, session: Session) -> None:
        self._owner.close()
        self._owner.session = session
        self._answers.begin([])
        self.form.show_channels(session.channels)
        self._connect_channels()
        self._refresh_layers()
        with QSignalBlocker(self.form.context):
            self.form.context.clear()
            self.form.context.addItems(list(session.contexts))
        self._show_context(self.form.context.currentText())
        self._say(f"Loaded: {len(session.contexts)} context(s). Choose layer and context, and type a target.")

    def _open_if_needed(self) -> Session:
        """Open the chosen image, unless it is open already.

        Raises:
            DuplusError: Nothing can be opened.
        """
        session = self._require_session()
        layers, context = self._list_chosen(), self.form.context.currentText()
        place = Place(self.form.orientation, self._read_spacing())
        wanted = (*layers, context, place)
        if wanted != self._wanted:
            images = [read_layer(layer) for layer in layers]
            self._wanted = wanted
            work = partial(self._look, session, images, context, place, session.cancels)
            then = partial(self._take_image, layers)
            self.tasks.add(Task(f"Looking at {images[0].name}", work, then, is_needed=True))
        return session

    @staticmethod
    def _look(session: Session, images: Sequence[LayerImage], context: str, place: Place, cancels: int) -> str:
        session.open(images, context, place, cancels)
        return f"{images[0].name} is open in the context {context}."

    def _take_image(self, layers: list[Image], message: str) -> None:
        self._answers.begin(layers)
        self._say(message)

    def _list_chosen(self) -> list[Image]:
        layers = [choice.currentData() for choice in self.form.channels]
        for layer in layers:
            if layer is None or layer not in self._viewer.layers:
                raise DataError("No image layer was chosen. Add an image to the viewer, or open a file.")
        return layers

    def _read_spacing(self) -> tuple[float, float, float] | None:
        words = self.form.spacing.text().replace(",", " ").split()
        if not words:
            return None
        try:
            i, j, k = map(float, words)
        except ValueError as error:
            raise DataError(
                f"The voxel size is {self.form.spacing.text()!r}; expected three numbers in mm, such as 2.5, 1, 1."
            ) from error
        return i, j, k

    def _turn_on_or_off(self, row: QTreeWidgetItem, column: int) -> None:
        """Ask for a target whose box was checked, or hide its layer."""
        name, is_on = row.text(NAME), row.checkState(NAME) == Qt.CheckState.Checked
        if column != NAME:
            return
        if name in self._answers:
            self._answers.show_or_hide(name, is_on)
        elif is_on:
            session = self._owner.session
            is_target = session is None or name in session.targets[self.form.context.currentText()]
            self.ask(name) if is_target else self.ask(prompt=name)
            if not self.tasks.title:
                self._answers.uncheck_unanswered()

    def _ask_line(self) -> None:
        words = self.form.line.text().strip()
        self.ask(prompt=words) if self.form.free.isChecked() else self.ask(words)

    def _drop(self) -> bool:
        """Forget all tasks; returns whether the image was still to be opened by one of them."""
        is_needed = self.tasks.drop()
        self._wanted = ()
        if self._owner.session is not None:
            self._owner.session.cancel()
        return is_needed

    def _add_image(self, read: tuple[Any, dict[str, Any]]) -> None:
        values, keywords = read
        layer = self._viewer.add_image(values, colormap="gray", **keywords)
        self.form.channels[0].setCurrentIndex(self.form.channels[0].findText(layer.name))
        self._say(f"{layer.name}: {' x '.join(map(str, values.shape))} voxels")

    def _forget_layer(self, event: Any) -> None:
        """Forget an answer whose layer was removed; an image that was removed is closed."""
        gone = event.value
        if gone in self._answers.images or gone in self._wanted:
            self._drop()
            self._answers.begin([])
            self._say(f"The layer {gone.name!r} was removed, and its image closed.")
            if self._owner.session is not None:
                self.tasks.add(Task("Closing the image", self._owner.session.close_image, lambda _: None))
        self._answers.forget(gone)
        self._refresh_layers()

    def _refresh_layers(self, *_: Any) -> None:
        """Offer the image layers that are there; what was chosen stays chosen."""
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        for number, choice in enumerate(self.form.channels):
            chosen = choice.currentData()
            with QSignalBlocker(choice):
                choice.clear()
                for layer in images:
                    choice.addItem(layer.name, layer)
                free = images.index(chosen) if chosen in images else min(number, len(images) - 1)
                choice.setCurrentIndex(free)
        self._show_place()

    def _show_place(self) -> None:
        """Show the questions about axes and voxel size if a chosen layer was not read from a file."""
        layers = [choice.currentData() for choice in self.form.channels]
        self.form.show_place(any(layer is not None and find_file(layer) is None for layer in layers))

    def _change_image(self, *_: Any) -> None:
        """Start again with another image or context; layers of answers stay."""
        self._wanted = ()
        self._answers.begin([])
        self._show_place()

    def _show_context(self, context: str) -> None:
        self._change_image()
        session = self._owner.session
        if session is None or context not in session.targets:
            return
        with QSignalBlocker(self.form.targets):
            self.form.show_targets(session.targets[context])
        self.form.show_words(session.contexts[context])

    def _show_state(self) -> None:
        title = self.tasks.title
        self.form.show_busy(bool(title))
        if not title:
            self._timer.stop()
            return
        self._say(f"{title} ...")
        self._show_progress()
        self._timer.start()

    def _show_progress(self) -> None:
        session = self._owner.session
        self.form.show_progress(*(session.progress if session is not None else (0, 0)))

    def _choose_model(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Model folder"):
            self.form.model.setText(folder)
            self.load(folder)

    def _choose_example(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder in which the example is written"):
            self.load_example(Path(folder, "duplus_example"))

    def _choose_file(self) -> None:
        file, _ = QFileDialog.getOpenFileName(self, "Image", "", "Images (*.nii *.nii.gz *.nrrd *.mha *.mhd);;All (*)")
        if file:
            self.add_file(Path(file))

    def _choose_masks(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of masks"):
            self.save_masks(Path(folder))

    def _choose_jobs(self) -> None:
        file, _ = QFileDialog.getSaveFileName(self, "Table of jobs", "jobs.json", "Jobs (*.json)")
        if file:
            self.save_jobs(Path(file))
