"""Plans the section with pictures of the held-out cases that the model segments worst."""

from duplus_nnunet.model_report.case_files import UNSEEN, ModelCases
from duplus_nnunet.model_report.scores import find_worst
from duplus_nnunet.model_report.viewer_plan import Panel, PlannedViewer

ANCHOR = "worst-cases"
_TITLE = "Worst cases"
_MOST = 4


def plan_worst_cases(model: ModelCases) -> PlannedViewer:
    """Plan the cases with the lowest Dice of a target, each with that target, four at most."""
    known = {case.name: case for case in model.cases if case.prediction is not None and case.origin in UNSEEN}
    worst = [each for each in find_worst(model.scores, len(model.scores)) if each.case in known]
    chosen = [Panel(known[each.case], (each.target,)) for each in worst[:_MOST]]
    if not chosen:
        reason = (
            "Worst cases cannot be shown: there are no scored predictions of cases that were not trained on and whose "
            "images are available. Run nnUNetv2_train with --val to validate a trained fold, or give --scores of "
            "predictions that duplus evaluate scored."
        )
        return PlannedViewer(ANCHOR, _TITLE, "", reason=reason)
    text = "The scored cases with the lowest Dice of any target, worst first. Each shows the target in question only."
    return PlannedViewer(ANCHOR, _TITLE, text, caption="A case is shown once.", panels=chosen)
