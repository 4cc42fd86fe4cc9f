"""Writes one binary mask per target (`--split`)."""

from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.files import open_new_file
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.outputs.naming import find_case_folder, name_files


def write_masks(answer: CaseAnswer, folder: Path, writer: Any, ending: str) -> tuple[Path, ...]:
    """Write FOLDER/CASE/TARGET.nii.gz for every target, including targets that are absent from the image.

    The name of a target that was not seen in training begins with UNSEEN.

    Args:
        answer: Prediction of the case.
        folder: Folder of the predictions.
        writer: nnU-Net's reader/writer of the model; masks are written on the image's own grid.
        ending: File ending of the model's label maps, such as `.nii.gz`.

    Returns:
        The files, in the order of the answer's targets; uint8, 1 in the target and 0 elsewhere.
    """
    case_folder = find_case_folder(folder, answer.case, answer.file_name)
    names = name_files([target.file_title for target in answer.targets])
    files = tuple(case_folder / f"{name}{ending}" for name in names)
    volume = np.zeros(answer.geometry.shape, np.uint8)
    for target, file in zip(answer.targets, files, strict=True):
        volume[target.box] = target.mask
        with open_new_file(file) as new:
            writer.write_seg(volume, str(new), dict(answer.geometry.properties))
        volume[target.box] = 0
    return files
