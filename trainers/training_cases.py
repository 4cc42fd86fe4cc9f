"""Whom a model was trained on: a file beside each checkpoint, so that nobody is held out who was seen before.

In come the cases of a training and what it started from, out comes training_cases.json, or the patients in it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.files import write_text

FILE_NAME = "training_cases.json"
VERSION = 1
UNKNOWN: Literal["unknown"] = "unknown"


@dataclass(frozen=True)
class TrainingCases:
    """Cases that weights have learned from.

    Attributes:
        dataset: nnU-Net's name of the dataset.
        fold: nnU-Net's.
        cases: Identifiers of the training cases.
        patients: Of the same, each once.
        base: Of the weights that the training started from; "unknown" if nobody wrote it down, None if it started
            from nothing.
    """

    dataset: str
    fold: str
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    base: "TrainingCases | Literal['unknown'] | None" = None

    @property
    def lineage(self) -> "tuple[TrainingCases, ...]":
        """This one and all that it started from, as far as known."""
        return (self, *self.base.lineage) if isinstance(self.base, TrainingCases) else (self,)

    @property
    def is_known(self) -> bool:
        """Whether it is known of all of them whom they were trained on."""
        return self.lineage[-1].base is None


def read_training_cases(folder: Path) -> TrainingCases | Literal["unknown"]:
    """Read whom the model of a fold's folder was trained on; "unknown" if it was not written down.

    Raises:
        DataError: The file is there, and cannot be read.
    """
    file = folder / FILE_NAME
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
        version = content.pop("version")
        if version == VERSION:
            found: TrainingCases = _FORM.validate_python(content)
            return found
    except FileNotFoundError:
        return UNKNOWN
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{file}, which says whom the model was trained on, cannot be read ({error}). Take it away if that is not "
            "known."
        ) from error
    raise DataError(f"{file} has version {version!r}, expected {VERSION}. Take it away if it is not known.")


def write_training_cases(folder: Path, found: TrainingCases) -> None:
    """Write whom a model is trained on."""
    write_text(folder / FILE_NAME, json.dumps({"version": VERSION, **asdict(found)}, indent=1) + "\n")


def note_training(trainer: Any) -> None:
    """Write down whom a trainer of ours trains on, in its fold's folder."""
    if trainer.local_rank != 0:
        return
    cases = tuple(sorted(set(trainer.do_split()[0])))
    patients = tuple(sorted({trainer.table.find(name).patient for name in cases}))
    dataset, folder = trainer.plans_manager.dataset_name, Path(trainer.output_folder)
    now = TrainingCases(dataset, str(trainer.fold), cases, patients, trainer.base_cases)
    write_training_cases(folder, continue_from(read_training_cases(folder), now) if trainer.current_epoch else now)


def continue_from(before: TrainingCases | Literal["unknown"], now: TrainingCases) -> TrainingCases:
    """Join what a training that goes on was trained on with what it is trained on now: the splits may be others."""
    if not isinstance(before, TrainingCases):
        return TrainingCases(now.dataset, now.fold, now.cases, now.patients, UNKNOWN)
    cases, patients = (
        tuple(sorted({*mine, *theirs})) for mine, theirs in ((now.cases, before.cases), (now.patients, before.patients))
    )
    return TrainingCases(now.dataset, now.fold, cases, patients, before.base)


FindPatient = Callable[[str], str | None]


def list_seen(one: TrainingCases, find_patient: FindPatient | None = None) -> set[str]:
    """List all names of whom a training saw: cases, patients, and patients as a clinical table finds them in cases."""
    patients = () if find_patient is None else filter(None, map(find_patient, one.cases))
    return {*one.cases, *one.patients, *patients}


def find_overlap(
    base: TrainingCases, held_out: Mapping[str, Sequence[str]], find_patient: FindPatient | None = None
) -> list[str]:
    """Find who is held out, but was trained on.

    Args:
        base: Whom the base was trained on.
        held_out: Patients, each with all names that they go by: in the clinical table, in the table of cases, in case
            identifiers.
        find_patient: Finds the patient in a case's name, which may be of another dataset; None: names alone are
            compared.
    """
    seen = {name for one in base.lineage for name in list_seen(one, find_patient)}
    return sorted(patient for patient, names in held_out.items() if seen & {patient, *names})


Base = TrainingCases | Literal["unknown"] | None
_FORM: TypeAdapter[Any] = TypeAdapter(TrainingCases)
_BASE: TypeAdapter[Any] = TypeAdapter(Base)


def parse_base(content: Any) -> Base:
    """Read from plain data what a training started from."""
    found: Base = _BASE.validate_python(content)
    return found
