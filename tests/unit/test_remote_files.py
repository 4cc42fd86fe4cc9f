"""Files at URLs: recognised, listed, fetched, written whole, and named without credentials."""

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.remote_files import (
    RemoteFolder,
    fetch,
    hide_credentials,
    is_url,
    join_url,
    list_names,
    read_name,
    read_state,
    require_storage,
)


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """URL of a new folder, in memory and on a disk."""
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    memory = fsspec.filesystem("memory")
    yield f"memory://{tmp_path.name}/store"
    memory.store.clear()


def put(url: str, name: str, content: bytes = b"abc") -> None:
    with fsspec.open(join_url(url, name), "wb", auto_mkdir=True) as file:
        file.write(content)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a", True), ("gs://b", True), ("memory://x", True), ("simplecache::s3://b/a", True),
        ("C:/images", False), ("C://images", False), ("images/ct", False), ("a::b", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_a_url_has_a_scheme_of_several_letters(text: Any, expected: bool) -> None:
    assert is_url(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sftp://me:secret@host/a", "sftp://host/a"),
        ("sftp://me:se/c?r@et@host/a", "sftp://host/a"),
        ("https://host/a.nii.gz?X-Amz-Signature=secret#part", "https://host/a.nii.gz"),
        ("'ftp://me:secret@h/a' and \"ftp://me:secret@h/b\"", "'ftp://h/a' and \"ftp://h/b\""),
        ("no URL: me@host/a?b", "no URL: me@host/a?b"),
    ],
)
def test_credentials_are_hidden(text: str, expected: str) -> None:
    assert hide_credentials(text) == expected


def test_the_name_of_a_file_has_no_parameters() -> None:
    assert read_name("https://me:secret@host/folder/case_0000.nii.gz?sig=ab/cd") == "case_0000.nii.gz"


def test_files_of_a_folder_are_listed_and_fetched(url: str, tmp_path: Path) -> None:
    for name in ("b.nii", "a.nii", "deeper/c.nii"):
        put(url, name)
    assert list_names(url) == ["a.nii", "b.nii"]
    assert fetch(join_url(url, "a.nii"), tmp_path).read_bytes() == b"abc"


def test_the_state_of_a_file_changes_with_its_content(url: str) -> None:
    put(url, "a")
    before = read_state(join_url(url, "a"))
    assert before == read_state(join_url(url, "a"))
    put(url, "a", b"xyz")
    assert before.size == 3
    assert read_state(join_url(url, "a")) != before


def test_a_folder_is_written_and_read(url: str, tmp_path: Path) -> None:
    folder, file = RemoteFolder(url), tmp_path / "local"
    assert folder.list_sizes() == {}
    for name, content in (("a", b"abc"), ("b/c", b"defg"), ("a", b"ab")):
        file.write_bytes(content)
        folder.put(file, name)
    assert folder.list_sizes() == {"a": 2, "b/c": 4}
    assert folder.read("b/c") == b"defg"
    assert folder.hash("a") == hashlib.sha256(b"ab").hexdigest()


def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = RemoteFolder(f"file://{tmp_path}/store"), tmp_path / "local"
    file.write_bytes(b"old")
    folder.put(file, "a")

    def break_off(system: object, source: str, target: str, **kwargs: object) -> None:
        Path(target).write_bytes(b"ne")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(LocalFileSystem, "put_file", break_off)
    with pytest.raises(DataError):
        folder.put(file, "a")
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == {"a": b"old"}


def test_a_missing_file_is_named(url: str, tmp_path: Path) -> None:
    for call in (lambda: list_names(url), lambda: fetch(join_url(url, "a"), tmp_path), lambda: read_state(url + "/a")):
        with pytest.raises(DataError, match="store"):
            call()


def test_the_missing_package_of_a_storage_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HostError, match="pip install s3fs"):
        require_storage("s3://me:secret@bucket/images")
    with pytest.raises(HostError, match="pip install gcsfs"):
        require_storage("gs://bucket/images")


def test_an_unknown_kind_of_storage_is_an_error_with_the_nearest_ones() -> None:
    with pytest.raises(DataError, match="'s3'"):
        require_storage("s33://bucket")


def test_an_error_of_a_storage_shows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise RuntimeError(f"denied: {url}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(DataError) as caught:
        list_names("ftp://me:secret@host/images")
    assert "secret" not in str(caught.value)
    assert "denied" in str(caught.value)
