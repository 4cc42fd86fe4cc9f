"""Three phantom datasets, each as one scanner and one group of readers would leave it, to be composed into one.

In: numbers of cases and a seed. Out: the raw datasets 901 (CT), 902 (MR) and 903 (PET). Their label sets overlap, in an
order and a spelling of their own, and the prompts.yaml of each says what its labels mean. In some MR images nobody
contoured the stomach. The training images are of different bodies, the test images of the same ones in all three.
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

# Of all seven structures, whatever the dataset's own labels are, with the values of `LABELS`.
TRUTH_FOLDER = "truthTs"

_TEST_BODIES = 1
_LEFT_OUT_EVERY = 3


@dataclass(frozen=True)
class PhantomSource:
    """One phantom dataset.

    Attributes:
        number: nnU-Net's, 901 or more; bodies to train on are drawn by it.
        name: What stands for the modality in names, such as `CT`.
        modality: Spelled out, for the context prompt.
        scan: How its cases are scanned.
        labels: Which structure a label of its dataset.json means, in the order of their values from 1.
        left_out: Structures that nobody contoured in every third training case.
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
        """Name a case of a part (`train`, `test`); test cases of one number are of one body in all sources."""
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

    Beside nnU-Net's folders each has `truthTs`: the label maps of its test cases with all seven structures, so that
    those can be scored too that were never annotated in it.

    Args:
        raw: nnU-Net's folder of raw datasets.
        training_cases: Number of cases in imagesTr and labelsTr of each.
        test_cases: Number of cases in imagesTs and labelsTs of each.
        seed: The same seed gives the same cases, whatever their number.
        sources: What to write.

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
    """Turn values of `LABELS` into those of a source; what it has no label for, or is left out, becomes background."""
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
