"""Cases whose intensities are of another context of the dataset are refused; other doubts are noted."""

import pytest

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.data.default_table import make_table
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.context_checks import check_contexts
from duplus_nnunet.planners.survey import CaseSurvey
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target

MODALITIES = {"ct": "computed tomography", "mr": "magnetic resonance imaging"}
CT = {"min": -1000.0, "p1": -990.0, "p50": 10.0, "p99": 600.0, "max": 1200.0}
MR = {"min": 0.0, "p1": 0.0, "p50": 80.0, "p99": 700.0, "max": 900.0}


def make_surveys(**intensities: dict[str, float]) -> dict[str, CaseSurvey]:
    return {name: CaseSurvey((1.0,) * 3, (9,) * 3, 1.0, (), (0, 1), (values,)) for name, values in intensities.items()}


def make_cases(*contexts: str) -> CaseTable:
    sources = {name: Source("Dataset001_A", name, ("x",), ("image",)) for name in set(contexts)}
    cases = {f"{context}{number}": Case(context, f"p{number}", ("x",), ()) for number, context in enumerate(contexts)}
    return CaseTable(sources, cases)


def test_images_of_their_own_context_are_accepted() -> None:
    assert check_contexts(make_cases("ct", "mr"), make_surveys(ct0=CT, mr1=MR), MODALITIES) == []


def test_a_ct_among_mr_cases_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 of 3 training cases.*'mr2'"):
        check_contexts(make_cases("ct", "mr", "mr"), make_surveys(ct0=CT, mr1=MR, mr2=CT), MODALITIES)


def test_an_mr_among_ct_cases_is_refused() -> None:
    with pytest.raises(DataError, match="'ct0'"):
        check_contexts(make_cases("ct", "mr"), make_surveys(ct0=MR, mr1=MR), MODALITIES)


def test_an_mr_in_a_dataset_of_ct_alone_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    (note,) = check_contexts(make_cases("ct", "ct"), make_surveys(ct0=CT, ct1=MR), {"ct": MODALITIES["ct"]})
    assert note.startswith("1 of 2 training cases")
    assert "'ct1'" in capsys.readouterr().err


ENTRY = Entry(
    "Dataset001_A",
    {
        "ct": Context("ct", MODALITIES["ct"], "abdomen", "A CT.", channel="CT", ids=((1, 5),)),
        "mr": Context("mr", MODALITIES["mr"], "abdomen", "An MR.", ids=((6, 9),), not_annotated=("bladder",)),
    },
    "ct",
    (Target("liver", "liver"), Target("bladder", "bladder")),
    "a.yaml",
)
DATASET = {"channel_names": {"0": "either_CT_or_MR"}, "labels": {"background": 0, "liver": 1, "bladder": 2}}


def test_each_context_is_a_source_with_its_channel() -> None:
    table = make_table(ENTRY, DATASET, {"a_1": [0, 1], "a_7": [0, 1]})
    assert {name: (source.context, source.channels) for name, source in table.sources.items()} == {
        "A-ct": ("ct", ("CT",)), "A-mr": ("mr", ("either_CT_or_MR",)),
    }  # fmt: skip
    assert [table.cases[name].source for name in ("a_1", "a_7")] == ["A-ct", "A-mr"]


def test_a_target_that_a_context_does_not_annotate_is_unknown_there() -> None:
    table = make_table(ENTRY, DATASET, {"a_1": [0, 1], "a_7": [0, 1], "a_8": [0, 2]})
    assert table.cases["a_1"].annotated == ("liver", "bladder")
    assert table.cases["a_7"].annotated == ("liver",)
    assert table.cases["a_8"].annotated == ("liver", "bladder")


def test_labelled_test_cases_of_an_untrained_context_are_refused() -> None:
    with pytest.raises(DataError, match="'A-mr'"):
        make_table(ENTRY, DATASET, {"a_1": [0, 1]}, {"a_7": [0, 1]})
