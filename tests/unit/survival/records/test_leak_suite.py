"""Leaks of twelve kinds, planted into public tables, are all left out; no column of twelve clean tables is accused."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
import yaml

from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.drafting import NamedColumns, draft
from duplus_nnunet.survival.records.endpoints import KEY, split_endpoints
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Rows

from .public_tables import TABLES, read_public

# What is planted: a cell from time, event and a source of chance.
Plant = Callable[[float, bool, random.Random], object]


def _note_contact(time: float, event: bool, draw: random.Random) -> object:
    return date(2000, 1, 1) + timedelta(days=draw.randint(0, 2500) + round(30 * time))


LEAKS: dict[str, tuple[str, Plant]] = {
    "time of another endpoint, by rank": ("marker", lambda time, event, draw: 7 * time**0.5 * draw.uniform(0.7, 1)),
    "event as two numbers": ("marker", lambda time, event, draw: int(event)),
    "event under other names": ("group", lambda time, event, draw: "BA"[event]),
    "a prefixed name": ("pt_LR_status", lambda time, event, draw: draw.randint(0, 1)),
    "event with noise": ("marker", lambda time, event, draw: int(event != (draw.random() < 0.05))),
    "time with missing values": ("marker", lambda time, event, draw: time if draw.random() < 0.5 else ""),
    "time in another unit": ("marker", lambda time, event, draw: round(time / 30.4375, 4)),
    "a date": ("contact", _note_contact),
    "status of disease": (
        "situation",
        lambda time, event, draw: draw.choice(("DOD", "DOD", "DOC") if event else ("AWOD", "AWOD", "AWD")),
    ),
    "how follow-up ended": (
        "ending",
        lambda time, event, draw: "deceased" if event else draw.choice(("complete", "moved", "refused")),
    ),
    "treatment after the event": ("chemo", lambda time, event, draw: "yes" if event and draw.random() < 0.6 else "no"),
    "days to the last contact": ("visit", lambda time, event, draw: time * draw.uniform(1, 1.1)),
}
PLACES = (
    ("time of another endpoint, by rank", "whas500"),
    ("event as two numbers", "gbsg2"),
    ("event under other names", "larynx"),
    ("a prefixed name", "rossi"),
    ("event with noise", "lung"),
    ("time with missing values", "veterans"),
    ("time in another unit", "breast cancer"),
    ("a date", "flchain"),
    ("status of disease", "cgvhd"),
    ("how follow-up ended", "kidney transplant"),
    ("treatment after the event", "gbsg2"),
    ("days to the last contact", "aids"),
)


def leave_out(rows: Rows, names: set[str]) -> Rows:
    kept = tuple(name for name in rows.columns if name not in names)
    return replace(rows, columns=kept, rows=tuple({name: row[name] for name in kept} for row in rows.rows))


def make_clean(name: str, endpoint: str | None = None) -> tuple[Rows, dict[str, Any]]:
    """Return a table with one endpoint, and without columns that are known later; and what the draft is told."""
    table, rows = TABLES[name], read_public(name)
    event = endpoint or next(iter(table.endpoints))
    others = {column for other, (time, _) in table.endpoints.items() if other != event for column in (other, time)}
    return leave_out(rows, {*others, *table.leaking}), {
        **table.named,
        "event": event,
        "time": table.endpoints[event][0],
    }


def plant(rows: Rows, named: dict[str, Any], kind: str, seed: int = 0) -> Rows:
    column, make = LEAKS[kind]
    draw = random.Random(seed)
    seen = {"1", "dead", *named.get("seen", ())}
    cells = [str(make(float(row[named["time"]]), row[named["event"]].split(".")[0] in seen, draw)) for row in rows.rows]
    planted = tuple({**row, column: cell} for row, cell in zip(rows.rows, cells, strict=True))
    return replace(rows, columns=(*rows.columns, column), rows=planted)


def draft_table(rows: Rows, named: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(draft(rows, (), NamedColumns(**named)))
    return content


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_a_planted_leak_is_left_out(kind: str, name: str) -> None:
    rows, named = make_clean(name)
    drafted = draft_table(plant(rows, named, kind), named)
    assert set(drafted["ignored"]) - set(draft_table(rows, named).get("ignored", {})) == {LEAKS[kind][0]}


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_a_planted_leak_that_is_used_all_the_same_is_warned_of(kind: str, name: str) -> None:
    rows, named = make_clean(name)
    planted = plant(rows, named, kind)
    column = LEAKS[kind][0]
    drafted = draft_table(planted, named)
    del drafted["ignored"][column]
    cells = planted.column(column)
    number = kind.startswith(("time", "days", "event as", "event with")) and len({*cells}) > 2
    drafted["covariates"][column] = {"type": "numeric" if number else "categorical"}
    report = check(planted, ClinicalSchema.model_validate(drafted), ())
    assert any(repr(column) in finding.text for finding in report.findings if finding.severity == "warning")


@pytest.mark.parametrize("name", TABLES)
def test_no_column_of_a_clean_table_is_accused(name: str) -> None:
    for endpoint in TABLES[name].endpoints:
        rows, named = make_clean(name, endpoint)
        drafted = draft_table(rows, named)
        assert not set(drafted.get("ignored", {})) - {"stnum"}  # a number of the study
        report = check(rows, ClinicalSchema.model_validate(drafted), ())
        accused = [
            finding.text
            for finding in report.findings
            if finding.severity != "note" and any(repr(column) in finding.text for column in drafted["covariates"])
        ]
        assert accused == []


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.leaking])
def test_columns_that_are_known_later_are_left_out_of_public_tables(name: str) -> None:
    drafted = draft_table(read_public(name), dict(TABLES[name].named))
    assert set(TABLES[name].leaking) <= set(drafted["ignored"])


@pytest.mark.parametrize("name", [name for name in TABLES if name != "breast cancer"])
def test_public_tables_are_drafted_with_one_answer(name: str) -> None:
    table, rows = TABLES[name], read_public(name)
    drafted = draft_table(rows, dict(table.named))
    contents = split_endpoints(drafted) if KEY in drafted else {"": drafted}
    found = {}
    for content in contents.values():
        schema = ClinicalSchema.model_validate(content)
        report = check(rows, schema, ())
        assert report.is_usable
        found[schema.event.column] = (str(schema.time.column), report.events)
        assert not set(schema.covariates) & {
            column for event, (time, _) in table.endpoints.items() for column in (event, time)
        }
    assert found == dict(table.endpoints)
