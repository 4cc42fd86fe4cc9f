"""An opened image answers as an ordinary prediction does, and keeps to its memory."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference import kept_maps
from duplus_nnunet.inference import predictor as predictor_module
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.inference.scan import Scan

from .test_rivals import KINDS, NAMES, FakeReader, make_model
from .test_training_match import MODEL

CASES = {**KINDS, "regions": {"regions": True}}


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(predictor_module, "Reader", FakeReader)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_predictor(**kind: Any) -> DuPLUSPredictor:
    return DuPLUSPredictor(make_model(**kind), Options())


def count_calls(predictor: DuPLUSPredictor) -> list[int]:
    """Count the calls of the network from here on."""
    calls: list[int] = []
    predictor._model.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("rivals", ["all", "asked"])
@pytest.mark.parametrize("kind", CASES)
def test_answers_equal_those_of_an_ordinary_prediction(kind: str, rivals: str) -> None:
    predictor = make_predictor(**CASES[kind])
    with predictor.open("image", mirror=CASES[kind].get("mirroring", False), rivals=rivals) as scan:
        for asked in [[name] for name in NAMES] + [["left kidney", "spleen", "pancreas"], list(NAMES)]:
            usual = predictor.predict("image", asked, rivals=rivals)
            own = scan.predict(asked)
            np.testing.assert_array_equal(own.labels, usual.labels)
            assert list(own.masks) == list(usual.masks) == asked
            for name, mask in usual.masks.items():
                np.testing.assert_array_equal(own.masks[name], mask)
    assert any(mask.any() for mask in usual.masks.values())


def test_without_mirror_images_unless_asked_for() -> None:
    mirrored, plain = make_predictor(mirroring=True), make_predictor()
    with mirrored.open("image") as scan:
        np.testing.assert_array_equal(scan.predict().labels, plain.predict("image").labels)
        assert not scan.mirror
    # The predictor itself goes on as before.
    assert (mirrored.predict("image").labels != plain.predict("image").labels).any()


@pytest.mark.parametrize("kind", ["one fold", "two folds, mirrored"])
def test_the_network_looks_once(kind: str) -> None:
    predictor = make_predictor(**KINDS[kind])
    calls = count_calls(predictor)
    with predictor.open("image", mirror=True) as scan:
        opened = len(calls)
        for name in NAMES:
            scan.segment(name)
        assert opened > 0
        assert len(calls) == opened
        assert scan.kept.calls_again == 0


def test_maps_beyond_the_memory_go_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_maps.tempfile, "tempdir", str(tmp_path))
    predictor = make_predictor(folds=2)
    with predictor.open("image") as scan:
        whole, total = scan.predict().labels, scan.kept.in_memory
        assert scan.kept.in_file == 0
    with predictor.open("image", memory=f"{total / 2 / (1 << 20):.9f}MB") as scan:
        assert 0 < scan.kept.in_memory <= total / 2
        assert scan.kept.in_memory + scan.kept.in_file == total
        calls = count_calls(predictor)
        np.testing.assert_array_equal(scan.predict().labels, whole)
        assert calls == []
        # Nothing has a name that a killed process could leave behind.
        assert os.name == "nt" or list(tmp_path.iterdir()) == []
    assert scan.kept.in_memory == scan.kept.in_file == scan.kept.uncompressed == 0


class FullDisk:
    """A file for which there is no room."""

    def seek(self, _: int) -> None:
        pass

    def write(self, _: bytes) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


def test_a_full_disk_makes_answers_slower_and_not_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = make_predictor()
    right = predictor.predict("image").labels
    monkeypatch.setattr(kept_maps.tempfile, "TemporaryFile", lambda **_: FullDisk())
    with predictor.open("image", memory="0.001MB") as scan:
        calls = count_calls(predictor)
        np.testing.assert_array_equal(scan.predict().labels, right)
        assert calls
        assert scan.kept.calls_again == len(calls)
        assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_file_that_was_cut_is_noticed() -> None:
    predictor = make_predictor()
    with predictor.open("image", memory="0.001MB") as scan:
        scan._maps._file.truncate(scan.kept.in_file // 2)
        with pytest.raises(DataError, match=r"bytes.*again"):
            scan.segment("liver")


def test_the_same_image_is_opened_once_more() -> None:
    predictor = make_predictor()
    scan = predictor.open("image")
    (context,) = scan.contexts
    right, seen = scan.segment("liver"), []
    with scan.reopen(context, lambda done, windows: seen.append((done, windows))) as other:
        with pytest.raises(PromptError, match="mr"):
            scan.reopen("mr")
        scan.close()
        np.testing.assert_array_equal(other.segment("liver"), right)
        assert other.words[: len(NAMES)] == other.targets == list(NAMES)
    assert seen[0][0] == 0
    for act in (scan.read_image, scan.view, lambda: scan.reopen(context)):
        with pytest.raises(DataError, match="closed"):
            act()


def test_closing_ends_the_views() -> None:
    ended: list[Scan] = []
    scan = make_predictor().open("image")

    class View:
        def end(self) -> None:
            assert not scan.is_open
            ended.append(scan)

    scan._views.extend([View(), View()])
    scan.close()
    scan.close()
    assert len(ended) == 2


def test_a_closed_image_is_not_asked() -> None:
    scan = make_predictor().open("image")
    scan.segment("liver")
    scan.close()
    scan.close()
    assert not scan.is_open
    for ask in (scan.segment, scan.volume, scan.presence, scan.preview):
        with pytest.raises(DataError, match="closed"):
            ask("liver")


def test_closing_frees_what_was_kept() -> None:
    maps = KeptMaps(1 << 30)
    maps.fold = maps.window = 0
    content = torch.randn(1, 8, 64, 64, 64)
    maps.keep("", content, torch.zeros(1, 4), content)
    assert maps.in_memory > content.nbytes / 2
    maps.close()
    assert maps.find("", (slice(0, 1),) * 3) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_maps_come_back_to_the_bit(dtype: torch.dtype, budget: int) -> None:
    maps, rng = KeptMaps(budget), torch.Generator().manual_seed(0)
    content = [torch.randn(1, 3, 4, 5, 6, generator=rng).to(dtype) for _ in range(3)]
    for number, one in enumerate(content):
        maps.fold, maps.window = 0, number
        maps.keep("a", one, one.float().mean((2, 3, 4)), one)
    for number in (2, 0, 1):
        maps.window = number
        kept = maps.find("a", (slice(0, 4), slice(0, 5), slice(0, 6)))
        assert kept is not None
        assert kept.maps.dtype == dtype
        assert torch.equal(kept.maps, content[number])
        assert torch.equal(kept.pooled, content[number].float().mean((2, 3, 4)))
    assert (maps.in_memory == 0) == (budget == 0)
    assert maps.find("b", (slice(0, 1),) * 3) is None
    maps.close()


def test_a_target_of_no_context_is_named() -> None:
    with make_predictor().open("image") as scan:
        with pytest.raises(PromptError, match="liver"):
            scan.segment("livr")
        with pytest.raises(PromptError):
            scan.segment()
        with pytest.raises(PromptError):
            scan.segment("liver", prompt="a liver")
        with pytest.raises(PromptError):
            scan.predict("liver")
    with pytest.raises(PromptError, match="mr"):
        make_predictor().open("image", "mr")


def test_an_image_that_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.nii.gz"
    file.write_bytes(b"before")
    with make_predictor().open(file) as scan:
        assert scan.segment("liver").any()
        file.write_bytes(b"afterwards")
        with pytest.raises(DataError, match="changed"):
            scan.segment("liver")
        file.unlink()
        with pytest.raises(DataError, match="not there"):
            scan.segment("spleen")


def test_threads_wait_for_one_another() -> None:
    predictor = make_predictor()
    right = {name: predictor.predict("image", [name]).masks[name] for name in NAMES}
    wrong: list[str] = []

    def work(scan: Scan, offset: int) -> None:
        for number in range(12):
            name = NAMES[(number + offset) % len(NAMES)]
            try:
                if (scan.segment(name) != right[name]).any():
                    wrong.append(name)
            except Exception as error:  # in a thread, it would be lost
                wrong.append(repr(error))

    with predictor.open("image") as scan:
        threads = [threading.Thread(target=work, args=(scan, offset)) for offset in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_two_open_images_do_not_mix() -> None:
    predictor = make_predictor(folds=2)
    right = predictor.predict("image", ["liver"]).masks["liver"]
    with predictor.open("one") as one, predictor.open("other", mirror=True) as other:
        for _ in range(2):
            np.testing.assert_array_equal(one.segment("liver"), right)
            other.segment("liver")


def test_memory_does_not_grow_with_questions() -> None:
    process = psutil.Process()
    with make_predictor().open("image") as scan:
        for _ in range(10):
            for name in NAMES:
                scan.segment(name)
        gc.collect()
        before, kept = process.memory_info().rss, scan.kept
        for _ in range(15):
            for name in NAMES:
                scan.segment(name)
        gc.collect()
        assert scan.kept.in_memory == kept.in_memory
        assert process.memory_info().rss - before < 20 << 20


def count_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def test_a_hundred_questions_leave_nothing_behind() -> None:
    with make_predictor().open("image") as scan:
        for name in NAMES:
            scan.segment(name)
        tensors = count_tensors()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(100):
                scan.predict(NAMES[number % 3 : 3 + number % 4])
            for name in NAMES:
                scan.segment(name)
            assert count_tensors() <= tensors
            assert tracemalloc.get_traced_memory()[0] - before < 100_000  # bytes; an answer has 30 000
        finally:
            tracemalloc.stop()
        assert len(scan._answers) <= 4


def test_closing_frees_the_image_and_what_was_computed_of_it() -> None:
    predictor = make_predictor()
    scan = predictor.open("image")
    scan.segment("liver")
    held = [weakref.ref(one) for one in (next(iter(scan._maps._kept.values())), scan._opened, scan._opened.answer)]
    scan.close()
    gc.collect()
    assert [one() for one in held] == [None] * 3
    assert scan.kept.in_memory == 0
    assert predictor.predict("image", ["liver"]).masks["liver"].any()


_KILLED = """
import sys, time, torch
from duplus_nnunet.inference.kept_maps import KeptMaps
maps = KeptMaps(0)
maps.fold = maps.window = 0
maps.keep("", torch.randn(1, 8, 16, 16, 16), torch.zeros(1, 4), torch.zeros(1))
print(maps.in_file, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL, and deletes the file when it is closed.")
def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) > 0
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert list(tmp_path.rglob("duplus-*")) == []


def test_a_model_whose_files_are_replaced_answers_as_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a model folder, read as it is
    shutil.copytree(MODEL, tmp_path / "model")
    predictor = DuPLUSPredictor.from_folder(tmp_path / "model", folds=(0,), device="cpu", mirroring=False)
    image = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32), (2.0, 2.0, 2.0)
    context, names = next(iter(predictor.contexts.items()))
    right = predictor.predict(image, names, context)
    with predictor.open(image, context) as scan:
        for file in (tmp_path / "model").rglob("*"):
            if file.is_file():
                file.write_bytes(b"another model")
        for name in names:
            np.testing.assert_array_equal(scan.segment(name), right.masks[name])


def test_progress_counts_windows() -> None:
    seen: list[tuple[int, int]] = []
    make_predictor(folds=2).open("image", progress=lambda done, windows: seen.append((done, windows))).close()
    windows = seen[0][1]
    assert seen == [(number, windows) for number in range(windows)] * 2
    assert windows > 1


def test_an_opening_that_is_interrupted_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr(KeptMaps, "close", lambda self: closed.append(self.in_memory))

    def stop(done: int, _: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_predictor().open("image", progress=stop)
    assert len(closed) == 1
