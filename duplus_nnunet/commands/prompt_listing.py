"""Describes the prompts of datasets and registry files, as lines for people and as plain data for JSON."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
    from duplus_nnunet.prompt_registry.registry_file import RegistryFile


def summarise_files(files: Sequence["RegistryFile"]) -> dict[str, Any]:
    """Summarise registry files as plain data for JSON, with the numbers of datasets, contexts and distinct targets."""
    contexts = {context.name for file in files for context in file.contexts.values()}
    modalities = {context.modality for file in files for context in file.contexts.values()}
    targets = {name for file in files for name in file.targets}
    return {
        "counts": {"datasets": len(files), "contexts": len(contexts), "distinct_targets": len(targets)},
        "modalities": sorted(modalities),
        "datasets": [_summarise_file(file) for file in files],
    }


def summarise_codes(files: Sequence["RegistryFile"]) -> dict[str, dict[str, list[str]] | None]:
    """List the codes of each target of registry files as plain data: scheme, code and meaning by part of the code."""
    from dataclasses import asdict

    from duplus_nnunet.prompt_registry.codes import find_code

    names = sorted({name for file in files for name in file.targets})
    codes = {name: find_code(name) for name in names}
    return {
        name: None
        if code is None
        else {part: [one["scheme"], one["value"], one["meaning"]] for part, one in asdict(code).items() if one}
        for name, code in codes.items()
    }


def describe_codes(files: Sequence["RegistryFile"]) -> Iterator[str]:
    """Yield a line for each target of registry files with its codes, those without one last."""
    from duplus_nnunet.prompt_registry.codes import find_code

    names = sorted({name for file in files for name in file.targets})
    codes = {name: find_code(name) for name in names}
    yield from (f"{name}: {code}" for name, code in codes.items() if code is not None)
    without = [name for name, code in codes.items() if code is None]
    yield f"{len(names) - len(without)} of {len(names)} targets have a code; without: {', '.join(without)}"


def describe_entry(entry: "Entry", with_paraphrases: bool) -> Iterator[str]:
    """Yield lines that show the prompts of a dataset."""
    from duplus_nnunet.prompt_registry import context_sentences
    from duplus_nnunet.prompt_registry.case_contexts import describe_rule
    from duplus_nnunet.prompt_registry.checking import describe_implausible

    yield f"{entry.dataset}   ({entry.origin})"
    if entry.source:
        yield f"source: {entry.source}"
    for context in entry.contexts.values():
        default = " (default)" if context.name == entry.default_context else ""
        cases = f"; {rule}" if (rule := describe_rule(context)) else ""
        yield f"context {context.name}{default}: context prompt {context_sentences(context)[0]!r}{cases}"
        if with_paraphrases:
            yield from (f"    {text}" for text in context_sentences(context)[1:])
    default_context = entry.contexts[entry.default_context]
    for target in entry.targets:
        yield from _describe_target(target, default_context, with_paraphrases)
    yield from describe_implausible(entry)


def describe_others(name: str, entry: "Entry") -> Iterator[str]:
    """Yield a line for each other registry file of that name, which is not in use."""
    from duplus_nnunet.prompt_registry.finding import list_by_name

    for file in () if name.endswith((".yaml", ".yml")) else list_by_name(name, entry.dataset):
        if str(file.path) != entry.origin:
            yield f"not in use: {file.path}"


def describe_occurrence(file: "RegistryFile", target: "Target") -> Iterator[str]:
    """Yield lines that show a target in one registry file."""
    yield f"{file.form.dataset}   ({file.at('targets', target.name)})"
    for context in file.contexts.values():
        yield f"    context {context.name}"
        yield from _describe_target(target, context, with_paraphrases=False)


def _describe_target(target: "Target", context: "Context", with_paraphrases: bool) -> Iterator[str]:
    from duplus_nnunet.prompt_registry import target_sentences

    sentence, *paraphrases = target_sentences(context, target)
    facts = [f"label {target.label!r}" if target.label != target.name else ""]
    facts += [f"also {', '.join(target.synonyms)}" if target.synonyms else ""]
    facts += [f"mirror image: {target.partner}" if target.partner else ""]
    facts += [f"regions: {', '.join(target.regions)}" if target.regions else ""]
    facts += ["" if target.tolerance_mm is None else f"tolerance of the NSD: {target.tolerance_mm:g} mm"]
    facts += ["" if target.missing == "absent" else "not annotated where the label is missing"]
    known = "; ".join(fact for fact in facts if fact)
    yield f"  {target.name}: target prompt {sentence!r}" + (f"; {known}" if known else "")
    if with_paraphrases:
        yield from (f"    {text}" for text in paraphrases)


def _summarise_file(file: "RegistryFile") -> dict[str, Any]:
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
                "regions": list(target.regions),
                "tolerance_mm": target.tolerance_mm,
            }
            for target in file.targets.values()
        ],
    }
