"""The public Python interface; everything else may change between versions."""

from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.predictor import DuPLUSPredictor, Prediction
from duplus_nnunet.outputs.manifest import Manifest
from duplus_nnunet.outputs.probabilities import MapDescription, read_probabilities

__all__ = ["DuPLUSPredictor", "Manifest", "MapDescription", "Options", "Prediction", "read_probabilities"]
