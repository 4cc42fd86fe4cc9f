"""PET in Bq/ml becomes SUV by the download's table, or is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.dicom.suv import compute_suv_factor
from duplus_nnunet.errors import DataError

from .trees import make_image, make_labels, save, write_csv

ROW: dict[str, object] = {
    "pid": "CHUM-001",
    "units": "BQML",
    "bqml_to_suvbw_factor": 0.0002,
    "patient_weight_kg": 70,
    "dose_for_suv_bq": 3.5e8,
}


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Convert a patient of HECKTOR 2026 with a PET of one value."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    (tmp_path / "raw").mkdir()

    def run(value: float, rows: list[dict[str, object]] | None = None) -> int:
        download = tmp_path / "download"
        save(download, "CHUM-001/CHUM-001__CT.nii.gz", make_image())
        save(download, "CHUM-001/CHUM-001__PT.nii.gz", np.full((10, 10, 10), value, np.float32))
        save(download, "CHUM-001/CHUM-001.nii.gz", make_labels((0, 1, 2)))
        if rows is not None:
            write_csv(download / "suv_conversion_tags.csv", rows)
        return main(["convert", "hecktor2026", str(download), "-d", "300"])

    return run


def read_pet(tmp_path: Path) -> Any:
    file = tmp_path / "raw/Dataset300_HECKTOR2026/imagesTr/CHUM-001_0001.nii.gz"
    return np.unique(np.asarray(nibabel.load(file).dataobj)).tolist()


def test_the_factor_is_weight_by_the_dose_that_is_left() -> None:
    # 70 kg, 350 MBq: 1 MBq/ml of 5 Bq/g each. After one half-life half of the dose is left.
    assert compute_suv_factor(70, 3.5e8) == pytest.approx(0.0002)
    assert compute_suv_factor(70, 3.5e8, half_life_s=6586.2, decay_s=6586.2) == pytest.approx(0.0004)
    assert compute_suv_factor(70, 3.5e8, 6586.2, 3600) == pytest.approx(0.0002 * 2 ** (3600 / 6586.2))


@pytest.mark.parametrize(
    "given", [(0, 1e8), (70, 0), (70, float("inf")), (70, 1e8, -1), (70, 1e8, 6586, -60), (70, float("nan"))]
)
def test_what_is_not_positive_is_refused(given: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="expected"):
        compute_suv_factor(*given)


def test_bq_per_ml_become_suv(convert: Callable[..., int], tmp_path: Path) -> None:
    assert convert(20000, [{**ROW, "pid": "CHUM-002"}, ROW]) == 0
    assert read_pet(tmp_path) == pytest.approx([4.0])
    assert "from Bq/ml to SUV" in (tmp_path / "raw/Dataset300_HECKTOR2026/conversion.json").read_text()


def test_suv_stays_suv_although_the_table_has_the_patient(convert: Callable[..., int], tmp_path: Path) -> None:
    assert convert(4, [ROW]) == 0
    assert read_pet(tmp_path) == [4.0]


def test_a_factor_alone_is_enough(convert: Callable[..., int], tmp_path: Path) -> None:
    assert convert(20000, [{**ROW, "patient_weight_kg": "", "dose_for_suv_bq": ""}]) == 0
    assert read_pet(tmp_path) == pytest.approx([4.0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "suv_conversion_tags.csv"),
        ([{**ROW, "pid": "CHUM-002"}], "0 rows"),
        ([ROW, ROW], "2 rows"),
        ([{**ROW, "units": "CNTS"}], "the units are CNTS"),
        ([{**ROW, "bqml_to_suvbw_factor": 0.0003}], "0.0002 by weight and dose"),
        ([{**ROW, "bqml_to_suvbw_factor": "", "patient_weight_kg": ""}], "neither a factor"),
        ([{**ROW, "patient_weight_kg": "seventy"}], "seventy"),
        ([{"pid": "CHUM-001"}], "no column"),
        ([{**ROW, "bqml_to_suvbw_factor": 1, "dose_for_suv_bq": 7e4}], "too much for SUV"),
    ],
)
def test_what_does_not_tell_the_suv_is_refused(
    convert: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, object]] | None,
    message: str,
) -> None:
    assert convert(20000, rows) == 1
    assert message in capsys.readouterr().err
    assert list((tmp_path / "raw").iterdir()) == []
