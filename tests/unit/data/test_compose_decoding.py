"""Every target can be recovered exactly from composed label maps."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duplus_nnunet.cli import main
from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.prompt_registry import find_entry

REAL_DATA = os.environ.get("DUPLUS_SHARED_DATA")
NAMES = ("alpha", "beta", "gamma", "delta")


@st.composite
def draw_source(draw: Any) -> tuple[dict[str, Any], list[Any]]:
    """Draw labels, some of them regions, and three label maps that hold only their values."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    values = st.one_of(st.integers(1, 5), st.lists(st.integers(1, 5), min_size=1, unique=True))
    drawn = draw(st.lists(values, min_size=len(names), max_size=len(names), unique_by=lambda v: frozenset(np.ravel(v))))
    labels = dict(zip(names, drawn, strict=True))
    held = sorted({0, *(value for label in labels.values() for value in np.ravel(label).tolist())})
    seed = draw(st.integers(0, 1000))
    volumes = [np.random.default_rng(seed + i).choice(held, (3, 4, 5)).astype(np.uint8) for i in range(3)]
    return {"background": 0, **labels}, volumes


def mask(values: Any, label: Any) -> Any:
    return np.isin(values, np.ravel(label))


def array_of(file: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def check_decoding(raw: Path, source: str, composed: Path, targets: dict[str, str]) -> None:
    """Compare every target of every case; `targets` maps the source's labels to names."""
    folder = next(raw.glob(f"Dataset*_{source}"))
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    new_labels = json.loads((composed / "dataset.json").read_text())["labels"]
    table = read_case_table(composed)
    assert table is not None
    for part in ("labelsTr", "labelsTs"):
        for file in sorted((folder / part).glob("*.nii.gz")):
            old, new = array_of(file), array_of(composed / part / f"{source}_{file.name}")
            case = table.find(f"{source}_{file.name.removesuffix('.nii.gz')}")
            for label, name in targets.items():
                assert (mask(old, labels[label]) == mask(new, new_labels[name])).all()
                assert (name in case.present) == mask(old, labels[label]).any()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=draw_source(), second=draw_source())
@pytest.mark.usefixtures("raw")
def test_every_target_is_decoded_bit_for_bit(
    first: Any, second: Any, write_raw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as root:
        monkeypatch.setenv("nnUNet_raw", root)
        for name, (labels, volumes) in (("Dataset001_A", first), ("Dataset002_B", second)):
            cases = {f"{name[-1]}{i}": volume for i, volume in enumerate(volumes)}
            write_raw(name, cases, labels=labels, root=root)
        assert main(["compose", "-o", "3", "-n", "All", "A", "B"]) == 0
        composed = Path(root, "Dataset003_All")
        for name, (labels, _) in (("A", first), ("B", second)):
            check_decoding(Path(root), name, composed, {label: label for label in labels if label != "background"})


@pytest.mark.skipif(not REAL_DATA, reason="DUPLUS_SHARED_DATA does not name a folder of real datasets")
def test_real_datasets_are_decoded_bit_for_bit(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in Path(REAL_DATA or "").glob("Dataset*"):
        (raw / folder.name).symlink_to(folder)
    monkeypatch.setenv("nnUNet_def_n_proc", "2")
    Path("compose.yaml").write_text("patients: {shared: [[60, 61]]}\n", encoding="utf-8")
    assert main(["compose", "-o", "501", "-n", "All", "50", "60", "61", "--spec", "compose.yaml"]) == 0
    composed = raw / "Dataset501_All"
    for name in ("Dataset050_HeadNeckCT", "Dataset060_SarcomaCT", "Dataset061_SarcomaMR"):
        entry = find_entry(name, json.loads((raw / name / "dataset.json").read_text()), raw / name)
        targets = {target.label: target.name for target in entry.targets}
        check_decoding(raw, name.partition("_")[2], composed, targets)
