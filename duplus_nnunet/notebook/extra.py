"""Imports the packages of the extra `notebook`."""

from typing import Any

from duplus_nnunet.extras import import_extra


def require(name: str) -> Any:
    """Import a package of the extra `notebook`, such as `ipywidgets` or `ipyniivue`.

    Raises:
        HostError: It is not installed.
    """
    return import_extra(name, "notebook", "The viewer")
