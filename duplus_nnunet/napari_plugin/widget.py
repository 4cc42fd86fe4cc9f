"""The dock widget of napari: chooses a model and an image, takes questions, and shows answers as layers of labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils import DirectLabelColormap
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication, QFileDialog, QTreeWidgetItem, QWidget

from duplus_nnunet.errors import DataError, DuplusError, ModelError
from duplus_nnunet.example.folder import write_example
from duplus_nnunet.napari_plugin.form import NAME, PRESENCE, VOLUME, Form, make_timer
from duplus_nnunet.napari_plugin.layers import (
    LayerImage,
    Place,
    find_affine,
    find_file,
    find_slice,
    read_file,
    read_layer,
)
from duplus_nnunet.napari_plugin.session import Question, Session, Shown
from duplus_nnunet.napari_plugin.tasks import Failure, Task, TaskLine

_POLL_MS = 100
_EXAMPLE_IMAGE, _EXAMPLE_CONTEXT = "images/ct_0000.nii.gz", "phantom_ct"
_OPACITY = 0.6


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
        self._opened: list[Image] = []
        self._wanted: tuple[Any, ...] = ()
        self._answers: dict[str, tuple[Shown, Labels]] = {}
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
            work = partial(session.ask, Question(target, prompt))
            self.tasks.add(Task(f"Segmenting {target or prompt}", work, self._show_answer))

    def cancel(self) -> None:
        """End what is worked on, and forget what waits."""
        if self.tasks.title:
            self._drop()
            self._uncheck_unanswered()
            self._say("Cancelled.")

    def save_masks(self, folder: Path) -> None:
        """Write the masks of the targets whose boxes are checked, as their layers have them now."""
        with self._show_errors():
            edited = {
                name: np.asarray(layer.data) for name, (_, layer) in self._answers.items() if self._is_checked(name)
            }
            work = partial(self._require_session().save_masks, folder, edited)
            self.tasks.add(Task("Saving masks", work, lambda files: self._say("\n".join(map(str, files)))))

    def save_jobs(self, file: Path) -> None:
        """Write a table of jobs that repeats what was asked."""
        with self._show_errors():
            work = partial(self._require_session().save_jobs, file)
            self.tasks.add(Task("Saving jobs", work, lambda command: self._say(f"To repeat it:\n{command}")))

    def _say(self, text: str) -> None:
        self.form.message.setText(text)

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
        self._uncheck_unanswered()
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
        self._forget_answers()
        self.form.show_channels(session.channels)
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
            work = partial(self._look, session, images, context, place)
            then = partial(self._take_image, layers)
            self.tasks.add(Task(f"Looking at {images[0].name}", work, then, is_needed=True))
        return session

    @staticmethod
    def _look(session: Session, images: Sequence[LayerImage], context: str, place: Place) -> str:
        session.open(images, context, place)
        return f"{images[0].name} is open in the context {context}."

    def _take_image(self, layers: list[Image], message: str) -> None:
        self._forget_answers()
        self._opened = layers
        self._show_context(self.form.context.currentText())
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

    def _show_answer(self, shown: Shown) -> None:
        """Show an answer as a layer; one that was asked before gets its layer back as it was answered."""
        if not self._opened or any(layer not in self._viewer.layers for layer in self._opened):
            return
        image = self._opened[0]
        before = self._answers.get(shown.target)
        if before is not None and before[1] in self._viewer.layers:
            layer = before[1]
            layer.data, layer.visible = shown.mask, True
        else:
            layer = self._viewer.add_labels(
                shown.mask,
                name=shown.name,
                opacity=_OPACITY,
                colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: shown.colour}),
                **{key: getattr(image, key) for key in ("scale", "translate", "rotate", "shear", "affine", "units")},
            )
        self._answers[shown.target] = shown, layer
        volume = f"{shown.volume:.2f}" if shown.mask.any() else "not found"
        presence = "" if shown.presence is None else f"{shown.presence:.0%}"
        with QSignalBlocker(self.form.targets):
            row = self.form.find_row(shown.target) or self.form.add_target(shown.target)
            row.setText(VOLUME, volume)
            row.setText(PRESENCE, presence)
            row.setForeground(NAME, QColor(shown.colour))
            row.setCheckState(NAME, Qt.CheckState.Checked)
        self.form.targets.scrollToItem(row)
        self._move_to(layer)
        parts = [f"{volume} ml" if shown.mask.any() else volume, *([f"present {presence}"] if presence else [])]
        self._say(f"{shown.name}: {', '.join(parts)}")

    def _move_to(self, layer: Labels) -> None:
        """Move to a slice that shows a mask, if the slice that is shown does not."""
        dims = self._viewer.dims
        first = dims.ndim - 3  # other layers may have more axes, which come first
        for axis in (axis for axis in dims.not_displayed if dims.ndisplay == 2 and axis >= first):
            point = find_slice(np.asarray(layer.data), find_affine(layer), axis - first, dims.point[axis])
            if point is not None:
                dims.set_point(axis, point)

    def _turn_on_or_off(self, row: QTreeWidgetItem, column: int) -> None:
        """Ask for a target whose box was checked, or hide its layer."""
        name, is_on = row.text(NAME), row.checkState(NAME) == Qt.CheckState.Checked
        if column != NAME:
            return
        if name in self._answers:
            self._answers[name][1].visible = is_on
        elif is_on:
            self.ask(name)
            if not self.tasks.title:
                self._uncheck_unanswered()

    def _ask_line(self) -> None:
        words = self.form.line.text().strip()
        self.ask(prompt=words) if self.form.free.isChecked() else self.ask(words)

    def _is_checked(self, name: str) -> bool:
        row = self.form.find_row(name)
        return row is not None and row.checkState(NAME) == Qt.CheckState.Checked

    def _uncheck_unanswered(self) -> None:
        with QSignalBlocker(self.form.targets):
            for number in range(self.form.targets.topLevelItemCount()):
                row = self.form.targets.topLevelItem(number)
                if row.text(NAME) not in self._answers:
                    row.setCheckState(NAME, Qt.CheckState.Unchecked)
                    row.setText(VOLUME, "")
                    row.setText(PRESENCE, "")

    def _drop(self) -> None:
        self.tasks.drop()
        self._wanted = ()
        if self._owner.session is not None:
            self._owner.session.cancel()

    def _forget_answers(self) -> None:
        self._answers.clear()
        self._opened = []
        self._uncheck_unanswered()

    def _add_image(self, read: tuple[Any, dict[str, Any]]) -> None:
        values, keywords = read
        layer = self._viewer.add_image(values, colormap="gray", **keywords)
        self.form.channels[0].setCurrentIndex(self.form.channels[0].findText(layer.name))
        self._say(f"{layer.name}: {' x '.join(map(str, values.shape))} voxels")

    def _forget_layer(self, event: Any) -> None:
        """Forget an answer whose layer was removed; an image that was removed is closed."""
        # Compared by equality, here and elsewhere: napari gives widgets a proxy of each layer, a new one each time.
        gone = event.value
        if gone in self._opened:
            self._drop()
            self._forget_answers()
            self._say(f"The layer {gone.name!r} was removed, and its image closed.")
            if self._owner.session is not None:
                self.tasks.add(Task("Closing the image", self._owner.session.close_image, lambda _: None))
        self._answers = {name: found for name, found in self._answers.items() if found[1] != gone}
        self._uncheck_unanswered()
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
        self.form.show_place(any(find_file(layer) is None for layer in images))

    def _show_context(self, context: str) -> None:
        session = self._owner.session
        if session is None or context not in session.targets:
            return
        with QSignalBlocker(self.form.targets):
            self.form.show_targets(session.targets[context])
        self.form.show_words(session.contexts[context])

    def _show_state(self) -> None:
        title = self.tasks.title
        for button in (self.form.load, self.form.example, self.form.open, self.form.save_masks, self.form.save_jobs):
            button.setEnabled(not title)
        self.form.cancel.setEnabled(bool(title))
        self.form.bar.setVisible(bool(title))
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
