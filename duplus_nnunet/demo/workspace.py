"""The demonstration's folder: what lies where, what may be overwritten, and the environment nnU-Net's commands run in.

In: a folder named by the user. Out: a `Workspace` that touches nothing it did not make.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.errors import DataError

DATASET_ID = "999"
DATASET_NAME = "Phantom"
DATASET = f"Dataset{DATASET_ID}_{DATASET_NAME}"

# Named like the variables by which nnU-Net finds them.
HOST_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

_MARK = ".duplus_demo"
_INTERMEDIATE = (*HOST_FOLDERS, "images", "one_body", "predictions", "control_models", "contexts.csv")
_RESULTS = ("demo.png", "demo.log", "dice.json")


@dataclass(frozen=True)
class Workspace:
    """Everything the demonstration writes, under one folder."""

    root: Path

    @property
    def raw(self) -> Path:
        """nnU-Net's folder of raw datasets: one a contrast, and the composed one."""
        return self.root / "nnUNet_raw"

    @property
    def dataset(self) -> Path:
        """The composed raw dataset."""
        return self.raw / DATASET

    @property
    def plans(self) -> Path:
        """The plans file that planning writes, and whose settings the demonstration changes."""
        return self.root / "nnUNet_preprocessed" / DATASET / "DuPLUSPlans.json"

    @property
    def model(self) -> Path:
        """The trained model's folder."""
        return self.root / "nnUNet_results" / DATASET / "DuPLUSTrainer__DuPLUSPlans__3d_fullres"

    @property
    def images(self) -> Path:
        """Folder with the unseen images of all contrasts."""
        return self.root / "images"

    @property
    def one_body(self) -> Path:
        """Folder with the images of the one unseen body that the picture shows, one a contrast."""
        return self.root / "one_body"

    @property
    def contexts(self) -> Path:
        """Table of the context of each unseen case, for `--context`."""
        return self.root / "contexts.csv"

    @property
    def picture(self) -> Path:
        """The picture: images, predictions under several prompts, and the truth."""
        return self.root / "demo.png"

    @property
    def log(self) -> Path:
        """What nnU-Net's commands print."""
        return self.root / "demo.log"

    @property
    def scores(self) -> Path:
        """The Dice values as a file."""
        return self.root / "dice.json"

    def control_model(self, name: str) -> Path:
        """Folder of the model's copy with some of its embeddings exchanged."""
        return self.root / "control_models" / name.replace(" ", "_")

    def predictions(self, name: str) -> Path:
        """Folder of the predictions made under one selection of targets."""
        return self.root / "predictions" / name.replace(" ", "_")

    def prepare(self) -> None:
        """Make the folder, or empty it of an earlier demonstration.

        Raises:
            DataError: The folder holds something else.
        """
        if self.root.exists() and not self.root.is_dir():
            raise DataError(f"{self.root} is a file; `--folder` expects a new folder for the demonstration.")
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / _MARK).exists():
            raise DataError(
                f"{self.root} holds files that are not of an earlier demonstration, and nothing is overwritten. "
                "Name a new or empty folder by `--folder`."
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove((*_INTERMEDIATE, *_RESULTS))
            (self.root / _MARK).touch()
        except OSError as error:
            raise DataError(
                f"{self.root} cannot be written ({error.strerror}). Name a writable folder by `--folder`."
            ) from error

    def clean(self) -> None:
        """Remove what only nnU-Net needs: data, model and predictions. The picture, the scores and the log stay."""
        self._remove(_INTERMEDIATE)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Build the variables for nnU-Net's commands: its folders lie in here, its workers fit the processor."""
        workers = str(min(count_cores(), 4))
        mine = {name: str((self.root / name).resolve()) for name in HOST_FOLDERS}
        kept = {name: value for name, value in inherited.items() if name not in ("DUPLUS_TARGETS", "DUPLUS_CONTEXT")}
        return {
            **kept,
            **mine,
            "nnUNet_def_n_proc": workers,
            "nnUNet_n_proc_DA": str(max(1, count_cores() - 1)),
            "nnUNet_compile": "f",
            "PYTHONUNBUFFERED": "1",
        }

    def _remove(self, names: tuple[str, ...]) -> None:
        for name in names:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def count_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
