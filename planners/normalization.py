"""Normalises PET images in standardised uptake values (SUV) on a logarithmic scale."""

from typing import Any

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization

Image = np.ndarray[Any, np.dtype[np.float32]]

# A larger mean is no standardised uptake value: even the brightest bladders are near 100.
LARGEST_MEAN_SUV = 100.0


def compress(image: Any) -> Image:
    """Return log(1 + SUV), with negative values set to 0: a lesion of 20 becomes 3, muscle of 0.7 0.5, air 0."""
    compressed: Image = np.log1p(np.maximum(image, 0), dtype=np.float32)
    return compressed


class SUVNormalization(ImageNormalization):
    """log(1 + SUV), minus the mean and divided by the standard deviation of the foreground of all training cases.

    SUV is comparable between patients, so the mean of the case, which increases with its lesions, is not subtracted.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: Image, seg: Any = None) -> Image:
        """Normalise one channel, any shape; `log_mean` and `log_std` come from the plans' intensity properties."""
        properties: dict[str, float] = self.intensityproperties
        compressed = compress(image)
        compressed -= properties["log_mean"]
        compressed /= max(properties["log_std"], 1e-8)
        return compressed
