"""SLURM's lists of nodes, as `scontrol show hostnames` expands them."""

import pytest

from duplus_nnunet.errors import HostError
from duplus_nnunet.nodes.slurm import expand_hosts


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node1", ["node1"]),
        ("a,b", ["a", "b"]),
        ("node[3-5]", ["node3", "node4", "node5"]),
        ("node[003-005,012]", ["node003", "node004", "node005", "node012"]),
        ("node[09-11]", ["node09", "node10", "node11"]),
        ("gpu[1,3],login,cpu[07-08]", ["gpu1", "gpu3", "login", "cpu07", "cpu08"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
        ("node[1-2].cluster.edu", ["node1.cluster.edu", "node2.cluster.edu"]),
        ("tux-0[1-2]", ["tux-01", "tux-02"]),
    ],
)
def test_lists_are_expanded_in_their_order(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(
    "text", ["", "node[", "node]", "node[]", "node[a-b]", "node[5-3]", "node[1-2-3]", "a,,b", "n[[1]]"]
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(HostError):
        expand_hosts(text)
