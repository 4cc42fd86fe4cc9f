"""What is no volume is refused by name; what is odd is said; volumes at one place are told apart."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.reading import read_volume
from duplus_nnunet.errors import DataError

from ...dicom_series import CORONAL, CT, MR, make_enhanced, make_slices, make_stored, save


def find(folder, slices):
    return find_series(save(folder, slices)).series


def refuse(folder, slices):
    (series,) = find(folder, slices)
    assert not series.is_usable
    with pytest.raises(DataError, match=series.hash):
        read_volume(series)
    return " ".join(series.refusals)


def test_slices_are_sorted_by_position_not_by_name_or_instance_number(tmp_path):
    slices = make_slices(make_stored())
    (series,) = find(tmp_path, slices)
    assert [one.instance for one in series.slices] == [one.SOPInstanceUID for one in slices]
    assert [one.number for one in series.slices] == [6, 5, 4, 3, 2, 1]
    assert len(series.files) == 6


@pytest.mark.parametrize("left_out", [(2,), (1, 2), (1, 4)])
def test_missing_slices_are_refused_with_their_place(tmp_path, left_out):
    slices = [one for index, one in enumerate(make_slices(make_stored((9, 5, 5)))) if index not in left_out]
    text = refuse(tmp_path, slices)
    before = 101 + 2.5 * (left_out[0] - 1)
    assert f"{before:.2f}" in text


def test_uneven_slices_are_refused(tmp_path):
    slices = make_slices(make_stored())
    for index, one in enumerate(slices):
        one.ImagePositionPatient = [0, 0, index * 2.5 + (1.0 if index > 3 else 0)]
    assert "2.5 mm" in refuse(tmp_path, slices)


def test_slices_that_drift_from_an_even_grid_are_refused(tmp_path):
    slices = make_slices(make_stored((60, 4, 4)))
    for index, one in enumerate(slices):
        one.ImagePositionPatient = [0, 0, index * 2.5 * (1 + 0.0004 * index)]
    assert refuse(tmp_path, slices)


def test_rounded_positions_are_used_and_noted(tmp_path):
    slices = make_slices(make_stored())
    for index, one in enumerate(slices):
        one.ImagePositionPatient = [0, 0, round(index * 2.5 + 0.06 * (index % 2), 2)]
    (series,) = find(tmp_path, slices)
    assert series.is_usable
    assert series.notes
    assert series.spacing[0] == pytest.approx(2.5, abs=0.03)


def test_two_slices_at_one_position_are_refused(tmp_path):
    slices = make_slices(make_stored())
    slices[3].ImagePositionPatient = slices[2].ImagePositionPatient
    text = refuse(tmp_path, slices)
    assert "106.00 mm" in text
    assert any(f"instance number {slices[index].InstanceNumber}" in text for index in (2, 3))


def test_copies_of_a_file_are_left_out(tmp_path):
    slices = make_slices(make_stored())
    (series,) = find(tmp_path, [*slices, slices[1]])
    assert series.shape == (6, 9, 8)
    assert series.notes


@pytest.mark.parametrize("mark", ["TemporalPositionIdentifier", "AcquisitionNumber", "EchoTime", "AcquisitionTime"])
def test_volumes_at_one_place_are_listed_apart(tmp_path, mark):
    first = make_slices(make_stored())
    names = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    second = make_slices(make_stored(seed=1), **{name: first[0].get(name) for name in names})
    for value, slices in ((101112, first), (101500, second)):
        for one in slices:
            setattr(one, mark, str(value))
    series = find(tmp_path, [*first, *second])
    assert [one.part for one in series] == [1, 2]
    assert len({one.hash for one in series}) == 2
    assert all(one.is_usable and one.doubts for one in series)
    volumes = [read_volume(one).values.sum() for one in series]
    assert sorted(volumes) == sorted(float((make_stored(seed=seed) - 1024.0).sum()) for seed in (0, 1))


def test_a_time_of_each_slice_tells_no_volumes_apart(tmp_path):
    first = make_slices(make_stored())
    second = make_slices(make_stored(seed=1), SeriesInstanceUID=first[0].SeriesInstanceUID)
    for index, one in enumerate((*first, *second)):
        one.TriggerTime, one.AcquisitionTime = 10 * index, f"1000{index:02d}"
    assert "6 of its 12 slices" in refuse(tmp_path, [*first, *second])


def test_times_of_a_multi_frame_file_are_listed_apart(tmp_path):
    slices = [*make_slices(make_stored()), *make_slices(make_stored(seed=1))]
    whole = make_enhanced(slices)
    order = np.random.default_rng(1).permutation(12)
    for frame, index in zip(whole.PerFrameFunctionalGroupsSequence, order, strict=True):
        content = Dataset()
        content.TemporalPositionIndex = 1 + int(index // 6)
        frame.FrameContentSequence = [content]
    series = find(tmp_path, [whole])
    assert len(series) == 2
    sums = sorted(read_volume(one).values.sum() for one in series)
    assert sums == sorted(float((make_stored(seed=seed) - 1024.0).sum()) for seed in (0, 1))


def test_directions_and_sizes_of_one_series_are_listed_apart(tmp_path):
    first = make_slices(make_stored())
    uid = {"SeriesInstanceUID": first[0].SeriesInstanceUID}
    others = [
        *make_slices(make_stored((3, 9, 8)), directions=CORONAL, **uid),
        *make_slices(make_stored((2, 5, 5)), **uid),
    ]
    assert [one.shape for one in find(tmp_path, [*first, *others])] == [(6, 9, 8), (3, 9, 8), (2, 5, 5)]


def test_a_single_slice_is_refused(tmp_path):
    assert refuse(tmp_path, make_slices(make_stored((1, 5, 5))))


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"Modality": "US"},
        {"Modality": None},
        {"PixelSpacing": None},
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"PixelSpacing": [0, 0.7]},
    ],
    ids=str,
)
def test_what_is_no_volume_is_refused(tmp_path, values):
    slices = make_slices(make_stored())
    for one in slices:
        for name, value in values.items():
            setattr(one, name, value)
    assert refuse(tmp_path, slices)


def test_a_secondary_capture_is_refused(tmp_path):
    assert refuse(tmp_path, make_slices(make_stored(), sop="1.2.840.10008.5.1.4.1.1.7", Modality="CT"))


def test_colour_and_look_up_tables_are_refused(tmp_path):
    slices = make_slices(make_stored(), PhotometricInterpretation="PALETTE COLOR")
    (series,) = find(tmp_path, slices)
    with pytest.raises(DataError, match="PALETTE"):
        read_volume(series)


def test_slices_that_lie_beside_one_another_are_refused(tmp_path):
    slices = make_slices(make_stored())
    slices[2].ImagePositionPatient = [-35.25, 12.5, 106.0]
    assert "mm beside it" in refuse(tmp_path, slices)


def test_derived_series_are_doubtful(tmp_path):
    (series,) = find(tmp_path, make_slices(make_stored(), ImageType=["DERIVED", "SECONDARY", "REFORMATTED"]))
    assert series.is_usable
    assert series.doubts


def test_hash_and_sentences_hold_nothing_of_the_patient(tmp_path):
    slices = make_slices(make_stored(), SeriesDescription="Doe^Jane PID12345")
    (series,) = find(tmp_path, [*slices, slices[0]])
    said = " ".join((series.name, *series.notes, *series.refusals, *series.doubts))
    assert "Doe" not in said
    assert "PID12345" not in said
    assert np.isfinite(series.spacing).all()


def make_interleaved(mark, sop=MR, values=("10", "20"), **more):
    """Make a series whose slices alternate in an attribute; every value has an even stack of its own."""
    slices = make_slices(make_stored((8, 4, 4)), sop=sop, **more)
    for index, one in enumerate(slices):
        setattr(one, mark, values[index % len(values)])
    return slices


@pytest.mark.parametrize(
    ("mark", "sop", "parts"),
    [
        ("EchoTime", MR, 2), ("TriggerTime", MR, 2), ("TemporalPositionIdentifier", MR, 2),
        ("AcquisitionNumber", CT, 2), ("ConvolutionKernel", CT, 2), ("AcquisitionNumber", MR, 1),
    ],
)  # fmt: skip
def test_slices_in_between_one_another_are_separated_or_noted(tmp_path, mark, sop, parts):
    series = find_series(save(tmp_path, make_interleaved(mark, sop))).series
    assert [len(one.slices) for one in series] == [8 // parts] * parts
    assert {one.spacing[0] for one in series} == {2.5 * parts}
    assert all(mark in " ".join(one.notes) for one in series) == (parts == 1)
    assert all(bool(one.doubts) == (parts > 1) for one in series)


def test_values_that_are_written_in_two_ways_are_one(tmp_path):
    (series,) = find_series(save(tmp_path, make_interleaved("EchoTime", values=("2.3", "2.30")))).series
    assert not series.notes


@pytest.mark.parametrize("values", ["11112222", "12345678", "11223344"])
def test_acquisitions_of_neighbouring_slices_are_usual(tmp_path, values):
    (series,) = find_series(save(tmp_path, make_interleaved("AcquisitionNumber", CT, values))).series
    assert len(series.slices) == 8
    assert not series.notes
    assert not series.doubts


def test_slices_that_alternate_without_even_stacks_are_noted(tmp_path):
    (series,) = find_series(save(tmp_path, make_interleaved("EchoTime", MR, "12211212"))).series
    assert "EchoTime" in " ".join(series.notes)
