"""Trained folds as a method of a study."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.training.folds import TrainedForecast

from .parts import make_record


def test_trained_models_predict_only_their_own_held_out_patients() -> None:
    task: Any = SimpleNamespace(seed=0, test=[make_record("ann")], times=np.array([1.0]))
    with pytest.raises(ModelError, match=r"\b1 patients"):
        TrainedForecast({})(task)
