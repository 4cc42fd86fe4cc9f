"""Imports submitit, of the extra `cluster`, or says how it is installed."""

import importlib
from typing import Any

from duplus_nnunet.errors import HostError

_INSTALL = "pip install 'duplus-nnunet[cluster]'"


def require_submitit() -> Any:
    """Import submitit.

    Raises:
        HostError: It is not installed.
    """
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise HostError(
            f"Jobs need the package submitit, which is not installed. Run: {_INSTALL}. Without it, the script "
            "docs/examples/train.slurm trains five folds."
        ) from error
