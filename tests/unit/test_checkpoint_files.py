"""Checkpoints: what is damaged or may run code is refused, however it is damaged."""

import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.checkpoint_files import CHECKSUMS_KEY, compute_checksum, read_checkpoint, save_checkpoint
from duplus_nnunet.errors import ModelError

CONTENT: dict[str, Any] = {
    "network_weights": {f"layer.{n}.weight": torch.full((3, n + 1), n / 7) for n in range(4)},
    "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(5)}}, "param_groups": [{"lr": 0.01}]},
    "logging": {"train_losses": [0.5, float("nan")]},
    "init_args": {"fold": 0, "plans": {"patch_size": [8, 8, 8]}},
    "_best_ema": None,
}


class Payload:
    """What a malicious file holds: it leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_checkpoint(CONTENT, tmp_path / "checkpoint_final.pth")
    return tmp_path / "checkpoint_final.pth"


def test_what_is_written_is_read(file: Path) -> None:
    found = read_checkpoint(file)
    assert found.keys() == CONTENT.keys()
    assert compute_checksum(found) == compute_checksum(CONTENT)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_stock_checkpoints_are_read(tmp_path: Path, module: str) -> None:
    written = np.float64(0).__reduce__()[0].__module__
    buffer, content = io.BytesIO(), {**CONTENT, "_best_ema": np.float64(0.5), "logging": [np.float32(1), np.int64(2)]}
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "c.pth", "w") as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record).replace(f"c{written}\n".encode(), f"c{module}\n".encode()))
    found = read_checkpoint(tmp_path / "c.pth")
    assert (found["_best_ema"], found["logging"]) == (0.5, [1, 2])


def test_a_payload_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({**CONTENT, "x": Payload(tmp_path / "mark")}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"c\.pth.*mkdir.*DUPLUS_UNSAFE_CHECKPOINTS"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "mark").exists()


def test_whoever_insists_is_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({**CONTENT, "x": Payload(tmp_path / "mark")}, tmp_path / "c.pth")
    monkeypatch.setenv("DUPLUS_UNSAFE_CHECKPOINTS", "1")
    with pytest.warns(RuntimeWarning, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")
    assert (tmp_path / "mark").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(pickle.dumps({**CONTENT, "x": Payload(tmp_path / "mark")}))
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "mark").exists()


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_packed_file_is_refused(file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_changed_part_is_named(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    content["network_weights"]["layer.2.weight"][0, 0] += 1
    torch.save(content, file)
    with pytest.raises(ModelError, match="network_weights"):
        read_checkpoint(file)


def test_a_part_may_be_taken_out(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    del content["optimizer_state"]
    torch.save(content, file)
    assert read_checkpoint(file).keys() == CONTENT.keys() - {"optimizer_state"}


@pytest.mark.parametrize(
    "other",
    [torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.int32), [0.0] * 6, {"a": 1}, (1,), [1], "1", 1, True, None],
    ids=repr,
)
def test_checksums_tell_contents_apart(other: Any) -> None:
    assert compute_checksum(other) != compute_checksum(torch.zeros(3, 2))
    assert compute_checksum([other]) != compute_checksum(other)


def list_regions(file: Path) -> dict[str, range]:
    """Bytes of the file's first record, of all its records, of their list and of its end."""
    with zipfile.ZipFile(file) as archive:
        second, start, size = archive.infolist()[1].header_offset, archive.start_dir, file.stat().st_size
    return {"pickle": range(second), "all": range(size), "list": range(start, size), "end": range(size - 60, size)}


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("region", ["pickle", "all", "list", "end"])
def test_flipped_bits_are_refused_or_without_effect(file: Path, region: str, stock: bool) -> None:
    if stock:
        torch.save(CONTENT, file)
    rng, whole, truth = random.Random(f"{region} {stock}"), file.read_bytes(), compute_checksum(CONTENT)
    positions = list_regions(file)[region]
    for _ in range(20):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 32)):
            damaged[rng.choice(positions)] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            found = read_checkpoint(file)
        except ModelError:
            continue
        assert compute_checksum(found) == truth


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_refused(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth"):
        read_checkpoint(file)


@pytest.mark.parametrize("checksums", [[], "x", {"network_weights": 1}])
def test_checksums_of_another_form_are_refused(file: Path, checksums: Any) -> None:
    torch.save({**CONTENT, CHECKSUMS_KEY: checksums}, file)
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth"):
        read_checkpoint(file)
