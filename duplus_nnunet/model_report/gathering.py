"""Reads all that a report says of a model or of a dataset, once; what is not there is left out with the reason."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import CaseTable, read_case_table
from duplus_nnunet.data.converted_table import RECORD, read_table_by_label
from duplus_nnunet.errors import DataError, DuplusError, ModelError
from duplus_nnunet.inference.model_folder import read_own_plans
from duplus_nnunet.model_form import read_json
from duplus_nnunet.model_report.fold_files import FoldSource, Pair, list_fold_folders, read_fold
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.entries import Entry
from duplus_nnunet.prompt_registry.finding import find_entry
from duplus_nnunet.prompt_registry.raw_dataset import RAW_VARIABLE, open_raw_dataset, read_dataset_json
from duplus_nnunet.reporting.case_scores import CaseScore

PREPROCESSED_VARIABLE = "nnUNet_preprocessed"
PLANS_NAME = "DuPLUSPlans"
UNKNOWN_MODALITY = "modality not known"


@dataclass(frozen=True)
class TargetCount:
    """In how many training cases of a source a target is annotated.

    Attributes:
        source: Name of the source.
        context: Key of its context.
        modality: Modality, spelled out, such as "computed tomography".
        target: Name of the target.
        annotated: Number of cases in which the target is annotated.
        present: Number of cases that hold it; None if it is not known.
    """

    source: str
    context: str
    modality: str
    target: str
    annotated: int
    present: int | None


@dataclass(frozen=True)
class SourceCases:
    """A source of training cases.

    Attributes:
        name: Name of the source.
        dataset: nnU-Net's name of the dataset that they come from; empty if it is not known.
        context: Key of its context.
        cases: Number of its training cases.
        patients: Number of their patients; None if it is not known.
        share: Share of the drawn training cases, 0 to 1; None if nothing was planned.
    """

    name: str
    dataset: str
    context: str
    cases: int
    patients: int | None
    share: float | None


@dataclass(frozen=True)
class ReportSource:
    """What is known of a model or a dataset.

    Attributes:
        folder: The model folder, or the raw dataset's.
        is_model: Whether it is a model; else a dataset.
        dataset: nnU-Net's name of the dataset.
        plans: Content of plans.json; empty for a dataset that was not planned.
        dataset_json: Content of dataset.json.
        bank: Prompts of the model, or of the planned dataset; None for others.
        entry: Registry entry of a dataset; None for a model.
        table: Table of cases; None if there is none.
        raw: Folder of the raw dataset; None if it was not found.
        folds: Trained folds.
        missing: Why something is not known, by its name ("prompts", "table", "raw", "plans", "folds").
    """

    folder: Path
    is_model: bool
    dataset: str
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    bank: PromptBank | None = None
    entry: Entry | None = None
    table: CaseTable | None = None
    raw: Path | None = None
    folds: Sequence[FoldSource] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the model folder or the dataset."""
        return self.folder.resolve().name if self.is_model else self.dataset

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of all targets."""
        if self.bank is not None:
            return tuple(self.bank.names)
        if self.entry is not None:
            return tuple(target.name for target in self.entry.targets)
        return tuple(name for name in self.dataset_json.get("labels", {}) if name not in ("background", "ignore"))

    @property
    def configuration(self) -> str:
        """Name of the trained configuration: that of the folder's name, else the first of the plans."""
        known = self.plans.get("configurations", {})
        named = self.folder.resolve().name.rsplit("__", 1)[-1]
        return named if named in known else next(iter(known), "")

    @property
    def held_out(self) -> dict[str, CaseScore]:
        """Scores of the validation cases of all folds but fold "all", whose validation cases were trained on."""
        return {name: score for fold in self.folds if fold.name.isdecimal() for name, score in fold.scores.items()}

    def find_modality(self, context: str) -> str:
        """Return the modality of a context, spelled out."""
        contexts: Mapping[str, Any] = self.bank.contexts if self.bank else self.entry.contexts if self.entry else {}
        return getattr(contexts.get(context), "modality", "") or UNKNOWN_MODALITY

    def list_sources(self) -> list[SourceCases]:
        """List the sources of the training cases: those of the plans, else those of the table of cases."""
        planned = {} if self.bank is None else self.bank.form.sources
        if planned:
            total = sum(source.weight for source in planned.values())
            return [
                SourceCases(
                    name, self._find_dataset(name), source.context, source.cases, self._count_patients(name),
                    source.weight / total,
                )
                for name, source in planned.items()
            ]  # fmt: skip
        if self.table is None:
            return []
        return [
            SourceCases(
                name, source.dataset, source.context, len(self.table.of_source(name)), self._count_patients(name), None
            )
            for name, source in self.table.sources.items()
        ]

    def count_targets(self) -> list[TargetCount]:
        """Count the training cases of each target of each source, in the order of sources and targets."""
        planned = {} if self.bank is None else self.bank.form.sources
        if planned:
            return [
                TargetCount(
                    name,
                    source.context,
                    self.find_modality(source.context),
                    target,
                    count,
                    source.present.get(target, self._count_present(name, target)),
                )
                for name, source in planned.items()
                for target, count in source.targets.items()
            ]
        return [] if self.table is None else self._count_in(self.table)

    def _count_in(self, table: CaseTable) -> list[TargetCount]:
        counts = []
        for name, source in table.sources.items():
            cases = table.of_source(name).values()
            counts += [
                TargetCount(
                    name,
                    source.context,
                    self.find_modality(source.context),
                    target,
                    sum(target in case.annotated for case in cases),
                    sum(target in case.present for case in cases),
                )
                for target in source.targets
            ]
        return counts

    def _count_present(self, source: str, target: str) -> int | None:
        if self.table is None or source not in self.table.sources:
            return None
        return sum(target in case.present for case in self.table.of_source(source).values())

    def _find_dataset(self, source: str) -> str:
        """Find the dataset of a source: that of the table of cases, else what planning noted."""
        if self.table is not None and source in self.table.sources:
            return self.table.sources[source].dataset
        planned = {} if self.bank is None else self.bank.form.sources
        return str((planned[source].model_extra or {}).get("dataset", "")) if source in planned else ""

    def _count_patients(self, source: str) -> int | None:
        if self.table is None or source not in self.table.sources:
            return None
        return len({case.patient for case in self.table.of_source(source).values()})


def read_report_source(path: str | os.PathLike[str]) -> ReportSource:
    """Read a model or a dataset.

    Args:
        path: A model folder (with plans.json and fold_X), or a raw dataset: its folder, name or number.

    Raises:
        ModelError: plans.json of a model is damaged.
        DataError: It is neither a model folder nor a dataset.
    """
    folder = Path(path)
    if (folder / "plans.json").is_file():
        return _read_model(folder)
    if folder.is_dir() and list_fold_folders(folder):
        raise ModelError(f"{folder} has trained folds, but no plans.json. Copy the whole model folder.")
    try:
        raw = open_raw_dataset(os.fspath(path))
    except DataError as error:
        raise DataError(
            f"{os.fspath(path)!r} is neither a model folder (with plans.json and fold_0) nor a dataset: {error}"
        ) from error
    return _read_dataset(raw.folder, raw.name, raw.dataset_json)


def _read_model(folder: Path) -> ReportSource:
    plans, missing = read_own_plans(folder), dict[str, str]()
    dataset_json = read_dataset_json(folder / "dataset.json")
    name = str(plans.get("dataset_name", folder.resolve().parent.name))
    bank = None
    if PLANS_KEY in plans:
        bank = PromptBank(plans)
    else:
        missing["prompts"] = "This is a model of stock nnU-Net: it has no context prompts and no target prompts."
    raw = _find_folder(RAW_VARIABLE, name, missing, "raw")
    table = _find_table(name, raw, bank, missing)
    pairs = list_pairs(bank)
    folds = [read_fold(fold, where, pairs) for fold, where in list_fold_folders(folder).items()]
    if not folds:
        missing["folds"] = f"{folder} has no folder fold_X with a checkpoint: nothing was trained yet."
    return ReportSource(
        folder, True, name, plans, dataset_json, bank, table=table, raw=raw, folds=folds, missing=missing
    )


def list_pairs(bank: PromptBank | None) -> list[Pair]:
    """List all pairs of a source and a target that is annotated in it, in the order of the plans."""
    sources = {} if bank is None else bank.form.sources
    return [(name, target) for name, source in sources.items() for target, count in source.targets.items() if count]


def _read_dataset(folder: Path, name: str, dataset_json: Mapping[str, Any]) -> ReportSource:
    missing: dict[str, str] = {"folds": "This is a dataset: it has no trained model. Give a model folder for scores."}
    entry = find_entry(name, dataset_json, folder)
    plans = _find_plans(name, missing)
    bank = PromptBank(plans) if PLANS_KEY in plans else None
    table = _find_table(name, folder, bank, missing)
    return ReportSource(
        folder, False, name, plans, dataset_json, bank, entry=entry, table=table, raw=folder, missing=missing
    )


def _find_plans(name: str, missing: dict[str, str]) -> Mapping[str, Any]:
    """Read the DuPLUS plans of a dataset; empty if there are none."""
    folder = _find_folder(PREPROCESSED_VARIABLE, name, missing, "plans")
    file = None if folder is None else folder / f"{PLANS_NAME}.json"
    if file is None or not file.is_file():
        missing["plans"] = (
            f"{name} was not planned. Plan it: nnUNetv2_plan_and_preprocess -d {name} -pl DuPLUSPlanner -c 3d_fullres."
        )
        return {}
    missing.pop("plans", None)
    return read_json(file, "Plan the dataset again.")


def _find_folder(variable: str, name: str, missing: dict[str, str], part: str) -> Path | None:
    root = os.environ.get(variable)
    if root and (Path(root) / name).is_dir():
        return Path(root) / name
    where = f"there is no {name} in {variable}={root}" if root else f"{variable} is not set"
    missing[part] = f"Its dataset was not found: {where}."
    return None


def _find_table(name: str, raw: Path | None, bank: PromptBank | None, missing: dict[str, str]) -> CaseTable | None:
    """Read the table of cases that planning wrote, else that of the raw dataset, in the names of plans or labels."""
    root = os.environ.get(PREPROCESSED_VARIABLE)
    planned = Path(root) / name if root else None
    try:
        table = None if planned is None else read_case_table(planned)
        if table is None and raw is not None:
            table = _read_raw_table(raw, bank is not None)
    except DuplusError as error:
        missing["table"] = str(error)
        return None
    if table is None:
        missing["table"] = "There is no table of cases, which planning writes into nnUNet_preprocessed."
    return table


def _read_raw_table(raw: Path, has_plans: bool) -> CaseTable | None:
    """Read the table of a raw dataset; that of a converted one is in other names than plans, so it is not read then."""
    if not (raw / RECORD).exists():
        return read_case_table(raw)
    return None if has_plans else read_table_by_label(raw)
