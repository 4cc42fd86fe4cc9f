"""Finds context and targets of the cases of a training, and validates each case with the prompts of its context."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.paths import nnUNet_raw

from duplus_nnunet.data.case_table import FILE_NAME, Case, CaseTable, Source, read_case_table
from duplus_nnunet.errors import DataError, PlansError, RegistryError
from duplus_nnunet.networks import unwrap
from duplus_nnunet.planners.context_plans import configure
from duplus_nnunet.planners.label_manager import check_labels, select_labels
from duplus_nnunet.plans_section import NOT_PLANNED
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.reporting.case_scores import TOLERANCE
from duplus_nnunet.reporting.presence import compute_peak_logits
from duplus_nnunet.reporting.presence_files import calibrate_fold, write_peak_logits
from duplus_nnunet.reporting.score_text import format_scores
from duplus_nnunet.reporting.validation import find_tolerances, read_scoring_settings, score_validation
from duplus_nnunet.trainers.monitoring import log_final_scores

_TRUTH = "gt_segmentations"
_VALIDATION = "validation"


def read_prompts(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> PromptBank:
    """Read the prompts, and check that plans, configuration and dataset.json belong together."""
    bank = PromptBank(plans)
    if configuration not in plans["configurations"]:
        reason = f" ({NOT_PLANNED[configuration]})" if configuration in NOT_PLANNED else ""
        raise PlansError(
            f"The plans {plans['plans_name']!r} have no configuration {configuration!r}{reason}. They have: "
            f"{', '.join(map(repr, plans['configurations']))}."
        )
    check_labels(dataset_json, bank.labels, plans["plans_name"])
    return bank


def open_table(plans: Mapping[str, Any], folder: str, bank: PromptBank) -> CaseTable:
    """Read the table of cases that planning wrote beside the plans.

    Older plans have no table; every target then counts as annotated in every case.

    Args:
        plans: The plans' content.
        folder: nnU-Net's folder for preprocessed data of the dataset.
        bank: The model's prompts.

    Raises:
        PlansError: There is no table, and by the plans, cases differ in context or annotated targets.
        DataError: The table cannot be read.
    """
    table = read_case_table(folder)
    if table is not None:
        return table
    partial = [target.name for target in bank.targets if target.missing != "absent"]
    if len(bank.contexts) > 1 or partial:
        reason = f"{len(bank.contexts)} contexts" if len(bank.contexts) > 1 else f"{partial[0]!r} not always annotated"
        raise PlansError(
            f"{folder} has no {FILE_NAME}, which lists the annotated targets of each case, but the plans "
            f"{plans.get('plans_name')!r} have {reason}. Plan and preprocess the dataset again."
        )
    names = tuple(bank.names)
    source = Source(str(plans.get("dataset_name", "")), bank.default_context, names, ())
    truth = Path(folder, _TRUTH)
    identifiers = sorted(file.name.split(".")[0] for file in truth.iterdir()) if truth.is_dir() else []
    return CaseTable({"all": source}, {name: Case("all", name, names, ()) for name in identifiers})


def read_weights(bank: PromptBank, table: CaseTable) -> dict[str, float]:
    """Read the sources' weights from the plans; in plans without sources it is nnU-Net's, the number of cases.

    Raises:
        PlansError: The plans have weights of some of several sources alone.
    """
    sources = bank.form.sources
    absent = [name for name in table.sources if name not in sources]
    if sources and absent and len(table.sources) > 1:
        raise PlansError(
            f"duplus.sources of the plans {bank.form.plans_name!r} lacks {', '.join(map(repr, absent))}, of which the "
            f"dataset has cases; it has {', '.join(map(repr, sources))}. Restore the name, or plan the dataset again."
        )
    return {
        name: sources[name].weight if name in sources else float(len(table.of_source(name))) for name in table.sources
    }


def check_split(trainer: Any, training: Iterable[str], validation: Iterable[str]) -> None:
    """Check that no patient is on both sides of a split; the fold "all" validates on its training cases.

    Raises:
        DataError: A patient is, or a case is not in the table.
    """
    patients = {trainer.table.find(name).patient: name for name in training}
    for name in validation if trainer.fold != "all" else ():
        other = patients.get(patient := trainer.table.find(name).patient)
        if other is not None:
            raise DataError(
                f"Fold {trainer.fold} holds out the validation case {name!r}, but trains on {other!r} of the same "
                f"patient, {patient!r}. Correct {trainer.preprocessed_dataset_folder_base}/splits_final.json."
            )


def score(trainer: Any) -> str:
    """Score the validation by source and target, correct nnU-Net's summary, and calibrate presence.

    Presence is calibrated on held-out cases only; the fold "all" has none.

    Returns:
        A table of scores and a sentence on the calibration, for the log.
    """
    folder = Path(trainer.output_folder, _VALIDATION)
    targets = list(zip(trainer.bank.names, trainer.bank.labels, strict=True))
    tolerances, note = _find_tolerances(trainer, targets)
    settings = read_scoring_settings(trainer.plans_manager.image_reader_writer_class, trainer.dataset_json, targets)
    aggregate = score_validation(
        folder,
        Path(trainer.preprocessed_dataset_folder_base, _TRUTH),
        replace(settings, tolerances=tolerances),
        trainer.table,
        default_num_processes,
    )
    log_final_scores(trainer, aggregate.rows)
    training, validation = trainer.do_split()
    presence = calibrate_fold(folder, aggregate.cases, set(validation) - set(training), trainer.bank.names)
    table = "\n".join(format_scores(aggregate))
    return f"Scores of annotated targets, by source (scores.json, scores.csv):\n{table}\n{note}{presence}"


def _find_tolerances(trainer: Any, targets: Sequence[tuple[str, str]]) -> tuple[dict[str, float], str]:
    """Find the tolerances that `duplus evaluate` uses, in mm, and why there are none, a line for the log."""
    name = trainer.plans_manager.dataset_name
    # Where only preprocessed data were brought, as to a cluster, there is no raw dataset.
    home = Path(nnUNet_raw, name) if nnUNet_raw else None
    try:
        found = find_tolerances(name, trainer.dataset_json, home, targets)
    except RegistryError as error:
        return {}, f"Tolerances of the registry are not used, since its file has errors: {error}\n"
    return {target: tolerance for target, tolerance in found.items() if tolerance != TOLERANCE}, ""


@contextlib.contextmanager
def bind_each_case(trainer: Any) -> Iterator[None]:
    """Let nnU-Net's validation predict each case in its own context, for the targets that are trained there.

    Its loop loads a case, predicts it, and passes configuration and dataset.json to a worker that exports it: loading a
    case sets all of these. Evidence of the presence of targets is written from the logits, since the loop keeps only
    label maps.
    """
    bank, table = trainer.bank, trainer.table
    whole = trainer.dataset_class, trainer.configuration_manager, trainer.dataset_json
    labels = dict(zip(bank.names, bank.labels, strict=True))
    current, names = "", list(bank.names)

    class _BoundDataset(whole[0]):  # type: ignore[misc, valid-type]
        def load_case(self, identifier: str) -> Any:
            nonlocal current, names
            context = table.sources[table.find(identifier).source].context
            trainer.bind(context)
            trainer.configuration_manager = configure(whole[1], bank.form, context)
            current, names = identifier, bank.names_in(context)
            trainer.dataset_json = select_labels(whole[2], [labels[name] for name in names])
            return super().load_case(identifier)

    def note(logits: torch.Tensor) -> None:
        peaks = compute_peak_logits(logits, trainer.configuration_manager.spacing)
        write_peak_logits(Path(trainer.output_folder, _VALIDATION), current, dict(zip(names, peaks, strict=True)))

    trainer.dataset_class = _BoundDataset
    network = unwrap(trainer.network)
    network.on_image_logits = note
    try:
        yield
    finally:
        network.on_image_logits = None
        trainer.dataset_class, trainer.configuration_manager, trainer.dataset_json = whole
