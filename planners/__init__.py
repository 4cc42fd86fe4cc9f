"""The classes that a plans file names, which nnU-Net finds here through the start-up hook.

These are planners, preprocessor, normalisation and label manager.
"""

from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.normalization import SUVNormalization
from duplus_nnunet.planners.planner import (
    DuPLUSPlanner,
    DuPLUSPlannerResEncL,
    DuPLUSPlannerResEncM,
    DuPLUSPlannerResEncXL,
)
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor

__all__ = [
    "DuPLUSLabelManager",
    "DuPLUSPlanner",
    "DuPLUSPlannerResEncL",
    "DuPLUSPlannerResEncM",
    "DuPLUSPlannerResEncXL",
    "DuPLUSPreprocessor",
    "SUVNormalization",
]
