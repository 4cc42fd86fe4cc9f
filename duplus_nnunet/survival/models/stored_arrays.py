"""Moves the arrays of a model between plain data, JSON and tensors, and checks their shapes where they are read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.outcome import Numbers

# Arrays of more numbers are stored as tensors, the others as lists in JSON.
_MOST_IN_JSON = 2000
_TENSOR = "tensor"
_DEEPEST = 20


def take_numbers(plain: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> Numbers:
    """Return finite numbers of an entry as float64.

    Args:
        plain: Stored entries.
        name: Name of the entry.
        shape: Expected shape; None: any length.

    Raises:
        ModelError: The entry is missing, has another shape, or is not finite.
    """
    if name not in plain:
        raise ModelError(f"{name!r} is missing")
    numbers = np.asarray(plain[name])
    if numbers.dtype.kind not in "fiu" and numbers.size:
        raise ModelError(f"{name!r} is not made of numbers")
    fits = numbers.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, numbers.shape, strict=True)
    )
    if not fits:
        raise ModelError(f"{name!r} has the shape {numbers.shape}, expected {shape}")
    if not np.isfinite(numbers).all():
        raise ModelError(f"{name!r} has values that are not finite")
    return numbers.astype(np.float64)


def take_times(plain: Mapping[str, Any], name: str) -> Numbers:
    """Return times in days that ascend and are 0 or more, (K).

    Raises:
        ModelError: As in `take_numbers`, or they do not ascend.
    """
    times = take_numbers(plain, name, (None,))
    if (np.diff(times) <= 0).any() or (times < 0).any():
        raise ModelError(f"{name!r} does not ascend from 0")
    return times


def take_indices(plain: Mapping[str, Any], name: str, shape: tuple[int | None, ...], low: int, end: int) -> Any:
    """Return whole numbers from `low` to below `end` as int64.

    Raises:
        ModelError: As in `take_numbers`, or a number is outside.
    """
    numbers = take_numbers(plain, name, shape)
    if (numbers != np.round(numbers)).any() or (numbers < low).any() or (numbers >= end).any():
        raise ModelError(f"{name!r} has numbers that are not whole, or not from {low} to {end - 1}")
    return numbers.astype(np.int64)


def split_arrays(plain: Any, path: str = "") -> tuple[Any, dict[str, NDArray[Any]]]:
    """Replace arrays in nested data: short ones by lists, others by the name of a tensor; returns both."""
    if isinstance(plain, np.ndarray):
        if plain.size <= _MOST_IN_JSON:
            return plain.tolist(), {}
        return {_TENSOR: path}, {path: np.ascontiguousarray(plain)}
    if not isinstance(plain, (dict, list)):
        return plain, {}
    items = plain.items() if isinstance(plain, dict) else enumerate(plain)
    parts = {key: split_arrays(value, f"{path}.{key}" if path else str(key)) for key, value in items}
    tensors = {name: array for _, arrays in parts.values() for name, array in arrays.items()}
    values = {key: value for key, (value, _) in parts.items()}
    return (values if isinstance(plain, dict) else list(values.values())), tensors


def join_arrays(plain: Any, tensors: Mapping[str, NDArray[Any]], depth: int = 0) -> Any:
    """Put tensors back in the place of their names; undoes `split_arrays` but for lists, which stay lists.

    Raises:
        ModelError: A tensor is missing, or the data are nested too deeply.
    """
    if depth > _DEEPEST:
        raise ModelError("the data are nested too deeply")
    if isinstance(plain, list):
        return [join_arrays(value, tensors, depth + 1) if isinstance(value, (dict, list)) else value for value in plain]
    if not isinstance(plain, dict):
        return plain
    if set(plain) == {_TENSOR}:
        if plain[_TENSOR] not in tensors:
            raise ModelError(f"the tensor {plain[_TENSOR]!r} is missing")
        return tensors[plain[_TENSOR]]
    return {key: join_arrays(value, tensors, depth + 1) for key, value in plain.items()}
