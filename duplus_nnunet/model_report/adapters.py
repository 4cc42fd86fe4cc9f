"""Shows the adapters of a model with their scores, and ablations from a file of the benchmarks."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from duplus_nnunet.adaptation.files import WEIGHTS, find_folder, read_card
from duplus_nnunet.errors import DataError
from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import MOST_ROWS, Estimate, describe_cut, draw_estimates
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.model_report.result_files import ResultForm, format_estimate
from duplus_nnunet.table_files import read_json

ADAPTERS_ANCHOR, ABLATIONS_ANCHOR = "adapters", "ablations"
_COMMAND = "benchmarks/universal.py or benchmarks/learning.py with --report"


def make_adapters(source: ReportSource, folders: Sequence[Path]) -> Section:
    """Show adapters with their targets, sizes and scores.

    Args:
        source: The base.
        folders: Folders of the adapters, or their files.

    Raises:
        ModelError: A folder holds no adapter.
        DataError: A card cannot be read.
    """
    rows: list[tuple[Cell, ...]] = []
    scores: list[tuple[Cell, ...]] = []
    blocks: list[Block] = []
    own = f"{source.dataset}/{source.name}"
    for folder in folders:
        card, weights = read_card(folder), find_folder(folder) / WEIGHTS
        trained = card.parameters["lora"] + card.parameters["generators"]
        size = round(weights.stat().st_size / 1e6, 2) if weights.is_file() else None
        targets = "; ".join(f"{context}: {', '.join(names)}" for context, names in card.targets.items())
        rows.append((card.name, card.base, targets, trained, round(trained / max(1, card.parameters["base"]), 4), size))
        scores += [(card.name, name, *row) for name, of_source in card.scores.items() for row in of_source.items()]
        if not card.scores:
            blocks.append(Paragraph(f"The adapter {card.name} was not validated, so it has no scores.", "absent"))
        if card.base != own:
            text = f"The adapter {card.name} names {card.base} as its base, and this model is {own}."
            blocks.append(Paragraph(text, "warning"))
    if not rows:
        return Section(ADAPTERS_ANCHOR, "Adapters", [Paragraph("No adapters were given (--adapters).", "absent")])
    headings = ("adapter", "base", "targets", "trained parameters", "share of the base's", "file (MB)")
    blocks.insert(0, Table("adapters", "Adapters of this model", headings, rows))
    if scores:
        title, columns = "Mean Dice of each adapter's own validation", ("adapter", "source", "target", "Dice")
        blocks.insert(1, Table("adapter_scores", title, columns, scores))
    return Section(ADAPTERS_ANCHOR, "Adapters", blocks)


class MeanForm(ResultForm):
    """A mean with its interval; None: not defined."""

    mean: float | None
    interval_95: tuple[float, float] | None = None
    interval_over: str = ""
    patients: int | None = None


def _take_all(value: Any) -> Any:
    """Take the difference over all sources, where a file has one for each group of them."""
    return value["all"] if isinstance(value, Mapping) and "all" in value and "mean" not in value else value


Difference = Annotated[MeanForm, BeforeValidator(_take_all)]


class VariantForm(ResultForm):
    """One kind of training: its Dice, and the difference to the reference."""

    dice: MeanForm
    difference: Difference | None = None


class AblationForm(ResultForm):
    """Ablations on one set of data, as either of the two benchmarks reports them."""

    variants: Mapping[str, VariantForm] = {}
    models: Mapping[str, VariantForm] = {}
    reference: str | None = None
    differences: Mapping[str, Difference] = {}
    missing: Sequence[str] = ()


def make_ablations(file: Path) -> Section:
    """Show ablations.

    Args:
        file: JSON file of a benchmark.

    Raises:
        DataError: The file cannot be read, or holds no ablations.
    """
    blocks: list[Block] = []
    for name, found in _read_ablations(file).items():
        blocks += _show_ablations(name, found)
    return Section(ABLATIONS_ANCHOR, "Ablations", blocks)


def _read_ablations(file: Path) -> dict[str, AblationForm]:
    """Read a file with one set of ablations, or with several by name."""
    content = read_json(file, f"Give a file of {_COMMAND}.")
    if not isinstance(content, dict):
        content = {}
    if "models" in content or "variants" in content:
        sets = {str(content.get("data", file.stem)): content}
    else:
        sets = {name: part for name, part in content.items() if isinstance(part, dict)}
    found = {name: _parse(file, name, part) for name, part in sets.items()}
    if not any(part.variants or part.models for part in found.values()):
        raise DataError(f"{file} holds no ablations: expected 'models' or 'variants'. Give a file of {_COMMAND}.")
    return {name: part for name, part in found.items() if part.variants or part.models}


def _parse(file: Path, name: str, content: Any) -> AblationForm:
    try:
        return AblationForm.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise DataError(f"{file}, {where}: {first['msg']}. Give a file of {_COMMAND}.") from error


def _show_ablations(name: str, found: AblationForm) -> Iterator[Block]:
    file_name = re.sub(r"[^\w-]+", "_", name)
    variants = found.variants or found.models
    reference = found.reference or next(iter(variants))
    differences = {other: variant.difference for other, variant in variants.items() if variant.difference is not None}
    # The other benchmark has the difference the other way round: reference less variant.
    for key, difference in found.differences.items():
        first, _, other = key.partition(" - ")
        if first == reference and other in variants:
            differences[other] = _negate(difference)
    estimates = [
        Estimate(variant, math.nan if each.dice.mean is None else each.dice.mean, each.dice.interval_95)
        for variant, each in variants.items()
    ]
    estimates.sort(key=lambda each: (math.isnan(each.value), -each.value))
    over = ", ".join(sorted({each.dice.interval_over for each in variants.values() if each.dice.interval_over}))
    best = ", ".join(f"{each.name} {each.value:.3f}" for each in estimates[:3])
    yield Chart(
        f"ablations_{file_name}",
        f"Ablations: {name}",
        f"Mean Dice with its 95 % interval over {over or 'what the file says'}; higher is better."
        + describe_cut(len(estimates), MOST_ROWS, "variants"),
        f"The highest: {best}.",
        draw_estimates("Dice", estimates),
        [_to_numbers(each) for each in estimates],
    )
    rows: list[tuple[Cell, ...]] = [
        (
            each.name,
            format_estimate(*_get(variants[each.name].dice)),
            "(reference)" if each.name == reference else format_estimate(*_get(differences.get(each.name))),
        )
        for each in estimates
    ]
    headings = ("variant", "Dice", f"less {reference}")
    yield Table(f"ablations_{file_name}_differences", f"Ablations: {name}", headings, rows, MOST_ROWS)
    if found.missing:
        yield Paragraph(f"{len(found.missing)} training(s) of {name} are missing.", "warning")


def _to_numbers(each: Estimate) -> dict[str, Cell]:
    low, high = each.interval or (None, None)
    return {"variant": each.name, "Dice": None if math.isnan(each.value) else each.value, "low": low, "high": high}


def _get(mean: MeanForm | None) -> tuple[float | None, tuple[float, float] | None]:
    return (None, None) if mean is None else (mean.mean, mean.interval_95)


def _negate(mean: MeanForm) -> MeanForm:
    interval = mean.interval_95
    return MeanForm(
        mean=None if mean.mean is None else -mean.mean,
        interval_95=None if interval is None else (-interval[1], -interval[0]),
    )
