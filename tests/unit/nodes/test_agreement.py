"""What the processes of a training must see alike."""

from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.nodes.agreement import (
    digest_files,
    list_checkpoints,
    require_own_devices,
    require_same,
    require_shared,
)
from duplus_nnunet.nodes.peers import Peers

from .ranks import run_ranks

HOSTS = ["a", "a", "b"]


def test_equal_values_are_accepted() -> None:
    require_same("versions", [{"torch": "2.6"}] * 3, HOSTS, "")


@pytest.mark.parametrize("other", [{"torch": "2.7"}, {}, {"torch": "2.6", "nnunetv2": "2.8"}])
def test_different_values_name_rank_and_host(other: dict[str, str]) -> None:
    with pytest.raises(HostError, match=r"rank 2 \(b\)"):
        require_same("versions", [{"torch": "2.6"}, {"torch": "2.6"}, other], HOSTS, "")


def test_two_processes_on_one_gpu_are_refused() -> None:
    require_own_devices(["x", "y", "x"], HOSTS)
    require_own_devices(["cpu", "cpu", "cpu"], HOSTS)
    with pytest.raises(HostError, match="Ranks 0 and 1"):
        require_own_devices(["x", "x", "y"], HOSTS)


def test_digests_depend_on_the_content_of_chosen_files(tmp_path: Path) -> None:
    (tmp_path / "plans.json").write_text("1")
    (tmp_path / "other.json").write_text("1")
    before = digest_files(tmp_path, ("plans.json", "duplus_cases*"))
    (tmp_path / "plans.json").write_text("2")
    after = digest_files(tmp_path, ("plans.json", "duplus_cases*"))
    assert set(before) == set(after) == {"plans.json"}
    assert before != after


def share(folders: list[Path], hosts: list[str]) -> list[object]:
    """Let ranks compare their results folders."""

    def act(peers: Peers) -> None:
        folder = folders[peers.place.rank]
        require_shared(peers, folder, folder / "fold_0", hosts, patience=0.3)

    return run_ranks(len(folders), act)


def test_one_folder_is_shared_and_left_as_it_was(tmp_path: Path) -> None:
    assert share([tmp_path, tmp_path], ["a", "b"]) == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_its_own_is_refused_on_all_ranks(tmp_path: Path) -> None:
    errors = share([tmp_path / "a", tmp_path / "a", tmp_path / "b"], HOSTS)
    assert [type(error) for error in errors] == [DataError] * 3
    assert all("Rank 2 (b)" in str(error) for error in errors)


def test_a_checkpoint_that_one_rank_sees_alone_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "fold_0").mkdir(parents=True)
    (tmp_path / "a" / "fold_0" / "checkpoint_latest.pth").write_bytes(b"123")
    assert list_checkpoints(tmp_path / "a" / "fold_0") == {"checkpoint_latest.pth": 3}
    errors = share([tmp_path / "a", tmp_path / "b"], ["a", "b"])
    assert all(isinstance(error, DataError) and "checkpoint_latest.pth" in str(error) for error in errors)
