"""Image features as numbers for Cox and Coxnet; means and scales are the training patients'."""

import re

import numpy as np
import torch

from duplus_nnunet.survival.models.baselines import encode_records
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.models.image_inputs import VOLUME, fit_images
from duplus_nnunet.survival.records.encoding import Table
from duplus_nnunet.survival.records.feature_table import FeatureTable

_PEAK = "lesion max"
# Contexts whose intensities mean something across scanners as they are: uptake in PET.
_PET = re.compile(r"(?<![a-z])(pet|pt|suv|fdg)(?![a-z])|positron", re.IGNORECASE)


def encode_lesions(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode the logarithm of the lesion's volume in each modality, and of PET its highest uptake."""
    table = task.images or FeatureTable((), (), (), {})
    names = [
        name
        for name, context, kind in zip(table.names, table.contexts, table.kinds, strict=True)
        if kind == "measure" and (name.endswith(VOLUME) or (name.endswith(_PEAK) and _PET.search(context)))
    ]
    return _encode(table.choose(names), task)


def encode_frozen(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode all image features beside the EHR."""
    images, records = _encode(task.images or FeatureTable((), (), (), {}), task), encode_records(task)
    train, test = (np.concatenate([records[place], images[place]], axis=1) for place in (0, 1))
    return train, test, (*records[2], *images[2])


def _encode(table: FeatureTable, task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Standardise; what is missing is the mean, and a modality that some lack is marked."""
    code, notes = fit_images(table, [record.patient for record in task.train], None)
    parts = []
    for records in (task.train, task.test):
        numbers, more = code.align(table, [record.patient for record in records])
        inputs, there = code.encode(torch.from_numpy(numbers).double())
        parts.append(np.concatenate([inputs.numpy(), 1.0 - there.numpy()], axis=1).astype(np.float32))
    differ = np.ptp(parts[0], axis=0) > 0  # not the deviation, of which rounding leaves some
    return parts[0][:, differ], parts[1][:, differ], (*notes, *more)
