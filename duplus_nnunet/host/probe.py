"""Compares an installed nnU-Net with the interface that this package needs, by names and signatures alone."""

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from duplus_nnunet.host.interface import NEEDS, Need, Use

_OTHERS_ALLOWED = "..."
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class ProbeResult:
    """The comparison of one needed name with the installed nnU-Net.

    Attributes:
        need: The name.
        signature: Its parameters as installed, such as `(batch)`; "" if it is not callable or missing.
        difference: What is missing or differs; "" if the name is as needed.
    """

    need: Need
    signature: str = ""
    difference: str = ""


def probe_host() -> list[ProbeResult]:
    """Compare all needed names with the installed nnU-Net; imports the modules that hold them."""
    return [_probe(need, importlib.import_module) for need in NEEDS]


def probe_module(name: str) -> list[ProbeResult]:
    """Compare the needed names of one module of nnU-Net that is imported already."""
    return [_probe(need, sys.modules.__getitem__) for need in NEEDS if need.module == name]


def list_differences(results: list[ProbeResult]) -> list[str]:
    """Describe each name that differs, as `dotted name: what differs`."""
    return [f"{result.need.dotted_name}: {result.difference}" for result in results if result.difference]


def _probe(need: Need, find_module: Callable[[str], Any]) -> ProbeResult:
    try:
        module = find_module(need.module)
    except Exception as error:  # importing a module can end in any exception
        return ProbeResult(need, difference=f"the module cannot be imported ({type(error).__name__}: {error})")
    *owners, name = need.name.split(".")
    owner = module
    for step in owners:
        owner = getattr(owner, step, None)
    if not hasattr(owner, name):
        return ProbeResult(need, difference="" if _is_attribute(owner, name, need.use) else "missing")
    if need.parameters is None:
        return ProbeResult(need)
    try:
        parameters = _list_parameters(owner, name)
    except (TypeError, ValueError):
        return ProbeResult(need, difference="no function with a signature")
    signature = f"({', '.join(parameters)})"
    return ProbeResult(need, signature, _compare(need, parameters))


def _is_attribute(owner: Any, name: str, use: Use) -> bool:
    """Report whether the methods of a class use an attribute that its instances are given when they are made."""
    functions = [inspect.unwrap(value) for base in getattr(owner, "__mro__", ()) for value in vars(base).values()
                 if isinstance(value, FunctionType)]  # fmt: skip
    return use is Use.READ and any(name in function.__code__.co_names for function in functions)


def _list_parameters(owner: Any, name: str) -> dict[str, inspect.Parameter]:
    """Map the names of a function's parameters to them, without the instance or class that a method is bound to."""
    parameters = dict(inspect.signature(getattr(owner, name)).parameters)
    if inspect.isclass(owner) and isinstance(inspect.getattr_static(owner, name), FunctionType):
        parameters.pop(next(iter(parameters)))
    return parameters


def _compare(need: Need, parameters: dict[str, inspect.Parameter]) -> str:
    """Describe how a function's parameters differ from those needed; "" if they fit."""
    needed = [item for item in need.parameters or () if item != _OTHERS_ALLOWED]
    missing = [item for item in needed if not set(item.split("|")) & parameters.keys()]
    known = {name for item in needed for name in item.split("|")}
    further = [parameter for name, parameter in parameters.items() if name not in known]
    if _OTHERS_ALLOWED in (need.parameters or ()):
        further = []
    elif need.use is not Use.OVERRIDDEN:
        # An override must take all that nnU-Net may pass; a caller has to pass only what has no default.
        further = [item for item in further if item.default is item.empty and item.kind not in _VARIADIC]
    parts = []
    if missing:
        parts.append(f"lacks the parameter {', '.join(' or '.join(map(repr, item.split('|'))) for item in missing)}")
    if further:
        parts.append(f"has the unknown parameter {', '.join(repr(item.name) for item in further)}")
    return "; ".join(parts)
