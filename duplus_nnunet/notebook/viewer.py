"""Shows an image and masks in three planes and in 3D, in the browser; wraps ipyniivue."""

from dataclasses import dataclass
from typing import Any

from duplus_nnunet.notebook.asking import Shown
from duplus_nnunet.notebook.display import DisplayGrid
from duplus_nnunet.notebook.extra import require

LAYOUTS = ("planes and 3D", "axial", "coronal", "sagittal", "3D")
_SLICE_TYPES = dict(zip(LAYOUTS, ("MULTIPLANAR", "AXIAL", "CORONAL", "SAGITTAL", "RENDER"), strict=True))
# The crosshair must not be taken for a mask, whose colours are those of reporting/colours.py.
_CROSSHAIR = (1.0, 1.0, 1.0, 0.6)
# ipyniivue sends every volume that it shows back to Python, voxel by voxel. Nothing here reads that; it would take many
# times what was sent, on the slower way.
_QUIET = """
async function quieten(model) {
  const own = await model.widget_manager.get_model(model.get("own_id"));
  const send = own.send_sync_message;
  own.send_sync_message = function (state, ...rest) {
    const isVoxels = Object.keys(state).some((name) => name.startsWith("chunk_img_"));
    return isVoxels ? "" : send.call(this, state, ...rest);
  };
}
function initialize({ model }) {
  if (model.get("own_id")) quieten(model);
  else model.on("change:own_id", () => quieten(model));
}
export default { initialize };
"""


# Reports that the browser shows the place of the canvas, as soon as JupyterLab has looked for widgets of earlier runs.
_REPORT = """
function render({ model }) {
  const manager = model.widget_manager;
  let isDone = false;
  function report() {
    if (!isDone) model.send({ event: "rendered" });
    isDone = true;
  }
  if (manager.restoredStatus === false && manager.restored) {
    manager.restored.connect(report);
    setTimeout(report, 15000);
  } else report();
}
export default { render };
"""


@dataclass
class _Layer:
    """An image or mask that is shown.

    Attributes:
        name: Of its file.
        content: A .nii.gz file.
        options: Colours, opacity and window.
        volume: The widget of ipyniivue; None before the browser shows the canvas.
    """

    name: str
    content: bytes
    options: dict[str, Any]
    volume: Any = None

    @property
    def opacity(self) -> float:
        """Opacity, 0 to 1."""
        return float(self.options["opacity"])

    def set_opacity(self, value: float) -> None:
        """Change the opacity, here and in the browser."""
        self.options["opacity"] = value
        if self.volume is not None:
            self.volume.opacity = value


class Viewer:
    """A canvas that shows one image and its masks.

    The canvas is made when the browser reports that it shows its place: JupyterLab, while it opens a notebook, looks
    for widgets of earlier runs, and a large one that is made just then may lose its connection to Python.

    Args:
        height: Of the canvas, in pixels.

    Attributes:
        widget: What holds the canvas.
        canvas: A widget of ipyniivue; None before the browser shows its place.
        layers: What is shown, the image first.
        sent: Bytes that were sent to the browser: image and masks, compressed.

    Raises:
        HostError: The extra `notebook` is not installed.
    """

    def __init__(self, height: int) -> None:
        self._library, anywidget, widgets = require("ipyniivue"), require("anywidget"), require("ipywidgets")
        self._volume_class = _define_volume(self._library)
        self._height = height
        reporter = type("Reporter", (anywidget.AnyWidget,), {"_esm": _REPORT})()
        reporter.on_msg(lambda *_: self.start())
        self.widget = widgets.Box([reporter], layout={"min_height": f"{height}px", "display": "block"})
        self.canvas: Any = None
        self.layers: list[_Layer] = []
        self.sent = 0
        self._opacity = 0.6
        self._layout, self._place = LAYOUTS[0], (0.5, 0.5, 0.5)
        self._masks: dict[str, _Layer] = {}
        self._grid: DisplayGrid | None = None

    def start(self) -> None:
        """Make the canvas, unless it is there."""
        if self.canvas is not None:
            return
        self.canvas = self._library.NiiVue(
            height=self._height,
            is_radiological_convention=True,
            is_corner_orientation_text=True,
            crosshair_color=_CROSSHAIR,
            crosshair_width=0.3,
            crosshair_width_unit="percent",
            # A file that is dropped on the canvas would take the place of the image.
            drag_and_drop_enabled=False,
            multiplanar_show_render=self._library.ShowRender.ALWAYS,
            loading_text="loading ..." if self.layers else "",
        )
        self._draw()
        self.set_layout(self._layout)
        self.look_at(self._place)
        self.widget.children = (self.canvas,)

    @property
    def opacity(self) -> float:
        """Opacity of masks, 0 to 1."""
        return self._opacity

    @opacity.setter
    def opacity(self, value: float) -> None:
        self._opacity = value
        for layer in self._masks.values():
            if layer.opacity > 0:
                layer.set_opacity(value)

    def show_image(self, content: bytes, grid: DisplayGrid, window: tuple[float, float]) -> None:
        """Show an image instead of all that is shown.

        Args:
            content: A .nii.gz file.
            grid: Its grid.
            window: Darkest and brightest intensity.
        """
        self._grid = grid
        options = {"colormap": "gray", "opacity": 1.0, "cal_min": window[0], "cal_max": window[1]}
        self._replace([_Layer("image.nii.gz", content, options)])
        self.sent += len(content)

    def show_mask(self, shown: Shown) -> None:
        """Show the mask of an answer; one that was shown before is shown again, and not sent."""
        if shown.title in self._masks:
            self.set_visible(shown.title, True)
        elif shown.is_found and self._grid is not None:
            content = self._grid.encode_mask(shown.target)
            red, green, blue = (int(shown.colour[start : start + 2], 16) for start in (1, 3, 5))
            table = self._library.widget.LUT(lut=[0, 0, 0, 0, red, green, blue, 255], min=0.0, max=1.0)
            options = {"opacity": self._opacity, "cal_min": 0.0, "cal_max": 1.0, "colormap_label": table}
            self._masks[shown.title] = _Layer("mask.nii.gz", content, options)
            self.layers.append(self._masks[shown.title])
            self._draw()
            self.sent += len(content)

    def set_visible(self, title: str, is_visible: bool) -> None:
        """Show or hide a mask; one that was never shown is left alone."""
        if title in self._masks:
            self._masks[title].set_opacity(self._opacity if is_visible else 0.0)

    def look_at(self, place: tuple[float, float, float]) -> None:
        """Move the crosshair.

        Args:
            place: Shares, 0 to 1, of the way from left to right, from back to front, and from foot to head.
        """
        self._place = place
        if self.canvas is not None:
            self.canvas.scene.crosshair_pos = list(place)

    def set_layout(self, name: str) -> None:
        """Show one of LAYOUTS."""
        self._layout = name
        if self.canvas is not None:
            self.canvas.set_slice_type(self._library.SliceType[_SLICE_TYPES[name]])

    def forget_masks(self) -> None:
        """Show the image alone."""
        self._replace(self.layers[:1])

    def clear(self) -> None:
        """Show nothing any more; the browser forgets the image."""
        if self.canvas is not None:
            self.canvas.opts.loading_text = ""
        self._replace([])

    def _replace(self, layers: list[_Layer]) -> None:
        """Show these layers, and forget the others here and in the browser."""
        gone = [layer for layer in self.layers if layer not in layers]
        self.layers = layers
        self._masks.clear()
        self._draw()
        for layer in gone:
            if layer.volume is not None:
                layer.volume.close()

    def _draw(self) -> None:
        """Let the browser show the layers, if it shows the canvas."""
        if self.canvas is None:
            return
        for layer in self.layers:
            if layer.volume is None:
                layer.volume = self._volume_class(layer.name, layer.content, **layer.options)
        self.canvas.volumes = [layer.volume for layer in self.layers]


def _define_volume(library: Any) -> Any:
    """Return what makes a volume that is not sent back."""
    import traitlets

    volume_class: Any = library.Volume
    own_id = traitlets.Unicode().tag(sync=True)

    def initialise(self: Any, name: str, content: bytes, **options: Any) -> None:
        volume_class.__init__(self, name=name, data=content, **options)
        self.own_id = self.model_id

    return type("QuietVolume", (volume_class,), {"_esm": _QUIET, "own_id": own_id, "__init__": initialise})
