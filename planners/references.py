"""Rounds the reference label maps that nnU-Net copies for its validation, if their values are not whole."""

import sys
from collections.abc import Iterator
from pathlib import Path

import SimpleITK
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.files import open_new_file
from duplus_nnunet.prompt_registry.raw_dataset import has_raw_dataset, open_raw_dataset

_FOLDER = "gt_segmentations"


def round_references(dataset: int | str, plans_name: str) -> list[str]:
    """Round the reference label maps of a preprocessed dataset, which nnU-Net's validation compares unrounded.

    Only files that store numbers with a point, or scale them, are read.

    Args:
        dataset: nnU-Net's name or number of the dataset.
        plans_name: Name of its plans.

    Returns:
        The names of the files that were rewritten; they are also noted on stderr.

    Raises:
        DataError: A label map holds a value that is not whole.
    """
    if not has_raw_dataset(str(dataset)):  # nnU-Net says so next
        return []
    raw = open_raw_dataset(str(dataset))
    folder = Path(nnUNet_preprocessed, raw.name)
    reader = PlansManager(str(folder / f"{plans_name}.json")).image_reader_writer_class
    rewritten = []
    for file in _list_fractional(folder / _FOLDER, raw.dataset_json["file_ending"]):
        label_map, properties = read_label_map(file, reader)
        if not label_map.rounded:
            continue
        with open_new_file(file) as new:
            reader().write_seg(label_map.labels[0], str(new), properties)
        rewritten.append(file.name)
    if rewritten:
        sys.stderr.write(f"note: {len(rewritten)} label map(s) in {folder / _FOLDER} were rounded as well.\n")
    return rewritten


def _list_fractional(folder: Path, ending: str) -> Iterator[Path]:
    """Yield the files whose values are not stored as whole numbers."""
    for file in sorted(folder.glob(f"*{ending}")):
        header = SimpleITK.ImageFileReader()
        header.SetFileName(str(file))
        try:
            header.ReadImageInformation()
        except RuntimeError:  # a format of another reader, which stores whole numbers
            continue
        if "float" in SimpleITK.GetPixelIDValueAsString(header.GetPixelID()):
            yield file
