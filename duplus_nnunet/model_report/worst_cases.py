"""Plans the section with pictures of the held-out cases that the model segments worst."""

import math

from duplus_nnunet.model_report.case_files import ModelCases
from duplus_nnunet.model_report.viewer_plan import Panel, PlannedViewer

ANCHOR = "worst-cases"
_TITLE = "Worst cases"
_MOST = 4


def plan_worst_cases(model: ModelCases) -> PlannedViewer:
    """Plan the cases with the lowest Dice of a target, each with that target, four at most."""
    known = {case.name: case for case in model.cases if case.prediction is not None}
    values = sorted(
        (score.dice, name, target)
        for name, case in model.scores.items()
        if name in known
        for target, score in case.targets.items()
        if not math.isnan(score.dice)
    )
    chosen: dict[str, Panel] = {}
    for _, name, target in values:
        if len(chosen) < _MOST and name not in chosen:
            chosen[name] = Panel(known[name], (target,))
    if not chosen:
        reason = (
            "Worst cases cannot be shown: no fold has validation scores of cases whose images are available. Run "
            "nnUNetv2_train with --val to validate a trained fold."
        )
        return PlannedViewer(ANCHOR, _TITLE, "", reason=reason)
    text = "The held-out cases with the lowest Dice of any target, worst first. Each shows the target in question only."
    return PlannedViewer(ANCHOR, _TITLE, text, caption="A case is shown once.", panels=list(chosen.values()))
