"""Image features of a dataset are computed once, cached, and joined by patient."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.names import is_lesion
from duplus_nnunet.survival.imaging.feature_store import FeatureStore, ImagedCase, collect
from duplus_nnunet.survival.imaging.image_features import name_features
from duplus_nnunet.survival.records.feature_table import FeatureTable


class Dataset:
    """Stands in for nnU-Net's dataset; the only voxel of a case has the number in its name."""

    def __init__(self, folder: Path) -> None:
        self.source_folder = str(folder)

    def load_case(self, case: str) -> tuple[Any, ...]:
        return (np.full((1, 1, 1, 1), float(case[1:]), np.float32),)


class Reader:
    """Stands in for a FeatureReader with one feature; fails for a given case."""

    features = 1

    def __init__(self, bad: str = "") -> None:
        self.bad, self.read_cases = bad, list[float]()
        self.bank = SimpleNamespace(contexts={"ct": {}, "pet": {}})
        self.lesions: dict[str, tuple[str, ...]] = {"ct": (), "pet": ()}
        self.host = SimpleNamespace(dataset_json={"channel_names": {"0": "CT"}})

    def read(self, image: torch.Tensor, context: str) -> Any:
        value = float(image.mean())
        self.read_cases.append(value)
        if self.bad and value == float(self.bad[1:]):
            raise RuntimeError("cut off\nat byte 7")
        return np.array([value], np.float32)


IMAGES = [
    ImagedCase("c1", "ann", "ct"),
    ImagedCase("c2", "bob", "ct"),
    ImagedCase("c3", "bob", "ct"),
    ImagedCase("c4", "bob", "pet"),
]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    folder.mkdir()
    for image in IMAGES:
        (folder / f"{image.case}.b2nd").write_bytes(b"x")
    return folder


def gather(folder: Path, reader: Reader, key: str = "k") -> tuple[FeatureTable, list[str]]:
    store = FeatureStore.open(folder.parent / "features.npz", key)
    return collect(store, reader, Dataset(folder), IMAGES, lambda line: None)  # type: ignore[arg-type]


def test_a_patient_has_a_block_a_context_and_repeated_images_are_averaged(cases: Path) -> None:
    table, notes = gather(cases, Reader())
    assert table.contexts == ("ct", "pet")
    np.testing.assert_array_equal(table.take(["ann", "bob"]), [[1, np.nan], [2.5, 4]])
    assert notes == []


def test_what_was_read_is_not_read_again(cases: Path) -> None:
    first, _ = gather(cases, Reader())
    again = Reader()
    second, _ = gather(cases, again)
    assert again.read_cases == []
    np.testing.assert_array_equal(first.take(["ann", "bob"]), second.take(["ann", "bob"]))


def test_a_changed_case_and_other_weights_are_read_again(cases: Path) -> None:
    gather(cases, Reader())
    (cases / "c2.b2nd").write_bytes(b"longer")
    changed = Reader()
    gather(cases, changed)
    assert changed.read_cases == [2.0]
    other = Reader()
    gather(cases, other, "other weights")
    assert other.read_cases == [1.0, 2.0, 3.0, 4.0]


def test_a_case_that_cannot_be_read_is_missing_and_tried_again(cases: Path) -> None:
    table, notes = gather(cases, Reader(bad="c1"))
    assert "ann" not in table.rows
    (note,) = notes
    assert "'c1'" in note
    assert "(cut off)" in note
    mended = Reader()
    table, notes = gather(cases, mended)
    assert (mended.read_cases, notes) == ([1.0], [])
    assert table.rows["ann"][0] == 1


def test_without_a_readable_case_there_is_an_error(cases: Path) -> None:
    store, reader = FeatureStore.open(cases.parent / "none.npz", "k"), Reader(bad="c1")
    with pytest.raises(DataError, match="the 1 cases"):
        collect(store, reader, Dataset(cases), IMAGES[:1], lambda line: None)  # type: ignore[arg-type]


def test_a_case_without_a_file_is_reported(cases: Path) -> None:
    (cases / "c1.b2nd").unlink()
    table, notes = gather(cases, Reader())
    assert "ann" not in table.rows
    (note,) = notes
    assert "'c1'" in note
    assert "preprocess" in note


def test_a_store_with_a_changed_byte_is_treated_as_empty(cases: Path) -> None:
    gather(cases, Reader())
    file = cases.parent / "features.npz"
    for offset in range(file.stat().st_size):  # headers, compressed data and the directory
        content = bytearray(file.read_bytes())
        content[offset] ^= 0xFF
        changed = file.with_name("changed.npz")
        changed.write_bytes(bytes(content))
        assert len(FeatureStore.open(changed, "k").rows) in (0, 4)


def test_features_have_the_key_of_their_network(cases: Path) -> None:
    table, _ = gather(cases, Reader(), "these weights")
    table.to_npz(cases.parent / "table.npz")
    assert FeatureTable.from_npz(cases.parent / "table.npz").key == "these weights"
    assert table.select(("measure",)).key == "these weights"


def test_a_damaged_store_is_treated_as_empty(cases: Path) -> None:
    (cases.parent / "features.npz").write_bytes(b"no numbers")
    reader = Reader()
    gather(cases, reader)
    assert len(reader.read_cases) == 4


def test_measures_have_their_agreed_names() -> None:
    names = [name for name, kind in name_features("ct", 1, 2, True) if kind == "measure"]
    assert names == [f"ct: lesion {name}" for name in
                     ("volume", "mean", "mean of channel 2", "max", "max of channel 2", "found")]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["kidney tumour", "Tumor", "soft tissue sarcoma", "liver metastases", "GTVp", "glioma"]
)
def test_lesions_are_known_by_name(name: str) -> None:
    assert is_lesion(name)


@pytest.mark.parametrize("name", ["liver", "oedema", "left kidney", "aorta"])
def test_organs_are_not_lesions(name: str) -> None:
    assert not is_lesion(name)
