"""Plans the section that shows one target in several contexts.

Source: DuPLUS, arXiv 2510.03483, Figure 4 (what is compared).
"""

from duplus_nnunet.model_report.case_files import ModelCases
from duplus_nnunet.model_report.viewer_plan import Panel, PlannedViewer, choose_case

ANCHOR = "across-contexts"
_MOST = 6
_TITLE = "One target across contexts"


def plan_across_contexts(model: ModelCases) -> PlannedViewer:
    """Plan a case of each context in which the most widely trained target was trained, six at most."""
    contexts = model.form.contexts
    spread = {
        target.name: [name for name, context in contexts.items() if target.name in context.trained]
        for target in model.form.targets
    }
    found = {target: _choose_cases(model, target, names) for target, names in spread.items()}
    best = max(found, key=lambda target: len(found[target]))
    if len(found[best]) < 2:
        reason = (
            "No target can be shown in several contexts: the model, or the images at hand, have none in two of them."
        )
        return PlannedViewer(ANCHOR, _TITLE, "", reason=reason)
    text = f"The target is {best} in every image; the context prompt follows the image."
    return PlannedViewer(ANCHOR, _TITLE, text, panels=found[best])


def _choose_cases(model: ModelCases, target: str, contexts: list[str]) -> list[Panel]:
    cases = [choose_case(model, [case for case in model.cases if case.context == name], target) for name in contexts]
    return [Panel(case, (target,)) for case in cases if case is not None][:_MOST]
