"""What a plans file names: planners and the label manager. nnU-Net finds them here through the start-up hook."""

from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.planner import (
    DuPLUSPlanner,
    DuPLUSPlannerResEncL,
    DuPLUSPlannerResEncM,
    DuPLUSPlannerResEncXL,
)

__all__ = [
    "DuPLUSLabelManager",
    "DuPLUSPlanner",
    "DuPLUSPlannerResEncL",
    "DuPLUSPlannerResEncM",
    "DuPLUSPlannerResEncXL",
]
