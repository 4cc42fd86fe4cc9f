"""Checks whether the images of each case look like the modality of the context that planning gave it."""

import sys
from collections.abc import Mapping

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.data.plausibility import find_fitting, judge_intensities
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.survey import CaseSurvey

_SHOWN = 5


def check_contexts(table: CaseTable, surveys: Mapping[str, CaseSurvey], modalities: Mapping[str, str]) -> list[str]:
    """Compare the intensities of the training images with the modality of their context.

    Images of one channel only are compared, and only with modalities of an absolute scale (CT, PET); a context that an
    image fits is known only if the dataset has several.

    Args:
        table: All cases.
        surveys: Survey of each training case.
        modalities: Modality of each context.

    Returns:
        What is doubtful, a sentence each, which is also written on stderr.

    Raises:
        DataError: Images look like another context of the dataset.
    """
    contexts = {name: {"name": name, "modality": modality} for name, modality in modalities.items()}
    misplaced: dict[str, str] = {}
    doubtful: dict[str, str] = {}
    for identifier, survey in surveys.items():
        context = contexts[table.sources[table.cases[identifier].source].context]
        if len(survey.intensities) != 1:
            continue
        doubt = judge_intensities(survey.intensities[0], context, {})
        if doubt:
            others = {name: other for name, other in contexts.items() if name != context["name"]}
            (misplaced if find_fitting(survey.intensities[0], others) else doubtful)[identifier] = doubt
    if misplaced:
        raise DataError(_describe(misplaced, len(surveys), "have intensities of another context of this dataset"))
    notes = [_describe(doubtful, len(surveys), "do not look like their context")] if doubtful else []
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    return notes


def _describe(cases: Mapping[str, str], count: int, what: str) -> str:
    shown = ", ".join(map(repr, list(cases)[:_SHOWN])) + (", ..." if len(cases) > _SHOWN else "")
    example = next(iter(cases))
    return (
        f"{len(cases)} of {count} training cases {what} ({shown}). {example!r}: {cases[example]} Correct `cases` and "
        "`ids` of the contexts in the registry file, or the images."
    )
