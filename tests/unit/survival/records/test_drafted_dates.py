"""Drafts of tables in which the time of follow-up is given by dates."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.drafted_dates import FORMATS, draft_dates
from duplus_nnunet.survival.records.drafting import NamedColumns, draft
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Rows, read_records

COUNT, LAST = 40, 900
ROLES = {"start": "Diagnosis", "end": "Death", "otherwise": "Contact"}


def follow(number: int) -> int:
    """Days of follow-up of a patient."""
    return 30 + number * 37 % LAST


def make_table(form: str = "%d.%m.%Y", **more: Callable[[int], object]) -> Rows:
    """Dates of diagnosis, death (of every other patient) and last contact (of the living)."""
    starts = [date(2015, 1, 1) + timedelta(number * 11) for number in range(COUNT)]
    rows = []
    for number, start in enumerate(starts):
        end, dead = (start + timedelta(follow(number))).strftime(form), number % 2 == 0
        row = {
            "MRN": f"M{number}",
            "Diagnosis": start.strftime(form),
            "Death": end if dead else "",
            "Contact": "" if dead else end,
            "vital_status": "dead" if dead else "alive",
            "age": 40 + number * 7 % 31,
        }
        rows.append({**{key: str(cell) for key, cell in row.items()}, **{k: str(v(number)) for k, v in more.items()}})
    return Rows("t.csv", tuple(rows[0]), tuple(rows))  # fmt: skip


def draft_table(rows: Rows, **named: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(draft(rows, (), NamedColumns(**ROLES, **named)))
    return content


@pytest.mark.parametrize("form", [form for form in FORMATS if not form.endswith("%y")])
def test_every_format_is_told_from_the_others(form: str) -> None:
    rows = make_table(form)
    assert draft_dates(rows, **ROLES, form=None)["format"] == form


def test_times_are_the_days_between_the_dates() -> None:
    rows = make_table()
    schema = ClinicalSchema.model_validate(draft_table(rows))
    records, findings = read_records(rows, schema)
    assert [record.time for record in records] == [follow(number) for number in range(COUNT)]
    assert not [finding for finding in findings if finding.severity == "error"]
    assert [*schema.covariates] == ["age"]


def test_a_follow_up_in_numbers_beside_the_dates_is_no_covariate() -> None:
    rows = make_table(followup_months=lambda n: round(follow(n) / 30.4375, 1), FU_X=lambda n: follow(n))
    content = draft_table(rows)
    assert [*content["covariates"]] == ["age"]
    assert {"followup_months", "FU_X"} <= {*content["ignored"]}


def test_a_date_of_death_alone_would_leave_the_living_out_and_asks_for_the_last_contact() -> None:
    with pytest.raises(DataError, match=r"20 of 40 rows.*--otherwise COLUMN.*'Contact'"):
        draft(make_table(), (), NamedColumns(start="Diagnosis", end="Death"))


def test_without_named_columns_the_message_lists_the_dates() -> None:
    with pytest.raises(DataError, match=r"'Diagnosis', 'Death', 'Contact'.*--start COLUMN --end COLUMN"):
        draft(make_table(), (), NamedColumns())


def test_dates_that_can_be_read_in_two_ways_are_asked_for() -> None:
    rows = Rows(
        "t.csv", ("a", "b"), tuple({"a": f"0{n % 9 + 1}/03/2010", "b": f"0{n % 9 + 1}/09/2011"} for n in range(20))
    )
    with pytest.raises(DataError, match=r"2 ways.*--format '%d/%m/%Y' or --format '%m/%d/%Y'"):
        draft_dates(rows, "a", "b", None, None)
    assert draft_dates(rows, "a", "b", None, "%m/%d/%Y") == {"start": "a", "end": "b", "format": "%m/%d/%Y"}


def test_a_date_that_is_written_otherwise_is_named() -> None:
    rows = Rows("t.csv", ("a", "b"), tuple({"a": f"2010-03-{n + 1:02d}", "b": "2011-05-20"} for n in range(20)))
    odd = Rows(rows.file, rows.columns, (*rows.rows, {"a": "3 weeks later", "b": "2012-01-01"}))
    with pytest.raises(DataError, match=r"'%Y-%m-%d', '3 weeks later' is not.*--format"):
        draft_dates(odd, "a", "b", None, None)


@pytest.mark.parametrize("roles", [{"otherwise": "Death"}, {"start": "MRN"}, {"start": "vital_status"}])
def test_a_column_has_one_role(roles: dict[str, str]) -> None:
    with pytest.raises(DataError, match="different columns"):
        draft(make_table(), (), NamedColumns(**(ROLES | roles)))


def find_warnings(rows: Rows, **named: Any) -> list[str]:
    report = check(rows, ClinicalSchema.model_validate(draft_table(rows, **named)), ())
    return [finding.text for finding in report.findings if finding.severity == "warning"]


def change(rows: Rows, patient: str, **cells: str) -> Rows:
    changed = tuple({**row, **cells} if row["MRN"] == patient else row for row in rows.rows)
    return Rows(rows.file, rows.columns, changed)


def test_a_status_that_contradicts_the_dates_is_warned_of() -> None:
    rows = make_table()
    assert not [text for text in find_warnings(rows) if "Death" in text]
    survivor = change(rows, "M3", Death="01.03.2016")
    assert any("Censored" in text and "M3" in text for text in find_warnings(survivor))
    undated = change(rows, "M4", Death="", Contact="01.06.2016")
    assert any("no 'Death': M4" in text for text in find_warnings(undated))
    haunted = change(rows, "M4", Contact="01.06.2019")
    assert any("'Contact' is later than 'Death' in M4" in text for text in find_warnings(haunted))
    soon = change(rows, "M4", Contact=rows.rows[4]["Death"])
    assert not [text for text in find_warnings(soon) if "Death" in text]


def test_exchanged_codes_are_warned_of() -> None:
    warnings = find_warnings(make_table(), seen=("alive",), censored=("dead",))
    assert any("100% of the censored" in text and "exchanged" in text for text in warnings)


def test_follow_up_after_a_relapse_is_no_contradiction() -> None:
    rows = make_table()
    followed = tuple({**row, "Contact": row["Contact"] or "01.01.2020"} for row in rows.rows)
    assert not [text for text in find_warnings(Rows(rows.file, rows.columns, followed)) if "later than" in text]


@pytest.mark.parametrize(
    "words",
    [
        ("--start", "Diagnosis"),
        ("--end", "Death"),
        ("--start", "Diagnosis", "--end", "Death", "--unit", "days"),
        ("--start", "Diagnosis", "--end", "Death", "--time", "age"),
        ("--otherwise", "Contact"),
        ("--format", "%Y"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("MRN,x\n1,2\n")
    assert cli.main(["survival", "draft", "--table", str(tmp_path / "t.csv"), *words]) == 1
    assert "--start" in capsys.readouterr().err


def test_from_dates_to_a_check_by_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, table = make_table(), tmp_path / "t.csv"
    lines = [",".join(rows.columns), *(",".join(row[name] for name in rows.columns) for row in rows.rows)]
    table.write_text("\n".join(lines) + "\n")
    assert cli.main(["survival", "check", "--table", str(table)]) == 1
    assert re.search(rf"the schema of t.csv.*survival draft --table {table}`", capsys.readouterr().err)
    words = [f"--{role}={column}" for role, column in ROLES.items()]
    assert cli.main(["survival", "draft", "--table", str(table), *words]) == 0
    assert cli.main(["survival", "check", "--table", str(table)]) == 0
    assert "40 usable patients, 20 with the event" in capsys.readouterr().out
