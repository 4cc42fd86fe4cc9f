"""What `duplus prompts` prints: registry entries as lines of text, and as plain data for JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from duplus_nnunet.prompt_registry import context_sentences, target_sentences
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.registry_file import RegistryFile


def summarise(files: Sequence[RegistryFile]) -> dict[str, Any]:
    """Sum a registry up: its datasets, and how many datasets, contexts and distinct targets there are."""
    contexts = {context.name for file in files for context in file.contexts.values()}
    modalities = {context.modality for file in files for context in file.contexts.values()}
    targets = {name for file in files for name in file.targets}
    return {
        "counts": {"datasets": len(files), "contexts": len(contexts), "distinct_targets": len(targets)},
        "modalities": sorted(modalities),
        "datasets": [_summarise_file(file) for file in files],
    }


def describe_entry(entry: Entry, with_paraphrases: bool) -> Iterator[str]:
    """Yield the lines that show a dataset's prompts."""
    yield f"{entry.dataset}   ({entry.origin})"
    if entry.source:
        yield f"source: {entry.source}"
    for context in entry.contexts.values():
        default = " (default)" if context.name == entry.default_context else ""
        yield f"context {context.name}{default}: T1 {context_sentences(context)[0]!r}"
        if with_paraphrases:
            yield from (f"    {text}" for text in context_sentences(context)[1:])
    default_context = entry.contexts[entry.default_context]
    for target in entry.targets:
        yield from _describe(target, default_context, with_paraphrases)


def describe_target(file: RegistryFile, target: Target) -> Iterator[str]:
    """Yield the lines that show where a target occurs."""
    yield f"{file.form.dataset}   ({file.at('targets', target.name)})"
    for context in file.contexts.values():
        yield f"    context {context.name}"
        yield from _describe(target, context, with_paraphrases=False)


def _describe(target: Target, context: Context, with_paraphrases: bool) -> Iterator[str]:
    sentence, *paraphrases = target_sentences(context, target)
    facts = [f"label {target.label!r}" if target.label != target.name else ""]
    facts += [f"also {', '.join(target.synonyms)}" if target.synonyms else ""]
    facts += [f"mirrors into {target.partner}" if target.partner else ""]
    facts += ["" if target.missing == "absent" else "missing means not annotated"]
    known = "; ".join(fact for fact in facts if fact)
    yield f"  {target.name}: T2 {sentence!r}" + (f"; {known}" if known else "")
    if with_paraphrases:
        yield from (f"    {text}" for text in paraphrases)


def _summarise_file(file: RegistryFile) -> dict[str, Any]:
    return {
        "dataset": file.form.dataset,
        "file": str(file.path),
        "source": file.form.source,
        "contexts": {
            context.name: {"modality": context.modality, "region": context.region, "prompt": context.prompt}
            for context in file.contexts.values()
        },
        "targets": [
            {
                "name": target.name,
                "synonyms": list(target.synonyms),
                "partner": target.partner,
                "missing": target.missing,
            }
            for target in file.targets.values()
        ],
    }
