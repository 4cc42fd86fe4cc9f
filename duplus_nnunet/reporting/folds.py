"""Lists the trained folds of a model."""

from pathlib import Path


def list_trained_folds(folder: Path, checkpoint: str) -> tuple[str, ...]:
    """List the folds of a model folder that have a checkpoint, sorted by name: numbers and "all".

    Folders with other names, such as fold_0_old, are ignored.
    """
    names = (file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{checkpoint}"))
    return tuple(sorted(name for name in names if name.isdecimal() or name == "all"))
