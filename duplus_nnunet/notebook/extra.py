"""Imports the packages of the extra `notebook`, or says how they are installed."""

import importlib
from typing import Any

from duplus_nnunet.errors import HostError

_INSTALL = "pip install 'duplus-nnunet[notebook]'"


def require(name: str) -> Any:
    """Import a package of the extra `notebook`, such as `ipywidgets` or `ipyniivue`.

    Raises:
        HostError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise HostError(
            f"The viewer needs the package {error.name}, which is not installed. Run: {_INSTALL}"
        ) from error
