"""Predictions that go to a URL: each case is written on this machine first, then moved up whole, the tables last.

What is shared by the cases (manifest, tables, legend) lies in a folder of this machine while the run lasts.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from duplus_nnunet.files import list_written
from duplus_nnunet.inference.answering import PredictedCase
from duplus_nnunet.inference.writing import CaseWriter, WrittenCase
from duplus_nnunet.locks import FILE_NAME
from duplus_nnunet.outputs import manifest
from duplus_nnunet.outputs.manifest import FileRecord
from duplus_nnunet.remote_files import RemoteFolder


@dataclass
class OutputStore:
    """The storage that predictions go to.

    Attributes:
        remote: The folder at the URL.
        staging: Folder of this machine that stands for it.
        sizes: Sizes of its files in bytes when the run began, by path.
    """

    remote: RemoteFolder
    staging: Path
    sizes: dict[str, int] = field(default_factory=dict)
    _moved: dict[str, int] = field(default_factory=dict)  # times of what was moved up, in ns

    def holds(self, file: Path) -> bool:
        """Whether a file, given by its path in the staging folder, is in the storage."""
        return self._name(file) in self.sizes

    def find_change(self, file: Path, record: FileRecord, verify: bool) -> str:
        """Say how a file of the storage differs from its record; empty if it does not.

        Sizes are compared, and hashes to verify them: for that, the file is read.
        """
        name = self._name(file)
        if name not in self.sizes:
            return f"{record.path} is missing"
        if self.sizes[name] != record.size:
            return f"{record.path} has {self.sizes[name]} bytes instead of {record.size}"
        if verify and record.sha256 is not None and self.remote.hash(name) != record.sha256:
            return f"{record.path} has another SHA-256 than it was written with"
        return ""

    def write_case(self, writer: CaseWriter, predicted: PredictedCase) -> WrittenCase:
        """Write a case and move its files up, the label map last.

        Raises:
            DataError: A file cannot be written; then there is no label map in the storage.
        """
        source = predicted.item.source
        target = Path(str(source.output))
        with TemporaryDirectory(prefix="duplus_case_") as folder:
            aside = replace(source, output=os.path.join(folder, target.name))
            written = writer.write(replace(predicted, item=replace(predicted.item, source=aside)))
            label_map = written.record.outputs[-1].path
            names = [file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()]
            for name in sorted(names, key=lambda name: (name == label_map, name)):
                self.remote.put(Path(folder, name), self._name(target.parent / name))
        return written

    def put_tables(self) -> None:
        """Move up what has changed in the staging folder, the manifest last.

        Raises:
            DataError: It cannot be written.
        """
        files = [file for file in list_written(self.staging) if not file.name.startswith(FILE_NAME)]
        for file in sorted(files, key=lambda file: (file.name == manifest.NAME, file)):
            name, time = self._name(file), file.stat().st_mtime_ns
            if self._moved.get(name) != time:
                self.remote.put(file, name)
                self._moved[name] = time

    def _name(self, file: Path) -> str:
        return file.relative_to(self.staging).as_posix()


def write_case(writer: CaseWriter, predicted: PredictedCase, store: OutputStore | None) -> WrittenCase:
    """Write a case into its folder, or into a storage."""
    return writer.write(predicted) if store is None else store.write_case(writer, predicted)
