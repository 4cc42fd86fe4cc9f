"""Finds the specifications that come with the package, and the sources that a specification names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.raw_dataset import is_missing

FOLDER = Path(__file__).parent / "specs"
# The parts of a specification that are given by source.
_BY_SOURCE = ("names", "targets", "skip", "contexts", "channels", "regions")


@dataclass(frozen=True)
class ChosenSources:
    """The sources of a composed dataset, the specification for them, and the names of those that are not there."""

    sources: tuple[str, ...]
    spec: Spec
    missing: tuple[str, ...] = ()


def list_specs() -> dict[str, Path]:
    """Return the file of each shipped specification by its name, such as `paper`."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def find_spec(text: str) -> Path:
    """Find a specification by its file, or by the name of a shipped one.

    Raises:
        DataError: It is neither.
    """
    shipped = {normalise(name): file for name, file in list_specs().items()}
    file = Path(text)
    if file.is_file() or file.suffix or file.name != text:
        return file
    if normalise(text) not in shipped:
        unknown = describe_unknown("specification", text, list_specs())
        raise DataError(f"{unknown} A specification of your own is named by its file, such as compose.yaml.")
    return shipped[normalise(text)]


def choose_sources(spec: Spec, named: Sequence[str], available: bool) -> ChosenSources:
    """Choose the sources: those named on the command line, or else those of the specification.

    Args:
        spec: The specification.
        named: The sources of the command line.
        available: Whether to go on without the sources of the specification that are not there.

    Raises:
        DataError: Sources of the specification are not there.
    """
    if named or not spec.sources:
        return ChosenSources(tuple(named), spec)
    missing = tuple(name for name in spec.sources if is_missing(name))
    there = tuple(name for name in spec.sources if name not in missing)
    if missing and not (available and there):
        raise DataError(
            f"{len(missing)} of the {len(spec.sources)} sources of the specification are not in nnUNet_raw: "
            f"{', '.join(missing)}. Write them with `duplus convert`, name the sources on the command line if they "
            "have other names, or go on without them with --available."
        )
    return ChosenSources(there, _leave_out(spec, missing), missing)


def _leave_out(spec: Spec, missing: Sequence[str]) -> Spec:
    """Leave out what a specification says on sources that are not there."""
    gone = set(map(normalise, missing))

    def is_there(key: object) -> bool:
        return normalise(str(key)) not in gone

    changes: dict[str, Any] = {"sources": [name for name in spec.sources if is_there(name)]}
    for part in _BY_SOURCE:
        given: Mapping[Any, Any] = getattr(spec, part)
        changes[part] = {key: value for key, value in given.items() if is_there(key)}
    if isinstance(spec.split_channels, list):
        changes["split_channels"] = [key for key in spec.split_channels if is_there(key)]
    patients = {key: value for key, value in spec.patients.patterns.items() if is_there(key)}
    shared = spec.patients.shared
    if isinstance(shared, list):
        groups = [[key for key in group if is_there(key)] for group in shared]
        shared = [group for group in groups if group]
    changes["patients"] = spec.patients.model_copy(update={"patterns": patients, "shared": shared})
    return spec.model_copy(update=changes)
