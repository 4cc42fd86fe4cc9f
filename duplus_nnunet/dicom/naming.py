"""Names the cases that are made of DICOM series."""

import re

from duplus_nnunet.dicom.series import Series

_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


def name_case(series: Series, keep_ids: bool = False) -> str:
    """Name the case of a series by a hash of its UID; if patient IDs are to be kept, by the ID and the hash."""
    patient = _UNSAFE.sub("-", series.about.patient).strip("-.") if keep_ids else ""
    return f"{patient}_{series.hash}" if patient else series.name
