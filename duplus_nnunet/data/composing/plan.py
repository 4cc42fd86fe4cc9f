"""Plans a composed dataset from its sources and a specification; reads no image or label map and writes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.composing.contexts import ContextCases, find_parts
from duplus_nnunet.data.composing.label_values import LabelValues, assign_values
from duplus_nnunet.data.composing.labels import LabelJob
from duplus_nnunet.data.composing.patients import find_patients
from duplus_nnunet.data.composing.source_datasets import CaseFiles, SourceDataset, open_source_datasets
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.data.composing.splits import Splits, read_splits, split_cases
from duplus_nnunet.data.composing.targets import merge_targets
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import Context
from duplus_nnunet.prompt_registry.case_contexts import strip_rules

_COMMON_CHANNEL = "image"


@dataclass(frozen=True)
class PlannedCase:
    """One case of the composed dataset.

    Attributes:
        part: The part of a source that it comes from.
        identifier: Its identifier in the source.
        patient: The patient.
        files: Its files in the source.
        is_test: Whether it belongs to imagesTs.
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
        spec: The specification.
        sources: The sources.
        parts: Parts of the sources, one context each.
        cases: All cases by name, training cases before test cases.
        values: Targets, labels, and the new value of each old one.
        contexts: Contexts by their keys in the composed dataset.
        keys: Key of the context of each part, by the part's name.
        splits: The folds.
        channel_names: "channel_names" of dataset.json.
        ending: "file_ending" of dataset.json.
    """

    dataset: str
    spec: Spec
    sources: tuple[SourceDataset, ...]
    parts: tuple[ContextCases, ...]
    cases: Mapping[str, PlannedCase]
    values: LabelValues
    contexts: Mapping[str, Context]
    keys: Mapping[str, str]
    splits: Splits
    channel_names: Mapping[str, str]
    ending: str

    def jobs(self, folder: Path | None) -> Iterator[LabelJob]:
        """Yield one job for each case; without a folder to write to, cases are only checked."""
        for case in self.cases.values():
            yield _describe_job(case, self.values.tables[case.part.source.dataset], self.ending, folder)


def make_plan(dataset: str, names: Sequence[str], spec: Spec, spec_folder: Path) -> Plan:
    """Plan a composed dataset.

    Args:
        dataset: nnU-Net's name of it, such as `Dataset501_Universal`.
        names: The sources: raw datasets by number, name or folder.
        spec: The specification.
        spec_folder: Folder that a file named in the specification is relative to.

    Raises:
        DataError: The sources cannot be composed as specified.
    """
    sources = open_source_datasets(names, spec)
    if dataset in [source.dataset for source in sources]:
        raise DataError(f"{dataset} cannot be both a source and the composed dataset. Choose another number with -o.")
    ending = _find_ending(sources)
    parts = find_parts(sources, spec)
    cases = _list_cases(sources, parts, spec)
    values = assign_values(sources, merge_targets(sources, spec))
    contexts, keys = _name_contexts(parts)
    training = {name: Case(case.part.name, case.patient, (), ()) for name, case in cases.items() if not case.is_test}
    if spec.splits is None:
        splits = split_cases(training, spec.folds, spec.seed)
    else:
        splits = read_splits(spec_folder / spec.splits, training)
    return Plan(
        dataset=dataset,
        spec=spec,
        sources=tuple(sources),
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
    title = f"Case {case.identifier!r} of {case.part.source.dataset}"
    if folder is None:
        return LabelJob(title, images, label, table)
    end = "Ts" if case.is_test else "Tr"
    new_images = tuple(str(folder / f"images{end}" / f"{case.name}_{index:04}{ending}") for index in range(len(images)))
    return LabelJob(title, images, label, table, new_images, str(folder / f"labels{end}" / f"{case.name}{ending}"))


def _find_ending(sources: Sequence[SourceDataset]) -> str:
    endings = {source.ending: source.dataset for source in sources}
    if len(endings) > 1:
        listed = ", ".join(f"{dataset}: {ending!r}" for ending, dataset in endings.items())
        raise DataError(f"All files of a dataset need the same ending; the sources have {listed}. Convert the others.")
    return next(iter(endings))


def _list_cases(sources: Sequence[SourceDataset], parts: Sequence[ContextCases], spec: Spec) -> dict[str, PlannedCase]:
    patients = find_patients(sources, spec)
    cases: dict[str, PlannedCase] = {}
    for is_test in (False, True):
        for part in parts:
            for identifier, files in (part.tests if is_test else part.training).items():
                patient = patients[part.source.dataset, identifier]
                case = PlannedCase(part, identifier, patient, files, is_test)
                other = cases.setdefault(case.name, case)
                if other is not case:
                    raise DataError(
                        f"Two cases would be called {case.name!r}: {identifier!r} of {part.source.dataset} and "
                        f"{other.identifier!r} of {other.part.source.dataset}. Rename one, or give its source "
                        f"another name in the specification: `names: {{{part.source.dataset}: NAME}}`."
                    )
    return cases


def _name_contexts(parts: Sequence[ContextCases]) -> tuple[dict[str, Context], dict[str, str]]:
    """Give each distinct context a key: its name, followed by the source's if another context has the same name."""
    contexts: dict[str, Context] = {}
    keys: dict[str, str] = {}
    for part in parts:
        key, context = part.context.name, strip_rules(part.context)
        if contexts.get(key, context) != context:
            key = f"{key}_{part.source.name}"
        contexts[key] = context
        keys[part.name] = key
    return contexts, keys


def _name_channels(parts: Sequence[ContextCases]) -> dict[str, str]:
    names: dict[str, str] = {}
    for index, channels in enumerate(zip(*(part.channels for part in parts), strict=True)):
        common = _COMMON_CHANNEL if len(parts[0].channels) == 1 else f"{_COMMON_CHANNEL} {index}"
        names[str(index)] = channels[0] if len(set(channels)) == 1 else common
    return names
