"""How large targets are: in come volumes of training cases, out comes the range of each target in each context."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.errors import PlansError
from duplus_nnunet.settings import find_section

KEY = "volumes"
_DIGITS = 4


@dataclass(frozen=True)
class VolumeRange:
    """Volumes of a target in training cases that contain it, in ml.

    Attributes:
        min: The smallest one.
        p1: 1st percentile.
        p99: 99th percentile.
        max: The largest one.
        cases: Number of cases.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    min: float
    p1: float
    p99: float
    max: float
    cases: int


def summarise_volumes(
    table: CaseTable, volumes: Mapping[str, Mapping[int, float]], regions: Mapping[str, Iterable[int]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Summarise how large each target is, in the cases where it is annotated and present.

    Args:
        table: All cases; training cases alone are looked at.
        volumes: Volume of each label value in ml, by case.
        regions: Label values that make up each target, by name.

    Returns:
        By context and target, a VolumeRange as plain data; targets that no case contains are left out.
    """
    found: dict[str, dict[str, list[float]]] = {source.context: {} for source in table.sources.values()}
    for identifier, case in table.cases.items():
        targets = found[table.sources[case.source].context]
        for target in case.annotated:
            sizes = volumes.get(identifier, {})
            size = sum(sizes.get(value, 0.0) for value in regions.get(target, ()))
            if size > 0:
                targets.setdefault(target, []).append(size)
    return {
        context: {name: asdict(_summarise(many)) for name, many in targets.items()}
        for context, targets in found.items()
    }


def read_volume_ranges(plans: Mapping[str, Any], context: str) -> dict[str, VolumeRange]:
    """Read how large targets were in the training cases of a context.

    Args:
        plans: Content of a plans file.
        context: Key of one of its contexts.

    Returns:
        Ranges by target; nothing for plans that hold none, as older ones do.

    Raises:
        PlansError: They are not of the form.
    """
    found = find_section(plans)["contexts"][context].get(KEY, {})
    try:
        return TypeAdapter(dict[str, VolumeRange]).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("duplus.contexts", context, KEY, *first["loc"])))
        raise PlansError(
            f"In the plans {plans.get('plans_name')!r}, {where}: {first['msg']}. Undo that, or plan the dataset again."
        ) from error


def _summarise(volumes: list[float]) -> VolumeRange:
    least, low, high, most = (round(float(ml), _DIGITS) for ml in np.percentile(volumes, (0, 1, 99, 100)))
    return VolumeRange(min=least, p1=low, p99=high, max=most, cases=len(volumes))
