"""Writes lesion_peaks.json: uptake and volume of a lesion by MIRP, whose features follow IBSI's reference values.

Run it in an environment of its own:

    pip install mirp==2.7.0
    python tests/golden/make_lesion_peaks.py

The image is drawn from a seed; the lesion is a ball of 6 voxels. `loc_peak_glob` is the global intensity peak.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK
from mirp import extract_features

SEED, SPACING = 0, (3.0, 2.0, 2.0)
NAMES = ("loc_peak_glob", "morph_vol_approx", "stat_mean", "stat_max")


def main():
    pet = np.random.default_rng(SEED).gamma(2, 2, (20, 20, 20)).astype(np.float32)
    z, y, x = np.indices(pet.shape)
    mask = ((z - 10) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 <= 36).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.nii.gz") for name in ("image", "mask")}
        for name, values in (("image", pet), ("mask", mask)):
            volume = SimpleITK.GetImageFromArray(values)
            volume.SetSpacing(SPACING[::-1])
            SimpleITK.WriteImage(volume, files[name])
        options = {"base_discretisation_method": "fixed_bin_size", "base_discretisation_bin_width": 0.25}
        row = extract_features(**files, image_modality="pet", **options)[0].iloc[0]
    content = {"program": "MIRP 2.7.0", "seed": SEED, "spacing": SPACING} | {name: float(row[name]) for name in NAMES}
    Path(__file__).with_name("lesion_peaks.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
