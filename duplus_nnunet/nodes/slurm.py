"""Reads SLURM's lists of nodes, such as `gpu[003-005,012],login1`."""

import itertools
import re

from duplus_nnunet.errors import HostError

# Text outside of brackets, then the list in brackets, if any.
_PART = re.compile(r"([^\[\],]*)(?:\[([^\[\]]*)\])?")


def expand_hosts(text: str) -> list[str]:
    """Expand a list of nodes to the names of hosts, in their order.

    Args:
        text: As in SLURM_JOB_NODELIST: names separated by commas, with numbers and ranges of them in brackets.

    Raises:
        HostError: The text is not such a list.

    Example:
        >>> expand_hosts("node[003-005,012],login1")
        ['node003', 'node004', 'node005', 'node012', 'login1']
    """
    hosts = [host for name in _split(text) for host in _expand_name(name, text)]
    if not hosts or not all(hosts):
        raise _refuse(text)
    return hosts


def _split(text: str) -> list[str]:
    """Split a list at the commas outside of brackets."""
    return re.split(r",(?![^\[]*\])", text.strip())


def _expand_name(name: str, text: str) -> list[str]:
    """Expand a name that may have several lists in brackets, such as `rack[1-2]node[01-02]`; the last varies first."""
    parts = [match for match in _PART.finditer(name) if match[0]]
    if "".join(match[0] for match in parts) != name:
        raise _refuse(text)
    choices = [[match[1] + number for number in _expand_numbers(match[2], text)] for match in parts]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _expand_numbers(numbers: str | None, text: str) -> list[str]:
    """Expand `003-005,012` to its numbers with their leading zeros; no brackets stand for one empty number."""
    if numbers is None:
        return [""]
    expanded = []
    for part in numbers.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise _refuse(text)
        expanded += [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return expanded


def _refuse(text: str) -> HostError:
    return HostError(
        f"The list of nodes {text!r} cannot be read; expected names as in SLURM_JOB_NODELIST, such as "
        "'node[003-010,012]'. Set MASTER_ADDR to the host of rank 0."
    )
