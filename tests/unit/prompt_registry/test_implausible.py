"""Targets that images of a context cannot show, in made-up entries and in all shipped files."""

from dataclasses import replace

import pytest

from duplus_nnunet.prompt_registry import Context, Entry, Target
from duplus_nnunet.prompt_registry.finding import shipped_files
from duplus_nnunet.prompt_registry.implausible import find_implausible, locate_context, locate_target
from duplus_nnunet.prompt_registry.regions import can_meet, find_levels

SHIPPED = [target for file in shipped_files() for target in file.targets.values()]
LOCATED = {
    (file.path.stem, target.name): locate_target(target, file.contexts.values())
    for file in shipped_files()
    for target in file.targets.values()
}


def make_context(name: str, region: str, *regions: str) -> Context:
    return Context(name, "computed tomography", region, f"A computed tomography of {region}", regions=regions)


HEAD, LEG, BODY = make_context("h", "head"), make_context("l", "lower leg"), make_context("b", "whole body")
GLAND, NAIL = Target("gland", "odd gland"), Target("nail", "odd nail")


def make_entry(*contexts: Context, targets: tuple[Target, ...] = (GLAND, NAIL)) -> Entry:
    return Entry("D", {context.name: context for context in contexts}, contexts[0].name, targets, "here")


def test_a_target_lies_where_it_is_annotated() -> None:
    assert locate_target(GLAND, [HEAD]) == {"head"}
    assert locate_target(GLAND, [HEAD, LEG]) == {"head", "lower leg"}


@pytest.mark.parametrize("context", [BODY, make_context("u", "somewhere")])
def test_a_context_that_is_no_part_of_the_body_does_not_say_where_a_target_lies(context: Context) -> None:
    assert locate_target(GLAND, [context]) is None
    assert locate_target(GLAND, [HEAD, context]) is None
    assert locate_target(Target("x", "liver"), [context]) == {"abdomen"}


def test_shipped_files_say_where_a_target_lies_too() -> None:
    assert locate_target(Target("x", "Spinal-Cord"), [LEG]) == {"neck", "thorax", "abdomen", "lower leg"}


def test_regions_of_a_target_decide() -> None:
    assert locate_target(replace(GLAND, regions=("arm", "foot")), [HEAD]) == {"arm", "foot"}


def test_regions_of_a_context_decide() -> None:
    assert locate_context(make_context("x", "calf of the patient", "lower leg")) == {"lower leg"}
    assert locate_context(make_context("x", "calf of the patient")) is None


def test_targets_of_far_regions_are_implausible() -> None:
    found = find_implausible(make_entry(HEAD, LEG), {"h": ["odd gland"], "l": ["odd nail"]})
    assert found == {"h": ("odd nail",), "l": ("odd gland",)}


def test_without_annotations_only_targets_with_regions_are() -> None:
    targets = (replace(GLAND, regions=("head",)), NAIL)
    assert find_implausible(make_entry(HEAD, LEG, targets=targets)) == {"h": (), "l": ("odd gland",)}


@pytest.mark.parametrize("context", [BODY, make_context("x", "lower leg", "anywhere"), make_context("x", "somewhere")])
def test_images_that_may_show_anything_have_no_implausible_targets(context: Context) -> None:
    annotated = {"h": ["odd gland"], context.name: ["odd nail"]}
    assert find_implausible(make_entry(HEAD, context), annotated)[context.name] == ()


def test_a_target_that_may_be_anywhere_is_never_implausible() -> None:
    targets = (replace(GLAND, regions=("anywhere",)), NAIL)
    assert find_implausible(make_entry(HEAD, LEG, targets=targets), {"h": ["odd gland"], "l": ["odd nail"]})["l"] == ()


def test_an_annotated_target_is_never_implausible() -> None:
    targets = (replace(GLAND, regions=("head",)),)
    assert find_implausible(make_entry(LEG, targets=targets), {"l": ["odd gland"]}) == {"l": ()}


def test_partners_are_implausible_together() -> None:
    left = Target("l", "left x", partner="right x", regions=("head",))
    right = Target("r", "right x", partner="left x", regions=("anywhere",))
    assert find_implausible(make_entry(LEG, targets=(left, right)), {})["l"] == ()
    both = (left, replace(right, regions=("head",)))
    assert find_implausible(make_entry(LEG, targets=both), {})["l"] == ("left x", "right x")


def test_the_region_of_every_shipped_context_is_known() -> None:
    assert [c.region for file in shipped_files() for c in file.contexts.values() if locate_context(c) is None] == []


def test_every_shipped_target_is_located() -> None:
    assert [key for key, levels in LOCATED.items() if levels is None] == []


@pytest.mark.parametrize("target", [target for target in SHIPPED if target.partner], ids=lambda target: target.name)
def test_shipped_partners_lie_at_the_same_levels(target: Target) -> None:
    assert len({levels for (_, name), levels in LOCATED.items() if name in (target.name, target.partner)}) == 1


def test_no_shipped_target_is_implausible_where_it_is_annotated() -> None:
    for file in shipped_files():
        for context in file.contexts.values():
            view = locate_context(context)
            assert view is not None
            assert all(can_meet(LOCATED[file.path.stem, name] or frozenset(), view) for name in file.targets)


@pytest.mark.parametrize(
    ("target", "region", "plausible"),
    [
        ("anterior hippocampus", "thigh", False),
        ("brainstem", "extremities", False),
        ("left temporal lobe", "thorax", False),
        ("white matter", "thigh", False),
        ("left parotid gland", "pelvis", False),
        ("left lung", "pelvis", False),
        ("heart", "head", False),
        ("liver", "thigh", False),
        ("prostate", "thorax", False),
        ("left femur", "head", False),
        ("fibula", "abdomen", False),
        ("liver", "thorax", True),
        ("aorta", "abdomen", True),
        ("aorta", "thorax", True),
        ("spinal cord", "head and neck", True),
        ("spinal cord", "thorax", True),
        ("esophagus", "abdomen", True),
        ("third cervical vertebra", "head and neck", True),
        ("left femur", "abdomen", True),
        ("bladder", "thigh", True),
        ("metastatic lymph node", "thigh", True),
        ("soft tissue sarcoma", "head and neck", True),
        ("tumor lesion", "foot", True),
        ("left humerus", "thorax", True),
    ],
)
def test_shipped_targets_are_plausible_where_they_may_be_seen(target: str, region: str, plausible: bool) -> None:
    view = find_levels(region)
    places = [levels for (_, name), levels in LOCATED.items() if name == target]
    assert view is not None
    assert places
    assert [can_meet(place or frozenset(), view) for place in places] == [plausible] * len(places)
