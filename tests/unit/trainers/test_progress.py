"""The bar over an epoch: on a terminal only."""

import io

import pytest

from duplus_nnunet.trainers.progress import EpochProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown", "written"), [
    (Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False),
])  # fmt: skip
def test_an_epoch_is_shown_on_a_terminal_by_one_rank(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: bool, written: bool
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    progress = EpochProgress(shown)
    progress.start(3, 2)
    progress.advance()
    progress.close()
    assert ("epoch 3" in stream.getvalue()) == written
