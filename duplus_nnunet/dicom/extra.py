"""Imports the packages of the extra `dicom`."""

from typing import Any

from duplus_nnunet.extras import import_extra


def require(name: str) -> Any:
    """Import a package of the extra `dicom`, such as `pydicom` or `highdicom.seg`.

    Raises:
        HostError: It is not installed.
    """
    return import_extra(name, "dicom", "DICOM")
