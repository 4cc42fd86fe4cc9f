"""Reads the trained folds of a model folder, with their image features, for evaluation on held-out patients.

Uses the checkpoints and the feature tables beside them; neither images nor networks are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.reporting.folds import list_trained_folds
from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.table import Record
from duplus_nnunet.survival.training.checkpoint import LORA_TABLE_NAME, TABLE_NAME, VERSION
from duplus_nnunet.survival.training.lora import ADAPTER
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY

CHECKPOINT_NAME = "checkpoint_final.pth"
_UNTIED = (
    f"The models are of an earlier version that did not link {TABLE_NAME} to a checkpoint: whether it belongs to the "
    "checkpoint beside it was not checked."
)


@dataclass(frozen=True)
class TrainedFold:
    """Trained model of a fold.

    Attributes:
        number: nnU-Net's number of the fold.
        model: Model fitted on the training patients of the fold.
        frozen: Image features of the base model.
        used: Image features that the model uses: those, or the LoRA's.
        train: IDs of the training patients.
        held_out: IDs of the held-out patients.
        notes: Remarks for the reader, such as an allowed overlap.
    """

    number: int
    model: SurvivalModel
    frozen: FeatureTable
    used: FeatureTable
    train: frozenset[str]
    held_out: frozenset[str]
    notes: tuple[str, ...]


def read_fold(folder: Path) -> TrainedFold:
    """Read the folder of a fold.

    Raises:
        ModelError: Its training is unfinished, or it is of another trainer.
        DataError: Its image features cannot be read.
    """
    file = folder / CHECKPOINT_NAME
    state = read_checkpoint(file).get(SURVIVAL_KEY)
    if not isinstance(state, dict) or state.get("version") != VERSION or state["model"] is None:
        raise ModelError(
            f"{file} has no finished survival model. Train it with DuPLUSSurvivalTrainer, or continue with --c."
        )
    model = SurvivalModel.from_plain(state["model"])
    seen = sorted({*state["patients"], *model.patients} & {*state["held_out"]})
    if seen:
        raise ModelError(
            f"{file} was trained on {len(seen)} patient(s) of its held-out set, such as {seen[0]!r}: its scores would "
            "be optimistic. Retrain it."
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
    """Read the image features of a fold and check their key; None: not known for checkpoints of earlier versions."""
    advice = f"Write it again: nnUNetv2_train ... {file.parent.name.removeprefix('fold_')} --val, same options."
    if not file.is_file():
        raise ModelError(f"{file}, the image features of the patients of the fold, is missing. {advice}")
    table = FeatureTable.from_npz(file)
    if key not in (None, table.key):
        raise ModelError(f"{file} has the features of another training than {CHECKPOINT_NAME} beside it. {advice}")
    return table


def read_folds(folder: Path) -> tuple[TrainedFold, ...]:
    """Read all finished folds of a model folder, except the fold "all", which has no held-out patients.

    Raises:
        ModelError: There is none.
    """
    names = [folder / f"fold_{name}" for name in list_trained_folds(folder, CHECKPOINT_NAME) if name != "all"]
    if not names:
        raise ModelError(f"{folder} has no fold_X/{CHECKPOINT_NAME} with held-out patients. Give a model folder.")
    return tuple(sorted(map(read_fold, names), key=lambda fold: fold.number))


def group_folds(folds: Sequence[TrainedFold]) -> tuple[tuple[TrainedFold, ...], ...]:
    """Group folds into repeated cross-validations; a new one starts when a patient is held out again.

    Args:
        folds: Folds in the order of their numbers.

    Raises:
        ModelError: The cross-validations do not hold out the same patients.
    """
    repeats: list[list[TrainedFold]] = []
    seen: set[str] = set()
    for fold in folds:
        if not repeats or seen & fold.held_out:
            repeats.append([])
            seen = set()
        repeats[-1].append(fold)
        seen |= fold.held_out
    held_out = [frozenset[str]().union(*(fold.held_out for fold in repeat)) for repeat in repeats]
    for repeat, patients in zip(repeats, held_out, strict=True):
        if patients != held_out[0]:
            first, other = (", ".join(str(fold.number) for fold in part) for part in (repeats[0], repeat))
            raise ModelError(
                f"Folds {first} hold out {len(held_out[0])} patients, and folds {other} hold out {len(patients)}, not "
                "the same ones. Either folds of a repetition are missing (train them), or folds were trained on "
                "different splits (retrain them)."
            )
    return tuple(map(tuple, repeats))


def find_rows(folds: Sequence[TrainedFold], records: Sequence[Record]) -> tuple[Fold, ...]:
    """Return the folds as indices of records.

    Raises:
        ModelError: A patient of a fold has no record.
    """
    rows = {record.patient: row for row, record in enumerate(records)}
    missing = sorted(patient for fold in folds for patient in fold.train | fold.held_out if patient not in rows)
    if missing:
        raise ModelError(
            f"Patient {missing[0]!r} of the trained models ({len(missing)} such patients) has no usable record in the "
            "clinical table. Restore the table that the models were trained with."
        )
    return tuple(
        Fold(*(tuple(sorted(rows[patient] for patient in side)) for side in (fold.train, fold.held_out)))
        for fold in folds
    )


@dataclass(frozen=True)
class TrainedForecast:
    """Trained models as a method of a study: each model predicts the held-out patients of its own fold only.

    Attributes:
        folds: Trained folds by seed and held-out patients.
    """

    folds: Mapping[tuple[int, frozenset[str]], TrainedFold]

    @property
    def uses_images(self) -> bool:
        """Whether a model uses image features."""
        return any(fold.model.code is not None for fold in self.folds.values())

    def __call__(self, task: Task) -> Forecast:
        """Predict the held-out patients of a fold.

        Raises:
            ModelError: No trained model held them out.
        """
        fold = self.folds.get((task.seed, frozenset(record.patient for record in task.test)))
        if fold is None:
            raise ModelError(
                f"No trained model held out exactly these {len(task.test)} patients. Use the folds of the models."
            )
        forecast = fold.model.forecast(task.test, fold.used, task.times)
        notes = tuple(dict.fromkeys((*fold.notes, *fold.model.notes, *forecast.notes)))
        return replace(forecast, notes=notes, cut=choose_cut_off(fold.model.risks))
