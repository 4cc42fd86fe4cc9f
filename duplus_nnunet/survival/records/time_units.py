"""Proposes the unit of a column of times from its name and its values, and says when it is in doubt."""

import re
from collections.abc import Sequence

from duplus_nnunet.survival.records.schema import DAYS

_WORDS = {
    "days": r"days?(?![a-z])", "weeks": r"weeks?|wks?(?![a-z])", "months": r"months?|mos?(?![a-z])",
    "years": r"years?|yrs?(?![a-z])|annees?|jahre",
}  # fmt: skip
_TOO_SHORT = re.compile(r"(?<![a-z])(hours?|hrs?|minutes?|mins?)(?![a-z])")
_LEAST_PATIENTS = 8  # below, values say nothing of the unit
# Longest follow-up that is plausible in a unit: 60 years.
MOST_DAYS = 60 * DAYS["years"]
# Follow-up that is longer than this number is in days: 600 months are 50 years.
_SURELY_DAYS = 600


def propose_unit(name: str, numbers: Sequence[float]) -> tuple[str | None, str]:
    """Propose the unit of a column.

    Args:
        name: Name of the column.
        numbers: Its known values, one a patient.

    Returns:
        The unit, or None if it is in doubt; and the reason, a sentence.
    """
    named, short = find_named_unit(name), _TOO_SHORT.search(name.casefold())
    longest = max(numbers, default=0.0)
    if named is None and short is not None:
        return None, f"The name says {short[1]}, which is no unit of a schema: write the times in days."
    if named is not None:
        days = longest * DAYS[named]
        if days > MOST_DAYS:
            return None, f"The name says {named}, but the longest time would be {days / DAYS['years']:,.0f} years."
        return named, f"The unit is that of the name, {named}."
    if len(numbers) < _LEAST_PATIENTS:
        return "days", f"The unit is assumed to be days, as {len(numbers)} patients are too few to judge."
    if longest > _SURELY_DAYS:
        return "days", f"The unit is taken to be days: the longest time is {longest:g}."
    whole = all(number.is_integer() for number in numbers)
    return None, f"The longest time is {longest:g}{'' if whole else ', with fractions'}: no unit is certain."


def find_named_unit(name: str) -> str | None:
    """Return the unit that the name of a column says; None if it says none."""
    text = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).casefold()
    return next((unit for unit, words in _WORDS.items() if re.search(rf"(?<![a-z])({words})", text)), None)
