"""Writes three raw datasets of phantoms, 901 (CT), 902 (MR) and 903 (PET), that can be composed into one.

Their label sets overlap but differ in order and spelling, and the prompts.yaml of each defines its labels. In some MR
images the stomach is not annotated. Training images show different bodies; test images show the same bodies in all
three modalities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import (
    Phantom,
    describe_dataset,
    make_phantom,
    open_new_dataset,
    save_volume,
    write_case,
)
from duplus_nnunet.data.scans import CT, MR, PET, Scan
from duplus_nnunet.prompt_registry.finding import FILE_NAME

# Folder of label maps of all seven structures, with the values of `LABELS`, whatever the labels of the dataset.
TRUTH_FOLDER = "truthTs"

_TEST_BODIES = 1
_LEFT_OUT_EVERY = 3


@dataclass(frozen=True)
class PhantomSource:
    """One phantom dataset.

    Attributes:
        number: nnU-Net's dataset number, 901 or more; also part of the seed of the training bodies.
        name: Short name of the modality, such as `CT`.
        modality: Modality, spelled out for the context prompt.
        scan: The scanner.
        labels: The structure of each label in dataset.json, in the order of their values from 1.
        left_out: Structures that are not annotated in every third training case.
    """

    number: int
    name: str
    modality: str
    scan: Scan
    labels: Mapping[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """nnU-Net's name of the dataset."""
        return f"Dataset{self.number}_Phantom{self.name}"

    @property
    def context(self) -> str:
        """Name of its context."""
        return f"phantom_{self.name.casefold()}"

    def name_case(self, part: str, number: int) -> str:
        """Name a case of a part (`train`, `test`); test cases with equal numbers show the same body in all sources."""
        return f"{self.name.casefold()}_{part}_{number:03d}"


PHANTOM_CT = PhantomSource(
    number=901,
    name="CT",
    modality="computed tomography",
    scan=CT,
    labels={
        "Spleen": "spleen",
        "KidneyR": "right kidney",
        "KidneyL": "left kidney",
        "Liver": "liver",
        "Spine": "spine",
    },
)
PHANTOM_MR = PhantomSource(
    number=902,
    name="MR",
    modality="magnetic resonance imaging",
    scan=MR,
    labels={
        "liver": "liver",
        "left_kidney": "left kidney",
        "right_kidney": "right kidney",
        "stomach": "stomach",
    },
    left_out=("stomach",),
)
PHANTOM_PET = PhantomSource(
    number=903,
    name="PET",
    modality="positron emission tomography",
    scan=PET,
    labels={"abdominal_aorta": "aorta", "lien": "spleen", "hepar": "liver"},
)
PHANTOM_SOURCES = (PHANTOM_CT, PHANTOM_MR, PHANTOM_PET)


def write_phantom_sources(
    raw: Path,
    training_cases: int,
    test_cases: int,
    seed: int,
    sources: Sequence[PhantomSource] = PHANTOM_SOURCES,
) -> None:
    """Write the raw datasets.

    Each also has a folder `truthTs` with label maps of all seven structures in its test cases, so that predictions of
    structures that are never annotated in its training cases can be scored.

    Args:
        raw: nnU-Net's folder of raw datasets.
        training_cases: Number of cases in imagesTr and labelsTr of each.
        test_cases: Number of cases in imagesTs and labelsTs of each.
        seed: The same seed gives the same cases, whatever their number.
        sources: The datasets.

    Raises:
        DataError: One of the datasets exists already.
    """
    for source in sources:
        with open_new_dataset(raw / source.dataset) as folder:
            for number in range(training_cases):
                phantom = make_phantom(seed, source.number, number, source.scan)
                annotated = replace(phantom, labels=annotate(phantom.labels, source, _list_left_out(source, number)))
                write_case(folder, "Tr", source.name_case("train", number), annotated)
            for number in range(test_cases):
                _write_test_case(folder, source, number, make_phantom(seed, _TEST_BODIES, number, source.scan))
            values = {label: value for value, label in enumerate(source.labels, start=1)}
            describe_dataset(folder, values, source.scan.channel, training_cases)
            text = yaml.safe_dump(_describe_prompts(source), sort_keys=False)
            (folder / FILE_NAME).write_text(text, encoding="utf-8")


def annotate(truth: NDArray[np.uint8], source: PhantomSource, left_out: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Replace the values of `LABELS` by those of a source; structures without a label or left out become background."""
    values = np.zeros(len(LABELS) + 1, dtype=np.uint8)
    for value, structure in enumerate(source.labels.values(), start=1):
        values[LABELS[structure]] = 0 if structure in left_out else value
    return values[truth]


def _list_left_out(source: PhantomSource, number: int) -> tuple[str, ...]:
    return source.left_out if number % _LEFT_OUT_EVERY == _LEFT_OUT_EVERY - 1 else ()


def _write_test_case(folder: Path, source: PhantomSource, number: int, phantom: Phantom) -> None:
    case = source.name_case("test", number)
    write_case(folder, "Ts", case, replace(phantom, labels=annotate(phantom.labels, source)))
    (folder / TRUTH_FOLDER).mkdir(exist_ok=True)
    save_volume(phantom.labels, phantom.affine, folder / TRUTH_FOLDER / f"{case}.nii.gz")


def _describe_prompts(source: PhantomSource) -> dict[str, Any]:
    targets: dict[str, dict[str, Any]] = {}
    for label, structure in source.labels.items():
        missing = {"missing": "not annotated"} if structure in source.left_out else {}
        targets[structure] = {"labels": [label], **missing}
    return {
        "dataset": f"Phantom{source.name}",
        "contexts": {source.context: {"modality": source.modality, "region": "abdomen"}},
        "targets": targets,
    }
