"""The controls of the dock widget and their places; what they do is up to `widget`."""

from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QCompleter,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from duplus_nnunet.napari_plugin.layers import ORIENTATIONS
from duplus_nnunet.reporting.colours import ORANGE

_UNKNOWN = "choose what they mean"
NAME, VOLUME, PRESENCE = range(3)


class Form:
    """The controls of the dock widget.

    Args:
        parent: Receives them.

    Attributes:
        channels: A choice of layers for each channel of an image.
        message: What was done last, or is being done.
        error: What could not be done last.
    """

    def __init__(self, parent: QWidget) -> None:
        self.model, self.mirror = QLineEdit(), QCheckBox("mirror images, too (slower)")
        self.model.setPlaceholderText("model folder, with fold_0 and so on")
        self.browse, self.load, self.example = (QPushButton(text) for text in ("Folder...", "Load", "Example..."))
        self.context, self.channels = QComboBox(), list[QComboBox]()
        self.add_file, self.open, self.cancel = (QPushButton(text) for text in ("File...", "Open image", "Cancel"))
        self.axes, self.spacing, self.bar = QComboBox(), QLineEdit(), QProgressBar()
        self.axes.addItems([_UNKNOWN, *ORIENTATIONS])
        self.spacing.setPlaceholderText("mm along the layer's axes, where it has no scale: 2.5, 1, 1")
        self.line, self.free, self.ask = QLineEdit(), QCheckBox("any other text"), QPushButton("Segment")
        self.line.setPlaceholderText("target, such as: left kidney")
        self.free.setToolTip("Take the line for a text that describes a structure which the model was not trained on.")
        self.targets = QTreeWidget()
        self.targets.setHeaderLabels(["target", "volume (ml)", "present"])
        self.targets.setRootIsDecorated(False)
        self.save_masks, self.save_jobs = QPushButton("Save masks..."), QPushButton("Save jobs...")
        self.message, self.error = _make_text(), _make_text()
        self.error.setStyleSheet(f"color: {ORANGE}")
        self._rows = QFormLayout()
        self._lay_out(parent)
        self.show_channels(["image"])

    @property
    def orientation(self) -> str:
        """What the user said of the axes; empty: nothing."""
        return "" if self.axes.currentIndex() <= 0 else str(self.axes.currentText())

    def show_channels(self, names: Sequence[str]) -> None:
        """Offer a choice of a layer for each channel."""
        for choice in self.channels:
            self._rows.removeRow(choice)
        self.channels = [QComboBox() for _ in names]
        for number, (name, choice) in enumerate(zip(names, self.channels, strict=True)):
            choice.setMinimumContentsLength(8)
            self._rows.insertRow(2 + number, name, choice)

    def show_place(self, is_asked_for: bool) -> None:
        """Show the questions about axes and voxel size, or not."""
        self._rows.setRowVisible(self.axes, is_asked_for)
        self._rows.setRowVisible(self.spacing, is_asked_for)

    def show_words(self, words: Sequence[str]) -> None:
        """Complete the line by some words."""
        completer = QCompleter(list(words), self.line)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self.line.setCompleter(completer)

    def show_targets(self, names: Sequence[str]) -> None:
        """List targets that were not asked for yet."""
        self.targets.clear()
        for name in names:
            self.add_target(name)
        for column in range(self.targets.columnCount()):
            self.targets.resizeColumnToContents(column)

    def add_target(self, name: str) -> QTreeWidgetItem:
        """Add a target to the list."""
        row = QTreeWidgetItem(self.targets, [name, "", ""])
        row.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
        row.setCheckState(NAME, Qt.CheckState.Unchecked)
        return row

    def find_row(self, name: str) -> QTreeWidgetItem | None:
        """Find the row of a target."""
        found = self.targets.findItems(name, Qt.MatchFlag.MatchExactly | Qt.MatchFlag.MatchCaseSensitive, NAME)
        return found[0] if found else None

    def complain(self, text: str, details: str = "") -> None:
        """Show an error below the list until the user does something else; an empty text takes it away."""
        self.error.setText(text)
        self.error.setToolTip(details)
        self.error.setVisible(bool(text))

    def show_busy(self, is_busy: bool) -> None:
        """Switch off, while something is worked on, what would change what is worked on."""
        for control in (
            *(self.load, self.example, self.context, *self.channels, self.axes, self.spacing, self.open),
            *(self.save_masks, self.save_jobs),
        ):
            control.setEnabled(not is_busy)
        self.cancel.setEnabled(is_busy)
        self.bar.setVisible(is_busy)

    def show_progress(self, done: int, windows: int) -> None:
        """Show how far the work is; with no windows, that there is some."""
        self.bar.setRange(0, windows)
        self.bar.setValue(done)

    def _lay_out(self, parent: QWidget) -> None:
        rows = self._rows
        rows.addRow("Model", _put_in_line(self.model, self.browse))
        rows.addRow("", _put_in_line(self.mirror, self.load, self.example))
        rows.addRow("Axes", self.axes)
        rows.addRow("Voxel size", self.spacing)
        rows.addRow("Context", self.context)
        rows.addRow("", _put_in_line(self.add_file, self.open, self.cancel))
        rows.addRow(self.bar)
        rows.addRow(_put_in_line(self.line, self.ask))
        rows.addRow(self.free)
        column = QVBoxLayout(parent)
        column.addLayout(rows)
        column.addWidget(self.targets, 1)
        column.addWidget(_put_in_line(self.save_masks, self.save_jobs))
        column.addWidget(self.message)
        column.addWidget(self.error)


def make_timer(parent: QWidget, milliseconds: int, call: Callable[[], Any]) -> QTimer:
    """Make a timer that calls a function again and again once it is started."""
    timer = QTimer(parent)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer


def _make_text() -> QLabel:
    text = QLabel()
    text.setWordWrap(True)
    text.setTextFormat(Qt.TextFormat.PlainText)
    text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return text


def _put_in_line(*controls: QWidget) -> QWidget:
    line = QWidget()
    layout = QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    for control in controls:
        layout.addWidget(control)
    return line
