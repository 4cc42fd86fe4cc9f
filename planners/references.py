"""Rounds the reference label maps that nnU-Net copies for its validation, if their values are not whole."""

from collections.abc import Iterator
from pathlib import Path

import SimpleITK
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.files import open_new_file

_FOLDER = "gt_segmentations"


def round_references(folder: Path, plans_name: str, ending: str) -> list[str]:
    """Round the reference label maps of a preprocessed dataset, which nnU-Net's validation compares unrounded.

    Only files that store numbers with a point, or scale them, are read.

    Args:
        folder: nnU-Net's folder of preprocessed data of the dataset.
        plans_name: Name of its plans.
        ending: File ending of label maps.

    Returns:
        The names of the files that were rewritten.

    Raises:
        DataError: A label map holds a value that is not whole.
    """
    reader = PlansManager(str(folder / f"{plans_name}.json")).image_reader_writer_class
    rewritten = []
    for file in _list_fractional(folder / _FOLDER, ending):
        label_map, properties = read_label_map(file, reader)
        if not label_map.rounded:
            continue
        with open_new_file(file) as new:
            reader().write_seg(label_map.labels[0], str(new), properties)
        rewritten.append(file.name)
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
