"""Normalisation of quantitative uptake images: in comes a PET in SUV, out comes the logarithm, scaled."""

from typing import Any

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization

Image = np.ndarray[Any, np.dtype[np.float32]]

# A standardised uptake value above this was never one: the brightest bladders are near 100.
LARGEST_MEAN_SUV = 100.0


def compress(image: Any) -> Image:
    """Return log(1 + SUV), with what is negative set to 0: a lesion of 20 is 3, muscle of 0.7 still 0.5, air 0."""
    compressed: Image = np.log1p(np.maximum(image, 0), dtype=np.float32)
    return compressed


class SUVNormalization(ImageNormalization):
    """log(1 + SUV), minus mean and divided by standard deviation of the foreground of all training cases.

    SUV means the same in every patient, so that a case's own mean, which rises with its lesions, is not subtracted.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: Image, seg: Any = None) -> Image:
        """Normalise one channel, any shape; `log_mean` and `log_std` come from the plans' intensity properties."""
        properties: dict[str, float] = self.intensityproperties
        compressed = compress(image)
        compressed -= properties["log_mean"]
        compressed /= max(properties["log_std"], 1e-8)
        return compressed
