"""A program that drives the window of napari as a user does, and writes what it saw; `test_napari` starts it."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 300  # seconds that anything may take on a busy machine
PAUSE = 0.02


def main(folder: Path, screenshot: Path) -> None:
    """Write the results of all scenes, in their order, into a folder."""
    import napari

    os.chdir(folder)

    user = User(napari.Viewer())
    results: dict[str, Any] = {}
    for scene in (
        meet_without_model, load_example, type_a_target, mistype, complete, click_boxes, type_a_text,
        save, remove_a_layer_while_asked, refuse_layers, show_an_array, cancel, remove_the_image_while_asked,
        replace_the_model,
    ):  # fmt: skip
        results[scene.__name__] = scene(user)
        if scene is click_boxes:
            user.type(user.form.line, "left kidney", enter=False)
            user.form.line.completer().popup().hide()
            user.form.complain("")
            user.viewer.reset_view()
            user.rest()
            user.viewer.window.screenshot(str(screenshot), canvas_only=False)
    results["close_while_working"] = close_while_working(user)
    Path("results.json").write_text(json.dumps(results, default=str))


class User:
    """Types, clicks, waits and looks."""

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        _, self.widget = viewer.window.add_plugin_dock_widget("duplus-nnunet", "Segment by text")
        self.form = self.widget.form
        viewer.window.resize(1200, 800)
        self.rest()

    def rest(self, rounds: int = 5) -> None:
        from qtpy.QtWidgets import QApplication

        for _ in range(rounds):
            QApplication.processEvents()
            time.sleep(PAUSE)

    def wait(self, is_over: Callable[[], bool]) -> int:
        """Let the window live until something is over; returns how often it could."""
        end, rounds = time.monotonic() + LONGEST, 0
        while not is_over():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.form.message.text()} {self.form.error.text()}")
            self.rest(1)
            rounds += 1
        return rounds

    def wait_until_idle(self) -> int:
        rounds = self.wait(lambda: not self.widget.tasks.title)
        self.rest()
        return rounds

    def click(self, button: Any) -> None:
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        # A box is at the left of its row.
        QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))
        self.rest()

    def type(self, line: Any, text: str, enter: bool = True) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        line.clear()
        QTest.keyClicks(line, text)
        if enter:
            QTest.keyClick(line, Qt.Key.Key_Return)
        self.rest()

    def check(self, name: str, is_on: bool = True) -> None:
        from qtpy.QtCore import Qt

        self.form.find_row(name).setCheckState(0, Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked)
        self.rest()

    def choose(self, layer: str) -> None:
        self.form.channels[0].setCurrentIndex(self.form.channels[0].findText(layer))

    @property
    def layers(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers]

    @property
    def error(self) -> str:
        return str(self.form.error.text())

    @property
    def rows(self) -> dict[str, tuple[bool, str]]:
        """Whether the box of each target is checked, and its volume."""
        from qtpy.QtCore import Qt

        rows = (self.form.targets.topLevelItem(number) for number in range(self.form.targets.topLevelItemCount()))
        return {row.text(0): (row.checkState(0) == Qt.CheckState.Checked, row.text(1)) for row in rows}


def meet_without_model(user: User) -> Any:
    user.type(user.form.line, "liver")
    asked = user.error
    user.click(user.form.load)
    empty = user.error
    user.type(user.form.model, "nothing", enter=False)
    user.click(user.form.load)
    user.wait_until_idle()
    return {"asked": asked, "empty": empty, "no model": user.error}


def load_example(user: User) -> Any:
    user.widget.load_example(Path("example"))
    rounds = user.wait_until_idle()
    contexts = [user.form.context.itemText(number) for number in range(user.form.context.count())]
    user.form.context.setCurrentText("phantom_ct")
    seen = {"contexts": contexts, "layers": user.layers, "targets": list(user.rows)}
    return {**seen, "rounds": rounds, "error": user.error}


def type_a_target(user: User) -> Any:
    user.type(user.form.line, "liver")
    user.wait_until_idle()
    image, liver = user.viewer.layers["ct"], user.viewer.layers["liver"]
    shown = round(float(liver.world_to_data(user.viewer.dims.point)[0]))
    return {
        "seen": int(liver.data[shown].sum()),
        "voxels": int(liver.data.sum()),
        "same place": bool(np.allclose(liver.extent.world, image.extent.world)),
        "colour": np.asarray(liver.colormap.color_dict[1]).tolist(),
        "row": user.rows["liver"],
        "message": user.form.message.text(),
        "error": user.error,
    }


def mistype(user: User) -> Any:
    user.type(user.form.line, "splean")
    user.wait_until_idle()
    return {"error": user.error, "layers": user.layers}


def complete(user: User) -> Any:
    user.type(user.form.line, "kid", enter=False)
    completer = user.form.line.completer()
    found = [
        completer.setCurrentRow(row) and completer.currentCompletion() for row in range(completer.completionCount())
    ]
    completer.popup().hide()
    return found


def click_boxes(user: User) -> Any:
    """Two boxes at once; then one of them off, and on again. The image stays open."""
    reported = slow_down(user)
    user.check("left kidney")
    user.check("right kidney")
    user.click(user.form.ask)  # "kid" is no target
    user.wait_until_idle()
    both = user.layers
    user.check("left kidney", is_on=False)
    hidden = user.viewer.layers["left kidney"].visible
    user.check("left kidney")
    left, right = (user.viewer.layers[f"{side} kidney"] for side in ("left", "right"))
    centres = [
        float(np.argwhere(layer.data).mean(axis=0)[2] * layer.affine.affine_matrix[2, 2]) for layer in (left, right)
    ]
    return {
        "layers": both,
        "hidden": hidden,
        "shown": left.visible,
        "looks": len(reported),
        "left, right": centres,
        "error": user.error,
    }


def type_a_text(user: User) -> Any:
    """A structure that the model was not trained on, which needs a text encoder; and the sentence of one it knows."""
    seen = {}
    for name, text in (("new", "A computed tomography of pancreas"), ("known", "A computed tomography of aorta")):
        user.click(user.form.free)
        user.type(user.form.line, text)
        user.wait_until_idle()
        seen[name] = {"layer": user.layers[-1], "error": user.error}
        user.click(user.form.free)
    return {**seen, "rows": list(user.rows)}


def save(user: User) -> Any:
    user.check("right kidney", is_on=False)
    user.widget.save_masks(Path("masks"))
    user.wait_until_idle()
    user.widget.save_jobs(Path("jobs.json"))
    user.wait_until_idle()
    return {
        "files": sorted(file.name for file in Path("masks").iterdir()),
        "message": user.form.message.text(),
    }


def remove_a_layer_while_asked(user: User) -> Any:
    user.check("spleen")
    user.viewer.layers.remove("liver")
    user.wait_until_idle()
    return {"layers": user.layers, "liver": user.rows["liver"], "spleen": user.rows["spleen"]}


def refuse_layers(user: User) -> Any:
    errors = {}
    for name, shape, is_colour in (("flat", (8, 8), False), ("film", (2, 8, 8, 8), False), ("photo", (8, 8, 3), True)):
        user.viewer.add_image(np.ones(shape, np.uint8), name=name, rgb=is_colour)
        user.choose(name)
        user.type(user.form.line, "liver")
        user.wait_until_idle()
        errors[name] = user.error
        user.viewer.layers.remove(name)
    user.viewer.add_image(np.random.default_rng(0).normal(size=(9, 9, 9)), name="array")
    user.choose("array")
    user.click(user.form.open)
    errors["no axes"] = user.error if user.wait_until_idle() >= 0 else ""
    user.form.axes.setCurrentIndex(1)
    user.click(user.form.open)
    errors["no voxel size"] = user.error if user.wait_until_idle() >= 0 else ""
    user.type(user.form.spacing, "2, two, 2", enter=False)
    user.click(user.form.open)
    errors["words"] = user.error if user.wait_until_idle() >= 0 else ""
    user.viewer.layers.remove("array")
    user.form.axes.setCurrentIndex(0)
    user.form.spacing.clear()
    return errors


def show_an_array(user: User) -> Any:
    """The voxels of a file, without the file, give the same answer once their axes are named."""
    image = user.viewer.layers["ct"]
    user.viewer.add_image(np.asarray(image.data), name="array", affine=image.affine)
    user.choose("array")
    user.form.axes.setCurrentIndex(1)
    user.type(user.form.line, "left kidney")
    user.wait_until_idle()
    layer = user.viewer.layers[-1]
    same = bool((layer.data == user.viewer.layers["left kidney"].data).all())
    place = bool(np.allclose(layer.extent.world, image.extent.world))
    user.choose("ct")
    user.viewer.layers.remove(layer)
    user.viewer.layers.remove("array")
    user.wait_until_idle()
    return {"name": layer.name, "same": same, "place": place, "error": user.error}


def slow_down(user: User) -> list[tuple[int, int]]:
    """Let each window of the network take a while; returns what was reported."""
    session, reported = user.widget._owner.session, list[tuple[int, int]]()
    report = type(session)._report_progress

    def wait_and_report(done: int, windows: int) -> None:
        reported.append((done, windows))
        time.sleep(0.2)
        report(session, done, windows)

    session._report_progress = wait_and_report
    return reported


def cancel(user: User) -> Any:
    reported = slow_down(user)
    user.click(user.form.open)
    user.click(user.form.open)  # the button is off
    user.check("stomach")  # waits in line
    user.wait(lambda: user.form.bar.maximum() > 0)
    bar = user.form.bar.isVisible(), user.form.bar.maximum()
    user.click(user.form.cancel)
    user.wait_until_idle()
    before = len(reported), reported[0][1]
    message, layers, rows = user.form.message.text(), user.layers, user.rows
    user.type(user.form.line, "stomach")
    rounds = user.wait_until_idle()
    return {
        "reported": before, "bar": bar, "message": message, "layers": layers, "stomach": rows["stomach"],
        "rounds": rounds, "afterwards": user.layers, "error": user.error,
    }  # fmt: skip


def remove_the_image_while_asked(user: User) -> Any:
    reported = slow_down(user)
    user.click(user.form.open)
    user.wait(lambda: len(reported) > 0)
    before = user.layers
    user.type(user.form.line, "spleen")
    user.viewer.layers.remove("ct")
    user.wait_until_idle()
    user.type(user.form.line, "spleen")
    return {"before": before, "after": user.layers, "error": user.error, "open": user.widget._owner.session.is_open}


def replace_the_model(user: User) -> Any:
    user.widget.add_file(Path("example/images/mr_0000.nii.gz"))
    user.wait_until_idle()
    user.form.context.setCurrentText("phantom_mr")
    user.type(user.form.line, "liver")
    user.wait_until_idle()
    first, folder = user.widget._owner.session, Path(user.widget._owner.session._folder.name)
    user.click(user.form.load)
    user.wait_until_idle()
    second = user.widget._owner.session
    user.widget.save_masks(Path("none"))
    user.wait_until_idle()
    return {
        "layers": user.layers, "other": first is not second, "closed": not first.is_open and not folder.exists(),
        "checked": [name for name, (is_on, _) in user.rows.items() if is_on], "error": user.error,
    }  # fmt: skip


def close_while_working(user: User) -> Any:
    from qtpy.QtCore import QThreadPool
    from qtpy.QtWidgets import QApplication

    reported, session = slow_down(user), user.widget._owner.session
    user.form.context.setCurrentText("phantom_mr")
    user.click(user.form.open)
    user.wait(lambda: len(reported) > 0)
    user.viewer.close()
    ended = QThreadPool.globalInstance().waitForDone(LONGEST * 1000)
    user.rest()
    QApplication.instance().quit()
    return {
        "reported": len(reported), "windows": reported[0][1], "ended": ended, "open": session.is_open,
        "folder": Path(session._folder.name).exists(),
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
