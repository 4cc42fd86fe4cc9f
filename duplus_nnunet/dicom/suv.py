"""Converts PET values to SUV by body weight, by DICOM's rules; refuses where a value that they need is missing.

Source: Quantitative Imaging Biomarkers Alliance (QIBA), "SUV calculation", vendor-neutral and vendor-specific forms;
DICOM PS3.3 C.8.9 (PET), C.8.22 (enhanced PET).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from duplus_nnunet.dicom.headers import read_moment
from duplus_nnunet.errors import DataError

_PHILIPS, _PHILIPS_SUV, _PHILIPS_ACTIVITY = "Philips PET Private Group", 0x00, 0x09
_GE, _GE_SCAN = "GEMS_PETD_01", 0x0D
_ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130"
_NO_LATER_THAN = timedelta(hours=12)  # from an injection of the evening before to the scan
# From the series time to the first acquisition. In half an hour, fluorine 18 (half-life 6586 s) loses 17 % of its
# activity, and SUV would be wrong by as much if the other time was meant.
_LONGEST_WAIT, _NOTED_WAIT = timedelta(minutes=30), timedelta(minutes=1)
_MOST_HALF_LIVES = 10.0
_LEAST_DOSE = 1e6  # Bq; a dose below was written in kBq or MBq
_LEAST_WEIGHT, _MOST_WEIGHT = 0.3, 500.0  # kg
_ZONE = re.compile(r"([+-])(\d{2})(\d{2})$")
_ADVICE = "Give the corrected headers, or convert the series to SUV with the scanner's software."


@dataclass(frozen=True)
class SuvFactor:
    """What turns values of a PET series into SUVbw.

    Attributes:
        factor: By which values are multiplied after each slice's rescale slope and intercept; g/ml by their unit.
        note: How it was found, a sentence.
    """

    factor: float
    note: str


def compute_suv_factor(weight_kg: float, dose_bq: float, half_life_s: float = math.inf, decay_s: float = 0.0) -> float:
    """Return the factor from Bq/ml to SUV by body weight, in g/ml, where 1 ml of tissue weighs 1 g.

    Args:
        weight_kg: The patient's weight.
        dose_bq: The activity that was injected.
        half_life_s: Half-life of the nuclide.
        decay_s: Time from the injection to the moment that the image's decay correction refers to; 0 if it refers to
            the injection, or if the dose was corrected for decay.

    Raises:
        DataError: Weight, dose or half-life is not a positive number, or the time is negative.
    """
    given = {"weight in kg": weight_kg, "dose in Bq": dose_bq, "half-life in s": half_life_s}
    for name, value in given.items():
        if not value > 0 or (math.isinf(value) and value is not half_life_s):
            raise DataError(f"The {name} is {value:g}; expected a number above 0.")
    if not 0 <= decay_s < math.inf:
        raise DataError(f"The time from injection to scan is {decay_s:g} s; expected 0 or more.")
    return weight_kg * 1000 / (dose_bq * 2 ** (-decay_s / half_life_s))


def find_suv_factor(header: Any, acquired: datetime | None = None) -> SuvFactor:
    """Find the factor from the values of a PET series to SUVbw.

    Args:
        header: Of one of its files, a data set of pydicom.
        acquired: When the first acquisition of the series started; None: as `header` says.

    Raises:
        DataError: A value is missing or cannot be, or values are not corrected for attenuation or decay.
    """
    if str(header.get("SOPClassUID", "")) == _ENHANCED_PET:
        return _find_enhanced(header)
    units = str(header.get("Units") or "").upper()
    if units == "GML":
        kind = str(header.get("SUVType") or "BW").upper()
        if kind != "BW":
            raise DataError(f"SUVType (0054,1006) is {kind!r}: not SUV by body weight. {_ADVICE}")
        return SuvFactor(1.0, "Values are SUV by body weight already.")
    if units == "CNTS":
        return _find_philips(header, acquired)
    if units != "BQML":
        raise DataError(f"Units (0054,1001) is {units or 'missing'}; expected BQML, CNTS or GML. {_ADVICE}")
    return _find_by_dose(header, acquired)


def _find_philips(header: Any, acquired: datetime | None) -> SuvFactor:
    factor = _read_private(header, 0x7053, _PHILIPS, _PHILIPS_SUV)
    if factor:
        _require_corrections(header)
        return SuvFactor(factor, "Counts become SUV by Philips' SUV scale factor (7053,1000).")
    activity = _read_private(header, 0x7053, _PHILIPS, _PHILIPS_ACTIVITY)
    if not activity:
        raise DataError(
            "Units (0054,1001) is CNTS, and Philips' scale factors (7053,1000) and (7053,1009) are missing or 0. "
            f"{_ADVICE}"
        )
    by_dose = _find_by_dose(header, acquired)
    return SuvFactor(activity * by_dose.factor, f"Counts become Bq/ml by (7053,1009). {by_dose.note}")


def _find_by_dose(header: Any, acquired: datetime | None) -> SuvFactor:
    """Find the factor of Bq/ml: weight by the dose that was left when decay is corrected to."""
    _require_corrections(header)
    correction = str(header.get("DecayCorrection") or "").upper()
    agent = _read_agent(header)
    dose, weight = _read_dose(agent), _read_weight(header)
    if correction == "ADMIN":
        return SuvFactor(compute_suv_factor(weight, dose), "Decay was corrected to the injection (ADMIN).")
    if correction != "START":
        raise DataError(f"DecayCorrection (0054,1102) is {correction or 'missing'}; expected START or ADMIN. {_ADVICE}")
    started, origin = _find_scan_start(header, acquired)
    half_life = _read_number(agent, "RadionuclideHalfLife", "(0018,1075)")
    decay = _measure_decay(header, started, half_life)
    return SuvFactor(
        compute_suv_factor(weight, dose, half_life, decay),
        f"Decay was corrected to the start of the scan, {origin}: {decay:.0f} s after the injection.",
    )


def _require_corrections(header: Any) -> None:
    done = header.get("CorrectedImage") or ()
    done = {str(value).upper() for value in ([done] if isinstance(done, str) else done)}
    names = {"ATTN": "attenuation", "DECY": "decay"}
    missing = [text for code, text in names.items() if code not in done]
    if missing:
        listed = "\\".join(sorted(done)) or "missing"
        raise DataError(f"CorrectedImage (0028,0051) is {listed}: not corrected for {' and '.join(missing)}. {_ADVICE}")


def _read_agent(header: Any) -> Any:
    agents = list(header.get("RadiopharmaceuticalInformationSequence") or ())
    if len(agents) != 1:
        raise DataError(
            f"RadiopharmaceuticalInformationSequence (0054,0016) has {len(agents)} items; expected one. {_ADVICE}"
        )
    return agents[0]


def _read_number(header: Any, name: str, tag: str) -> float:
    value = header.get(name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise DataError(f"{name} {tag} is {'missing' if value in (None, '') else value}. {_ADVICE}")
    return number


def _read_dose(agent: Any) -> float:
    dose = _read_number(agent, "RadionuclideTotalDose", "(0018,1074)")
    if dose < _LEAST_DOSE:
        raise DataError(f"RadionuclideTotalDose (0018,1074) is {dose:g} Bq: perhaps kBq or MBq were written. {_ADVICE}")
    return dose


def _read_weight(header: Any) -> float:
    weight = _read_number(header, "PatientWeight", "(0010,1030)")
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise DataError(
            f"PatientWeight (0010,1030) is {weight:g} kg; expected {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}. {_ADVICE}"
        )
    return weight


def _find_scan_start(header: Any, acquired: datetime | None) -> tuple[datetime, str]:
    """Find the moment that decay is corrected to.

    It is the series time, unless that is after the first acquisition: then the series was made later from others, and
    it is GE's time of the scan, or the start of the first acquisition.
    """
    series = read_moment(header, "", "SeriesDate", "SeriesTime")
    first = acquired or read_moment(header, "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime")
    if series is not None and (first is None or series <= first):
        return series, "the series time" if first is None else _describe_wait(first - series)
    scan = _read_ge_scan(header)
    if scan is not None:
        return scan, "GE's time of the scan (0009,100d), since the series time is after the first acquisition"
    if first is None:
        raise DataError(f"SeriesTime (0008,0031) and AcquisitionTime (0008,0032) are missing or not valid. {_ADVICE}")
    return first, "the first acquisition time, since the series time is after it or missing"


def _describe_wait(wait: timedelta) -> str:
    """Name the series time as the moment that decay is corrected to, with the time until the first acquisition.

    Raises:
        DataError: It is long before: part of the series may be missing, or the time is that of another series.
    """
    minutes = wait.total_seconds() / 60
    if wait > _LONGEST_WAIT:
        raise DataError(
            f"SeriesTime (0008,0031) is {minutes:.0f} minutes before the first acquisition; expected "
            f"{_LONGEST_WAIT.total_seconds() / 60:.0f} at most, since decay was corrected to one of them (START) and "
            f"the headers do not say to which. Copy the whole series. {_ADVICE}"
        )
    return "the series time" + (f", {minutes:.0f} minutes before the first acquisition" if wait > _NOTED_WAIT else "")


def _measure_decay(header: Any, started: datetime, half_life: float) -> float:
    """Measure the seconds from the injection to the start of the scan."""
    agent = _read_agent(header)
    injected = read_moment(agent, "RadiopharmaceuticalStartDateTime", "", "")
    if injected is not None:
        injected += _find_shift(
            str(agent.RadiopharmaceuticalStartDateTime), str(header.get("TimezoneOffsetFromUTC") or "")
        )
    if injected is None:
        clock = str(agent.get("RadiopharmaceuticalStartTime") or "").replace(":", "")
        injected = parse_on(started, clock)
        if injected is None:
            raise DataError(
                "RadiopharmaceuticalStartDateTime (0018,1078) and RadiopharmaceuticalStartTime (0018,1072) are missing "
                f"or not valid. {_ADVICE}"
            )
        if injected > started:  # on the day before
            injected -= timedelta(days=1)
            if started - injected > _NO_LATER_THAN:
                raise DataError(
                    "RadiopharmaceuticalStartTime (0018,1072) is after the start of the scan, and no injection of the "
                    f"evening before. {_ADVICE}"
                )
    seconds = (started - injected).total_seconds()
    if not 0 <= seconds <= _MOST_HALF_LIVES * half_life:
        raise DataError(
            f"The injection (0018,1078) is {seconds:.0f} s before the start of the scan; expected 0 to "
            f"{_MOST_HALF_LIVES * half_life:.0f}. Perhaps a date was changed when the patient's name was removed. "
            f"{_ADVICE}"
        )
    return seconds


def _find_shift(moment: str, zone: str) -> timedelta:
    """Return what a date and time with an offset of its own is shifted by to the time zone of the other times."""
    own, others = _ZONE.search(moment), _ZONE.search(zone)
    if own is None or others is None:
        return timedelta(0)
    first, second = (
        timedelta(hours=int(found[1] + found[2]), minutes=int(found[1] + found[3])) for found in (own, others)
    )
    return second - first


def parse_on(day: datetime, clock: str) -> datetime | None:
    """Return the moment of a time of day (HHMMSS.ffffff) on a day; None if it is not valid."""
    whole, _, rest = clock.partition(".")
    try:
        moment = datetime.strptime(day.strftime("%Y%m%d") + whole.ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return (moment + timedelta(seconds=float(f"0.{rest}") if rest.isdecimal() else 0)) if len(whole) > 1 else None


def _read_private(header: Any, group: int, creator: str, element: int) -> float:
    """Read a number of a vendor's block; 0 if there is none."""
    try:
        value = header.private_block(group, creator)[element].value
        return float(value.decode("ascii") if isinstance(value, bytes) else value)
    except (KeyError, TypeError, ValueError):
        return 0.0


def _read_ge_scan(header: Any) -> datetime | None:
    from pydicom import Dataset

    try:
        value = header.private_block(0x0009, _GE)[_GE_SCAN].value
    except KeyError:
        return None
    moment = Dataset()
    moment.AcquisitionDateTime = value.decode("ascii") if isinstance(value, bytes) else str(value)
    return read_moment(moment, "AcquisitionDateTime", "", "")


def _find_enhanced(header: Any) -> SuvFactor:
    """Find the factor of an enhanced PET file, whose mapping to real-world values names the unit."""
    units = set(_list_units(header))
    if len(units) == 1 and "SUVBW" in next(iter(units)).upper():
        return SuvFactor(1.0, "Values are SUV by body weight already.")
    if {unit.upper() for unit in units} != {"BQ/ML"}:
        listed = ", ".join(sorted(units)) or "missing"
        raise DataError(f"MeasurementUnitsCodeSequence (0040,08EA) is {listed}; expected Bq/ml. {_ADVICE}")
    for name, tag in (("AttenuationCorrected", "(0018,9759)"), ("DecayCorrected", "(0018,9758)")):
        if str(header.get(name) or "").upper() != "YES":
            raise DataError(f"{name} {tag} is {header.get(name) or 'missing'}; expected YES. {_ADVICE}")
    agent = _read_agent(header)
    dose, weight = _read_dose(agent), _read_weight(header)
    corrected = read_moment(header, "DecayCorrectionDateTime", "", "")
    if corrected is None:
        raise DataError(f"DecayCorrectionDateTime (0018,9701) is missing or not valid. {_ADVICE}")
    half_life = _read_number(agent, "RadionuclideHalfLife", "(0018,1075)")
    decay = _measure_decay(header, corrected, half_life)
    return SuvFactor(
        compute_suv_factor(weight, dose, half_life, decay),
        f"Decay was corrected to {decay:.0f} s after the injection (0018,9701).",
    )


def _list_units(header: Any) -> Iterator[str]:
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or ()),
        *(header.get("PerFrameFunctionalGroupsSequence") or ()),
    ]
    for group in groups:
        for mapping in group.get("RealWorldValueMappingSequence") or ():
            for unit in mapping.get("MeasurementUnitsCodeSequence") or ():
                yield str(unit.get("CodeValue") or "")
