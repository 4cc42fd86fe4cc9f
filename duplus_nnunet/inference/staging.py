"""Gives a prediction into a URL a folder of this machine, with what an earlier run left that it goes on with."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.output_store import OutputStore
from duplus_nnunet.outputs import manifest, statistics
from duplus_nnunet.remote_files import RemoteFolder, is_url

# What an earlier run left that a later one goes on with.
_KEPT = (manifest.NAME, statistics.JSON_NAME)


@contextmanager
def stage_output(call: PredictionCall) -> Iterator[PredictionCall]:
    """Yield a call whose output is a folder of this machine, also where it goes to a URL.

    Raises:
        DataError: The storage cannot be read, or a script names a URL for each case.
    """
    if isinstance(call.output, list) and any(map(is_url, call.output)):
        raise DataError("URLs are given as the outputs of single cases. Give the URL of one folder for all cases.")
    if not isinstance(call.output, str) or not is_url(call.output):
        yield call
        return
    remote = RemoteFolder(call.output)
    with tempfile.TemporaryDirectory(prefix="duplus_output_") as folder:
        staging = Path(folder)
        staged = replace(call, output=folder, store=OutputStore(remote, staging, remote.list_sizes()))
        for table in _KEPT:
            file = staged.table_folder / table
            name = file.relative_to(staging).as_posix()
            if staged.store is not None and name in staged.store.sizes:
                with open_new_file(file) as new:
                    new.write_bytes(remote.read(name))
        yield staged
