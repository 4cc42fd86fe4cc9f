"""What a plans file names: planners, preprocessor, normalisation and label manager.

nnU-Net finds them here through the start-up hook.
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
