"""Several endpoints in one clinical.yaml: one is chosen by name, and the columns of the others are never covariates."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.endpoint_pairs import pair_columns
from duplus_nnunet.survival.records.joined_tables import read_clinical
from duplus_nnunet.survival.records.schema import DAYS, ClinicalSchema, read_schema, read_schemas
from duplus_nnunet.survival.records.table import SEEN, read_records

DEATH: dict[str, Any] = {
    "time": {"column": "Time_Death"},
    "event": {"column": "Death", "seen": [1], "censored": [0]},
}
DISTANT: dict[str, Any] = {
    "time": {"column": "Time_Distant", "unit": "months"},
    "event": {"column": "Distant", "seen": [1], "censored": [0]},
    "horizons": [12, 24],
}
FORM: dict[str, Any] = {
    "patient": "id",
    "endpoints": {"death": DEATH, "distant": DISTANT},
    "covariates": {"age": {"type": "numeric"}},
}
HEADER = ("id", "Time_Death", "Death", "Time_Distant", "Distant", "age")


def make_lines(count: int = 40) -> list[tuple[Any, ...]]:
    return [(f"P{n}", 50 + n * 37 % 911, n % 2, 1 + n * 7 % 29, n // 2 % 2, 40 + n * 11 % 37) for n in range(count)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "records.csv"
    file.write_text("\n".join(",".join(map(str, line)) for line in (HEADER, *make_lines())))
    return file


def write_schema(table: Path, **changes: Any) -> Path:
    file = table.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(FORM | changes, sort_keys=False))
    return file


def test_each_endpoint_has_its_own_time_event_and_horizons(table: Path) -> None:
    rows, death = read_clinical(table, write_schema(table), "death")
    _, distant = read_clinical(table, write_schema(table), "distant")
    first = [read_records(rows, schema)[0][3] for schema in (death, distant)]
    assert [record.time for record in first] == [161, 22 * DAYS["months"]]
    assert [record.event == SEEN for record in first] == [True, True]
    assert (death.endpoint, distant.endpoint) == ("death", "distant")
    assert death.horizons == []
    assert distant.horizons == [12, 24]


def test_columns_of_other_endpoints_are_left_out(table: Path) -> None:
    schema = read_schema(write_schema(table), "death")
    assert [*schema.covariates] == ["age"]
    assert set(schema.ignored) == {"Time_Distant", "Distant"}
    with pytest.raises(DataError, match="'Distant'"):
        read_schema(write_schema(table, covariates={"Distant": {"type": "categorical"}}), "death")


def test_endpoints_may_share_columns(table: Path) -> None:
    other = {"time": {"column": "Time_Death"}, "event": {"column": "Death", "seen": [0], "censored": [1]}}
    schema = read_schema(write_schema(table, endpoints={"death": DEATH, "alive": other}), "alive")
    assert schema.ignored == {}
    assert schema.event.seen == [0]


def test_one_of_several_endpoints_has_to_be_named(table: Path) -> None:
    with pytest.raises(DataError, match=r"'death', 'distant'.*--endpoint"):
        read_schema(write_schema(table))
    with pytest.raises(DataError, match=r"'deth'.*'death'"):
        read_schema(write_schema(table), "deth")
    assert read_schema(write_schema(table, endpoints={"death": DEATH})).endpoint == "death"


def test_a_schema_of_one_endpoint_may_name_it(table: Path) -> None:
    file = table.with_suffix(".yaml")
    single = {"patient": "id", **DEATH}
    file.write_text(yaml.safe_dump(single))
    assert read_schema(file).endpoint is None
    assert [*read_schemas(file)] == [""]
    with pytest.raises(DataError, match=r"endpoint: death"):
        read_schema(file, "death")
    file.write_text(yaml.safe_dump(single | {"endpoint": "death"}))
    assert read_schema(file, "death") == ClinicalSchema.model_validate(single | {"endpoint": "death"})


@pytest.mark.parametrize(
    ("changes", "where", "part"),
    [
        ({"endpoints": {}}, "endpoints:", "name"),
        ({"endpoints": {"a": 3}}, "endpoints -> a:", "`time`"),
        ({"endpoints": {"a": DEATH | {"tme": 1}}}, "endpoints -> a -> tme:", "horizons"),
        ({"endpoints": {"a": {"time": {"column": "t"}}}}, "endpoints -> a", "'event' is missing"),
        ({"endpoints": {"a": DEATH | {"time": {"column": "t", "unit": "eons"}}}}, "endpoints -> a -> time -> unit", ""),
        ({"time": {"column": "t"}}, "time:", "below the name"),
        ({"entry": "age"}, "entry:", "'distant' in months"),
        ({"tables": {"../x.csv": "id"}}, "", "'../x.csv'"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(changes: dict[str, Any], where: str, part: str, table: Path) -> None:
    file = write_schema(table, **changes)
    with pytest.raises(DataError) as caught:
        read_schemas(file)
    assert str(file) in str(caught.value)
    assert where in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("events", "times", "pairs"),
    [
        ("os_status,pfs_event", "os_time,pfs_time", {"os_status": "os_time", "pfs_event": "pfs_time"}),
        ("OS_event,RFS_event", "RFS_months,OS_months", {"OS_event": "OS_months", "RFS_event": "RFS_months"}),
        ("Death,Distant", "Time_Distant,Time_Death", {"Death": "Time_Death", "Distant": "Time_Distant"}),
        ("censor,censor_d", "time_d,time", {"censor": "time", "censor_d": "time_d"}),
        ("stat,rcens,agvh", "reltime,survtime,agvhtime", {"stat": "survtime", "rcens": "reltime", "agvh": "agvhtime"}),
        ("OS,vital_status", "OS.time", {"OS": "OS.time"}),
        ("Relapse", "symptom_months,follow_up_days", {"Relapse": "follow_up_days"}),
        ("arrest,status", "week", {"arrest": "week"}),
    ],
)  # fmt: skip
def test_times_are_paired_with_events_of_the_same_name(events: str, times: str, pairs: dict[str, str]) -> None:
    assert dict(pair_columns(events.split(","), times.split(","))) == pairs


def test_times_that_belong_to_no_event_by_name_are_asked_for() -> None:
    with pytest.raises(DataError, match=r"'arrest'.*'symptom_months', 'wait_days'.*--time"):
        pair_columns(["arrest"], ["symptom_months", "wait_days"])


def test_all_endpoints_are_drafted_checked_and_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = ["survival", "draft", "--table", str(table)]
    assert cli.main(draft) == 1  # the unit of Time_Distant is in doubt
    assert "--unit" in capsys.readouterr().err
    assert cli.main([*draft, "--unit", "months"]) == 0
    drafted = yaml.safe_load(table.with_suffix(".yaml").read_text())
    assert {name: form["time"]["column"] for name, form in drafted["endpoints"].items()} == {
        "Death": "Time_Death", "Distant": "Time_Distant"}  # fmt: skip
    assert [*drafted["covariates"]] == ["age"]
    check = ["survival", "check", "--table", str(table)]
    capsys.readouterr()
    assert cli.main(check) == 1
    assert re.search("'Death', 'Distant'", capsys.readouterr().err)
    assert cli.main([*check, "--endpoint", "Distant", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["endpoint"], found["patients"], found["events"]) == ("Distant", 40, 20)


def test_one_endpoint_is_drafted_by_name(table: Path) -> None:
    draft = ["survival", "draft", "--table", str(table), "--endpoint"]
    assert cli.main([*draft, "Deth"]) == 1
    assert cli.main([*draft, "Death"]) == 0
    schema = read_schema(table.with_suffix(".yaml"))
    assert (schema.endpoint, schema.event.column, schema.time.column) == ("Death", "Death", "Time_Death")
    assert {"Distant", "Time_Distant"} <= set(schema.ignored)


def test_the_files_of_an_evaluation_name_the_endpoint(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sksurv")
    from duplus_nnunet.survival.evaluation import study

    monkeypatch.setattr(study, "METHODS", {name: study.METHODS[name] for name in ("Cox", "Kaplan-Meier")})
    write_schema(table)
    evaluate = [
        "survival",
        "evaluate",
        "--table",
        str(table),
        "--folds",
        "2",
        "--seeds",
        "1",
        "-o",
        str(tmp_path / "o"),
    ]
    assert cli.main([*evaluate, "--endpoint", "death"]) == 0
    assert "'death'" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["endpoint"]["name"] == "death"
    assert metrics["endpoint"]["time"] == ["Time_Death"]
    assert "endpoint death" in (tmp_path / "o" / "model_card.md").read_text().splitlines()[0]


def draft_with(tmp_path: Path, header: tuple[str, ...], *options: str) -> dict[str, Any]:
    """Draft a table whose columns are a patient ID, two pairs of event and time, and an age."""
    lines = [(f"P{n}", 50 + n * 37 % 911, n % 2, 1 + n * 53 % 997, n // 2 % 2, 40 + n * 11 % 37) for n in range(40)]
    file = tmp_path / "clinical.csv"
    file.write_text("\n".join(",".join(map(str, line)) for line in (header, *lines)))
    codes = ("--seen", "1", "--censored", "0", "--unit", "days")
    assert cli.main(["survival", "draft", "--table", str(file), *codes, *options]) == 0
    content: dict[str, Any] = yaml.safe_load(file.with_suffix(".yaml").read_text())
    return content


@pytest.mark.parametrize("chosen", [("--endpoint", "os_event"), ("--time", "os_days", "--event", "os_event")])
def test_columns_of_an_endpoint_that_is_not_drafted_are_ignored(chosen: tuple[str, ...], tmp_path: Path) -> None:
    content = draft_with(tmp_path, ("id", "os_days", "os_event", "stroke_days", "stroke_event", "age"), *chosen)
    assert content["event"]["column"] == "os_event"
    assert set(content["covariates"]) == {"age"}
    assert {"stroke_days", "stroke_event"} <= set(content["ignored"])


def test_an_endpoint_without_a_time_of_its_own_is_not_drafted_under_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clinical.csv"
    header = ("id", "time_recur", "recur", "followup_days", "death", "age")
    file.write_text("\n".join(",".join(map(str, line)) for line in (header, *make_lines())))
    assert cli.main(["survival", "draft", "--table", str(file), "--endpoint", "death"]) == 1
    assert "--event death --time COLUMN" in capsys.readouterr().err
    assert not file.with_suffix(".yaml").exists()
