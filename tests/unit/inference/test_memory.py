"""Amounts of memory."""

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.memory import GIB, format_memory, format_memory_option, read_memory


@pytest.mark.parametrize(
    ("text", "amount"), [("8", 8 * GIB), ("8GB", 8 * GIB), ("0.5 g", GIB // 2), ("500MB", 500 << 20), ("1 GiB", GIB)]
)
def test_amounts_are_read(text: str, amount: int) -> None:
    assert read_memory(text) == amount


@pytest.mark.parametrize("text", ["", "much", "0", "-1", "8 TB", "nan"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="--memory"):
        read_memory(text)


def test_half_of_what_is_free_is_the_default() -> None:
    assert read_memory(None) == pytest.approx(psutil.virtual_memory().available / 2, rel=0.3)


def test_amounts_are_written_for_people() -> None:
    assert format_memory(3 * GIB) == "3.00 GiB"
    assert format_memory(5 << 20) == "5.0 MiB"


@given(st.integers(1, 1 << 40))
def test_what_is_written_is_read_as_no_less(amount: int) -> None:
    assert amount <= read_memory(format_memory_option(amount)) <= 1.1 * amount + (1 << 20)
