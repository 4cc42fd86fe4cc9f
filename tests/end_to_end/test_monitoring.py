"""A training on request of TensorBoard and Weights & Biases: both get the same values."""

import importlib.util
import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Project

pytestmark = pytest.mark.slow

WORDS = ("998", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
HAS_WANDB = importlib.util.find_spec("wandb") is not None


@pytest.fixture(name="fold", scope="module")
def train(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train one epoch with both, without network."""
    pytest.importorskip("tensorboard")
    copied = Project(tmp_path_factory.mktemp("monitored") / "project")
    shutil.copytree(project.folder, copied.folder)
    copied.change_settings(epochs=1, iterations_per_epoch=1, validation_iterations=1)
    wandb = {"nnUNet_wandb_enabled": "1", "nnUNet_wandb_mode": "offline"} if HAS_WANDB else {}
    copied.do("nnUNetv2_train", *WORDS, DUPLUS_TENSORBOARD="1", **wandb)
    return copied.model / "fold_0"


def read_scalars(folder: Path) -> dict[str, float]:
    """Read the last value of each scalar as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


def read_records(data: bytes) -> Iterator[bytes]:
    """Read the records of a file of Weights & Biases: a LevelDB log after a header of 7 bytes.

    A block of 32 KiB holds fragments, each after checksum, length and kind: whole, first, middle or last of a record.
    """
    position, parts = 7, []
    while position + 7 <= len(data):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7 + length
        parts.append(data[position - length : position])
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def read_run(folder: Path) -> dict[str, Any]:
    """Read the last value of each key of a run of Weights & Biases."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("offline-run-*/run-*.wandb")
    values = {}
    for content in read_records(file.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        for item in (*record.history.item, *record.summary.update):
            values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values


def test_a_training_writes_losses_dice_and_shares_for_tensorboard(fold: Path) -> None:
    scalars = read_scalars(fold / "tensorboard")
    for name in ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs", "epoch_duration"):
        assert math.isfinite(scalars[name]), name
    sources = json.loads((fold / "validation" / "scores.json").read_text())["sources"]
    final = {f"final_dice/{source}/{target}": row["dice"] for source, scores in sources.items()
             for target, row in scores["targets"].items()}  # fmt: skip
    assert len(final) > 1
    assert {name: value for name, value in scalars.items() if name.startswith("final_")} == pytest.approx(
        final, abs=1e-6
    )
    shares = {name.replace("final_dice", "sampling"): 1.0 for name in final}
    shares |= {f"sampling/{source}": 1.0 for source in sources}
    assert {name: value for name, value in scalars.items() if name.startswith("sampling/")} == shares
    dice = [value for name, value in scalars.items() if name.startswith("dice/")]
    assert scalars["mean_fg_dice"] == pytest.approx(sum(dice) / len(dice))


@pytest.mark.skipif(not HAS_WANDB, reason="wandb is not installed")
def test_weights_and_biases_gets_the_same_names_and_values(fold: Path) -> None:
    scalars, run = read_scalars(fold / "tensorboard"), read_run(fold / "wandb")
    shared = {name: value for name, value in scalars.items() if name != "epoch_duration"}
    assert {name: run[name] for name in shared} == pytest.approx(shared)
