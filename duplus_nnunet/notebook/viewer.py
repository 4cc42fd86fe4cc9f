"""Shows an image and masks in three planes and in 3D, in the browser; wraps ipyniivue."""

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


class Viewer:
    """A canvas that shows one image and its masks.

    Args:
        height: Of the canvas, in pixels.

    Attributes:
        widget: The canvas, a widget of ipyniivue.
        sent: Bytes that were sent to the browser: image and masks, compressed.

    Raises:
        HostError: The extra `notebook` is not installed.
    """

    def __init__(self, height: int) -> None:
        self._library = require("ipyniivue")
        self.widget = self._library.NiiVue(
            height=height,
            is_radiological_convention=True,
            is_corner_orientation_text=True,
            crosshair_color=_CROSSHAIR,
            crosshair_width=0.3,
            crosshair_width_unit="percent",
            # A file that is dropped on the canvas would take the place of the image.
            drag_and_drop_enabled=False,
            multiplanar_show_render=self._library.ShowRender.ALWAYS,
        )
        self.sent = 0
        self._opacity = 0.6
        self._make_volume = _define_volume(self._library)
        self._masks: dict[str, Any] = {}
        self._grid: DisplayGrid | None = None

    @property
    def opacity(self) -> float:
        """Opacity of masks, 0 to 1."""
        return self._opacity

    @opacity.setter
    def opacity(self, value: float) -> None:
        self._opacity = value
        for volume in self._masks.values():
            if volume.opacity > 0:
                volume.opacity = value

    def show_image(self, content: bytes, grid: DisplayGrid, window: tuple[float, float]) -> None:
        """Show an image instead of all that is shown.

        Args:
            content: A .nii.gz file.
            grid: Its grid.
            window: Darkest and brightest intensity.
        """
        volume = self._make_volume("image.nii.gz", content, colormap="gray", cal_min=window[0], cal_max=window[1])
        self._grid = grid
        self._replace([volume])
        self.sent += len(content)

    def show_mask(self, shown: Shown) -> None:
        """Show the mask of an answer; one that was shown before is shown again, and not sent."""
        if shown.title in self._masks:
            self.set_visible(shown.title, True)
        elif shown.is_found and self._grid is not None:
            content = self._grid.encode_mask(shown.target)
            red, green, blue = (int(shown.colour[start : start + 2], 16) for start in (1, 3, 5))
            table = self._library.widget.LUT(lut=[0, 0, 0, 0, red, green, blue, 255], min=0.0, max=1.0)
            shades = {"cal_min": 0.0, "cal_max": 1.0, "colormap_label": table}
            volume = self._make_volume("mask.nii.gz", content, opacity=self._opacity, **shades)
            self._masks[shown.title] = volume
            self.widget.volumes = [*self.widget.volumes, volume]
            self.sent += len(content)

    def set_visible(self, title: str, is_visible: bool) -> None:
        """Show or hide a mask; one that was never shown is left alone."""
        if title in self._masks:
            self._masks[title].opacity = self._opacity if is_visible else 0.0

    def look_at(self, place: tuple[float, float, float]) -> None:
        """Move the crosshair.

        Args:
            place: Shares, 0 to 1, of the way from left to right, from back to front, and from foot to head.
        """
        self.widget.scene.crosshair_pos = list(place)

    def set_layout(self, name: str) -> None:
        """Show one of LAYOUTS."""
        self.widget.set_slice_type(self._library.SliceType[_SLICE_TYPES[name]])

    def forget_masks(self) -> None:
        """Show the image alone."""
        self._replace(self.widget.volumes[:1])

    def clear(self) -> None:
        """Show nothing any more; the browser forgets the image."""
        self.widget.opts.loading_text = ""
        self._replace([])

    def _replace(self, volumes: list[Any]) -> None:
        """Show these volumes, and forget the others here and in the browser."""
        gone = [volume for volume in self.widget.volumes if volume not in volumes]
        self.widget.volumes = volumes
        self._masks.clear()
        for volume in gone:
            volume.close()


def _define_volume(library: Any) -> Any:
    """Return what makes a volume that is not sent back."""
    import traitlets

    volume_class: Any = library.Volume
    own_id = traitlets.Unicode().tag(sync=True)

    def initialise(self: Any, name: str, content: bytes, **options: Any) -> None:
        volume_class.__init__(self, name=name, data=content, **options)
        self.own_id = self.model_id

    return type("QuietVolume", (volume_class,), {"_esm": _QUIET, "own_id": own_id, "__init__": initialise})
