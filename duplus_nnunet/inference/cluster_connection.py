"""Connects to a Ray cluster, or starts one on this machine."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from duplus_nnunet.errors import HostError
from duplus_nnunet.extras import import_extra
from duplus_nnunet.inference.cluster_settings import LOCAL, ClusterSettings

_LAST_PORT = 65535
# Seconds to wait for an answer before an address is left to Ray, which has its own patience.
_PATIENCE = 5


@contextmanager
def connect(settings: ClusterSettings) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine; what was started is ended."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's later behaviour; it warns otherwise
    ray = import_extra("ray", "ray", "--ray")
    if ray.is_initialized():
        yield ray
        return
    require_listener(settings.address)
    more: dict[str, Any] = {}
    if settings.address == LOCAL:
        more["include_dashboard"] = False
        os.environ.setdefault("RAY_worker_niceness", "0")  # as urgent as the plain prediction
    with _keep_handler():
        try:
            ray.init(settings.address, logging_level=logging.ERROR, **more)
        except Exception as error:  # Ray has many, and says in them what was not reached
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise _describe(settings.address, reason) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def require_listener(address: str) -> None:
    """Refuse an address HOST:PORT at which nothing listens, which Ray itself would try for minutes.

    Raises:
        HostError: The host refuses the connection, or its name is unknown. Other addresses are left to Ray.
    """
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not (port.isascii() and port.isdigit()):
        return
    if int(port) > _LAST_PORT:
        raise _describe(address, f"there is no port {port}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (ConnectionRefusedError, UnicodeError) as error:
        raise _describe(address, getattr(error, "strerror", None) or f"{host!r} is no name of a host") from error
    except OSError as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            raise _describe(address, error.strerror or str(error)) from error


def _describe(address: str, reason: str) -> HostError:
    return HostError(
        f"Ray cannot be reached at {address!r}: {reason.rstrip('.')}. Correct the address after --ray, or leave it out "
        "to start Ray on this machine."
    )


@contextmanager
def _keep_handler() -> Iterator[None]:
    """Take back the handler of SIGTERM that Ray leaves: processes forked later, as nnU-Net's, would not end by it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def list_nodes(ray: Any) -> list[dict[str, float]]:
    """Return what each machine of the cluster has, as Ray names it: CPU, GPU and others."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
