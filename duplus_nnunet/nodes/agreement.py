"""Checks that the processes of a training see the same: versions, arguments, plans, folders and checkpoints."""

import hashlib
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.checkpoint_files import CHECKPOINTS
from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.nodes.peers import Peers

# Seconds that a new file of another node may take to become visible on a network disk.
VISIBLE_S = 30.0
_WAIT_S, _BLOCK = 0.2, 1 << 20


def require_same(what: str, seen: Sequence[Mapping[str, Any]], hosts: Sequence[str], advice: str) -> None:
    """Check that all processes see the same values.

    Args:
        what: What the values are of, such as "versions".
        seen: Values by name, of each rank.
        hosts: Host of each rank.
        advice: What to do if they differ, a sentence.

    Raises:
        HostError: They differ; the message has the first differing value of rank 0 and of another rank.
    """
    for rank, values in enumerate(seen):
        for name in {**seen[0], **values}:
            first, other = seen[0].get(name), values.get(name)
            if first != other:
                raise HostError(
                    f"The processes have different {what}: {name} is {first!r} on rank 0 ({hosts[0]}) and {other!r} on "
                    f"rank {rank} ({hosts[rank]}). {advice}"
                )


def require_own_devices(devices: Sequence[str], hosts: Sequence[str]) -> None:
    """Check that no GPU is used by two processes.

    Args:
        devices: The device of each rank, which names a GPU uniquely; those of CPUs may be equal.
        hosts: Host of each rank.

    Raises:
        HostError: Two processes use the same GPU.
    """
    users: dict[tuple[str, str], int] = {}
    for rank, user in enumerate(zip(hosts, devices, strict=True)):
        other = users.setdefault(user, rank)
        if other != rank and user[1] != "cpu":
            raise HostError(
                f"Ranks {other} and {rank} use the same GPU {user[1]} of {user[0]}. Start no more processes on a node "
                "than it has GPUs for the job: --nproc-per-node of torchrun, or --ntasks-per-node and --gres of SLURM."
            )


def digest_files(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """Return a digest of the content of each file of a folder whose name matches a pattern, by name."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return {file.name: _digest(file) for file in files}


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def require_shared(peers: Peers, folder: Path, fold: Path, hosts: Sequence[str], patience: float = VISIBLE_S) -> None:
    """Check that all processes see one results folder, and the same checkpoints in it.

    Args:
        peers: The processes.
        folder: The results folder of this process; rank 0 writes and removes a small file in it.
        fold: Folder of the fold, which may not exist yet.
        hosts: Host of each rank.
        patience: Longest wait for what rank 0 sees, in s.

    Raises:
        DataError: A process has another folder of that name, or rank 0 cannot write into it.
    """
    mark = folder / f".duplus_shared_{uuid.uuid4().hex}"
    if peers.place.rank == 0:
        _write_mark(mark)
    try:
        name, checkpoints = peers.exchange("shared/mark", [mark.name, list_checkpoints(fold)])[0]
        end = time.monotonic() + patience
        while not (visible := _sees(folder / name, fold, checkpoints)) and time.monotonic() < end:
            time.sleep(_WAIT_S)
        seen = peers.exchange("shared/seen", visible)
    finally:
        if peers.place.rank == 0:
            mark.unlink(missing_ok=True)
    if not all(seen):
        rank = seen.index(False)
        found = f"the checkpoints {', '.join(checkpoints)} of rank 0" if checkpoints else "what rank 0 writes there"
        raise DataError(
            f"Rank {rank} ({hosts[rank]}) does not see {found} ({hosts[0]}) in {fold}: nnUNet_results must be a folder "
            "on a disk that all nodes see, under the same name, since rank 0 writes the checkpoints that all continue "
            "from, and reads the validation of all. Set it to such a folder, or train on one node."
        )


def list_checkpoints(fold: Path) -> dict[str, int]:
    """List the checkpoints of a fold that nnU-Net may continue from, each with its size in bytes."""
    files = (fold / name for name in CHECKPOINTS)
    return {file.name: file.stat().st_size for file in files if file.is_file()}


def _sees(mark: Path, fold: Path, checkpoints: Mapping[str, int]) -> bool:
    """Report whether this process sees a file and the checkpoints of rank 0, and no others."""
    return mark.is_file() and list_checkpoints(fold) == checkpoints


def _write_mark(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise DataError(
            f"{mark.parent} cannot be written: {error.strerror or error}. Set nnUNet_results to a writable folder."
        ) from error
