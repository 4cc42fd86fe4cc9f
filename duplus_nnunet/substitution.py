"""Runs a method of nnU-Net in which some names mean something else, without changing them for other callers."""

import types
from collections.abc import Callable, Mapping
from typing import Any, cast


def call_with(method: Callable[..., Any], names: Mapping[str, Any], *arguments: Any) -> Any:
    """Call a copy of a bound method whose module has other values for some of its global names.

    So a step of nnU-Net can use another class, or be recorded, whatever the version of its code.

    Args:
        method: The bound method.
        names: Values by global name.
        arguments: Arguments of the call.
    """
    bound = cast(types.MethodType, method)
    original = cast(types.FunctionType, bound.__func__)
    copy = types.FunctionType(
        original.__code__,
        {**original.__globals__, **names},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    return copy(bound.__self__, *arguments)
