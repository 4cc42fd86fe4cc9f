"""Prediction over a cluster: what workers ask for, and what is refused before they start."""

import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.inference.cluster_connection import _keep_handler, connect, require_listener
from duplus_nnunet.inference.cluster_run import plan_resources
from duplus_nnunet.inference.cluster_settings import ClusterSettings, read_cluster
from duplus_nnunet.inference.cluster_worker import CaseWorker, WorkOrder
from duplus_nnunet.inference.entry import make_parser
from duplus_nnunet.inference.model_folder import ModelFiles
from duplus_nnunet.inference.selection import Selection

GPU_NODE, CPU_NODE = {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}


def parse(*words: str) -> ClusterSettings | None:
    return read_cluster(make_parser().parse_known_args(words)[0])


def test_without_ray_there_is_no_cluster() -> None:
    assert parse("--statistics") is None


def test_ray_without_an_address_is_started_on_this_machine() -> None:
    assert parse("--ray", "--ray-workers", "2") == ClusterSettings("local", 2)
    assert parse("--ray", "auto", "--gpus-per-worker", "0.5") == ClusterSettings("auto", None, 0.5)


@pytest.mark.parametrize(
    "words",
    [
        ("--ray-workers", "2"), ("--gpus-per-worker", "1"), ("--cpus-per-worker", "1"), ("--ray", "--ray-workers", "0"),
        ("--ray", "--gpus-per-worker", "1.5"), ("--ray", "--gpus-per-worker", "-1"),
        ("--ray", "--cpus-per-worker", "0"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_and_without_ray_are_errors(words: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="--"):
        parse(*words)


@pytest.mark.parametrize(
    ("settings", "device", "nodes", "expected"),
    [
        ({}, "cuda", [GPU_NODE, GPU_NODE, CPU_NODE], (8, 1.0, 4, 4)),
        ({"gpus": 0.5}, "cuda", [GPU_NODE], (8, 0.5, 2, 8)),
        ({"gpus": 0.3}, "cuda", [{"CPU": 16, "GPU": 1}], (3, 0.3, 5, 3)),
        ({"workers": 2}, "cuda", [GPU_NODE], (2, 1.0, 8, 2)),
        ({}, "cpu", [CPU_NODE, GPU_NODE], (2, 0.0, 8, 1)),
        ({"workers": 3}, "cpu", [{"CPU": 2}], (3, 0.0, 1, 3)),
        ({"cpus": 2}, "cpu", [CPU_NODE, {}], (1, 0.0, 2, 1)),
    ],
)
def test_workers_share_machines_evenly(settings: Any, device: str, nodes: Any, expected: tuple[Any, ...]) -> None:
    found = plan_resources(ClusterSettings(**settings), device, nodes)
    assert (found.workers, found.gpus, found.cpus, found.sharers) == expected


@pytest.mark.parametrize(
    ("settings", "device"), [({}, "cuda"), ({"gpus": 0}, "cuda"), ({"cpus": 9}, "cpu"), ({"gpus": 1}, "cpu")]
)
def test_a_worker_that_no_machine_has_room_for_is_an_error(settings: Any, device: str) -> None:
    with pytest.raises(HostError):
        plan_resources(ClusterSettings(**settings), device, [CPU_NODE])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HostError, match=r"duplus-nnunet\[ray\]"), connect(ClusterSettings()):
        pass


def test_an_address_at_which_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        require_listener(address)
    with pytest.raises(HostError, match=address):
        require_listener(address)
    with pytest.raises(HostError, match="no name of a host"):
        require_listener("a..b:6379")
    with pytest.raises(HostError, match="no port 70000"):
        require_listener("127.0.0.1:70000")


@pytest.mark.parametrize(
    "address", ["local", "auto", "ray://127.0.0.1:1", "nonsense", ":6379", "127.0.0.1:", "127.0.0.1:²"]
)
def test_other_addresses_are_left_to_ray(address: str) -> None:
    require_listener(address)


def test_a_worker_that_does_not_see_the_output_folder_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    order = WorkOrder(
        ModelFiles(tmp_path), {}, Selection(), str(tmp_path), str(tmp_path / "out" / "witness"), None, False, 1, 1
    )
    with pytest.raises(DataError, match="out"):
        CaseWorker().load(order)


def test_the_handler_of_sigterm_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with _keep_handler():
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does
    assert signal.getsignal(signal.SIGTERM) == before
