"""Folds of a trained model: in comes its folder, out come their names."""

from pathlib import Path


def list_trained(folder: Path, checkpoint: str) -> tuple[str, ...]:
    """List the folds of a model's folder that have a checkpoint, by name: numbers and "all".

    A folder such as fold_0_old, which somebody put aside, is none.
    """
    names = (file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{checkpoint}"))
    return tuple(sorted(name for name in names if name.isdecimal() or name == "all"))
