"""The controls around the canvas: a line for questions, the list of targets, the contexts, and messages."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from duplus_nnunet.notebook.extra import require
from duplus_nnunet.notebook.viewer import LAYOUTS

_LIST_WIDTH = "270px"
_INK = {"error": "#b00020", "note": "inherit"}


@dataclass(frozen=True)
class Actions:
    """What happens when the reader does something.

    Attributes:
        ask: A text was entered; True: as free text.
        toggle: The box of a target was changed.
        change_context: A context was chosen.
        set_layout: A layout was chosen.
        set_opacity: Another opacity of masks was chosen, 0 to 1.
    """

    ask: Callable[[str, bool], None]
    toggle: Callable[[str, bool], None]
    change_context: Callable[[str], None]
    set_layout: Callable[[str], None]
    set_opacity: Callable[[float], None]


class Panel:
    """The controls, with the canvas among them.

    Args:
        canvas: The widget that shows image and masks.
        height: Of the canvas, in pixels.
        actions: What the controls do.

    Attributes:
        widget: All of it.

    Raises:
        HostError: The extra `notebook` is not installed.
    """

    def __init__(self, canvas: Any, height: int, actions: Actions) -> None:
        self._widgets = widgets = require("ipywidgets")
        self._actions = actions
        self._is_quiet = False
        self._boxes: dict[str, tuple[Any, Any]] = {}
        self.line = widgets.Combobox(
            placeholder="a target, or a text in quotation marks", layout={"flex": "1 1 200px", "width": "auto"}
        )
        self.line.add_class("duplus-line")
        self.button = widgets.Button(description="Segment", button_style="primary")
        self.free = widgets.Button(description="Use as free text", layout={"display": "none", "width": "auto"})
        self.contexts = widgets.Dropdown(layout={"width": "auto"})
        self.layouts = widgets.Dropdown(options=LAYOUTS, layout={"width": "auto"})
        self.opacity = widgets.FloatSlider(
            0.6, min=0.1, max=1, step=0.1, description="opacity", continuous_update=False, layout={"width": "230px"}
        )
        self.message = widgets.HTML()
        self.message.add_class("duplus-message")
        self.warnings = widgets.HTML()
        self.warnings.add_class("duplus-warnings")
        self.caption = widgets.HTML()
        self._list = widgets.VBox(
            layout={"flex": f"0 0 {_LIST_WIDTH}", "height": f"{height}px", "overflow": "auto", "display": "block"}
        )
        self._list.add_class("duplus-targets")
        self._connect()
        canvas.layout.flex, canvas.layout.min_width = "1 1 auto", "300px"
        top = widgets.HBox([self.line, self.button, self.free, self.contexts, self.layouts, self.opacity])
        top.layout.flex_flow = "row wrap"
        self.widget = widgets.VBox([top, self.message, self.warnings, widgets.HBox([canvas, self._list]), self.caption])

    def _connect(self) -> None:
        actions = self._actions
        self.line.on_msg(self._receive)
        self.button.on_click(lambda _: self._ask(is_free=False))
        self.free.on_click(lambda _: self._ask(is_free=True))
        self._observe(self.contexts, actions.change_context)
        self._observe(self.layouts, actions.set_layout)
        self._observe(self.opacity, actions.set_opacity)

    def _observe(self, widget: Any, act: Callable[[Any], None]) -> None:
        """Let a change by the reader act, and one by the program do nothing."""
        widget.observe(lambda change: None if self._is_quiet else act(change["new"]), "value")

    def _receive(self, _: Any, content: Any, __: Any) -> None:
        """Ask when the enter key is pressed in the line."""
        if content.get("event") == "submit":
            self._ask(is_free=False)

    def _ask(self, *, is_free: bool) -> None:
        if self.line.value.strip():
            self._actions.ask(self.line.value, is_free)

    def set_contexts(self, names: Sequence[str], chosen: str) -> None:
        """List the contexts."""
        self._is_quiet = True
        try:
            self.contexts.options, self.contexts.value = list(names), chosen
        finally:
            self._is_quiet = False
        self.contexts.layout.display = None if len(names) > 1 else "none"

    def set_targets(self, titles: Sequence[str], words: Sequence[str]) -> None:
        """List the targets that have a box, and the words that the line completes to."""
        self.line.options = list(words)
        self._boxes = {}
        self._list.children = ()
        for title in titles:
            self._add(title)
        self._list.children = tuple(map(self._make_row, titles))

    def mark(self, title: str, colour: str, text: str) -> None:
        """Tick the box of a target (added if there is none), write colour and volume beside it, and empty the line."""
        if title not in self._boxes:
            self._add(title)
            self._list.children = (*self._list.children, self._make_row(title))
        swatch = f'<span style="background:{colour};border:1px solid #888">&emsp;</span>'
        self._boxes[title][1].value = f"{swatch} {html.escape(text)}"
        self.tick(title, True)
        self.line.value = ""

    def tick(self, title: str, is_ticked: bool) -> None:
        """Tick the box of a target, or not, without doing anything else."""
        self._is_quiet = True
        try:
            self._boxes[title][0].value = is_ticked
        finally:
            self._is_quiet = False

    def say(self, text: str, kind: str = "note") -> None:
        """Show a message: a `note` or an `error`."""
        role = ' role="alert"' if kind == "error" else ' role="status"'
        self.message.value = f'<span{role} style="color:{_INK[kind]}">{html.escape(text)}</span>'

    def warn(self, lines: Sequence[str]) -> None:
        """Show warnings below the message, instead of earlier ones."""
        self.warnings.value = "<br>".join(map(html.escape, lines))

    def describe(self, text: str) -> None:
        """Write the line below the canvas."""
        self.caption.value = f"<small>{html.escape(text)}</small>"

    def offer_free_text(self, is_offered: bool) -> None:
        """Show or hide the button that takes the line as free text."""
        self.free.layout.display = None if is_offered else "none"

    def set_enabled(self, is_enabled: bool) -> None:
        """Let the controls be used, or not."""
        boxes = [box for box, _ in self._boxes.values()]
        for widget in (self.line, self.button, self.free, self.contexts, self.layouts, self.opacity, *boxes):
            widget.disabled = not is_enabled

    def _add(self, title: str) -> None:
        box = self._widgets.Checkbox(
            False, description=title, tooltip=title, indent=False, layout={"width": "auto", "flex": "1 1 auto"}
        )
        self._observe(box, lambda is_ticked: self._actions.toggle(title, is_ticked))
        self._boxes[title] = box, self._widgets.HTML(layout={"flex": "0 0 auto"})

    def _make_row(self, title: str) -> Any:
        """Put volume and colour beside the name, or below it if it is long."""
        return self._widgets.HBox(self._boxes[title], layout={"flex_flow": "row wrap", "overflow": "hidden"})
