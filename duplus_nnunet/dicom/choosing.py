"""Chooses series by number, modality, hash or description; without a choice, those that are whole and original."""

import fnmatch
from collections.abc import Sequence

from duplus_nnunet.dicom.finding import Study
from duplus_nnunet.dicom.series import Series
from duplus_nnunet.errors import DataError

_SHOWN = 8


def choose_series(study: Study, wanted: str | None = None) -> list[Series]:
    """Choose the series that are to be read.

    Args:
        study: What was found.
        wanted: Number as `duplus dicom list` shows it, modality (`CT`), hash, or a pattern of the description
            (`*venous*`), in upper or lower case; None: all that can be read, of each patient the original ones if
            there are any.

    Raises:
        DataError: There is none, or the one that was named cannot be read.
    """
    if wanted is not None:
        return _find(study, wanted.strip())
    usable = [one for one in study.series if one.is_usable]
    if not usable:
        reasons = "; ".join(f"series {describe(study, one)}: {' '.join(one.refusals)}" for one in study.series[:_SHOWN])
        raise DataError(f"None of the {len(study.series)} series can be read. {reasons}")
    # Of each patient apart: a clean series of one patient does not stand for a doubtful one of another.
    certain = {one.about.patient for one in usable if not one.doubts}
    return [one for one in usable if not one.doubts or one.about.patient not in certain]


def list_left_out(study: Study, chosen: Sequence[Series]) -> list[str]:
    """List the series that were not chosen, each with the reason, without any text of its headers."""
    return [
        f"series {describe(study, one)} is left out: {' '.join((*one.refusals, *one.doubts)) or 'not chosen.'}"
        for one in study.series
        if one not in chosen
    ]


def require_one(study: Study, chosen: Sequence[Series]) -> Series:
    """Return the only series of a choice.

    Raises:
        DataError: There are several.
    """
    if len(chosen) > 1:
        raise DataError(
            f"There are {len(chosen)} series, and one image is expected: {list_short(study, chosen)}. Choose one "
            "by its number, modality or description (--series, in Python series=); `duplus dicom list` shows all."
        )
    return chosen[0]


def describe(study: Study, series: Series) -> str:
    """Describe a series by its number, hash, modality and size, without any text of its headers."""
    modality = series.modality if series.modality.isalpha() and len(series.modality) < 4 else "other"
    size = f"{len(series.slices)} slices" if series.slices else "no images"
    return f"{study.series.index(series) + 1} ({series.hash}, {modality}, {size})"


def list_short(study: Study, chosen: Sequence[Series]) -> str:
    """List series in one line."""
    more = f" and {len(chosen) - _SHOWN} more" if len(chosen) > _SHOWN else ""
    return ", ".join(describe(study, one) for one in chosen[:_SHOWN]) + more


def _find(study: Study, wanted: str) -> list[Series]:
    found = _match(study, wanted)
    if not found:
        raise DataError(
            f"No series is {wanted!r}; expected a number from 1 to {len(study.series)}, a modality, a hash, or a "
            f"pattern of the description such as *venous*. There are: {list_short(study, study.series)}."
        )
    usable = [one for one in found if one.is_usable]
    if not usable:
        reasons = "; ".join(f"series {describe(study, one)}: {' '.join(one.refusals)}" for one in found[:_SHOWN])
        raise DataError(f"What was chosen by {wanted!r} cannot be read. {reasons}")
    return usable


def _match(study: Study, wanted: str) -> list[Series]:
    if wanted.isdecimal() and 0 < int(wanted) <= len(study.series):
        return [study.series[int(wanted) - 1]]
    lower = wanted.casefold()
    exact = [one for one in study.series if lower in (one.hash, one.modality.casefold(), one.uid)]
    return exact or [one for one in study.series if fnmatch.fnmatch(one.about.text.casefold(), lower)]
