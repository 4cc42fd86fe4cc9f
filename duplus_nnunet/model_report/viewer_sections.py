"""Makes the sections with images: predicts what was not predicted yet, within bounds, and reads the cases."""

import sys
from collections.abc import Mapping, Sequence

from duplus_nnunet.checkpoint_files import CHECKPOINTS
from duplus_nnunet.errors import DuplusError
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.model_report.across_contexts import plan_across_contexts
from duplus_nnunet.model_report.blocks import Block, Paragraph, Section, ViewedCase, Viewer
from duplus_nnunet.model_report.case_files import ModelCases, ShownCase
from duplus_nnunet.model_report.case_reading import read_case
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.model_report.prompt_switch import plan_prompt_switch
from duplus_nnunet.model_report.viewer_plan import Panel, PlannedViewer
from duplus_nnunet.model_report.worst_cases import plan_worst_cases
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.progress import LOG_EVERY, follow

MOST_PREDICTED = 6
PLANS = (plan_prompt_switch, plan_across_contexts, plan_worst_cases)


def make_viewer_sections(model: ModelCases, most: int = MOST_PREDICTED, device: str | None = None) -> list[Section]:
    """Make the sections with images of a model.

    Args:
        model: The cases of the model.
        most: Largest number of cases that are predicted; others without a predicted label map are shown without it.
        device: As for nnU-Net's `-device`; None: CUDA if there is one.

    Raises:
        ModelError: Cases have to be predicted, and the model cannot be loaded.
    """
    planned = [plan(model) for plan in PLANS]
    wanted = {panel.case.name: panel.case for viewer in planned for panel in viewer.panels}
    unpredicted = [case for case in wanted.values() if case.prediction is None]
    answers, failures = predict_cases(model.source, unpredicted[:most], device) if model.source.folds else ({}, {})
    notes = [Paragraph(note, "absent") for note in model.notes]
    if model.source.folds and unpredicted[most:]:
        names = ", ".join(case.name for case in unpredicted[most:])
        notes.append(Paragraph(f"At most {most} cases are predicted for a report; not: {names}.", "warning"))
    notes += [
        Paragraph(f"Case {name} could not be predicted: {reason}", "warning") for name, reason in failures.items()
    ]
    sections = [_make_section(model, viewer, answers) for viewer in planned]
    first = sections[0]
    return [Section(first.anchor, first.title, [*notes, *first.blocks]), *sections[1:]]


def predict_cases(
    source: ReportSource, cases: Sequence[ShownCase], device: str | None
) -> tuple[dict[str, CaseAnswer], dict[str, str]]:
    """Predict cases, each with all targets of its context, by the fold that did not see it or by all folds.

    Returns:
        The predictions by case identifier, and why others failed.

    Raises:
        ModelError: The model cannot be loaded.
    """
    answers: dict[str, CaseAnswer] = {}
    failures: dict[str, str] = {}
    predictors: dict[str | None, DuPLUSPredictor] = {}
    if cases:
        sys.stderr.write(f"Predicting {len(cases)} case(s) for the report.\n")
    with follow(len(cases), "predicting", "case", LOG_EVERY) as count:
        for case in cases:
            if case.fold not in predictors:
                predictors[case.fold] = _load(source, case.fold, device)
            try:
                files = [str(file) for file in case.images]
                answers[case.name] = predictors[case.fold].predict(files, context=case.context).answer
            except DuplusError as error:
                failures[case.name] = str(error)
            count()
    return answers, failures


def _load(source: ReportSource, fold: str | None, device: str | None) -> DuPLUSPredictor:
    """Load one fold, or all folds that were trained equally far."""
    folds = [each for each in source.folds if fold in (None, each.name)]
    checkpoint = min((each.checkpoint for each in folds if each.checkpoint), key=CHECKPOINTS.index)
    names = [each.name for each in folds if (each.folder / checkpoint).is_file()]
    return DuPLUSPredictor.from_folder(source.folder, names, checkpoint=checkpoint, device=device)


def _make_section(model: ModelCases, planned: PlannedViewer, answers: Mapping[str, CaseAnswer]) -> Section:
    if not planned.panels:
        return Section(planned.anchor, planned.title, [Paragraph(planned.reason, "absent")])
    blocks: list[Block] = [Paragraph(planned.text)]
    cases: list[ViewedCase] = []
    for panel in planned.panels:
        try:
            cases.append(read_case(model, panel.case, panel.targets, answers))
        except DuplusError as error:
            blocks.append(Paragraph(f"Case {panel.case.name} cannot be shown: {error}", "warning"))
    if cases:
        blocks.append(Viewer(planned.anchor, _name_targets(planned.panels), planned.caption, cases))
    return Section(planned.anchor, planned.title, blocks)


def _name_targets(panels: Sequence[Panel]) -> str:
    names = list(dict.fromkeys(target for panel in panels for target in panel.targets))
    return names[0] if len(names) == 1 else f"{len(names)} targets"
