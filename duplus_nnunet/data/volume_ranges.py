"""Summarises the volumes of each target in the training cases of each context, and reads them from plans."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_form import PlansForm, as_form

KEY = "volumes"
_DIGITS = 4


@dataclass(frozen=True)
class VolumeRange:
    """Volumes of a target in training cases that contain it, in ml.

    Attributes:
        min: Smallest volume.
        p1: 1st percentile.
        p99: 99th percentile.
        max: Largest volume.
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
    """Summarise the volumes of each target over the cases in which it is annotated and present.

    Args:
        table: All cases, of which only training cases are used.
        volumes: Volume of each label value in ml, by case.
        regions: Label values of each target, by name.

    Returns:
        By context and target, a VolumeRange as plain data; targets that no case contains are left out.
    """
    collected: dict[str, dict[str, list[float]]] = {source.context: {} for source in table.sources.values()}
    for identifier, case in table.cases.items():
        targets = collected[table.sources[case.source].context]
        for target in case.annotated:
            sizes = volumes.get(identifier, {})
            size = sum(sizes.get(value, 0.0) for value in regions.get(target, ()))
            if size > 0:
                targets.setdefault(target, []).append(size)
    return {
        context: {name: asdict(_summarise(sizes)) for name, sizes in targets.items()}
        for context, targets in collected.items()
    }


def read_volume_ranges(plans: Mapping[str, Any] | PlansForm, context: str) -> dict[str, VolumeRange]:
    """Read the range of each target's volume in the training cases of a context.

    Args:
        plans: Content of a plans file, or its form.
        context: Key of one of its contexts.

    Returns:
        Ranges by target; empty for older plans, which contain none.

    Raises:
        PlansError: The ranges are invalid; the message says where.
    """
    form = as_form(plans)
    try:
        return TypeAdapter(dict[str, VolumeRange]).validate_python(form.contexts[context].volumes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("duplus.contexts", context, KEY, *first["loc"])))
        raise PlansError(
            f"In the plans {form.plans_name!r}, {where}: {first['msg']}. Undo that, or plan the dataset again."
        ) from error


def _summarise(volumes: list[float]) -> VolumeRange:
    least, low, high, most = (round(float(ml), _DIGITS) for ml in np.percentile(volumes, (0, 1, 99, 100)))
    return VolumeRange(min=least, p1=low, p99=high, max=most, cases=len(volumes))
