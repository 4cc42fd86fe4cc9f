"""The cases of a training: in comes nnU-Net's folder for preprocessed data, out come a table and bound networks."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes

from duplus_nnunet.data.case_table import FILE_NAME, Case, CaseTable, Source, read_case_table
from duplus_nnunet.errors import PlansError
from duplus_nnunet.planners.context_plans import configure
from duplus_nnunet.planners.label_manager import select_labels
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.reporting.score_text import write_table
from duplus_nnunet.reporting.validation import score_validation

_TRUTH = "gt_segmentations"


def open_table(plans: Mapping[str, Any], folder: str, bank: PromptBank) -> CaseTable:
    """Read the table that planning left beside the plans; of older plans, take every target for annotated everywhere.

    Raises:
        PlansError: There is none, and the plans say that cases differ.
        DataError: It cannot be read.
    """
    table = read_case_table(folder)
    if table is not None:
        return table
    partial = [target["name"] for target in bank.targets if target.get("missing", "absent") != "absent"]
    if len(bank.contexts) > 1 or partial:
        reason = f"{len(bank.contexts)} contexts" if len(bank.contexts) > 1 else f"{partial[0]!r} not always annotated"
        raise PlansError(
            f"{folder} has no {FILE_NAME}, which says what is annotated in which case, but the plans "
            f"{plans.get('plans_name')!r} have {reason}. Plan and preprocess the dataset again."
        )
    names = tuple(bank.names)
    source = Source(str(plans.get("dataset_name", "")), bank.default_context, names, ())
    truth = Path(folder, _TRUTH)
    identifiers = sorted(file.name.split(".")[0] for file in truth.iterdir()) if truth.is_dir() else []
    return CaseTable({"all": source}, {name: Case("all", name, names, ()) for name in identifiers})


def score(trainer: Any) -> str:
    """Score the validation by source and target, put nnU-Net's summary right, and say what counts."""
    aggregate = score_validation(
        Path(trainer.output_folder, "validation"),
        Path(trainer.preprocessed_dataset_folder_base, _TRUTH),
        trainer.plans_manager.image_reader_writer_class,
        trainer.dataset_json,
        list(zip(trainer.bank.names, trainer.bank.labels, strict=True)),
        trainer.table,
        default_num_processes,
    )
    return "Of annotated targets alone, by source (scores.json, scores.csv):\n" + "\n".join(write_table(aggregate))


@contextlib.contextmanager
def bind_each_case(trainer: Any) -> Iterator[None]:
    """Let nnU-Net's validation predict each case in its own context, for the targets that were trained there.

    Its loop loads a case, predicts, and hands configuration and dataset.json to a worker that exports: all of them are
    the case's own from the moment it is loaded.
    """
    bank, table = trainer.bank, trainer.table
    whole = trainer.dataset_class, trainer.configuration_manager, trainer.dataset_json
    labels = dict(zip(bank.names, bank.labels, strict=True))

    class _BoundDataset(whole[0]):  # type: ignore[misc, valid-type]
        def load_case(self, identifier: str) -> Any:
            context = table.sources[table.find(identifier).source].context
            trainer.bind(context)
            trainer.configuration_manager = configure(whole[1], trainer.plans_manager.plans, context)
            asked = [labels[name] for name in bank.names_in(context)]
            trainer.dataset_json = select_labels(whole[2], asked)
            return super().load_case(identifier)

    trainer.dataset_class = _BoundDataset
    try:
        yield
    finally:
        trainer.dataset_class, trainer.configuration_manager, trainer.dataset_json = whole
