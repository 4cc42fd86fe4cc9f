"""The label values that a dataset or model may declare."""

from typing import Any

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.prompt_registry.dataset_labels import (
    check_label_values,
    find_label_problems,
    list_declared_values,
)

BACKGROUND = {"background": 0}


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"liver": 1}, None),
        ({"liver": 2, "spleen": 9}, None),
        ({"liver": [1]}, None),
        ({"liver": 1, "ignore": 2}, None),
        ({"liver": 32767}, None),
        ({"whole": [1, 2], "part": 2}, [1, 2]),
        ({"whole": [1, 2], "part": 2, "ignore": 3}, [1, 2]),
        ({"whole": [1, 2], "part": 2}, (1, 2)),
    ],
)
def test_usable_labels(labels: dict[str, Any], order: Any) -> None:
    assert find_label_problems({**BACKGROUND, **labels}, order) == []


@pytest.mark.parametrize("value", [True, 1.5, 1.0, -1, 32768, 70000, "1", "liver", None, [], [1, "2"], [1, 1], [0, 1]])
def test_a_value_that_is_no_label_is_named(value: Any) -> None:
    (problem,) = find_label_problems({**BACKGROUND, "liver": value}, [1])
    assert f"'liver' has the value {value!r}" in problem


@pytest.mark.parametrize(
    ("labels", "order", "named"),
    [
        ({**BACKGROUND, "a": 1, "b": 1}, None, "'a' and 'b'"),
        ({**BACKGROUND, "a": 1, "b": [1]}, None, "'a' and 'b'"),
        ({**BACKGROUND, "a": [1, 2], "b": [2, 1]}, [1, 2], "'a' and 'b'"),
        ({"a": 1}, None, "'background'"),
        ({"background": 1, "a": 0}, None, "'background' has the value 1"),
        ({"background": False, "a": 1}, None, "False"),
        ({**BACKGROUND, "a": 1, "ignore": 2, "b": 3}, None, "'ignore' has the value 2"),
        ({**BACKGROUND, "a": [1, 2]}, None, "regions_class_order"),
        ({**BACKGROUND, "a": [1, 2], "b": 2}, [1], "has 1 values"),
        ({**BACKGROUND, "a": [1, 2], "b": 2}, [2, 2], r"\[2, 2\]"),
        ({**BACKGROUND, "a": [1, 2], "b": 2}, [1, "2"], "list of whole numbers"),
        ({"0": "background", "1": "liver"}, None, '{"liver": 1}'),
        ([], None, "to map names to values"),
        (None, None, "to map names to values"),
    ],
)
def test_labels_that_contradict_each_other(labels: Any, order: Any, named: str) -> None:
    with pytest.raises(DataError, match=named):
        check_label_values(labels, order, "dataset.json")


def test_all_problems_are_named_with_the_file() -> None:
    with pytest.raises(DataError) as caught:
        check_label_values({"background": 1, "a": 1.5, "b": True}, None, "here.json")
    assert len(str(caught.value).splitlines()) == str(caught.value).count("here.json: ") == 3


@pytest.mark.parametrize("value", [1, [1], 1.5, True, -1, 70000, "x"])
def test_a_model_with_such_labels_is_not_loaded(value: Any) -> None:
    with pytest.raises(DataError):
        DuPLUSLabelManager({**BACKGROUND, "anterior": 1, "posterior": value}, None)


def test_declared_values_include_regions_and_ignore() -> None:
    assert list_declared_values({**BACKGROUND, "a": [1, 3], "ignore": 4}) == {0, 1, 3, 4}
