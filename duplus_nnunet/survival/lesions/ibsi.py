"""Computes IBSI features of a PET lesion by MIRP (extra `radiomics`).

Source: Zwanenburg et al. 2020 (doi 10.1148/radiol.2020191145), the features; Zwanenburg et al. 2024 (doi
10.21105/joss.06413), MIRP.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

# Bins of the texture features, in SUV, from 0 on.
BIN_WIDTH = 0.25
_PREFIXES = ("morph_", "loc_", "stat_", "ivh_", "ih_", "cm_", "rlm_", "szm_", "dzm_", "ngt_", "ngl_")


def require_mirp() -> Any:
    """Import MIRP.

    Raises:
        DataError: It is not installed.
    """
    try:
        import mirp
    except ImportError as error:
        raise DataError("IBSI features need MIRP. Install it: pip install 'duplus-nnunet[radiomics]'") from error
    return mirp


def compute_ibsi(mask: NDArray[np.bool_], pet: NDArray[Any], spacing: Sequence[float]) -> dict[str, float]:
    """Compute all IBSI features of a lesion at the image's own spacing, with bins of 0.25 SUV from 0 on.

    Args:
        mask: Mask with a voxel or more, (D, H, W).
        pet: PET image in SUV, of the same shape.
        spacing: Voxel size in mm, in the order of the axes.

    Returns:
        Values by MIRP's names of the features; those that are not defined are left out.

    Raises:
        DataError: MIRP is not installed.
    """
    import SimpleITK

    mirp = require_mirp()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, values in (("image", pet.astype(np.float32)), ("mask", mask.astype(np.uint8))):
            volume = SimpleITK.GetImageFromArray(values)
            volume.SetSpacing([float(size) for size in reversed(spacing)])
            files.append(str(Path(folder) / f"{name}.nii.gz"))
            SimpleITK.WriteImage(volume, files[-1])
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of defaults that are chosen here on purpose
            before = logging.root.manager.disable
            logging.disable(logging.INFO)
            try:
                frames = mirp.extract_features(
                    image=files[0], mask=files[1], image_modality="pet",
                    base_discretisation_method="fixed_bin_size", base_discretisation_bin_width=BIN_WIDTH,
                )  # fmt: skip
            finally:
                logging.disable(before)
    row = frames[0].iloc[0]
    features = {name: float(row[name]) for name in frames[0].columns if str(name).startswith(_PREFIXES)}
    return {name: value for name, value in features.items() if np.isfinite(value)}
