"""Imports submitit, of the extra `cluster`."""

from typing import Any

from duplus_nnunet.errors import HostError
from duplus_nnunet.extras import import_extra


def require_submitit() -> Any:
    """Import submitit.

    Raises:
        HostError: It is not installed.
    """
    try:
        return import_extra("submitit", "cluster", "duplus submit")
    except HostError as error:
        raise HostError(f"{error}. Without it, the script docs/examples/train.slurm trains five folds.") from error
