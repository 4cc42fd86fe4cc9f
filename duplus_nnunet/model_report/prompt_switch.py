"""Plans the section in which only the target prompt differs between the masks of one image.

Source: DuPLUS, arXiv 2510.03483, Figure 3 (what is compared).
"""

from duplus_nnunet.model_report.case_files import ModelCases
from duplus_nnunet.model_report.viewer_plan import Panel, PlannedViewer, choose_case, list_targets

ANCHOR = "prompt-switch"
_CONTEXTS = 2
_TITLE = "The prompt switch"
_TEXT = (
    "One network segments a different structure of the same image as soon as the target prompt is another. Choose "
    "targets and compare the prediction with the annotated truth."
)


def plan_prompt_switch(model: ModelCases) -> PlannedViewer:
    """Plan one case of each of the two contexts with most targets, with all of their targets."""
    sizes = {name: len(context.trained) for name, context in model.form.contexts.items()}
    panels: list[Panel] = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        case = choose_case(model, [case for case in model.cases if case.context == name])
        if case is not None and len(panels) < _CONTEXTS:
            panels.append(Panel(case, list_targets(model, case)))
    reason = "" if panels else "The prompt switch cannot be shown without images of the model's contexts."
    return PlannedViewer(ANCHOR, _TITLE, _TEXT, panels=panels, reason=reason)
