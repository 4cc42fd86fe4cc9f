"""Which inputs drove a patient's risk: in come models and patients, out comes what each input added to it.

An input's effect is the risk as it is less the risk with that input presented as missing, as columns, tables and
modalities were at times in training. Effects of inputs that stand for one another do not add up to the risk.
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

EHR, IMAGE = "EHR", "image"
ALL_EHR, ALL_IMAGES = "all EHR columns", "all images"

Tables = Sequence[FeatureTable | None]


@dataclass(frozen=True)
class Effect:
    """What one input did to one patient's risk.

    Attributes:
        patient: Who it is.
        input: A column, a context of images, or all of either.
        kind: EHR or IMAGE.
        value: What is known; empty for images.
        effect: Risk as it is less risk without the input, in the risk's own unit; above 0: it raised the risk.
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
    """Measure the effect of each input that is known of each patient; what is not known has none and is left out.

    Args:
        models: One a fold.
        records: N patients.
        tables: Features of their images as each fold's network sees them; None: there are none.
    """
    schema, effects = models[0].schema, []
    before = _predict_risk(models, records, tables)
    for one in _list_inputs(schema, tables):
        hidden = [hide_columns(record, one.columns) for record in records]
        after = _predict_risk(models, hidden, [hide_contexts(table, one.contexts) for table in tables])
        for row, record in enumerate(records):
            if _is_known(one, record, tables):
                value = _say_value(record, one, schema)
                effects.append(Effect(record.patient, one.name, one.kind, value, float(before[row] - after[row])))
    order = {record.patient: row for row, record in enumerate(records)}
    return sorted(effects, key=lambda effect: order[effect.patient])


def hide_columns(record: Record, columns: Sequence[str]) -> Record:
    """Present columns of a record as missing."""
    return replace(record, values={name: None if name in columns else value for name, value in record.values.items()})


def hide_contexts(table: FeatureTable | None, contexts: Sequence[str]) -> FeatureTable | None:
    """Present all images of some contexts as missing."""
    if table is None or not contexts:
        return table
    hidden = np.array([context in contexts for context in table.contexts], bool)
    rows = {patient: np.where(hidden, np.float32(np.nan), row) for patient, row in table.rows.items()}
    return replace(table, rows=rows)


def list_contexts(tables: Tables) -> list[str]:
    """List the contexts of all images."""
    return list(dict.fromkeys(name for table in tables if table is not None for name in table.contexts))


def _list_inputs(schema: ClinicalSchema, tables: Tables) -> Iterator[_Input]:
    columns, contexts = tuple(schema.covariates), tuple(list_contexts(tables))
    yield from (_Input(name, EHR, columns=(name,)) for name in columns)
    if len(columns) > 1:
        yield _Input(ALL_EHR, EHR, columns=columns)
    yield from (_Input(name, IMAGE, contexts=(name,)) for name in contexts)
    if len(contexts) > 1:
        yield _Input(ALL_IMAGES, IMAGE, contexts=contexts)


def _predict_risk(models: Sequence[SurvivalModel], records: Sequence[Record], tables: Tables) -> Numbers:
    return average(models, records, tables, np.zeros(1)).risk


def _is_known(one: _Input, record: Record, tables: Tables) -> bool:
    if one.kind == EHR:
        return any(record.values.get(name) is not None for name in one.columns)
    return any(_has_image(table, record.patient, one.contexts) for table in tables if table is not None)


def _has_image(table: FeatureTable, patient: str, contexts: Sequence[str]) -> bool:
    own = np.array([context in contexts for context in table.contexts], bool)
    return bool((~np.isnan(table.take([patient])[0][own])).any())


def _say_value(record: Record, one: _Input, schema: ClinicalSchema) -> str:
    if len(one.columns) != 1:
        return ""
    value, form = record.values.get(one.columns[0]), schema.covariates[one.columns[0]]
    if form.order and isinstance(value, float):
        return str(form.order[int(value)])
    return f"{value:g}" if isinstance(value, float) else str(value)


def tabulate_effects(effects: Sequence[Effect]) -> list[list[str]]:
    """Write effects as rows of a table, the first one its head."""
    head = ["patient", "input", "kind", "value", "effect on risk"]
    return [head, *([one.patient, one.input, one.kind, one.value, f"{one.effect:.6g}"] for one in effects)]


def measure_box_effects(
    models: Sequence[SurvivalModel], record: Record, tables: Tables, boxes: Sequence[Mapping[str, np.ndarray]]
) -> Numbers:
    """Return what each of B boxes of an image adds to a patient's risk, (B); above 0: what is there raises it.

    Args:
        models: One a fold.
        record: Of the patient.
        tables: Features as each fold's network sees them, the image whole.
        boxes: For each fold, `{name of a box: features (I) of the patient with that box filled}`, in one order.
    """
    before = _predict_risk(models, [record], tables)[0]
    names = list(boxes[0])
    changed = [
        replace(table, rows=dict(rows)) if table is not None else None
        for table, rows in zip(tables, boxes, strict=True)
    ]
    return np.asarray(before - _predict_risk(models, [replace(record, patient=name) for name in names], changed))
