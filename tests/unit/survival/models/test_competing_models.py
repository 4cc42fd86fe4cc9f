"""Methods predict the cumulative incidence where events compete."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from survival_cohorts import SCHEMA, make_records

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.competing import forecast_incidence, predict_aalen_johansen
from duplus_nnunet.survival.models.competing_hazard import combine_causes, estimate_at
from duplus_nnunet.survival.models.forecasts import Forecast, Task
from duplus_nnunet.survival.models.methods import METHODS, forecast
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record
