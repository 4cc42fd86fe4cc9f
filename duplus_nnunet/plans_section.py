"""Finds the section `duplus` in the content of a plans file.

The start-up hook imports this module, so it needs the standard library only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from duplus_nnunet.errors import PlansError

PLANS_KEY = "duplus"
PLANS_VERSION = 1
# Version of a section with many texts, see `plans_packing`.
PACKED_VERSION = 2
# Key of the section with the version of the settings' defaults, and that version; the first ones had none.
SETTINGS_VERSION_KEY = "settings_version"
SETTINGS_VERSION = 3
# Key of the section under which the plans of an adapter describe the base model.
BASE_KEY = "base"
# Key of the section under which plans name the stock nnU-Net model whose architecture they have.
START_KEY = "start"

# Configurations of nnU-Net that DuPLUS plans never contain -> the reason.
NOT_PLANNED = {
    "2d": "the two prompts steer a 3D network",
    "3d_cascade_fullres": "a cascade feeds label maps of all targets to its second stage, which contradicts targets "
    "that are chosen by text",
}


def refuse_unplanned(configurations: Sequence[str], where: str) -> None:
    """Refuse configurations that DuPLUS does not plan.

    Args:
        configurations: Names of the requested configurations.
        where: What would have to contain them, for the message.

    Raises:
        PlansError: One of the requested configurations is never planned.
    """
    for name in configurations:
        if name in NOT_PLANNED:
            raise PlansError(
                f"Configuration {name!r} was asked for, but {where} cannot hold it: {NOT_PLANNED[name]}. "
                "DuPLUS plans '3d_fullres' and, for large images, '3d_lowres': use `-c 3d_fullres`."
            )


def leave_base_out(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of plans without the description of a base model; other plans are copied unchanged."""
    section = plans.get(PLANS_KEY)
    if not isinstance(section, Mapping) or BASE_KEY not in section:
        return dict(plans)
    return {**plans, PLANS_KEY: {key: value for key, value in section.items() if key != BASE_KEY}}


def find_section(plans: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section `duplus` of plans.

    Raises:
        PlansError: The plans are not DuPLUS plans, or were written by another version of the format.
    """
    section = plans.get(PLANS_KEY)
    if not isinstance(section, Mapping):
        raise PlansError(
            f"The plans {plans.get('plans_name')!r} have no section {PLANS_KEY!r}, so no prompts. DuPLUS needs plans "
            "made by a DuPLUS planner: run `nnUNetv2_plan_and_preprocess -d DATASET -pl DuPLUSPlanner -c 3d_fullres` "
            "and train and predict with `-p DuPLUSPlans`."
        )
    if section.get("version") not in (PLANS_VERSION, PACKED_VERSION):
        raise PlansError(
            f"The plans {plans.get('plans_name')!r} have version {section.get('version')!r} of the section "
            f"{PLANS_KEY!r}; this package reads versions {PLANS_VERSION} and {PACKED_VERSION}. Plan again, or install "
            "the package version that wrote them."
        )
    return section


def find_differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find where two plans differ; tuples equal lists, keys equal their texts, and a missing key equals null.

    Yields:
        The keys that lead there, joined by points, the value before and the value now.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        old, new = ({str(key): value for key, value in plans.items()} for plans in (before, now))
        for key in dict.fromkeys([*old, *new]):
            yield from find_differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif _to_lists(before) != _to_lists(now):
        yield name, before, now


def _to_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_lists(item) for key, item in value.items()}
    return [_to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
