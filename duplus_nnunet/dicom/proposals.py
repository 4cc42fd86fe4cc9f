"""Proposes the contexts that a series may belong to, from its modality, the body part and the words of its headers."""

import re
from collections.abc import Iterable, Mapping

from duplus_nnunet.dicom.series import Series
from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.prompt_registry.regions import find_levels

_MODALITIES = {
    "CT": ("computed tomography",),
    "MR": ("magnetic resonance imaging", "magnetic resonance angiography"),
    "PT": ("positron emission tomography",),
}
_ALL = tuple(name for names in _MODALITIES.values() for name in names)
# DICOM writes body parts in capitals without blanks.
_BODY_PARTS = {
    "HEADNECK": "head and neck", "WHOLEBODY": "whole body", "CHESTABDPELVIS": "trunk", "CHESTABDOMEN": "trunk",
    "ABDOMENPELVIS": "abdomen and pelvis", "UP_EXM": "upper extremity", "LOW_EXM": "lower extremity",
    "EXTREMITY": "extremity", "CSPINE": "cervical spine", "TSPINE": "thoracic spine", "LSPINE": "lumbar spine",
}  # fmt: skip
# Words of descriptions and sequences that decide between contexts of one modality, where their sentences name them.
_SEQUENCES = {
    "t1": r"\bt1", "t2": r"\bt2", "diffusion": r"dwi|diff|\badc\b|\bep2?d|\bep_b", "flair": r"flair|dark.?fluid",
    "in-phase": r"\bin.?phase", "out-of-phase": r"out.?(of.?)?phase|opp.?phase|opposed",
}  # fmt: skip


def propose_contexts(series: Series, contexts: Mapping[str, PlannedContext]) -> list[str]:
    """List the contexts that a series may belong to.

    Args:
        series: The series.
        contexts: Contexts of a model, by name.

    Returns:
        Their names: those of its modality, of them those whose region can share an image with its body part, and of
        them those whose sequence the headers name, if they name one.
    """
    names = [name for name, planned in contexts.items() if fits_modality(series.modality, planned)]
    levels = find_levels(read_body_part(series.about.body_part)) if series.about.body_part else None
    if levels is not None:
        names = [name for name in names if _meets(contexts[name].region, levels)]
    return _narrow(series, {name: contexts[name] for name in names})


def fits_modality(modality: str, planned: PlannedContext) -> bool:
    """Report whether a context may be of a modality of DICOM: it names that one alone, or none that is known."""
    named = {name for name in _ALL if name in planned.modality.casefold()}
    return not named or named <= set(_MODALITIES.get(modality, ()))


def read_body_part(text: str) -> str:
    """Write a body part of DICOM as the registry names regions."""
    return _BODY_PARTS.get(text.strip().upper().replace(" ", ""), text.strip().casefold())


def _meets(region: str, levels: frozenset[str]) -> bool:
    named = find_levels(region) if region else None
    return named is None or bool(named & levels)


def _narrow(series: Series, contexts: Mapping[str, PlannedContext]) -> list[str]:
    """Keep the contexts whose words the headers of an MR series name; all, if they name none of these."""
    if len(contexts) < 2 or series.modality != "MR":
        return list(contexts)
    said = _find_sequences([series.about.text, *series.about.words])
    meant = {name: _find_sequences([planned.modality, planned.sentences[0]]) for name, planned in contexts.items()}
    fitting = [name for name, words in meant.items() if words and words <= said]
    most = max((len(meant[name]) for name in fitting), default=0)
    return [name for name in fitting if len(meant[name]) == most] or list(contexts)


def _find_sequences(texts: Iterable[str]) -> set[str]:
    joined = " ".join(texts).casefold().replace("-weighted", "w").replace("_", " ")
    return {name for name, pattern in _SEQUENCES.items() if re.search(pattern, joined)}
