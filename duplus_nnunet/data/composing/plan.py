"""What will be written: sources and a specification go in, every case with its files and values comes out.

Nothing is written here, and neither images nor labels are opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.composing.contexts import ContextCases, find_parts
from duplus_nnunet.data.composing.labels import LabelJob
from duplus_nnunet.data.composing.origins import CaseFiles, Origin, open_origins
from duplus_nnunet.data.composing.patients import find_patients
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.data.composing.splits import Splits, read_splits, split_cases
from duplus_nnunet.data.composing.targets import unite_targets
from duplus_nnunet.data.composing.values import Values, assign_values
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import Context

_COMMON_CHANNEL = "image"


@dataclass(frozen=True)
class PlannedCase:
    """One case of the composed dataset.

    Attributes:
        part: What it is taken from.
        identifier: Its name there.
        patient: Who was imaged.
        files: The source's files.
        is_test: Whether it goes to imagesTs.
    """

    part: ContextCases
    identifier: str
    patient: str
    files: CaseFiles
    is_test: bool

    @property
    def name(self) -> str:
        """nnU-Net's case identifier in the composed dataset."""
        return f"{self.part.name}_{self.identifier}"


@dataclass(frozen=True)
class Plan:
    """A composed dataset before it is written.

    Attributes:
        dataset: nnU-Net's name of it.
        spec: What the user decided.
        origins: The sources.
        parts: Their parts, each of one context.
        cases: All cases by name, training before tests.
        values: Targets, labels, and how label maps are rewritten.
        contexts: By the key of each part's context in the composed dataset, the context.
        keys: By the name of each part, that key.
        splits: The folds.
        channel_names: dataset.json's.
        ending: dataset.json's file_ending.
    """

    dataset: str
    spec: Spec
    origins: tuple[Origin, ...]
    parts: tuple[ContextCases, ...]
    cases: Mapping[str, PlannedCase]
    values: Values
    contexts: Mapping[str, Context]
    keys: Mapping[str, str]
    splits: Splits
    channel_names: Mapping[str, str]
    ending: str

    def jobs(self, folder: Path | None) -> Iterator[LabelJob]:
        """List what is to be done for each case; only looked at if there is no folder to write to."""
        for case in self.cases.values():
            yield _describe_job(case, self.values.tables[case.part.origin.dataset], self.ending, folder)


def make_plan(dataset: str, sources: Sequence[str], spec: Spec, spec_folder: Path) -> Plan:
    """Plan a composed dataset.

    Args:
        dataset: nnU-Net's name for it, such as `Dataset501_Universal`.
        sources: Raw datasets by number, name or folder.
        spec: What the user decided.
        spec_folder: What a file that it names is relative to.

    Raises:
        DataError: Anything about the sources or the specification that keeps them from being put together.
    """
    origins = open_origins(sources, spec)
    if dataset in [origin.dataset for origin in origins]:
        raise DataError(f"{dataset} cannot be both a source and what is written. Choose another number by -o.")
    ending = _find_ending(origins)
    parts = find_parts(origins, spec)
    cases = _list_cases(origins, parts, spec)
    values = assign_values(origins, unite_targets(origins, spec))
    contexts, keys = _name_contexts(parts)
    training = {name: Case(one.part.name, one.patient, (), ()) for name, one in cases.items() if not one.is_test}
    if spec.splits is None:
        splits = split_cases(training, spec.folds, spec.seed)
    else:
        splits = read_splits(spec_folder / spec.splits, training)
    return Plan(
        dataset=dataset,
        spec=spec,
        origins=tuple(origins),
        parts=tuple(parts),
        cases=cases,
        values=values,
        contexts=contexts,
        keys=keys,
        splits=splits,
        channel_names=_name_channels(parts),
        ending=ending,
    )


def _describe_job(case: PlannedCase, table: Mapping[int, int], ending: str, folder: Path | None) -> LabelJob:
    images = tuple(str(file) for file in case.files.images)
    label = str(case.files.label) if case.files.label is not None else None
    title = f"Case {case.identifier!r} of {case.part.origin.dataset}"
    if folder is None:
        return LabelJob(title, images, label, table)
    end = "Ts" if case.is_test else "Tr"
    new_images = tuple(str(folder / f"images{end}" / f"{case.name}_{index:04}{ending}") for index in range(len(images)))
    return LabelJob(title, images, label, table, new_images, str(folder / f"labels{end}" / f"{case.name}{ending}"))


def _find_ending(origins: Sequence[Origin]) -> str:
    endings = {origin.ending: origin.dataset for origin in origins}
    if len(endings) > 1:
        listed = ", ".join(f"{dataset}: {ending!r}" for ending, dataset in endings.items())
        raise DataError(f"All files of a dataset need one ending, but the sources have {listed}. Convert one's files.")
    return next(iter(endings))


def _list_cases(origins: Sequence[Origin], parts: Sequence[ContextCases], spec: Spec) -> dict[str, PlannedCase]:
    patients = find_patients(origins, spec)
    cases: dict[str, PlannedCase] = {}
    for is_test in (False, True):
        for part in parts:
            for identifier, files in (part.tests if is_test else part.training).items():
                patient = patients[part.origin.dataset, identifier]
                case = PlannedCase(part, identifier, patient, files, is_test)
                other = cases.setdefault(case.name, case)
                if other is not case:
                    raise DataError(
                        f"Two cases would be called {case.name!r}: {identifier!r} of {part.origin.dataset} and "
                        f"{other.identifier!r} of {other.part.origin.dataset}. Rename one, or call its source "
                        f"otherwise in the specification: `names: {{{part.origin.dataset}: NAME}}`."
                    )
    return cases


def _name_contexts(parts: Sequence[ContextCases]) -> tuple[dict[str, Context], dict[str, str]]:
    """Give each different context a key: its own, or where another one has that already, with the source's name."""
    contexts: dict[str, Context] = {}
    keys: dict[str, str] = {}
    for part in parts:
        key = part.context.name
        if contexts.get(key, part.context) != part.context:
            key = f"{key}_{part.origin.name}"
        contexts[key] = part.context
        keys[part.name] = key
    return contexts, keys


def _name_channels(parts: Sequence[ContextCases]) -> dict[str, str]:
    names: dict[str, str] = {}
    for index, found in enumerate(zip(*(part.channels for part in parts), strict=True)):
        common = _COMMON_CHANNEL if len(parts[0].channels) == 1 else f"{_COMMON_CHANNEL} {index}"
        names[str(index)] = found[0] if len(set(found)) == 1 else common
    return names
