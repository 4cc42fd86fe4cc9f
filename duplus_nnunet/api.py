"""The public Python interface; everything else may change between versions."""

from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.prediction import Prediction
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.inference.scan import Kept, Picture, Scan
from duplus_nnunet.outputs.manifest import Manifest
from duplus_nnunet.outputs.probabilities import MapDescription, read_probabilities

__all__ = [
    "DuPLUSPredictor",
    "Kept",
    "Manifest",
    "MapDescription",
    "Options",
    "Picture",
    "Prediction",
    "Scan",
    "read_probabilities",
]
