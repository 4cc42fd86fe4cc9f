"""Controls, canvas and image work together; the browser itself is in tests/end_to_end/test_notebook_viewer.py."""

import gzip
import sys
from collections.abc import Iterator
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.notebook.extra import require
from duplus_nnunet.notebook.view import ScanView, ViewSettings
from duplus_nnunet.outputs.answer import Geometry
from duplus_nnunet.reporting.colours import colour

from .test_asking import GEOMETRY, NAMES, FakeScan

# From indices (x, y, z) to right, anterior, superior: x runs to the right, y to the front, z to the head.
AFFINE = {"nibabel_stuff": {"original_affine": np.diag([2.0, 2.0, 3.0, 1.0])}}
PLACED = Geometry(GEOMETRY.shape, (3.0, 2.0, 2.0), AFFINE)
IMAGE = np.arange(2 * 4 * 5 * 6, dtype=np.float32).reshape(2, 4, 5, 6)


def test_without_the_extra_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(HostError, match=r"ipyniivue.*pip install 'duplus-nnunet\[notebook\]'"):
        require("ipyniivue")


@pytest.mark.parametrize("settings", [ViewSettings(channel=2), ViewSettings(channel=-1), ViewSettings(max_voxels=0)])
def test_what_cannot_be_shown_is_refused(settings: ViewSettings) -> None:
    with pytest.raises(DataError):
        ScanView(FakeScan(), IMAGE, PLACED, settings)


@pytest.fixture
def scan() -> Iterator[FakeScan]:
    pytest.importorskip("ipyniivue", reason="ipyniivue is not installed (extra notebook)")
    return FakeScan()


def open_view(scan: FakeScan, **settings: Any) -> ScanView:
    """Open a view, and report what the browser reports when it shows it."""
    view = ScanView(scan, IMAGE, PLACED, ViewSettings(**settings))
    report(view)
    return view


def report(view: ScanView) -> None:
    (reporter,) = view._viewer.widget.children
    reporter._handle_custom_msg({"event": "rendered"}, [])


def list_boxes(view: ScanView) -> dict[str, bool]:
    return {title: box.value for title, (box, _) in view._panel._boxes.items()}


def list_volumes(view: ScanView) -> list[Any]:
    return list(view._viewer.canvas.volumes)


def read(volume: Any) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(volume.data))


def test_the_chosen_channel_is_shown_before_the_first_question(scan: FakeScan) -> None:
    view = open_view(scan, channel=1)
    (volume,) = list_volumes(view)
    np.testing.assert_array_equal(read(volume).get_fdata().transpose(2, 1, 0), IMAGE[1])
    assert scan.asked == []
    assert list_boxes(view) == dict.fromkeys(NAMES, False)
    assert list(view._panel.line.options) == scan.words
    assert view.sent == len(volume.data)


def test_an_answer_is_a_mask_of_its_colour_with_a_ticked_box(scan: FakeScan) -> None:
    view = open_view(scan)
    view.ask("left kidney")
    _, mask = list_volumes(view)
    assert read(mask).shape == (2, 2, 2)
    assert "".join(f"{part:02x}" for part in mask.colormap_label.lut[4:7]) == colour(3)[1:]
    assert mask.colormap_label.lut[3] == 0
    assert list_boxes(view) == {"liver": False, "spleen": False, "left kidney": True}
    assert "8.00 ml" in view._panel.message.value
    # Voxel 3 to 4 of 6 to the right, 2 to 3 of 5 to the front, 1 to 2 of 4 to the head.
    across, along, up = view._viewer.canvas.scene.crosshair_pos
    assert (3 < across * 6 < 5, 2 < along * 5 < 4, 1 < up * 4 < 3) == (True, True, True)


def test_what_was_asked_before_the_browser_showed_the_view_is_shown_then(scan: FakeScan) -> None:
    view = ScanView(scan, IMAGE, PLACED, ViewSettings())
    view.ask("liver")
    view.ask("left kidney")
    view._panel._boxes["liver"][0].value = False
    view._panel.layouts.value = "axial"
    assert view._viewer.canvas is None
    report(view)
    assert [volume.opacity for volume in list_volumes(view)] == [1.0, 0.0, 0.6]
    assert view._viewer.canvas.opts.slice_type.name == "AXIAL"
    assert view._viewer.canvas.scene.crosshair_pos != [0.5, 0.5, 0.5]
    assert view._viewer.widget.children == (view._viewer.canvas,)
    # Another cell may show the view, too.
    canvas = view._viewer.canvas
    view._viewer.start()
    assert view._viewer.canvas is canvas


def test_a_view_that_ended_before_it_was_shown_shows_nothing(scan: FakeScan) -> None:
    view = ScanView(scan, IMAGE, PLACED, ViewSettings())
    view.end()
    report(view)
    assert list_volumes(view) == []


def test_boxes_ask_once_and_then_show_and_hide(scan: FakeScan) -> None:
    view = open_view(scan)
    box = view._panel._boxes["liver"][0]
    for is_ticked in (True, False, True, False):
        box.value = is_ticked
    _, mask = list_volumes(view)
    assert mask.opacity == 0
    view._panel.opacity.value = 0.9
    assert mask.opacity == 0
    box.value = True
    assert mask.opacity == pytest.approx(0.9)
    assert scan.asked == [("liver", None)]


def test_a_structure_that_is_not_there_is_sent_as_nothing(scan: FakeScan) -> None:
    view = open_view(scan)
    view._panel._boxes["spleen"][0].value = True
    assert len(list_volumes(view)) == 1
    assert list_boxes(view)["spleen"]


def test_an_unknown_word_may_then_be_used_as_free_text(scan: FakeScan) -> None:
    view = open_view(scan)
    view._panel.line.value = "<b>stent"
    view._panel.button.click()
    assert "&lt;b&gt;stent" in view._panel.message.value
    assert view._panel.free.layout.display != "none"
    view._panel.free.click()
    assert scan.asked[-1] == (None, "<b>stent")
    assert view._panel.free.layout.display == "none"
    assert view.shown == ["<b>stent (not seen in training)"]
    assert list_boxes(view)[view.shown[0]]


def test_what_goes_wrong_is_said_in_the_view(scan: FakeScan) -> None:
    view = open_view(scan)
    scan.close()
    view._panel._boxes["liver"][0].value = True
    assert "closed" in view._panel.message.value
    assert not list_boxes(view)["liver"]
    assert not view._panel.line.disabled


def test_a_mistake_of_the_program_is_said_and_raised(scan: FakeScan, monkeypatch: pytest.MonkeyPatch) -> None:
    view = open_view(scan)
    monkeypatch.setattr(FakeScan, "ask", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        view.ask("liver")
    assert "ZeroDivisionError" in view._panel.message.value
    assert not view._panel.line.disabled


def test_warnings_are_shown_and_replaced(
    scan: FakeScan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view, ask = open_view(scan), FakeScan.ask

    def warn(self: FakeScan, target: str | None = None, prompt: str | None = None) -> Any:
        sys.stderr.write("warning: intensities <do not> fit\nother\n")
        return ask(self, target, prompt)

    monkeypatch.setattr(FakeScan, "ask", warn)
    view.ask("liver")
    assert view._panel.warnings.value == "warning: intensities &lt;do not&gt; fit"
    assert capsys.readouterr().err == "other\n"
    monkeypatch.setattr(FakeScan, "ask", ask)
    view.ask("liver")
    assert view._panel.warnings.value == ""


def test_another_context_has_its_own_targets_and_no_masks(scan: FakeScan) -> None:
    view = open_view(scan)
    view.ask("left kidney")
    view._panel.contexts.value = "mr"
    assert list_boxes(view) == {"liver": False}
    assert len(list_volumes(view)) == 1
    second = view._questions.scan
    view._panel.contexts.value = "ct"
    assert isinstance(second, FakeScan)
    assert not second.is_open
    # The image that the user opened is left to the user.
    assert scan.is_open


def test_a_context_that_cannot_be_opened_leaves_the_view_as_it_was(scan: FakeScan) -> None:
    view = open_view(scan)
    view.ask("liver")
    view._panel.set_contexts(["ct", "gone"], "ct")
    view._panel.contexts.value = "gone"
    assert view._panel.contexts.value == "ct"
    assert len(list_volumes(view)) == 2
    assert "gone" in view._panel.message.value


def test_the_end_forgets_the_image(scan: FakeScan) -> None:
    view = open_view(scan)
    view.ask("liver")
    view._panel.contexts.value = "mr"
    second = view._questions.scan
    for _ in range(2):
        view.end()
    assert list_volumes(view) == []
    assert view._panel.line.disabled
    assert view._panel._boxes["liver"][0].disabled
    assert isinstance(second, FakeScan)
    assert not second.is_open


def test_every_layout_can_be_shown(scan: FakeScan) -> None:
    view = open_view(scan)
    types = []
    for layout in view._panel.layouts.options:
        view._panel.layouts.value = layout
        types.append(view._viewer.canvas.opts.slice_type)
    assert len(set(types)) == 5


def test_a_cell_shows_the_widget(scan: FakeScan) -> None:
    bundle = open_view(scan)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in (bundle[0] if isinstance(bundle, tuple) else bundle)
