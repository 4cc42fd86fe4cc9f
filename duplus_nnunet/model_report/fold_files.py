"""Reads what a trained fold left behind: its log, its scores, and what its weights are."""

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duplus_nnunet.checkpoint_files import CHECKPOINTS, read_checkpoint
from duplus_nnunet.errors import DuplusError
from duplus_nnunet.model_report.drawn_shares import read_drawn_shares
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.score_files import JSON_NAME, Tolerances, read_case_scores
from duplus_nnunet.table_files import read_json
from duplus_nnunet.trainers.training_cases import UNKNOWN, TrainingCases, find_training_cases

# nnU-Net's fold that trains on all cases, and validates on them too.
ALL = "all"
_DEBUG = "debug.json"

# A source and a target.
Pair = tuple[str, str]


@dataclass(frozen=True)
class TrainingLog:
    """What nnU-Net logs in each of N epochs; a value that is not known is NaN.

    Attributes:
        training_loss: Loss of the training batches, (N), lower is better.
        validation_loss: Loss of the validation batches, (N), lower is better.
        learning_rate: Learning rate, (N).
        dice: Online Dice (of validation patches, 0 to 1, higher is better) by source and target, (N) each.
        seconds: Duration of each epoch in s, (N).
        ended: When the last epoch ended, in s since 1970; NaN if it is not known.
    """

    training_loss: Sequence[float]
    validation_loss: Sequence[float]
    learning_rate: Sequence[float]
    dice: Mapping[Pair, Sequence[float]] = field(default_factory=dict)
    seconds: Sequence[float] = ()
    ended: float = math.nan

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(self.training_loss)


@dataclass(frozen=True)
class FoldSource:
    """A trained fold.

    Attributes:
        name: nnU-Net's name, such as "0" or "all".
        folder: Its folder.
        checkpoint: File name of the checkpoint that was read; empty if there is none.
        trainer: Name of the trainer's class.
        parameters: Number of parameters of the network.
        log: Its training log.
        training_cases: Cases that it was trained on; None if they were not recorded.
        scores: Scores of its validation by case; empty if there are none.
        tolerances: Tolerances of the NSD of these scores.
        drawn: Share of the training images by source: pairs of an epoch from 1 and a share, 0 to 1; empty if unknown.
        torch: Version of PyTorch that trained it, and the device; empty if unknown.
        missing: Why a part cannot be shown, by its name ("log", "scores", "dice").
    """

    name: str
    folder: Path
    checkpoint: str = ""
    trainer: str = ""
    parameters: int | None = None
    log: TrainingLog | None = None
    training_cases: TrainingCases | None = None
    scores: Mapping[str, CaseScore] = field(default_factory=dict)
    tolerances: Tolerances | None = None
    drawn: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    torch: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def validation(self) -> Path:
        """Folder of the predicted validation cases."""
        return self.folder / "validation"


def list_fold_folders(model: Path) -> dict[str, Path]:
    """List the folders of folds that have a checkpoint, by the name of the fold."""
    folders = {folder.name.removeprefix("fold_"): folder for folder in sorted(model.glob("fold_*"))}
    return {
        name: folder
        for name, folder in folders.items()
        if (name.isdecimal() or name == ALL) and any((folder / file).is_file() for file in CHECKPOINTS)
    }


def read_fold(name: str, folder: Path, pairs: Sequence[Pair]) -> FoldSource:
    """Read a fold; what is missing or damaged is left out, with the reason.

    Args:
        name: nnU-Net's name of the fold.
        folder: Its folder.
        pairs: All pairs of a source and a target in the plans, in their order. They name the online Dice where
            nnU-Net's debug.json, which has the names, is not there.
    """
    missing: dict[str, str] = {}
    scores, tolerances = _read_scores(name, folder, missing)
    debug = _read_debug(folder)
    file = next((file for file in CHECKPOINTS if (folder / file).is_file()), "")
    try:
        checkpoint = read_checkpoint(folder / file)
        trained = find_training_cases(checkpoint, folder)
    except DuplusError as error:
        missing["log"] = str(error)
        return FoldSource(name, folder, scores=scores, tolerances=tolerances, missing=missing)
    if file != CHECKPOINTS[0]:
        missing["final"] = f"Fold {name} has no {CHECKPOINTS[0]}: its training is not finished, or was stopped."
    return FoldSource(
        name=name,
        folder=folder,
        checkpoint=file,
        trainer=str(checkpoint.get("trainer_name", "")),
        parameters=count_parameters(checkpoint["network_weights"]),
        log=_read_log(name, checkpoint.get("logging"), _read_pairs(debug) or pairs, missing),
        training_cases=None if trained == UNKNOWN else trained,
        scores=scores,
        tolerances=tolerances,
        drawn=read_drawn_shares(folder, list(dict.fromkeys(source for source, _ in pairs))),
        torch=_describe_torch(debug),
        missing=missing,
    )


def count_parameters(weights: Mapping[str, Any]) -> int:
    """Count the parameters of a network, each once: nnU-Net's layers are registered under several names.

    The stored embeddings of texts are not counted, since they are not trained.
    """
    sizes = {(value.data_ptr(), tuple(value.shape)): value.numel() for name, value in weights.items() if _counts(name)}
    return sum(sizes.values())


def _counts(name: str) -> bool:
    return not name.removeprefix("module.").removeprefix("_orig_mod.").startswith("texts.")


def _read_scores(name: str, folder: Path, missing: dict[str, str]) -> tuple[Mapping[str, CaseScore], Tolerances | None]:
    file = folder / "validation" / JSON_NAME
    if not file.is_file():
        missing["scores"] = (
            f"Fold {name} has no validation/{JSON_NAME}: it was not validated. Run nnUNetv2_train again with the same "
            "arguments and --val."
        )
        return {}, None
    try:
        return read_case_scores(file)
    except DuplusError as error:
        missing["scores"] = str(error)
        return {}, None


def _read_debug(folder: Path) -> Mapping[str, Any]:
    """Read nnU-Net's description of a trainer; empty if there is none, as in an exported model."""
    try:
        content = read_json(folder / _DEBUG, "It is not needed.")
    except DuplusError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_pairs(debug: Mapping[str, Any]) -> list[Pair]:
    """Read the source and target of each online Dice, which debug.json has as text of a Python dictionary."""
    try:
        content = ast.literal_eval(str(debug.get("_pairs", "")))
        pairs = [(str(source), str(target)) for source, target in sorted(content, key=content.__getitem__)]
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        return []
    return pairs


def _describe_torch(debug: Mapping[str, Any]) -> str:
    parts = [("PyTorch", "torch_version"), ("on", "device"), ("", "gpu_name")]
    known = [f"{word} {debug[key]}".strip() for word, key in parts if debug.get(key) not in (None, "None", "")]
    return " ".join(known)


def _read_log(name: str, content: Any, pairs: Sequence[Pair], missing: dict[str, str]) -> TrainingLog | None:
    if content is None:
        missing["log"] = f"The checkpoint of fold {name} has no training log, as of a model made smaller for sharing."
        return None
    try:
        training, validation = _to_numbers(content["train_losses"]), _to_numbers(content["val_losses"])
        rates = _to_numbers(content["lrs"])
    except (KeyError, TypeError, ValueError) as error:
        missing["log"] = f"The checkpoint of fold {name} has no training log ({type(error).__name__}: {error})."
        return None
    epochs = min(len(training), len(validation))
    starts, ends = (_read_times(content, f"epoch_{part}_timestamps", epochs) for part in ("start", "end"))
    return TrainingLog(
        training[:epochs],
        validation[:epochs],
        _fill(rates, epochs),
        _read_dice(name, content.get("dice_per_class_or_region"), epochs, pairs, missing),
        [end - start for start, end in zip(starts, ends, strict=True)],
        ends[-1] if ends else math.nan,
    )


def _read_times(content: Mapping[str, Any], key: str, epochs: int) -> list[float]:
    try:
        return _fill(_to_numbers(content[key]), epochs)
    except (KeyError, TypeError, ValueError):
        return [math.nan] * epochs


def _read_dice(
    name: str, rows: Any, epochs: int, pairs: Sequence[Pair], missing: dict[str, str]
) -> dict[Pair, list[float]]:
    """Read the online Dice of each pair; empty if their number is not that of the pairs, so that names would be wrong.

    A rate of `nan` is of an epoch in which no validation patch held the target.
    """
    try:
        table = [_to_numbers(row) for row in rows][:epochs]
    except (TypeError, ValueError):
        table = []
    widths = {len(row) for row in table}
    if widths != {len(pairs)}:
        missing["dice"] = (
            f"The online Dice of fold {name} is not shown by target: its log has {_join(widths)} values an epoch, and "
            f"the plans name {len(pairs)} pairs of a source and a target."
        )
        return {}
    return {pair: _fill([row[number] for row in table], epochs) for number, pair in enumerate(pairs)}


def _join(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers))) or "no"


def _to_numbers(values: Any) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _fill(values: list[float], length: int) -> list[float]:
    return (values + [math.nan] * length)[:length]
