"""Decides by its version, and for untested newer versions by a probe, whether the installed nnU-Net can be used."""

import importlib.metadata
import os
import re
import sys

from duplus_nnunet import __version__
from duplus_nnunet.errors import HostError

# Versions from LOWEST_HOST up to FIRST_UNTESTED_HOST run as they are; from there on, those that pass the probe.
LOWEST_HOST = (2, 8)
FIRST_UNTESTED_HOST = (2, 9)
# A new major version may change the meaning of plans and checkpoints, which no signature shows.
FIRST_UNSUPPORTED_HOST = (3, 0)
SUPPORTED_HOSTS = "nnunetv2>=2.8,<3"
TESTED_HOSTS = "nnunetv2>=2.8,<2.9"

# Holds the untested version that passed the probe, so that worker processes neither probe nor warn again.
PROBED_VARIABLE = "DUPLUS_PROBED_HOST"
_SHOWN = 10


def read_host_version() -> str:
    """Return the version of the installed nnU-Net.

    Raises:
        HostError: If no nnU-Net is installed.
    """
    try:
        return importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        raise HostError(
            f"No installed nnU-Net was found by {sys.executable}; DuPLUS {__version__} is a plug-in for it. "
            f"Install one with `pip install '{TESTED_HOSTS}'`."
        ) from None


def is_tested(version: str) -> bool:
    """Report whether this package was tested with that version of nnU-Net."""
    return LOWEST_HOST <= _read_release(version) < FIRST_UNTESTED_HOST


def is_supported(version: str) -> bool:
    """Report whether that version of nnU-Net is tested, or a newer one that can be used if it passes the probe."""
    return LOWEST_HOST <= _read_release(version) < FIRST_UNSUPPORTED_HOST


def _read_release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def require_host() -> str:
    """Return the version of the installed nnU-Net if this package can use it.

    Raises:
        HostError: If nnU-Net is missing, of an unsupported version, or of an untested one that fails the probe.
    """
    version = read_host_version()
    if not is_supported(version):
        raise HostError(
            f"nnU-Net {version} is installed for {sys.executable}, but DuPLUS {__version__} needs {SUPPORTED_HOSTS}. "
            f"Install one with `pip install '{TESTED_HOSTS}'`."
        )
    if not is_tested(version) and os.environ.get(PROBED_VARIABLE) != version:
        _require_interface(version)
    return version


def _require_interface(version: str) -> None:
    from duplus_nnunet.host.probe import list_differences, probe_host

    differences = list_differences(probe_host())
    if differences:
        shown = "".join(f"\n  {line}" for line in differences[:_SHOWN])
        rest = len(differences) - _SHOWN
        raise HostError(
            f"nnU-Net {version} is installed for {sys.executable}, but DuPLUS {__version__}, which was tested with "
            f"{TESTED_HOSTS}, uses names that are missing or differ there:{shown}\n"
            + (f"  and {rest} more; `duplus doctor` lists all of them\n" if rest > 0 else "")
            + f"Install a tested version with `pip install '{TESTED_HOSTS}'`, or a newer DuPLUS."
        )


def check_host() -> str:
    """Return the version of the installed nnU-Net as `require_host` does, with one warning if it is untested.

    Raises:
        HostError: As `require_host`.
    """
    version = require_host()
    if not is_tested(version) and os.environ.get(PROBED_VARIABLE) != version:
        sys.stderr.write(
            f"warning: nnU-Net {version} is newer than the versions that DuPLUS {__version__} was tested with "
            f"({TESTED_HOSTS}); it offers all names that DuPLUS uses. Check the results.\n"
        )
        os.environ[PROBED_VARIABLE] = version
    return version
