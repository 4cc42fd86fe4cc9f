"""Imports packages of optional dependencies, or says how they are installed."""

import importlib
from typing import Any

from duplus_nnunet.errors import HostError


def import_extra(name: str, extra: str, what: str) -> Any:
    """Import a module that an extra of this package installs.

    Args:
        name: The module, such as `highdicom.seg`.
        extra: Name of the extra, such as `dicom`.
        what: What needs it, as the first words of a sentence.

    Raises:
        HostError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise HostError(
            f"{what} needs the package {error.name}, which is not installed. Run: pip install 'duplus-nnunet[{extra}]'"
        ) from error
