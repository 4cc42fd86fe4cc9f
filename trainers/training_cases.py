"""Lists the training cases of a model, in its checkpoints and beside them, to find held-out patients among them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.text_files import load_json

FILE_NAME = "training_cases.json"
# Key of the training cases in a checkpoint, which nnU-Net's export to a zip file takes along, unlike the file.
CASES_KEY = "duplus_training_cases"
VERSION = 1
UNKNOWN: Literal["unknown"] = "unknown"


@dataclass(frozen=True)
class TrainingCases:
    """Cases that weights were trained on.

    Attributes:
        dataset: nnU-Net's name of the dataset.
        fold: nnU-Net's name of the fold.
        cases: Identifiers of the training cases.
        patients: Patients of the training cases, each once.
        base: Training cases of the weights that the training started from; "unknown" if they were not recorded, None if
            it started from scratch.
    """

    dataset: str
    fold: str
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    base: "TrainingCases | Literal['unknown'] | None" = None

    @property
    def lineage(self) -> "tuple[TrainingCases, ...]":
        """These training cases and, as far as known, all those of the weights that the training started from."""
        return (self, *self.base.lineage) if isinstance(self.base, TrainingCases) else (self,)

    @property
    def is_known(self) -> bool:
        """Whether the training cases are known back to a training from scratch."""
        return self.lineage[-1].base is None


def read_training_cases(folder: Path) -> TrainingCases | Literal["unknown"]:
    """Read the training cases of the model in a fold's folder; "unknown" if they were not recorded.

    Raises:
        DataError: The file exists, but cannot be read.
    """
    file = folder / FILE_NAME
    try:
        content = dict(load_json(file))
        version = content.pop("version")
        if version == VERSION:
            cases: TrainingCases = _FORM.validate_python(content)
            return cases
    except FileNotFoundError:
        return UNKNOWN
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{file}, the list of the model's training cases, cannot be read ({error}). Remove it if they are not "
            "known."
        ) from error
    raise DataError(
        f"{file} has version {version!r}, expected {VERSION}. Remove it if the training cases are not known."
    )


def find_training_cases(checkpoint: Mapping[str, Any], folder: Path) -> TrainingCases | Literal["unknown"]:
    """Find the training cases of a checkpoint: in it, or, if an earlier version wrote it, in the file of its folder.

    Raises:
        DataError: They cannot be read.
    """
    content = checkpoint.get(CASES_KEY)
    if content is None:
        return read_training_cases(folder)
    try:
        cases: TrainingCases = _FORM.validate_python(content)
    except ValidationError as error:
        raise DataError(
            f"The list of training cases in the checkpoint in {folder}, {CASES_KEY!r}, cannot be read ({error}). Take "
            "another checkpoint."
        ) from error
    return cases


def write_training_cases(folder: Path, cases: TrainingCases) -> None:
    """Write the training cases of a model to its fold's folder."""
    write_text(folder / FILE_NAME, json.dumps({"version": VERSION, **asdict(cases)}, indent=1) + "\n")


def note_training(trainer: Any) -> None:
    """List the training cases of a DuPLUSTrainer, for its checkpoints, and write them to its fold's folder."""
    if trainer.local_rank != 0:
        return
    cases = tuple(sorted(set(trainer.do_split()[0])))
    patients = tuple(sorted({trainer.table.find(name).patient for name in cases}))
    dataset, folder = trainer.plans_manager.dataset_name, Path(trainer.output_folder)
    now = TrainingCases(dataset, str(trainer.fold), cases, patients, trainer.base_cases)
    if trainer.current_epoch:
        now = continue_from(trainer.training_cases or read_training_cases(folder), now)
    trainer.training_cases = now
    write_training_cases(folder, now)


def continue_from(before: TrainingCases | Literal["unknown"], now: TrainingCases) -> TrainingCases:
    """Add the training cases from before a training was continued: the split may have changed in between."""
    if not isinstance(before, TrainingCases):
        return TrainingCases(now.dataset, now.fold, now.cases, now.patients, UNKNOWN)
    cases, patients = (
        tuple(sorted({*new, *old})) for new, old in ((now.cases, before.cases), (now.patients, before.patients))
    )
    return TrainingCases(now.dataset, now.fold, cases, patients, before.base)


FindPatient = Callable[[str], str | None]


def list_seen(trained: TrainingCases, find_patient: FindPatient | None = None) -> set[str]:
    """List all names of training cases and their patients.

    Args:
        trained: The training cases.
        find_patient: Finds the patient, as the clinical table names them, in a case identifier.
    """
    patients = () if find_patient is None else filter(None, map(find_patient, trained.cases))
    return {*trained.cases, *trained.patients, *patients}


def find_overlap(
    base: TrainingCases, held_out: Mapping[str, Sequence[str]], find_patient: FindPatient | None = None
) -> list[str]:
    """Find held-out patients whom the base was trained on.

    Args:
        base: Training cases of the base.
        held_out: Patients, each with all their names: in the clinical table, in the table of cases, in case
            identifiers.
        find_patient: Finds the patient in a case identifier, which may be of another dataset; None: only names are
            compared.
    """
    seen = {name for trained in base.lineage for name in list_seen(trained, find_patient)}
    return sorted(patient for patient, names in held_out.items() if seen & {patient, *names})


Base = TrainingCases | Literal["unknown"] | None
_FORM: TypeAdapter[Any] = TypeAdapter(TrainingCases)
_BASE: TypeAdapter[Any] = TypeAdapter(Base)


def parse_base(content: Any) -> Base:
    """Read from plain data the training cases of the weights that a training started from."""
    base: Base = _BASE.validate_python(content)
    return base
