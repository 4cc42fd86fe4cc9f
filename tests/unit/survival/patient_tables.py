"""Draws and writes clinical tables of patients whose hazard grows with age."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def draw_patients(count: int, seed: int, prefix: str, faster: float = 1.0) -> list[Row]:
    """Draw patients with age, sex, days of follow-up and event; events are `faster` times as frequent."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        age = rng.normal()
        event, censoring = rng.exponential(400 * np.exp(-age) / faster), rng.uniform(100, 900)
        rows.append({"patient": f"{prefix}{number:03d}", "age": round(60 + 10 * age, 1), "sex": "fm"[number % 2],
                     "days": round(min(event, censoring) + 1, 1), "event": int(event <= censoring)})  # fmt: skip
    return rows


def write_rows(file: Path, rows: Sequence[Row]) -> Path:
    """Write a table with a heading, and return its file."""
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file
