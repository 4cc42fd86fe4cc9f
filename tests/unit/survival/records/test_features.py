"""Image features by patient, stored as plain arrays."""

from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.feature_table import FeatureTable


def make_table() -> FeatureTable:
    names = ("ct: pooled 0", "ct: lesion volume", "pt: lesion volume")
    rows = {"b": np.array([1, 2, np.nan], np.float32), "a": np.array([3, 4, 5], np.float32)}
    return FeatureTable(names, ("ct", "ct", "pt"), ("pooled", "measure", "measure"), rows)


def test_patients_come_in_the_order_asked_for() -> None:
    np.testing.assert_array_equal(make_table().take(["a", "b", "a"])[:, 0], [3, 1, 3])


def test_a_patient_without_images_is_nan_in_all_columns() -> None:
    found = make_table().take(["a", "unknown"])
    assert found.dtype == np.float32
    assert np.isnan(found[1]).all()
    assert not np.isnan(found[0]).any()


def test_no_patients_give_no_rows() -> None:
    assert make_table().take([]).shape == (0, 3)


def test_kinds_and_contexts_are_selected_together() -> None:
    found = make_table().select(kinds=["measure"], contexts=["ct"])
    assert (found.names, found.contexts, found.kinds) == (("ct: lesion volume",), ("ct",), ("measure",))
    np.testing.assert_array_equal(found.take(["a", "b"]), [[4], [2]])
    assert make_table().select().names == make_table().names
    assert make_table().select(kinds=["lesion"]).take(["a"]).shape == (1, 0)


def test_a_written_table_reads_back(tmp_path: Path) -> None:
    table = make_table()
    table.to_npz(tmp_path / "features.npz")
    found = FeatureTable.from_npz(tmp_path / "features.npz")
    assert (found.names, found.contexts, found.kinds) == (table.names, table.contexts, table.kinds)
    assert set(found.rows) == {"a", "b"}
    np.testing.assert_array_equal(found.take(["a", "b", "c"]), table.take(["a", "b", "c"]))
    assert [file.name for file in tmp_path.iterdir()] == ["features.npz"]


def test_an_empty_table_reads_back(tmp_path: Path) -> None:
    FeatureTable((), (), (), {}).to_npz(tmp_path / "features.npz")
    assert FeatureTable.from_npz(tmp_path / "features.npz").take(["a"]).shape == (1, 0)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "features.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"features\.npz"):
        FeatureTable.from_npz(tmp_path / "features.npz")


def test_a_file_with_other_content_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "features.npz", names=np.array(["a"]))
    with pytest.raises(DataError, match="contexts"):
        FeatureTable.from_npz(tmp_path / "features.npz")


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "features.npz", names=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"features\.npz.*pickle"):
        FeatureTable.from_npz(tmp_path / "features.npz")


def test_invalid_tables_are_refused() -> None:
    with pytest.raises(DataError, match="2 names"):
        FeatureTable(("a", "b"), ("ct",), ("pooled", "pooled"), {})
    with pytest.raises(DataError, match=r"'p'.*\(2,\)"):
        FeatureTable(("a",), ("ct",), ("pooled",), {"p": np.zeros(2, np.float32)})
    with pytest.raises(DataError, match="'mask'"):
        FeatureTable(("a",), ("ct",), ("mask",), {})
    with pytest.raises(DataError, match="1 different"):
        FeatureTable(("a", "a"), ("ct", "ct"), ("pooled", "pooled"), {})
