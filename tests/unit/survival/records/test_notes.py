"""Notes of many folds are merged, and values outside the training range are reported."""

from dataclasses import replace

import numpy as np

from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.records.out_of_range import count_missing, find_warnings, list_training_values

from ..cohorts import SCHEMA, make_features, make_records


def test_values_outside_the_training_range_are_warned_of() -> None:
    records = make_records(20)
    known = list_training_values(records, SCHEMA)
    assert find_warnings(records[3], known, SCHEMA) == ()
    strange = replace(records[0], values={"age": None, "sex": "x", "grade": 7.0})
    table = make_features(records, ("x", "y"))
    half = replace(table, contexts=("CT", "PET"), rows={"p000": np.array([1, np.nan], np.float32)})
    warnings = find_warnings(strange, known, SCHEMA, half)
    assert len(warnings) == 4
    expected = [("'age'", "missing"), ("'sex'", "'x'"), ("'grade'", "7", "0 to 2"), ("'PET'",)]
    for warning, values in zip(warnings, expected, strict=True):
        assert all(value in warning for value in values)
    assert len(find_warnings(records[5], known, SCHEMA, half)) == 1
    assert count_missing(strange, SCHEMA) == 1


def test_notes_that_list_names_are_merged() -> None:
    site = "'site' has values that were not trained on: {}."
    notes = [site.format("'b'"), "Another note: of 3, or 4.", site.format("'a', 'b'"), "Another note: of 3, or 4."]
    assert merge_notes(notes) == (site.format("'a', 'b'"), "Another note: of 3, or 4.")
    (merged,) = merge_notes([site.format(f"'{letter}'") for letter in "abcdefghij"])
    assert merged.endswith(": 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' and 2 more.")


def test_notes_that_differ_in_numbers_are_merged_but_not_names_with_numbers() -> None:
    notes = [f"'ct_{name}' is missing in {count} of 24 patient(s)." for name, count in ((1, 3), (2, 5), (1, 4))]
    first, second = merge_notes(notes)
    assert first.startswith(notes[0])
    assert len(first) > len(notes[0])  # says that other folds have other numbers
    assert second == notes[1]
    assert merge_notes([notes[0], notes[0]]) == (notes[0],)
