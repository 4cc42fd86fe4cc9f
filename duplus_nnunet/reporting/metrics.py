"""Names, units and directions of the scores of a target in a case."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from duplus_nnunet.errors import DataError, describe_unknown


@dataclass(frozen=True)
class Metric:
    """One score.

    Attributes:
        name: Its key in files.
        title: Its heading in a table on the terminal.
        better: Whether higher or lower values are better; `zero` if both too much and too little are wrong.
        lesions: Whether only targets that are lesions have it.
        digits: Number of digits after the point on the terminal.
    """

    name: str
    title: str
    better: Literal["higher", "lower", "zero"] = "higher"
    lesions: bool = False
    digits: int = 3


METRICS: tuple[Metric, ...] = (
    Metric("dice", "Dice"),
    Metric("nsd", "NSD"),
    Metric("hd95_mm", "HD95 mm", "lower", digits=2),
    Metric("assd_mm", "ASSD mm", "lower", digits=2),
    Metric("sensitivity", "sensitivity"),
    Metric("precision", "precision"),
    Metric("volume_difference_ml", "volume diff. ml", "zero", digits=2),
    Metric("volume_difference_percent", "volume diff. %", "zero", digits=1),
    Metric("lesion_f1", "lesion F1", lesions=True),
    Metric("lesion_sensitivity", "lesion sens.", lesions=True),
    Metric("false_lesions", "false lesions", "lower", lesions=True, digits=2),
)
NAMES = tuple(metric.name for metric in METRICS)
SHOWN = ("dice", "nsd", "hd95_mm")
SHOWN_OF_LESIONS = ("lesion_f1", "lesion_sensitivity", "false_lesions")


def find_metrics(names: Iterable[str]) -> Sequence[Metric]:
    """Find metrics by their names.

    Raises:
        DataError: A name is unknown.
    """
    found = {metric.name: metric for metric in METRICS}
    for name in (names := list(names)):
        if name not in found:
            raise DataError(describe_unknown("metric", name, found))
    return [found[name] for name in names]
