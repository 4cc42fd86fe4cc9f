"""Draws the picture of the demonstration: one organ in three contrasts, and one image with several prompts.

Source: DuPLUS, arXiv 2510.03483, Figures 3 and 4 (arrangement of the panels).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_CT, PHANTOM_PET, PHANTOM_SOURCES, PhantomSource
from duplus_nnunet.demo.cases import UnseenCase, list_annotated
from duplus_nnunet.demo.measurement import Measurement
from duplus_nnunet.demo.scores import LabelMap, measure_dice
from duplus_nnunet.reporting.figure import FigureRow, SliceView, Volume, choose_view, save_figure
from duplus_nnunet.reporting.volumes import read_axial

# Percentile of an MR image that is shown as white, since MR intensities have no unit.
_BRIGHTEST = 99.5
_WINDOWS = {PHANTOM_CT.name: (-160.0, 320.0), PHANTOM_PET.name: (0.0, 4.0)}


@dataclass(frozen=True)
class _Scan:
    """One scan of the body in the picture."""

    case: UnseenCase
    volume: Volume
    view: SliceView
    truth: LabelMap


def draw(measurement: Measurement, targets: Sequence[str], everything: str) -> None:
    """Draw the first target in every contrast, and the other targets and all targets together in CT.

    Args:
        measurement: Reads the predictions and the truth of the first unseen body.
        targets: Targets that were predicted one at a time on the first body in all contrasts.
        everything: Name of the selection in which all targets were predicted.
    """
    scans = _read_scans(measurement, targets)
    shown = [(source, targets[0]) for source in PHANTOM_SOURCES] + [(PHANTOM_CT, name) for name in targets[1:]]
    rows = [_make_row(measurement, scans[source.name], name) for source, name in shown]
    scan = scans[PHANTOM_CT.name]
    annotated = list_annotated(PHANTOM_CT)
    truth = scan.truth * np.isin(scan.truth, [LABELS[name] for name in annotated])
    prediction = measurement.read_prediction(scan.case, everything)
    dice = np.mean([measure_dice(prediction, truth, LABELS[name]) for name in annotated])
    rows.append(FigureRow("all targets of CT", prediction, truth, scan.volume, scan.view, f"mean Dice {dice:.2f}"))
    save_figure(measurement.workspace.picture, rows, LABELS)


def _read_scans(measurement: Measurement, targets: Sequence[str]) -> dict[str, _Scan]:
    """Read the first unseen body in every contrast, with the same slice in all of them."""
    cases = {source.name: UnseenCase(source, 0) for source in PHANTOM_SOURCES}
    volumes = {name: _read_volume(measurement, case) for name, case in cases.items()}
    truths = {name: measurement.read_truth(case) for name, case in cases.items()}
    whole = truths[PHANTOM_CT.name]
    view = choose_view([whole * (whole == LABELS[name]) for name in targets] + [whole])
    first = volumes[PHANTOM_CT.name]
    return {name: _Scan(cases[name], volumes[name], view.find_in(first, volumes[name]), truths[name]) for name in cases}


def _read_volume(measurement: Measurement, case: UnseenCase) -> Volume:
    image, spacing = read_axial(measurement.workspace.images / f"{case.name}_0000.nii.gz")
    window = _WINDOWS.get(case.source.name) or (0.0, float(np.percentile(image, _BRIGHTEST)))
    return Volume(image, spacing, window)


def _make_row(measurement: Measurement, scan: _Scan, target: str) -> FigureRow:
    prediction = measurement.read_prediction(scan.case, target)
    only = scan.truth * (scan.truth == LABELS[target])
    note = f"Dice {measure_dice(prediction, only, LABELS[target]):.2f}"
    if target not in list_annotated(scan.case.source):
        note += f", never annotated in {scan.case.source.name}"
    prompt = _read_sentence(measurement, scan.case.source, target)
    return FigureRow(prompt, prediction, only, scan.volume, scan.view, note)


def _read_sentence(measurement: Measurement, source: PhantomSource, target: str) -> str:
    plans = json.loads((measurement.workspace.model / "plans.json").read_text(encoding="utf-8"))
    sentence: str = plans["duplus"]["contexts"][source.context]["target_prompts"][target][0]
    return sentence
