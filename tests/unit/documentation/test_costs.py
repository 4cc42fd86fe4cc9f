"""The costs on the page for clusters follow from published hours and the assumptions that it states."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from .pages import DOCS


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("generate.costs")


def read_page() -> str:
    return (Path(DOCS) / "how-to" / "cluster.md").read_text(encoding="utf-8")


def read_row(name: str, number: int = 0) -> list[str]:
    """Read the cells of the numbered row of the page that begins with a name."""
    rows = [line for line in read_page().splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in rows[number].strip("|").split("|")]


def test_the_published_hours_are_those_of_the_page(costs: ModuleType) -> None:
    hours = [value for value, _ in costs.PUBLISHED.values()]
    assert hours == [9, 12, 35, 66]
    assert "9, 12, 35 and 66 h" in read_page()


@pytest.mark.parametrize(("preset", "hours"), [("nnU-Net's default", 9), ("ResEnc L", 35)])
def test_gpu_hours_are_products(preset: str, hours: float) -> None:
    cells = read_row(preset)[2:]
    expected = [1.1 * hours, 5 * 1.1 * hours, 5 * 10 * hours, 5 * 190 * hours]
    found = [float(cell.replace(",", "")) for cell in cells]
    assert found == pytest.approx(expected, abs=0.51)


def test_the_arithmetic_in_the_text_is_right() -> None:
    for factors, product in re.findall(r"((?:[\d.,]+(?: h)? x\s+)+[\d.,]+(?: h)?) = ([\d.,]+) h", read_page()):
        value = 1.0
        for factor in re.findall(r"[\d.]+", factors.replace(",", "")):
            value *= float(factor)
        assert value == pytest.approx(float(product.replace(",", "").rstrip(".")))


def test_a_long_training_draws_volumes_equally_often(costs: ModuleType) -> None:
    epochs = costs.compute_equal_epochs(costs.LARGE, costs.PAPER)
    assert costs.compute_draws(costs.LARGE, epochs) == pytest.approx(costs.compute_draws(costs.PAPER), rel=1e-3)
    hours = float(read_row("ResEnc M", 1)[1].replace(",", ""))
    assert hours == pytest.approx(12 * 1.1 * 68_500 / costs.PAPER.volumes, rel=1e-3)
    days = [float(cell.split()[0].replace(",", "")) for cell in read_row("ResEnc M", 1)[2:]]
    assert days == pytest.approx([hours / 24, hours / 24 / 8 / 0.85, hours / 24 / 32 / 0.85], abs=0.06)


def test_disk_space_and_core_hours_grow_with_volumes(costs: ModuleType) -> None:
    cells = [float(re.sub(r"[^\d.]", "", cell)) for cell in read_row("190")]
    assert cells[1:] == pytest.approx(
        [68_500, 68_500 * 3 / 60, 68_500 * 3 / 60 / 64, 68_500 * 0.025, 68_500 * 45.24 / 1228, 500_000 / 68_500],
        rel=0.01,
    )
    assert costs.PAPER.volumes == 2505
