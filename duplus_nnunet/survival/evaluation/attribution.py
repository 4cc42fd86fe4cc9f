"""Attributes each patient's predicted risk to its inputs: columns of the clinical table and images.

The effect of an input is the risk minus the risk with that input set to missing, as is done at random in training
(modality and table dropout). Effects of correlated inputs do not add up to the risk.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.survival.models.averaging import average
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

RECORD, IMAGE = "record", "image"
WHOLE_RECORD, ALL_IMAGES = "whole record", "all images"

Tables = Sequence[FeatureTable | None]


@dataclass(frozen=True)
class Effect:
    """Effect of one input on one patient's risk.

    Attributes:
        patient: Patient ID.
        input: A column, an image context, or all of either.
        kind: RECORD or IMAGE.
        value: Value of the column; empty for images.
        effect: Risk minus risk without the input, in the unit of the risk; above 0: the input raises the risk.
    """

    patient: str
    input: str
    kind: str
    value: str
    effect: float


@dataclass(frozen=True)
class _Input:
    name: str
    kind: str
    columns: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


def explain(models: Sequence[SurvivalModel], records: Sequence[Record], tables: Tables) -> list[Effect]:
    """Measure the effect of each available input of each patient; missing inputs are left out.

    Args:
        models: One for each fold.
        records: N patients.
        tables: Image features computed by the network of each fold; None: no images.
    """
    schema, effects = models[0].schema, []
    before = _predict_risk(models, records, tables)
    for part in _list_inputs(schema, tables):
        hidden = [hide_columns(record, part.columns) for record in records]
        after = _predict_risk(models, hidden, [hide_contexts(table, part.contexts) for table in tables])
        for row, record in enumerate(records):
            if _is_available(part, record, tables):
                value = _format_value(record, part, schema)
                effects.append(Effect(record.patient, part.name, part.kind, value, float(before[row] - after[row])))
    order = {record.patient: row for row, record in enumerate(records)}
    return sorted(effects, key=lambda effect: order[effect.patient])


def hide_columns(record: Record, columns: Sequence[str]) -> Record:
    """Set columns of a record to missing."""
    return replace(record, values={name: None if name in columns else value for name, value in record.values.items()})


def hide_contexts(table: FeatureTable | None, contexts: Sequence[str]) -> FeatureTable | None:
    """Set the features of all images of some contexts to missing."""
    if table is None or not contexts:
        return table
    hidden = np.array([context in contexts for context in table.contexts], bool)
    rows = {patient: np.where(hidden, np.float32(np.nan), row) for patient, row in table.rows.items()}
    return replace(table, rows=rows)


def list_contexts(tables: Tables) -> list[str]:
    """List the contexts of all images, without repetition."""
    return list(dict.fromkeys(name for table in tables if table is not None for name in table.contexts))


def _list_inputs(schema: ClinicalSchema, tables: Tables) -> Iterator[_Input]:
    columns, contexts = tuple(schema.covariates), tuple(list_contexts(tables))
    yield from (_Input(name, RECORD, columns=(name,)) for name in columns)
    if len(columns) > 1:
        yield _Input(WHOLE_RECORD, RECORD, columns=columns)
    yield from (_Input(name, IMAGE, contexts=(name,)) for name in contexts)
    if len(contexts) > 1:
        yield _Input(ALL_IMAGES, IMAGE, contexts=contexts)


def _predict_risk(models: Sequence[SurvivalModel], records: Sequence[Record], tables: Tables) -> Numbers:
    return average(models, records, tables, np.zeros(1)).risk


def _is_available(part: _Input, record: Record, tables: Tables) -> bool:
    if part.kind == RECORD:
        return any(record.values.get(name) is not None for name in part.columns)
    return any(_has_image(table, record.patient, part.contexts) for table in tables if table is not None)


def _has_image(table: FeatureTable, patient: str, contexts: Sequence[str]) -> bool:
    selected = np.array([context in contexts for context in table.contexts], bool)
    return bool((~np.isnan(table.take([patient])[0][selected])).any())


def _format_value(record: Record, part: _Input, schema: ClinicalSchema) -> str:
    if len(part.columns) != 1:
        return ""
    value, form = record.values.get(part.columns[0]), schema.covariates[part.columns[0]]
    if form.order and isinstance(value, float):
        return str(form.order[int(value)])
    return f"{value:g}" if isinstance(value, float) else str(value)


def tabulate_effects(effects: Sequence[Effect]) -> list[list[str]]:
    """Return effects as rows of a table, heading first."""
    head = ["patient", "input", "kind", "value", "effect on risk"]
    rows = [[effect.patient, effect.input, effect.kind, effect.value, f"{effect.effect:.6g}"] for effect in effects]
    return [head, *rows]


def measure_box_effects(
    models: Sequence[SurvivalModel], record: Record, tables: Tables, boxes: Sequence[Mapping[str, np.ndarray]]
) -> Numbers:
    """Measure the effect of each of B boxes of an image on a patient's risk, (B); above 0: the box raises the risk.

    Args:
        models: One for each fold.
        record: Record of the patient.
        tables: Features of the unchanged image, computed by the network of each fold.
        boxes: For each fold, `{name of a box: features (I) of the patient with that box filled}`, in the same order.
    """
    before = _predict_risk(models, [record], tables)[0]
    names = list(boxes[0])
    changed = [
        replace(table, rows=dict(rows)) if table is not None else None
        for table, rows in zip(tables, boxes, strict=True)
    ]
    return np.asarray(before - _predict_risk(models, [replace(record, patient=name) for name in names], changed))
