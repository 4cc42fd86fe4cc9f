"""Shows what a model or dataset is: sources, contexts, targets, cases, the plan, and where it comes from."""

import math
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import MOST_ROWS, describe_cut, draw_stacked_bars
from duplus_nnunet.model_report.gathering import ReportSource, TargetCount
from duplus_nnunet.outputs.manifest import current_time, list_versions
from duplus_nnunet.prompt_registry.raw_dataset import RawDataset, list_case_names

ANCHOR, MANIFEST_ANCHOR = "summary", "manifest"
# Targets are called imbalanced if the most frequent one has this many times the cases of the rarest.
_IMBALANCED = 10
# Names that planners give their plans by themselves.
_USUAL_PLANS = ("DuPLUSPlans", "nnUNetPlans")


def make_summary(source: ReportSource) -> Section:
    """Describe a model or a dataset."""
    title = "The model" if source.is_model else "The dataset"
    blocks: list[Block] = [Paragraph(_describe(source))]
    parts = ("prompts", "plans", "folds")
    blocks += [Paragraph(source.missing[part], "absent") for part in parts if part in source.missing]
    blocks += [_list_sources(source), *_list_contexts(source), *_list_targets(source), *draw_targets(source)]
    blocks += [_describe_plan(source)] if source.plans else []
    return Section(ANCHOR, title, blocks)


def make_manifest(source: ReportSource) -> Section:
    """List versions, seeds, commands and dates."""
    rows = [*_list_facts(source), *((f"{name} (this report)", version) for name, version in list_versions().items())]
    rows.append(("this report was made", current_time()))
    blocks: list[Block] = [Table("manifest", "Versions, seeds and dates", ("what", "value"), rows, len(rows))]
    commands = list_commands(source)
    if commands:
        blocks.append(
            Table("commands", "Commands that make such a model", ("command",), [(line,) for line in commands])
        )
        blocks.append(
            Paragraph(
                "The commands are put together from the names in the model folder. Options that leave no trace there "
                "are not among them."
            )
        )
    return Section(MANIFEST_ANCHOR, "Versions, seeds and commands", blocks)


def _describe(source: ReportSource) -> str:
    counts = source.count_targets()
    sources = source.list_sources()
    contexts = len(source.bank.contexts) if source.bank else len(source.entry.contexts) if source.entry else None
    cases = sum(row.cases for row in sources) if sources else _count_images(source)
    numbers = [
        (len(sources) or None, "source"),
        (contexts, "context"),
        (len(source.targets), "target"),
        (cases, "training case"),
    ]
    parts = [_count(number, word) for number, word in numbers if number is not None]
    kind = "a model of" if source.is_model else "the dataset"
    what = f"{source.name}: {kind} {source.dataset}." if source.is_model else f"{source.name}."
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if parts[1:] else parts[0]
    text = f"{what} It has {listed}."
    never = sorted(set(source.targets) - {count.target for count in counts if count.annotated})
    if counts and never:
        text += f" No training case is annotated for {', '.join(never[:10])}."
    return text


def _count_images(source: ReportSource) -> int | None:
    """Count the training cases of the raw dataset; None if it is not known where that is."""
    if source.raw is None:
        return None
    return len(list_case_names(RawDataset(source.dataset, source.raw, dict(source.dataset_json))))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _list_sources(source: ReportSource) -> Block:
    rows: list[tuple[Cell, ...]] = [
        (row.name, row.dataset or None, row.context, row.cases, row.patients, _percent(row.share))
        for row in source.list_sources()
    ]
    if not rows:
        return Paragraph(f"Sources and cases are not known. {source.missing.get('table', '')}".strip(), "absent")
    headings = ("source", "dataset", "context", "cases", "patients", "share of the drawn cases")
    return Table("sources", "Sources", headings, rows)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


def _list_contexts(source: ReportSource) -> Iterator[Block]:
    contexts: Any = source.bank.contexts if source.bank else source.entry.contexts if source.entry else {}
    rows: list[tuple[Cell, ...]] = []
    for key, context in contexts.items():
        prompt = context.sentences[0] if source.bank else context.prompt
        trained = ", ".join(source.bank.names_in(key)) if source.bank else None
        rows.append((key, context.modality or None, context.region or None, prompt, trained))
    if rows:
        headings = ("context", "modality", "region", "context prompt", "annotated targets")
        yield Table("contexts", "Contexts", headings, rows)


def _list_targets(source: ReportSource) -> Iterator[Block]:
    """List the targets with their prompts in the first context that was trained for each."""
    if source.bank is None:
        return
    bank = source.bank
    rows: list[tuple[Cell, ...]] = []
    for target in bank.targets:
        trained = [key for key in bank.contexts if target.name in bank.names_in(key)]
        keys = trained or [key for key, context in bank.contexts.items() if target.name in context.target_prompts]
        prompt = bank.contexts[keys[0]].target_prompts[target.name][0] if keys else None
        rows.append(
            (target.name, target.label, prompt, ", ".join(trained) or None, ", ".join(target.synonyms) or "none")
        )
    headings = ("target", "label", "target prompt", "contexts", "synonyms")
    yield Table("targets", "Targets", headings, rows)


def draw_targets(source: ReportSource) -> list[Block]:
    """Draw the annotated training cases of each target by modality; the paper's Figure 2 shows its datasets so."""
    counts = source.count_targets()
    if not any(count.annotated for count in counts):
        reason = source.missing.get("table", "no case is annotated for any target.")
        return [Paragraph(f"The cases of each target cannot be shown: {reason}", "absent")]
    totals: dict[str, dict[str, float]] = {}
    for count in counts:
        row = totals.setdefault(count.target, {})
        row[count.modality] = row.get(count.modality, 0) + count.annotated
    ordered = dict(sorted(totals.items(), key=lambda item: -sum(item[1].values())))
    modalities = list(dict.fromkeys(count.modality for count in counts))
    caption = "Number of training cases in which each target is annotated, by modality."
    caption += describe_cut(len(ordered), MOST_ROWS, "targets") + _describe_imbalance(ordered)
    chart = Chart(
        "targets_by_modality",
        "Annotated cases of each target, by modality",
        caption,
        _describe_largest(ordered),
        draw_stacked_bars("annotated training cases", ordered, modalities),
        [_to_row(count) for count in counts],
    )
    return [chart]


def _to_row(count: TargetCount) -> dict[str, Cell]:
    return {
        "source": count.source,
        "context": count.context,
        "modality": count.modality,
        "target": count.target,
        "annotated cases": count.annotated,
        "cases that hold it": count.present,
    }


def _describe_imbalance(totals: dict[str, dict[str, float]]) -> str:
    sums = {name: sum(row.values()) for name, row in totals.items() if sum(row.values())}
    most, least = max(sums, key=sums.__getitem__), min(sums, key=sums.__getitem__)
    if sums[most] < _IMBALANCED * sums[least]:
        return ""
    return f" {most} is annotated in {sums[most]:g} cases, {least} in {sums[least]:g}: the targets are imbalanced."


def _describe_largest(totals: dict[str, dict[str, float]]) -> str:
    shown = [f"{name} {sum(row.values()):g}" for name, row in list(totals.items())[:5]]
    more = f" and {len(totals) - 5} more targets" if len(totals) > 5 else ""
    return f"Horizontal bars, the most frequent target first: {', '.join(shown)}{more}."


def _describe_plan(source: ReportSource) -> Block:
    configuration = _inherit(source.plans["configurations"], source.configuration)
    architecture = configuration.get("architecture", {})
    network, layers = architecture.get("network_class_name", ""), architecture.get("arch_kwargs", {})
    sizes = {fold.parameters for fold in source.folds if fold.parameters is not None}
    facts: list[tuple[Cell, ...]] = [
        ("plans", str(source.plans.get("plans_name", ""))),
        ("configuration", source.configuration),
        ("patch size (voxels)", _join(configuration.get("patch_size"))),
        ("batch size", configuration.get("batch_size")),
        ("spacing (mm, in array order)", _join(configuration.get("spacing"))),
        ("network", str(network).rpartition(".")[2] or None),
        ("stages", layers.get("n_stages")),
        ("features of each stage", _join(layers.get("features_per_stage"))),
        ("parameters", " or ".join(f"{size:,}" for size in sorted(sizes)) or None),
    ]
    if source.bank is not None:
        settings = source.bank.settings
        spacing = "one for each context" if source.bank.form.spacing == "context" else "one for all contexts"
        facts += [
            ("target spacing", spacing),
            ("epochs planned", settings.epochs),
            ("iterations an epoch", settings.iterations_per_epoch),
            ("optimizer", settings.optimizer),
            ("learning rate at the start", settings.learning_rate),
            ("text encoder", str((source.bank.form.encoder or {}).get("name", "")) or None),
        ]
    return Table("plan", "What was planned", ("what", "value"), facts, len(facts))


def _inherit(configurations: Any, name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits; empty if nnU-Net's part of the plans is damaged."""
    merged: dict[str, Any] = {}
    seen = set[str]()
    while isinstance(name, str) and name in configurations and name not in seen:
        seen.add(name)
        merged = {**configurations[name], **merged}
        name = configurations[name].get("inherits_from", "")
    return merged


def _join(values: Any) -> str | None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None if values is None else str(values)
    return " x ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


def _list_facts(source: ReportSource) -> Iterator[tuple[Cell, ...]]:
    if source.bank is not None:
        yield "seed of the training", source.bank.settings.seed
        yield "prompts from", str((source.bank.form.model_extra or {}).get("registry", "")) or None
    elif source.entry is not None:
        yield "prompts from", source.entry.origin
    for fold in source.folds:
        name = f"fold {fold.name}"
        yield f"{name}: checkpoint", fold.checkpoint or None
        yield f"{name}: trainer", fold.trainer or None
        yield f"{name}: trained with", fold.torch or None
        if fold.training_cases is not None:
            yield f"{name}: training cases", len(fold.training_cases.cases)
        if fold.log is not None:
            yield f"{name}: epochs", fold.log.epochs
            yield f"{name}: training ended", _format_time(fold.log.ended)
            hours = sum(value for value in fold.log.seconds if not math.isnan(value)) / 3600
            yield f"{name}: hours of training", round(hours, 2) if hours else None


def _format_time(seconds: float) -> str | None:
    return None if math.isnan(seconds) else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def list_commands(source: ReportSource) -> list[str]:
    """List nnU-Net's commands that plan and train a model of this name; empty if its folder has another name."""
    trainer, _, rest = source.folder.resolve().name.partition("__")
    plans, _, configuration = rest.partition("__")
    if not (source.is_model and configuration):
        return []
    planner = str(source.plans.get("experiment_planner_used", "DuPLUSPlanner"))
    dataset, named = shlex.quote(source.dataset), shlex.quote(plans)
    renamed = "" if plans in _USUAL_PLANS else f" -overwrite_plans_name {named}"
    lines = [f"nnUNetv2_plan_and_preprocess -d {dataset} -pl {planner}{renamed} -c {configuration}"]
    return lines + [
        f"nnUNetv2_train {dataset} {configuration} {fold.name} -tr {trainer} -p {named}" for fold in source.folds
    ]
