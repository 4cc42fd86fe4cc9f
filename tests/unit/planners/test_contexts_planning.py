"""Each context is planned by its own cases; the network for all of them as they are drawn."""

from typing import Any

import numpy as np
import pytest

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.data.default_table import make_table
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.context_plans import configure, with_context_intensities
from duplus_nnunet.planners.contexts import ContextPlanner, require_cases
from duplus_nnunet.planners.normalization import SUVNormalization
from duplus_nnunet.planners.planner import DuPLUSPlanner
from duplus_nnunet.planners.survey import CaseSurvey, summarise_foreground
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target

from ..partial_plans import make_plans

MODALITIES = {"ct": "computed tomography", "pet": "positron emission tomography"}
INTENSITIES = {"min": 0.0, "p1": 0.0, "p50": 1.0, "p99": 5.0, "max": 9.0}


def make_survey(spacing: float, shape: int, values: list[float], labels: tuple[int, ...] = (0, 1)) -> CaseSurvey:
    foreground = (np.asarray(values, dtype=np.float32),)
    return CaseSurvey((spacing,) * 3, (shape,) * 3, 1.0, foreground, labels, (INTENSITIES,))


def make_planner(spacing: Any = "context", overwrite: Any = None, pet: float = 3.0) -> ContextPlanner:
    """One CT of 2 mm and nine PETs of 4 mm."""
    cases = {"ct0": Case("CT", "p", ("x",), ("x",))}
    cases |= {f"pet{number}": Case("PET", f"p{number}", ("x",), ("x",)) for number in range(9)}
    sources = {
        "CT": Source("Dataset001_CT", "ct", ("x",), ("CT",)),
        "PET": Source("Dataset002_PET", "pet", ("x",), ("PET",)),
    }
    surveys = {"ct0": make_survey(2.0, 100, [-10, 10])}
    surveys |= {f"pet{number}": make_survey(4.0, 50, [pet, pet]) for number in range(9)}
    host = object.__new__(DuPLUSPlanner)
    host.overwrite_target_spacing, host.anisotropy_threshold = overwrite, 3
    host.dataset_json = {"channel_names": {"0": "image"}}
    host.dataset_fingerprint = {"foreground_intensity_properties_per_channel": {"0": {"mean": 99.0}}}
    return ContextPlanner(host, CaseTable(sources, cases, spacing=spacing), surveys, MODALITIES)


def test_each_context_has_the_median_spacing_of_its_own_cases() -> None:
    contexts = make_planner().plan_contexts()
    assert contexts["ct"]["spacing"] == [2.0] * 3
    assert contexts["pet"]["spacing"] == [4.0] * 3


def test_ct_and_pet_are_normalised_each_in_its_way() -> None:
    contexts = make_planner().plan_contexts()
    assert contexts["ct"]["normalization_schemes"] == ["CTNormalization"]
    assert contexts["pet"]["normalization_schemes"] == ["SUVNormalization"]


def test_intensities_are_those_of_the_contexts_own_foreground() -> None:
    contexts = make_planner().plan_contexts()
    properties = contexts["pet"]["foreground_intensity_properties_per_channel"]["0"]
    assert properties["mean"] == pytest.approx(3.0)
    assert properties["log_mean"] == pytest.approx(np.log(4.0))


def test_a_pet_that_is_not_in_suv_is_left_to_nnunet() -> None:
    assert make_planner(pet=9000.0).plan_contexts()["pet"]["normalization_schemes"] == ["ZScoreNormalization"]


@pytest.mark.parametrize(("spacing", "overwrite"), [("shared", None), ("context", [3.0] * 3)])
def test_one_spacing_can_be_shared(spacing: str, overwrite: Any) -> None:
    contexts = make_planner(spacing, overwrite).plan_contexts()
    assert contexts["ct"]["spacing"] == contexts["pet"]["spacing"]


def test_the_network_is_planned_for_shapes_as_often_as_they_are_drawn() -> None:
    planner = make_planner()
    fingerprint, reference = planner.make_fingerprint(planner.plan_contexts())
    shapes = [shape[0] for shape in fingerprint["shapes_after_crop"]]
    assert shapes.count(100) / len(shapes) == pytest.approx(1 / 4, abs=0.03)
    assert reference[0] == pytest.approx(2 ** (1 / 4) * 4 ** (3 / 4), rel=0.03)
    assert planner.host.dataset_fingerprint.keys() == {"foreground_intensity_properties_per_channel"}


def test_sources_are_described_for_the_sampler() -> None:
    planner = make_planner()
    sources = planner.plan_sources(planner.plan_contexts())
    assert sources["PET"] == {
        "dataset": "Dataset002_PET", "context": "pet", "targets": {"x": 9}, "present": {"x": 9}, "cases": 9,
        "weight": 3.0, "median_shape": [50.0] * 3,
    }  # fmt: skip


def make_entry(missing: Any = "not annotated") -> Entry:
    context = Context("ct", "computed tomography", "head", "A CT")
    targets = (Target("A", "a"), Target("B", "b", missing=missing))
    return Entry("Dataset050_Test", {"ct": context}, "ct", targets, "test")


@pytest.mark.parametrize(("missing", "annotated"), [("not annotated", ("a",)), ("absent", ("a", "b"))])
def test_a_label_missing_from_a_case_means_what_the_registry_says(missing: str, annotated: tuple[str, ...]) -> None:
    labels = {"c0": (0, 1), "c1": (0, 1, 2)}
    declared = {"labels": {"background": 0, "A": 1, "B": 2}, "channel_names": {"0": "CT"}}
    table = make_table(make_entry(missing), declared, labels, {"t0": (0, 2)})
    assert table.cases["c0"].annotated == annotated
    assert table.cases["c1"].annotated == ("a", "b")
    assert table.cases["c0"].present == ("a",)
    assert table.sources["Test"].context == "ct"
    assert table.tests["t0"].annotated == ("a", "b")


def test_a_target_that_is_annotated_nowhere_is_refused() -> None:
    labels = {"c0": (0, 1)}
    table = make_table(make_entry(), {"labels": {"A": 1, "B": 2}, "channel_names": {"0": "CT"}}, labels)
    with pytest.raises(DataError, match="'b'"):
        require_cases(table, ["a", "b"], labels)


def test_a_case_that_the_table_does_not_know_is_named() -> None:
    table = make_planner().table
    with pytest.raises(DataError, match=r"'new'.*\b1\b"):
        require_cases(table, ["x"], {**dict.fromkeys(table.cases), "new": None})


def test_preprocessing_gets_the_contexts_numbers_scaled_as_the_configuration_is() -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

    own = {"spacing": [4.0, 2.0, 2.0], "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}
    own["foreground_intensity_properties_per_channel"] = {"0": {"mean": 7.0}}
    other = {"spacing": [2.0, 2.0, 6.0], "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False]}
    plans = make_plans()
    plans["duplus"]["reference_spacing"] = [2.0, 2.0, 2.0]
    plans["duplus"]["contexts"]["ct"] |= own
    plans["duplus"]["contexts"]["mr"] |= other
    configuration = ConfigurationManager({"architecture": {}, "spacing": [4.0, 4.0, 2.0]})
    found = configure(configuration, plans, "ct")
    assert found.spacing == [8.0, 4.0, 2.0]
    assert found.normalization_schemes == ["CTNormalization"]
    assert configure(found, plans, "ct") is found
    assert configure(found, plans, "mr").spacing == configure(configuration, plans, "mr").spacing == [4.0, 4.0, 6.0]
    assert with_context_intensities(PlansManager(plans), plans, "ct").foreground_intensity_properties_per_channel == {
        "0": {"mean": 7.0}
    }
    assert configuration.spacing == [4.0, 4.0, 2.0]


def test_suv_is_compressed_and_scaled_by_the_foreground() -> None:
    image = np.array([-1.0, 0.0, np.e - 1, np.e**2 - 1], dtype=np.float32)
    normalised = SUVNormalization(False, {"log_mean": 1.0, "log_std": 0.5}).run(image)
    np.testing.assert_allclose(normalised, [-2, -2, 0, 2], atol=1e-6)


def test_a_foreground_of_nothing_has_numbers_all_the_same() -> None:
    assert summarise_foreground([make_survey(1, 8, [])])["0"]["std"] == 0


def test_the_host_sees_its_own_fingerprint_again() -> None:
    planner = make_planner()
    before = planner.host.dataset_fingerprint
    planner.plan_contexts()
    assert planner.host.dataset_fingerprint is before
    assert planner.host.dataset_json == {"channel_names": {"0": "image"}}
