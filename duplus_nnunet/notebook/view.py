"""The view of an opened image in a notebook, which `scan.view()` returns."""

import io
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.notebook.asking import Askable, Questions, Shown, UnknownTargetError
from duplus_nnunet.notebook.display import MAX_VOXELS, DisplayGrid
from duplus_nnunet.notebook.panel import Actions, Panel
from duplus_nnunet.notebook.viewer import Viewer
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry
from duplus_nnunet.outputs.planes import OrientedCase, orient_case, view_image, view_target

WORKING = "..."
# What the package writes to standard error, which a notebook hides while controls act.
_WARNINGS = ("warning: ", "note: ")


@dataclass(frozen=True)
class ViewSettings:
    """How an image is shown.

    Attributes:
        height: Of the canvas, in pixels.
        max_voxels: Above it, neighbouring voxels are shown as one.
        channel: Number of the channel that is shown, from 0.
    """

    height: int = 480
    max_voxels: int = MAX_VOXELS
    channel: int = 0


class ScanView:
    """An image and masks in a notebook; a cell shows what `scan.view()` returns.

    Args:
        scan: The opened image.
        image: It, (C, D, H, W).
        geometry: Its grid.
        settings: How it is shown.

    Raises:
        DataError: The channel does not exist, or nothing may be shown.
        HostError: The extra `notebook` is not installed.
    """

    def __init__(self, scan: Askable, image: NDArray[Any], geometry: Geometry, settings: ViewSettings) -> None:
        _check(image, settings)
        self._first, self._geometry = scan, geometry
        self._values = image[settings.channel]
        self._questions = Questions(scan)
        self._grid = DisplayGrid.of(geometry, settings.max_voxels)
        self._viewer = Viewer(settings.height)
        actions = Actions(self.ask, self._toggle, self._change_context, self._viewer.set_layout, self._set_opacity)
        self._panel = Panel(self._viewer.widget, settings.height, actions)
        self._is_over = False
        content = self._grid.encode_image(self._values)
        self._viewer.show_image(content, self._grid, view_image(self._orient(())).window)
        self._start_context(scan)

    @property
    def widget(self) -> Any:
        """The widget, to be put among others."""
        return self._panel.widget

    @property
    def sent(self) -> int:
        """Bytes of image and masks that were sent to the browser."""
        return self._viewer.sent

    @property
    def shown(self) -> list[str]:
        """Names of what was asked in the view, in this order."""
        return list(self._questions.shown)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Let a cell show the widget."""
        bundle: Mapping[str, Any] | None = self.widget._repr_mimebundle_(**options)
        return bundle

    def ask(self, text: str, is_free: bool = False) -> None:
        """Segment a structure, and show it; what cannot be answered is said in the view.

        Args:
            text: A target, or a text in quotation marks.
            is_free: Whether the text is none of a target, without quotation marks.
        """
        with self._report():
            started = time.perf_counter()
            shown = self._questions.ask(text, is_free=is_free)
            seconds = time.perf_counter() - started
            self._viewer.show_mask(shown)
            if shown.is_found:
                self._viewer.look_at(self._find_place(shown))
            self._panel.mark(shown.title, shown.colour, shown.measured)
            self._panel.say(f"{shown.title}: {shown.measured}, {seconds:.2f} s")
            self._describe()

    def end(self) -> None:
        """End the view: the browser forgets image and masks, and the controls can no longer be used."""
        if self._is_over:
            return
        self._is_over = True
        self._close_own()
        self._viewer.clear()
        self._panel.offer_free_text(False)
        self._panel.set_enabled(False)
        self._panel.warn([])
        self._panel.say("The image was closed. Open it again to go on asking.")

    def _toggle(self, title: str, is_ticked: bool) -> None:
        if title in self._questions.shown:
            self._viewer.set_visible(title, is_ticked)
        elif is_ticked:
            self.ask(title)
            self._panel.tick(title, title in self._questions.shown)

    def _change_context(self, name: str) -> None:
        with self._report():
            try:
                opened = self._first.reopen(name, lambda done, windows: self._report_window(name, done, windows))
            except BaseException:
                self._panel.set_contexts(self._first.contexts, self._questions.scan.context)
                raise
            self._close_own()
            self._viewer.forget_masks()
            self._start_context(opened)

    def _start_context(self, scan: Askable) -> None:
        self._questions = Questions(scan)
        self._panel.set_contexts(scan.contexts, scan.context)
        self._panel.set_targets(scan.targets, scan.words)
        self._panel.say(f"context {scan.context}: {len(scan.targets)} targets. Tick one, or type.")
        self._describe()

    def _report_window(self, context: str, done: int, windows: int) -> None:
        self._panel.say(f"The network looks at the image in the context {context}: window {done + 1} of {windows}")

    def _close_own(self) -> None:
        """Close the image that this view opened in another context."""
        if self._questions.scan is not self._first:
            self._questions.scan.close()

    def _set_opacity(self, value: float) -> None:
        self._viewer.opacity = value

    @contextmanager
    def _report(self) -> Iterator[None]:
        """Do what the reader asked for, and show what goes wrong; a notebook hides the errors of controls."""
        self._panel.set_enabled(False)
        self._panel.offer_free_text(False)
        self._panel.say(WORKING)
        warned = io.StringIO()
        try:
            with redirect_stderr(warned):
                yield
        except UnknownTargetError as error:
            self._panel.say(str(error), "error")
            self._panel.offer_free_text(True)
        except (DuplusError, OSError) as error:
            self._panel.say(str(error), "error")
        except BaseException as error:
            self._panel.say(f"{type(error).__name__}: {error}", "error")
            raise
        finally:
            lines = warned.getvalue().splitlines()
            self._panel.warn([line for line in lines if line.startswith(_WARNINGS)])
            sys.stderr.writelines(f"{line}\n" for line in lines if not line.startswith(_WARNINGS))
            self._panel.set_enabled(not self._is_over)

    def _describe(self) -> None:
        z, y, x = self._geometry.shape
        text = f"{x} x {y} x {z} voxels"
        if self._grid.is_reduced:
            z, y, x = self._grid.shown_shape
            text += f", shown as {x} x {y} x {z}; a mask colours a shown voxel if any voxel in it belongs to the mask"
        if not self._grid.is_oriented:
            text += "; the image has no world coordinates, so that left and right are not known"
        self._panel.describe(f"{text}. Volumes are those of the full masks. Sent: {self.sent / 1e6:.1f} MB.")

    def _orient(self, shown: tuple[Shown, ...]) -> OrientedCase:
        """Bring image and answers into patient orientation."""
        targets = tuple(one.target for one in shown)
        labels = np.zeros(0, np.uint8)
        return orient_case(CaseAnswer("", "", "", self._geometry, labels, targets), self._values[None])

    def _find_place(self, shown: Shown) -> tuple[float, float, float]:
        """Find where the slices that show much of a target meet, as shares from left, back and foot."""
        case = self._orient((shown,))
        levels = view_target(case, case.parts[0]).levels
        foot, front, right = ((level + 0.5) / size for level, size in zip(levels, case.image.shape, strict=True))
        return 1 - right, 1 - front, foot


def _check(image: NDArray[Any], settings: ViewSettings) -> None:
    """Check how an image is to be shown.

    Raises:
        DataError: The channel does not exist, or nothing may be shown.
    """
    if not 0 <= settings.channel < len(image):
        raise DataError(f"channel={settings.channel} does not exist; the image has {len(image)}, counted from 0.")
    for name, value in (("height", settings.height), ("max_voxels", settings.max_voxels)):
        if value < 1:
            raise DataError(f"{name}={value} shows nothing; it must be 1 or more.")
