"""Workers of preprocessing receive file names instead of plans and tables, and read each file once."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners import preprocessor
from duplus_nnunet.planners.preprocessing_record import describe_preprocessing, read_record
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor, SharedPlans

PLANS = Path(__file__).parents[2] / "compatibility" / "files" / "models" / "segmentation" / "plans.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a preprocessed folder with plans."""
    monkeypatch.setattr(preprocessor, "nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setattr(preprocessor, "maybe_convert_to_dataset_name", lambda _: "Dataset001_A")
    folder = tmp_path / "Dataset001_A"
    folder.mkdir()
    (folder / "DuPLUSPlans.json").write_text(PLANS.read_text())
    return folder


def start(monkeypatch: pytest.MonkeyPatch) -> tuple[DuPLUSPreprocessor, Any]:
    """Run a preprocessor up to where nnU-Net's code begins; returns it, and what makes plans there."""
    made: list[Any] = []
    namespace: dict[str, Any] = {"made": made, "PlansManager": None}
    exec(  # noqa: S102 - a function with globals of its own, as nnU-Net's module has
        "def run(self, dataset, configuration, identifier, processes):\n    made.append(PlansManager)", namespace
    )
    monkeypatch.setattr(DefaultPreprocessor, "run", namespace["run"])
    started = DuPLUSPreprocessor(verbose=False)
    started.run(1, "3d_fullres", "DuPLUSPlans", 1)
    return started, made[0]


def test_a_worker_receives_neither_plans_nor_contexts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = {"CT": Source("D", "ct", (), ("CT",)), "MR": Source("D", "mr", (), ("MR",))}
    cases = {f"case_{number}": Case(("CT", "MR")[number % 2], str(number), (), ()) for number in range(1000)}
    write_case_table(CaseTable(contexts, cases), folder)
    started, make_plans = start(monkeypatch)
    plans = make_plans(json.loads(PLANS.read_text()))
    assert isinstance(plans, SharedPlans)
    assert len(pickle.dumps((started, plans))) < 1000
    form = plans.form
    assert [started._find(name, form) for name in ("case_0", "case_1", "other")] == ["ct", "mr", form.default_context]


def test_a_worker_reads_plans_and_table_once_for_all_its_cases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case_table(CaseTable({"CT": Source("D", "ct", (), ("CT",))}, {"a": Case("CT", "a", (), ())}), folder)
    started, make_plans = start(monkeypatch)
    sent = pickle.dumps((started, make_plans(json.loads(PLANS.read_text()))))
    preprocessor._read_contexts.cache_clear()
    read: list[str] = []
    load, read_table = preprocessor.load_json, preprocessor.read_case_table
    monkeypatch.setattr(preprocessor, "load_json", lambda file: read.append(Path(file).name) or load(file))
    monkeypatch.setattr(preprocessor, "read_case_table", lambda path: read.append("table") or read_table(path))
    received = [pickle.loads(sent) for _ in range(5)]  # noqa: S301
    assert [worker._find("a", worker._parse(plans)) for worker, plans in received] == ["ct"] * 5
    assert read == ["DuPLUSPlans.json", "table"]
    assert len({id(worker._parse(plans)) for worker, plans in received}) == 1
    assert received[0][1].plans == json.loads(PLANS.read_text())


def test_plans_that_changed_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, make_plans = start(monkeypatch)
    plans = make_plans(json.loads(PLANS.read_text()))
    before = pickle.loads(pickle.dumps(plans))  # noqa: S301
    content = {**plans.plans, "plans_name": "Changed"}
    (folder / "DuPLUSPlans.json").write_text(json.dumps(content))
    os.utime(folder / "DuPLUSPlans.json", ns=(1, 1))
    assert pickle.loads(pickle.dumps(plans)).plans_name == "Changed" != before.plans_name  # noqa: S301


def test_a_damaged_table_is_refused_before_there_are_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "duplus_cases.json").write_text("{")
    with pytest.raises(DataError, match=r"duplus_cases\.json"):
        start(monkeypatch)


def test_the_images_keep_how_they_were_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"content": json.loads(PLANS.read_text()), "PlansManager": None}
    exec("def run(self, *words):\n    PlansManager(content)", namespace)  # noqa: S102 - as in start
    monkeypatch.setattr(DefaultPreprocessor, "run", namespace["run"])
    DuPLUSPreprocessor(verbose=False).run(1, "3d_fullres", "DuPLUSPlans", 1)
    plans = namespace["content"]
    images = folder / plans["configurations"]["3d_fullres"]["data_identifier"]
    assert read_record(images) == describe_preprocessing(plans, "3d_fullres")
