"""Compares the predictions of the demonstration with the truth: Dice and left/right confusion."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_SOURCES, TRUTH_FOLDER, PhantomSource
from duplus_nnunet.demo.cases import UnseenCase, list_annotated, name_separately
from duplus_nnunet.demo.scores import LabelMap, measure_confusion, score_cases
from duplus_nnunet.demo.workspace import Workspace
from duplus_nnunet.reporting.volumes import read_label_map

_SIDES = (("left kidney", "right kidney"), ("right kidney", "left kidney"))


@dataclass(frozen=True)
class Measurement:
    """Reads predictions and truth, both with the values of `LABELS`, and compares them.

    Attributes:
        workspace: Folder of the demonstration.
        bodies: Number of unseen bodies.
    """

    workspace: Workspace
    bodies: int

    def score(
        self,
        selection: str,
        choose: Callable[[PhantomSource], Sequence[str]] = list_annotated,
        separately: bool = False,
    ) -> dict[str, dict[str, list[float]]]:
        """Compute the Dice (0 to 1) of every chosen target in every unseen case, by contrast.

        Args:
            selection: Name of the predicted selection of targets.
            choose: Returns the targets of a contrast.
            separately: Whether each contrast was predicted separately; see `name_separately`.
        """
        return {
            source.name: score_cases(
                self._read_pairs(source, name_separately(selection, source) if separately else selection),
                {name: LABELS[name] for name in choose(source)},
            )
            for source in PHANTOM_SOURCES
        }

    def measure_sides(self, selection: str) -> dict[str, float]:
        """Compute the share of each predicted kidney that lies in the other one, 0 to 1, averaged over unseen cases."""
        confusion = {}
        for source in PHANTOM_SOURCES:
            for name, other in _SIDES if "left kidney" in list_annotated(source) else ():
                shares = [
                    measure_confusion(prediction, truth, LABELS[name], LABELS[other])
                    for prediction, truth in self._read_pairs(source, selection)
                ]
                confusion[f"share of the {name} in {source.name} inside the true {other}"] = float(np.mean(shares))
        return confusion

    def read_prediction(self, case: UnseenCase, selection: str) -> LabelMap:
        """Read a prediction, in array order (D, H, W)."""
        labels = json.loads((self.workspace.dataset / "dataset.json").read_text(encoding="utf-8"))["labels"]
        values = np.zeros(1 + max(labels.values()), dtype=np.uint8)
        for name, value in LABELS.items():
            values[labels[name]] = value
        return values[read_label_map(self.workspace.predictions(selection) / f"{case.name}.nii.gz")]

    def read_truth(self, case: UnseenCase) -> LabelMap:
        """Read the true labels of all structures of a case, in array order (D, H, W)."""
        return read_label_map(self.workspace.raw / case.source.dataset / TRUTH_FOLDER / f"{case.name}.nii.gz")

    def _read_pairs(self, source: PhantomSource, selection: str) -> list[tuple[LabelMap, LabelMap]]:
        cases = [UnseenCase(source, number) for number in range(self.bodies)]
        return [(self.read_prediction(case, selection), self.read_truth(case)) for case in cases]
