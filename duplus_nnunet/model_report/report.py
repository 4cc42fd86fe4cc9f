"""Makes the whole report on a model or a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.model_report.blocks import Section
from duplus_nnunet.model_report.case_files import OtherImages, find_model_cases
from duplus_nnunet.model_report.page import Report
from duplus_nnunet.model_report.viewer_sections import MOST_PREDICTED, make_viewer_sections


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        other: Images that are shown instead of those of the dataset.
        most_predicted: Largest number of cases that are predicted for it.
        device: As for nnU-Net's `-device`; None: CUDA if there is one.
    """

    other: OtherImages | None = None
    most_predicted: int = MOST_PREDICTED
    device: str | None = None


def make_report(model: str, options: ReportOptions) -> Report:
    """Make the report on a model."""
    cases = find_model_cases(Path(model), options.other)
    sections: Sequence[Section] = make_viewer_sections(cases, options.most_predicted, options.device)
    return Report(f"Report on {Path(model).resolve().name}", "", sections)
