"""The folder of the demonstration: its layout, what may be overwritten, and the environment of nnU-Net's commands."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.errors import DataError

DATASET_ID = "999"
DATASET_NAME = "Phantom"
DATASET = f"Dataset{DATASET_ID}_{DATASET_NAME}"

# Named like the environment variables of nnU-Net.
HOST_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

_MARK = ".duplus_demo"
_INTERMEDIATE = (*HOST_FOLDERS, "images", "one_body", "predictions", "control_models", "contexts.csv")
_RESULTS = ("demo.png", "demo.log", "dice.json", "report.html")


@dataclass(frozen=True)
class Workspace:
    """Paths of everything that the demonstration writes, in one folder; other files in it are not touched."""

    root: Path

    @property
    def raw(self) -> Path:
        """Folder of raw datasets: one for each contrast, and the composed one."""
        return self.root / "nnUNet_raw"

    @property
    def dataset(self) -> Path:
        """The composed raw dataset."""
        return self.raw / DATASET

    @property
    def plans(self) -> Path:
        """The plans file, whose settings the demonstration changes after planning."""
        return self.root / "nnUNet_preprocessed" / DATASET / "DuPLUSPlans.json"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.root / "nnUNet_results" / DATASET / "DuPLUSTrainer__DuPLUSPlans__3d_fullres"

    @property
    def images(self) -> Path:
        """Folder of the unseen images of all contrasts."""
        return self.root / "images"

    @property
    def one_body(self) -> Path:
        """Folder of the images of the unseen body in the picture, one for each contrast."""
        return self.root / "one_body"

    @property
    def contexts(self) -> Path:
        """Table of the context of each unseen case, for `--context`."""
        return self.root / "contexts.csv"

    @property
    def picture(self) -> Path:
        """The picture: images, predictions for several prompts, and the truth."""
        return self.root / "demo.png"

    @property
    def report(self) -> Path:
        """The report on the trained model."""
        return self.root / "report.html"

    @property
    def log(self) -> Path:
        """Log of the output of nnU-Net's commands."""
        return self.root / "demo.log"

    @property
    def scores(self) -> Path:
        """File of the Dice values."""
        return self.root / "dice.json"

    def control_model(self, name: str) -> Path:
        """Folder of a copy of the model with exchanged embeddings."""
        return self.root / "control_models" / name.replace(" ", "_")

    def predictions(self, name: str) -> Path:
        """Folder of the predictions of a selection of targets."""
        return self.root / "predictions" / name.replace(" ", "_")

    def prepare(self) -> None:
        """Create the folder, or remove an earlier demonstration from it.

        Raises:
            DataError: The folder has other files, or cannot be written to.
        """
        if self.root.exists() and not self.root.is_dir():
            raise DataError(f"{self.root} is a file; expected a new folder. Name another one with --folder.")
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / _MARK).exists():
            raise DataError(
                f"{self.root} contains files that do not belong to an earlier demonstration; they are not overwritten. "
                "Name a new or empty folder with --folder."
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove((*_INTERMEDIATE, *_RESULTS))
            (self.root / _MARK).touch()
        except OSError as error:
            raise DataError(
                f"{self.root} cannot be written ({error.strerror}). Name a writable folder with --folder."
            ) from error

    def clean(self) -> None:
        """Remove data, model and predictions; keep the report, the picture, the scores and the log."""
        self._remove(_INTERMEDIATE)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Build the environment of nnU-Net's commands: its folders in the workspace, and workers for the cores."""
        workers = str(min(count_cores(), 4))
        own = {name: str((self.root / name).resolve()) for name in HOST_FOLDERS}
        kept = {name: value for name, value in inherited.items() if name not in ("DUPLUS_TARGETS", "DUPLUS_CONTEXT")}
        return {
            **kept,
            **own,
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
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
