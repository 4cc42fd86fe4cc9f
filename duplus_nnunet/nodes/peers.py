"""Lets the processes of a training compare what each of them sees, and end together when one of them fails."""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from duplus_nnunet.errors import DuplusError, HostError
from duplus_nnunet.nodes.place import Place

# Seconds between two looks for a value that another process writes, and for its failure.
_WAIT_S, _WATCH_S = 0.05, 1.0
# Seconds that rank 0, which may hold the store, waits for the others to leave it.
_LEAVE_S = 60.0
_FAILURE = "failure"
# Libraries by which processes communicate, as torch's messages name them.
_LIBRARIES = ("gloo", "nccl")


@dataclass(frozen=True)
class Failure:
    """The first failure of any process.

    Attributes:
        rank: Its rank.
        text: The process and its message.
    """

    rank: int
    text: str


class Peers:
    """The processes of a training, as one of them sees them by a store of text that all can read and write.

    Every wait looks again and again instead of blocking, so that two threads can use the store.

    Args:
        store: torch's store, of its own connection, for this start of the training alone.
        place: The place of this process.
        timeout: Longest wait for another process, in s.
    """

    def __init__(self, store: Any, place: Place, timeout: float) -> None:
        self.place, self.timeout = place, timeout
        self._store = store

    def exchange(self, name: str, value: Any) -> list[Any]:
        """Give a value to all processes, and return those of all, by rank; each name is exchanged once.

        Args:
            name: What is exchanged.
            value: A value that JSON can hold.

        Raises:
            HostError: A process failed, or did not give its value in time.
        """
        self._store.set(f"{name}/{self.place.rank}", json.dumps(value))
        return [self.receive(f"{name}/{rank}") for rank in range(self.place.world)]

    def receive(self, key: str) -> Any:
        """Wait for a value, and return it.

        Raises:
            HostError: A process failed, or the value did not come in time.
        """
        end = time.monotonic() + self.timeout
        while not self._store.check([key]):
            failure = self.find_failure()
            if failure is not None:
                raise HostError(failure.text)
            if time.monotonic() > end:
                raise HostError(
                    f"{self.place} waited {self.timeout:.0f} s for {key!r} of the training. Look into the output of "
                    "that rank; raise --timeout if it is only slow."
                )
            time.sleep(_WAIT_S)
        return json.loads(self._store.get(key))

    def report(self, text: str) -> Failure:
        """Report that this process fails; return the first failure of any process, which may be another's."""
        own = Failure(self.place.rank, f"{self.place}: {text}")
        content = json.dumps([own.rank, own.text])
        try:
            first = self._store.compare_set(_FAILURE, "", content)
        except RuntimeError:  # the process that holds the store has ended
            return own
        return Failure(*json.loads(first))

    def find_failure(self) -> Failure | None:
        """Return the first failure of any process, None if there is none.

        Raises:
            RuntimeError: The process that holds the store has ended.
        """
        return Failure(*json.loads(self._store.get(_FAILURE))) if self._store.check([_FAILURE]) else None

    def finish(self) -> None:
        """Wait for rank 0, which scores the validation when the others have no more to do; rank 0 leaves last.

        Raises:
            HostError: Another process failed.
        """
        if self.place.rank:
            while not self._store.check(["finished"]):
                failure = self.find_failure()
                if failure is not None:
                    raise HostError(failure.text)
                time.sleep(_WATCH_S)
            self._store.add("left", 1)
            return
        self._store.set("finished", "1")
        end = time.monotonic() + _LEAVE_S
        while self._store.add("left", 0) < self.place.world - 1 and time.monotonic() < end:
            time.sleep(_WAIT_S)


def begin_session(store: Any, place: Place, timeout: float) -> str:
    """Agree with the processes of the same start of a training on a name for it.

    torchrun keeps its store when it starts the processes again, with all that they wrote into it, and numbers restarts
    on each node by itself. So each process writes a random word, and rank 0 lists the words that it reads, until all
    processes have found their own in the list. Its first word is the name.

    Args:
        store: torch's store.
        place: The place of this process.
        timeout: Longest wait for the other processes, in s.

    Raises:
        HostError: Processes are missing.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + timeout
    store.set(f"duplus/word/{place.rank}", word)
    missing: list[int] = []
    written: list[str] = []
    while time.monotonic() < end:
        if place.rank == 0:
            words = [_read(store, f"duplus/word/{rank}") for rank in range(place.world)]
            if words != written:
                store.set("duplus/session", json.dumps(words))
                written = words
            missing = [rank for rank in range(1, place.world) if not store.check([f"duplus/{word}/{rank}"])]
            if not missing:
                return word
        else:
            words = json.loads(_read(store, "duplus/session") or "[]")
            if len(words) == place.world and words[place.rank] == word:
                store.set(f"duplus/{words[0]}/{place.rank}", "")
                return str(words[0])
        time.sleep(_WAIT_S)
    ranks = ", ".join(map(str, missing)) or "0"
    raise HostError(f"{place} waited {timeout:.0f} s for rank(s) {ranks}. Start all processes, or raise --timeout.")


def _read(store: Any, key: str) -> str:
    """Return the text of a key, "" if there is none yet."""
    return store.get(key).decode() if store.check([key]) else ""


@contextmanager
def watch(peers: Peers, end: Callable[[str], None]) -> Iterator[None]:
    """Look for failures of other processes in a thread, while this one may be waiting for them in a collective.

    Args:
        peers: The processes.
        end: Called once with the message of a failure; it is expected to end the process.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(_WATCH_S):
            try:
                failure = peers.find_failure()
            except RuntimeError as error:
                failure = Failure(-1, f"{peers.place} lost the connection to {peers.place.address}: {error}")
            if failure is not None and failure.rank != peers.place.rank and not over.is_set():
                end(failure.text)
                return

    thread = threading.Thread(target=look, daemon=True, name="duplus-watch")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def meet(place: Place, timeout: float) -> Iterator[tuple[Peers, Any]]:
    """Find the other processes, and report to them if this one fails.

    Args:
        place: The place of this process.
        timeout: Longest wait for another process, in s.

    Yields:
        The processes, and a store for torch's process group.

    Raises:
        HostError: They did not find each other in time; or another process failed first, whose message it has.
        DuplusError: This process failed; the message names its rank.
    """
    limit = timedelta(seconds=timeout)
    try:
        store, _, _ = next(dist.rendezvous("env://", place.rank, place.world, timeout=limit))  # type: ignore[attr-defined]
        # The thread of `watch` must not wait while torch waits for a key: it has a connection of its own.
        own = dist.TCPStore(  # type: ignore[attr-defined]
            place.address, place.port, place.world, False, limit, wait_for_workers=False
        )
    except (RuntimeError, ValueError) as error:
        raise HostError(
            f"{place} did not find the other processes at {place.address}:{place.port}: {str(error).splitlines()[0]}. "
            "All nodes must reach this host and port (MASTER_ADDR and MASTER_PORT), and all processes must be started."
        ) from error
    session = begin_session(own, place, timeout)
    peers = Peers(_part(own, f"duplus/{session}"), place, timeout)
    try:
        with watch(peers, end_now):
            yield peers, _part(store, f"duplus/{session}/group")
        peers.finish()
    except DuplusError as error:
        raise _choose_error(peers, error, type(error)) from error
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        chosen = _choose_error(peers, error, HostError)
        if _is_own(peers, chosen):
            sys.stderr.write(f"error: {chosen}\n")
            raise
        raise chosen from error


def _part(store: Any, prefix: str) -> Any:
    """Return the part of a store whose keys begin with a prefix."""
    return dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]


def end_now(text: str) -> None:
    """End this process at once, whatever its main thread waits for; its workers notice that it has ended."""
    sys.stderr.write(f"error: {text}\n")
    sys.stderr.flush()
    os._exit(1)


def _choose_error(peers: Peers, error: BaseException, kind: type[DuplusError]) -> DuplusError:
    """Return the error to end with: this one, or that of the process that failed first, by which this one fails too."""
    failure = peers.report(str(error) if isinstance(error, DuplusError) else _describe(error))
    return (kind if failure.rank == peers.place.rank else HostError)(failure.text)


def _describe(error: BaseException) -> str:
    """Describe an error that is none of ours; torch's are told from others by the libraries that they name."""
    lines = str(error).splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    if not isinstance(error, RuntimeError) or not any(name in text.casefold() for name in _LIBRARIES):
        return text
    return (
        f"{text}. Another process has ended without a message, or did not answer in time. Look into the output of the "
        "others and of torchrun or SLURM (a process may have been killed for want of memory), and continue with --c."
    )


def _is_own(peers: Peers, error: DuplusError) -> bool:
    return str(error).startswith(f"{peers.place}: ")
