"""SUV by body weight, compared with values that were computed by hand from DICOM's rules."""

from datetime import datetime

import numpy as np
import pydicom
import pytest

from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.reading import read_volume
from duplus_nnunet.dicom.suv import find_suv_factor
from duplus_nnunet.errors import DataError

from ...dicom_series import (
    ENHANCED_PET,
    PET,
    make_agent,
    make_enhanced,
    make_pet_values,
    make_slices,
    make_stored,
    save,
)

# 70 kg and 370 MBq of fluorine 18, an hour before the scan: 370e6 * exp(-ln 2 * 3600 / 6586.2) = 253.314e6 Bq are left,
# and a voxel of 5000 Bq/ml has 5000 * 70000 / 253.314e6 = 1.38168.
FACTOR_START, FACTOR_ADMIN = 70000 / 253.314e6, 70000 / 370e6


def make_header(**values):
    return make_slices(make_stored((1, 2, 2)), sop=PET, **make_pet_values(**values))[0]


def add_private(header, group, creator, element, vr, value):
    header.private_block(group, creator, create=True).add_new(element, vr, value)
    return header


def test_value_of_the_standard_example_is_known_to_a_tenth_of_a_percent():
    assert 5000 * find_suv_factor(make_header()).factor == pytest.approx(1.38168, rel=1e-5)


def test_decay_corrected_to_the_injection_needs_no_decay():
    assert find_suv_factor(make_header(DecayCorrection="ADMIN")).factor == pytest.approx(FACTOR_ADMIN, rel=1e-6)


def test_date_and_time_of_the_injection_go_before_its_time():
    agent = make_agent(RadiopharmaceuticalStartDateTime="20200303220000.00", RadiopharmaceuticalStartTime="090000")
    left = 370e6 * 0.5 ** (12 * 3600 / 6586.2)
    assert find_suv_factor(make_header(agent=agent)).factor == pytest.approx(70000 / left, rel=1e-6)


def test_an_injection_of_the_evening_before_is_understood():
    agent = make_agent(RadiopharmaceuticalStartTime="233000")
    header = make_header(agent=agent, SeriesTime="003000", AcquisitionTime="003000")
    assert find_suv_factor(header).factor == pytest.approx(FACTOR_START, rel=1e-3)


def test_a_series_that_was_made_later_is_corrected_to_its_first_acquisition():
    header = make_header(SeriesTime="180000")
    assert find_suv_factor(header).factor == pytest.approx(FACTOR_START, rel=1e-3)
    earlier = find_suv_factor(header, datetime(2020, 3, 4, 9, 30))
    assert earlier.factor == pytest.approx(70000 / (370e6 * 0.5 ** (1800 / 6586.2)), rel=1e-6)


def test_ge_names_the_time_of_the_scan_of_such_a_series():
    header = make_header(SeriesTime="180000", AcquisitionTime="110000")
    add_private(header, 0x0009, "GEMS_PETD_01", 0x0D, "DT", "20200304100000.00")
    assert find_suv_factor(header).factor == pytest.approx(FACTOR_START, rel=1e-3)


def test_philips_counts_become_suv_by_its_factor():
    header = add_private(make_header(Units="CNTS"), 0x7053, "Philips PET Private Group", 0x00, "DS", "0.000551")
    assert find_suv_factor(header).factor == pytest.approx(0.000551)


def test_philips_counts_become_activity_and_then_suv():
    header = add_private(make_header(Units="CNTS"), 0x7053, "Philips PET Private Group", 0x00, "DS", "0")
    add_private(header, 0x7053, "Philips PET Private Group", 0x09, "DS", "2.5")
    assert find_suv_factor(header).factor == pytest.approx(2.5 * FACTOR_START, rel=1e-3)


def test_suv_is_left_as_it_is():
    assert find_suv_factor(make_header(Units="GML")).factor == 1
    with pytest.raises(DataError, match="SUVType"):
        find_suv_factor(make_header(Units="GML", SUVType="LBM"))


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("0054,1001", {"Units": None}),
        ("0054,1001", {"Units": "PROPCPS"}),
        ("7053,1000", {"Units": "CNTS"}),
        ("0010,1030", {"PatientWeight": None}),
        ("0010,1030", {"PatientWeight": 0}),
        ("0010,1030", {"PatientWeight": 70000}),
        ("0054,0016", {"agent": None}),
        ("0018,1074", {"agent": make_agent(dose=None, RadiopharmaceuticalStartTime="090000")}),
        ("0018,1074", {"agent": make_agent(dose=370, RadiopharmaceuticalStartTime="090000")}),
        ("0018,1075", {"agent": make_agent(half_life=None, RadiopharmaceuticalStartTime="090000")}),
        ("0018,1072", {"agent": make_agent()}),
        ("0018,1072", {"agent": make_agent(RadiopharmaceuticalStartTime="110000")}),
        ("0018,1078", {"agent": make_agent(RadiopharmaceuticalStartDateTime="20190304090000")}),
        ("0018,1078", {"agent": make_agent(RadiopharmaceuticalStartDateTime="20200304103000")}),
        ("0054,1102", {"DecayCorrection": "NONE"}),
        ("0054,1102", {"DecayCorrection": None}),
        ("0028,0051", {"CorrectedImage": ["DECY"]}),
        ("0028,0051", {"CorrectedImage": None}),
        ("0008,0031", {"SeriesTime": None, "AcquisitionTime": None}),
    ],
    ids=str,
)
def test_missing_or_impossible_values_are_refused_by_tag(tag, values):
    with pytest.raises(DataError, match=tag):
        find_suv_factor(make_header(**values))


def test_each_slice_of_a_pet_series_has_its_own_slope(tmp_path):
    stored = make_stored((4, 5, 6))
    slices = make_slices(stored, sop=PET, **make_pet_values())
    for index, one in enumerate(slices):
        one.RescaleSlope = 2.0 + index
    values = read_volume(find_series(save(tmp_path, slices)).series[0]).values
    factor = 70000 / (370e6 * 0.5 ** (3600 / 6586.2))
    expected = stored * (2.0 + np.arange(4))[:, None, None] * factor
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_earliest_acquisition_of_all_slices_counts(tmp_path):
    slices = make_slices(make_stored((3, 2, 2)), sop=PET, **make_pet_values(SeriesTime="180000"))
    for one, time in zip(slices, ("101000", "100000", "102000"), strict=True):
        one.AcquisitionTime = time
    values = read_volume(find_series(save(tmp_path, slices)).series[0]).values
    np.testing.assert_allclose(values, make_stored((3, 2, 2)) * FACTOR_START, rtol=1e-3)


def make_enhanced_pet(unit, **values):
    agent = make_agent(RadiopharmaceuticalStartDateTime="20200304090000")
    slices = make_slices(make_stored(), sop=PET, **make_pet_values(agent=agent))
    whole = make_enhanced(slices, ENHANCED_PET)
    for name in ("Units", "DecayCorrection", "CorrectedImage"):
        delattr(whole, name)
    whole.AttenuationCorrected = whole.DecayCorrected = "YES"
    whole.DecayCorrectionDateTime = "20200304100000"
    code, mapping = pydicom.Dataset(), pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator = unit, "UCUM"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 3.0, 0.0
    mapping.MeasurementUnitsCodeSequence = pydicom.Sequence([code])
    whole.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = pydicom.Sequence([mapping])
    for name, value in values.items():
        setattr(whole, name, value)
    return whole


def test_enhanced_pet_names_its_unit_in_the_mapping_to_real_world_values(tmp_path):
    (series,) = find_series(save(tmp_path / "a", [make_enhanced_pet("Bq/ml")])).series
    np.testing.assert_allclose(read_volume(series).values, 3 * make_stored() * FACTOR_START, rtol=1e-3)
    (series,) = find_series(save(tmp_path / "b", [make_enhanced_pet("{SUVbw}g/ml")])).series
    np.testing.assert_allclose(read_volume(series).values, 3 * make_stored())
    for values in ({"DecayCorrected": "NO"}, {"DecayCorrectionDateTime": None}):
        with pytest.raises(DataError, match="0018,97"):
            find_suv_factor(make_enhanced_pet("Bq/ml", **values))
    with pytest.raises(DataError, match="0040,08EA"):
        find_suv_factor(make_enhanced_pet("1"))


def test_offset_of_the_injection_is_brought_to_the_zone_of_the_scan():
    plain = find_suv_factor(make_header(agent=make_agent(RadiopharmaceuticalStartDateTime="20200304090000"))).factor
    header = make_header(agent=make_agent(RadiopharmaceuticalStartDateTime="20200304080000+0000"))
    header.TimezoneOffsetFromUTC = "+0100"
    assert find_suv_factor(header).factor == pytest.approx(plain)


def test_dose_in_kbq_is_refused():
    with pytest.raises(DataError, match="0018,1074"):
        find_suv_factor(make_header(agent=make_agent(RadionuclideTotalDose=370000)))


@pytest.mark.parametrize(("acquired", "noted"), [("100030", False), ("101500", True)])
def test_a_series_time_shortly_before_the_first_acquisition_is_used(acquired, noted):
    found = find_suv_factor(make_header(AcquisitionTime=acquired))
    assert found.factor == pytest.approx(FACTOR_START, rel=1e-6)
    assert ("15 minutes" in found.note) == noted


def test_a_series_time_long_before_the_first_acquisition_is_refused():
    with pytest.raises(DataError, match="45 minutes"):
        find_suv_factor(make_header(AcquisitionTime="104500"))
    assert find_suv_factor(make_header(AcquisitionTime="104500", DecayCorrection="ADMIN"))


def test_a_late_frame_of_a_dynamic_series_refers_to_the_start_of_the_series(tmp_path):
    stored = make_stored((4, 3, 3))
    slices = []
    for number, time in enumerate(("100000", "105000"), 1):
        frame = make_slices(
            stored, sop=PET, **make_pet_values(AcquisitionTime=time), TemporalPositionIdentifier=str(number)
        )
        slices += frame
    for one in slices:
        for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(one, name, getattr(slices[0], name))
    series = find_series(save(tmp_path, slices)).series
    assert len(series) == 2
    for one in series:
        np.testing.assert_allclose(read_volume(one).values, stored * FACTOR_START, rtol=1e-3)
