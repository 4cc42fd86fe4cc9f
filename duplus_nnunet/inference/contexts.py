"""Placeholder until merged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ContextChoice:
    default: str | None
    by_case: Mapping[str, str]


def read_contexts(text: str, known: Any) -> ContextChoice:
    return ContextChoice({k.casefold(): k for k in known}[text.strip().casefold()], {})
