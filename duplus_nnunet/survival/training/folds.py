"""Trained prognoses of all folds: in comes a model folder, out come models, features and who was held out.

Everything comes from the checkpoints and the tables beside them: neither images nor network are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duplus_nnunet.errors import ModelError
from duplus_nnunet.reporting.folds import list_trained_folds
from duplus_nnunet.survival.models.forecasts import Forecast, Task, cut_risks
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.table import Record
from duplus_nnunet.survival.training.checkpoint import LORA_TABLE_NAME, TABLE_NAME, VERSION
from duplus_nnunet.survival.training.lora import ADAPTER
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY, read_checkpoint

CHECKPOINT_NAME = "checkpoint_final.pth"
_UNTIED = (
    f"The models are of an earlier version, which did not write down whose {TABLE_NAME} is: that it belongs to the "
    "checkpoint beside it was not checked."
)


@dataclass(frozen=True)
class TrainedFold:
    """What was trained in a fold.

    Attributes:
        number: nnU-Net's.
        model: Fitted on the fold's training patients alone.
        frozen: Features as the base sees them.
        used: Features that the model takes: those, or the LoRA's.
        train: Patients that were learned from.
        held_out: Patients that were not.
        notes: What a reader has to know, such as an overlap that was allowed.
    """

    number: int
    model: SurvivalModel
    frozen: FeatureTable
    used: FeatureTable
    train: frozenset[str]
    held_out: frozenset[str]
    notes: tuple[str, ...]


def read_fold(folder: Path) -> TrainedFold:
    """Read a fold's folder.

    Raises:
        ModelError: Its training is not finished, or of another trainer.
        DataError: Its features cannot be read.
    """
    file = folder / CHECKPOINT_NAME
    state = read_checkpoint(file).get(SURVIVAL_KEY)
    if not isinstance(state, dict) or state.get("version") != VERSION or state["model"] is None:
        raise ModelError(f"{file} holds no finished prognosis. Train it by DuPLUSSurvivalTrainer, or finish it by --c.")
    model = SurvivalModel.from_plain(state["model"])
    seen = sorted({*state["patients"], *model.patients} & {*state["held_out"]})
    if seen:
        raise ModelError(
            f"{file} was trained on {len(seen)} patient(s) that it holds out, such as {seen[0]!r}: its scores would be "
            "no test. Train it anew."
        )
    keys = state.get("tables", {})
    frozen = _read_table(folder / TABLE_NAME, keys.get(""))
    used = _read_table(folder / LORA_TABLE_NAME, keys.get(ADAPTER)) if state["kept"] else frozen
    notes = (*state["notes"], *([] if "" in keys else [_UNTIED]))
    return TrainedFold(
        int(folder.name.removeprefix("fold_")), model, frozen, used,
        frozenset(state["patients"]), frozenset(state["held_out"]), notes,
    )  # fmt: skip


def _read_table(file: Path, key: str | None) -> FeatureTable:
    """Read features, and refuse those of another training; of old checkpoints, it is not known (None)."""
    again = f"Write them again: nnUNetv2_train ... {file.parent.name.removeprefix('fold_')} --val, as it was trained."
    if not file.is_file():
        raise ModelError(f"{file}, the features of the fold's patients, is not there. {again}")
    found = FeatureTable.from_npz(file)
    if key not in (None, found.key):
        raise ModelError(f"{file} holds features of another training than {CHECKPOINT_NAME} beside it. {again}")
    return found


def read_folds(folder: Path) -> tuple[TrainedFold, ...]:
    """Read all folds of a model folder whose training is finished; the fold "all" holds nobody out and is left out.

    Raises:
        ModelError: There is none.
    """
    names = [folder / f"fold_{name}" for name in list_trained_folds(folder, CHECKPOINT_NAME) if name != "all"]
    if not names:
        raise ModelError(f"{folder} has no fold_X/{CHECKPOINT_NAME} with patients held out. Give the model folder.")
    return tuple(sorted(map(read_fold, names), key=lambda fold: fold.number))


def group_folds(folds: Sequence[TrainedFold]) -> tuple[tuple[TrainedFold, ...], ...]:
    """Part folds into cross-validations: a new one begins with the first fold that holds out somebody again.

    Args:
        folds: In the order of their numbers.

    Raises:
        ModelError: They do not hold out the same patients each.
    """
    rounds: list[list[TrainedFold]] = []
    seen: set[str] = set()
    for fold in folds:
        if not rounds or seen & fold.held_out:
            rounds.append([])
            seen = set()
        rounds[-1].append(fold)
        seen |= fold.held_out
    everybody = [frozenset[str]().union(*(fold.held_out for fold in one)) for one in rounds]
    for one, held in zip(rounds, everybody, strict=True):
        if held != everybody[0]:
            first, other = (", ".join(str(fold.number) for fold in part) for part in (rounds[0], one))
            raise ModelError(
                f"Folds {first} hold out {len(everybody[0])} patients, and folds {other} hold out {len(held)}, not the "
                "same ones. Either a draw of folds is not finished: train the rest of it; or models were trained on "
                "different splits: train one of them anew."
            )
    return tuple(map(tuple, rounds))


def place(folds: Sequence[TrainedFold], records: Sequence[Record]) -> tuple[Fold, ...]:
    """Return the folds as places of records.

    Raises:
        ModelError: A patient of a fold has no record any more.
    """
    places = {record.patient: number for number, record in enumerate(records)}
    absent = sorted(patient for fold in folds for patient in fold.train | fold.held_out if patient not in places)
    if absent:
        raise ModelError(
            f"The models were trained with {absent[0]!r} ({len(absent)} such patients), who has no usable record now. "
            "Restore the clinical table that they were trained with."
        )
    return tuple(
        Fold(*(tuple(sorted(places[patient] for patient in side)) for side in (fold.train, fold.held_out)))
        for fold in folds
    )


@dataclass(frozen=True)
class TrainedForecast:
    """Lets a study ask the trained models: each foretells the patients that its fold held out, and nobody else.

    Attributes:
        folds: By the seed of their draw, and by the patients that each held out.
    """

    folds: Mapping[tuple[int, frozenset[str]], TrainedFold]

    @property
    def uses_images(self) -> bool:
        """Whether a model takes features of images."""
        return any(fold.model.code is not None for fold in self.folds.values())

    def __call__(self, task: Task) -> Forecast:
        """Foretell the held-out patients of a fold.

        Raises:
            ModelError: No model held them out.
        """
        fold = self.folds.get((task.seed, frozenset(record.patient for record in task.test)))
        if fold is None:
            raise ModelError("Held-out predictions were asked for of patients that no trained model held out.")
        found = fold.model.forecast(task.test, fold.used, task.times)
        notes = tuple(dict.fromkeys((*fold.notes, *fold.model.notes, *found.notes)))
        return replace(found, notes=notes, cut=cut_risks(fold.model.risks))
