"""Every file that pydicom ships is read, or refused by name with what it says of itself and nothing of the patient."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.reading import read_volume
from duplus_nnunet.errors import DataError

ROOT = Path(pydicom.__file__).parent / "data"
FILES = sorted(
    (file for name in ("test_files", "charset_files") for file in (ROOT / name).rglob("*") if file.is_file()),
    key=lambda file: file.relative_to(ROOT).as_posix(),
)
# Series of the test directory that are read: by the folder, the shape.
SERIES = {"dicomdirtests/98892001/CT5N": (5, 16, 16)}
# What is refused, and a word of the reason.
REFUSED = {
    "CT_small.dcm": "single slice",
    "MR_small_jp2klossless.dcm": "single slice",
    "liver_1frame.dcm": "SEG",
    "rtplan.dcm": "no images",
    "rtstruct.dcm": "not DICOM",
    "dicomdirtests/77654033/CT2": "missing",
    "dicomdirtests/77654033/CR1": "ImagePositionPatient",
    "dicomdirtests/98892003/MR700": "PROJECTION IMAGE",
    "dicomdirtests/98892001/CT2N": "localiser",
    "nested_priv_SQ.dcm": "SeriesInstanceUID",
}


def find_secrets(file):
    """List what a header says of the patient that must not stand in a message."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        texts = [str(header.get(name) or "") for name in ("PatientName", "PatientID", "PatientBirthDate")]
    except Exception:
        return []
    return [text for text in texts if len(text) > 5]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_file_becomes_a_volume_or_is_refused_by_name(tmp_path, file):
    shutil.copy(file, tmp_path / "file")
    messages = []
    try:
        for one in find_series(tmp_path).series:
            if one.is_usable:
                volume = read_volume(one)
                assert volume.values.shape == one.shape
                assert np.isfinite(volume.values).all()
                messages += volume.notes
            else:
                assert all(one.refusals)
                messages += one.refusals
                with pytest.raises(DataError, match=one.hash):
                    read_volume(one)
    except DataError as error:
        messages.append(str(error))
    text = " ".join(messages).replace(str(tmp_path), "")
    assert text
    assert not [word for word in find_secrets(file) if word in text]


@pytest.mark.parametrize("name", SERIES)
def test_a_published_series_is_read(name):
    (series,) = find_series(ROOT / "test_files" / name).series
    volume = read_volume(series)
    assert volume.values.shape == SERIES[name]
    files = [pydicom.dcmread(file) for file in (ROOT / "test_files" / name).iterdir()]
    files.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    expected = [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in files]
    np.testing.assert_array_equal(volume.values, np.array(expected, np.float32))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_the_true_reason(tmp_path, name):
    path = ROOT / "test_files" / name
    if path.is_file():
        shutil.copy(path, tmp_path)
        path = tmp_path
    try:
        reasons = [*(reason for one in find_series(path).series for reason in one.refusals)]
    except DataError as error:
        reasons = [str(error)]
    assert REFUSED[name] in " ".join(reasons)
