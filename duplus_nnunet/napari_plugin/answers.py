"""Shows answers in napari: a layer of labels and a row of the list each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils import DirectLabelColormap
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor

from duplus_nnunet.napari_plugin.form import NAME, PRESENCE, VOLUME, Form
from duplus_nnunet.napari_plugin.layers import find_affine, find_slice
from duplus_nnunet.napari_plugin.session import AnsweredLayer, Mask

_OPACITY = 0.6
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")


class Answers:
    """Layers of labels of the opened image, by target.

    Layers are compared by equality: napari gives widgets a proxy of each layer, a new one each time.

    Args:
        viewer: Receives the layers.
        form: Has the list.
    """

    def __init__(self, viewer: Any, form: Form) -> None:
        self._viewer, self._form = viewer, form
        self._images: list[Image] = []
        self._layers: dict[str, Labels] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a target has a layer."""
        return name in self._layers

    @property
    def images(self) -> list[Image]:
        """Layers of the image that is asked about; empty: none is open."""
        return self._images

    def begin(self, images: Sequence[Image]) -> None:
        """Start again with the layers of an image, or with none; layers of answers stay in the viewer."""
        self._images = list(images)
        self._layers.clear()
        self.uncheck_unanswered()

    def list_checked(self) -> dict[str, Mask]:
        """Return the masks of the targets whose boxes are checked, as their layers have them now."""
        rows = {name: self._form.find_row(name) for name in self._layers}
        return {
            name: np.asarray(layer.data)
            for name, layer in self._layers.items()
            if (row := rows[name]) is not None and row.checkState(NAME) == Qt.CheckState.Checked
        }

    def show(self, shown: AnsweredLayer) -> str:
        """Show an answer; a target that was asked before gets its layer back as it was answered.

        Returns:
            The answer in words.
        """
        if not self._images:
            return f"{shown.name} was dropped, since another image or context was chosen. Ask again."
        layer = self._layers.get(shown.target)
        if layer is not None and layer in self._viewer.layers:
            layer.data, layer.visible = shown.mask, True
        else:
            layer = self._add_layer(shown)
        self._layers[shown.target] = layer
        self._move_to(layer)
        volume = f"{shown.volume:.2f}" if shown.mask.any() else "not found"
        presence = "" if shown.presence is None else f"{shown.presence:.0%}"
        self._show_row(shown, volume, presence)
        parts = [f"{volume} ml" if shown.mask.any() else volume, *([f"present {presence}"] if presence else [])]
        return f"{shown.name}: {', '.join(parts)}"

    def show_or_hide(self, name: str, is_visible: bool) -> None:
        """Show or hide the layer of a target."""
        self._layers[name].visible = is_visible

    def forget(self, layer: Any) -> None:
        """Forget the answer whose layer was removed."""
        self._layers = {name: known for name, known in self._layers.items() if known != layer}
        self.uncheck_unanswered()

    def uncheck_unanswered(self) -> None:
        """Take check marks and values away from targets without an answer."""
        with QSignalBlocker(self._form.targets):
            for number in range(self._form.targets.topLevelItemCount()):
                row = self._form.targets.topLevelItem(number)
                if row.text(NAME) not in self._layers:
                    row.setCheckState(NAME, Qt.CheckState.Unchecked)
                    row.setText(VOLUME, "")
                    row.setText(PRESENCE, "")

    def _add_layer(self, shown: AnsweredLayer) -> Labels:
        return self._viewer.add_labels(
            shown.mask,
            name=shown.name,
            opacity=_OPACITY,
            colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: shown.colour}),
            **{key: getattr(self._images[0], key) for key in _PLACE},
        )

    def _show_row(self, shown: AnsweredLayer, volume: str, presence: str) -> None:
        with QSignalBlocker(self._form.targets):
            row = self._form.find_row(shown.target) or self._form.add_target(shown.target)
            row.setText(VOLUME, volume)
            row.setText(PRESENCE, presence)
            row.setForeground(NAME, QColor(shown.colour))
            row.setCheckState(NAME, Qt.CheckState.Checked)
        self._form.targets.scrollToItem(row)

    def _move_to(self, layer: Labels) -> None:
        """Move to a slice that shows a mask, if the slice that is shown does not."""
        dims = self._viewer.dims
        first = dims.ndim - 3  # other layers may have more axes, which come first
        for axis in (axis for axis in dims.not_displayed if dims.ndisplay == 2 and axis >= first):
            point = find_slice(np.asarray(layer.data), find_affine(layer), axis - first, dims.point[axis])
            if point is not None:
                dims.set_point(axis, point)
