"""Makes the whole report on a model or a dataset."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from duplus_nnunet.model_report.blocks import Paragraph, Section, Table
from duplus_nnunet.model_report.case_files import OtherImages, find_cases
from duplus_nnunet.model_report.gathering import ReportSource, read_report_source
from duplus_nnunet.model_report.page import Report
from duplus_nnunet.model_report.prognosis import make_prognosis
from duplus_nnunet.model_report.sections import SectionOptions, make_sections
from duplus_nnunet.model_report.viewer_sections import MOST_PREDICTED, make_viewer_sections
from duplus_nnunet.outputs.manifest import current_time, list_versions

# The sections with images stand behind this one, since they show what the scores count.
_BEFORE_IMAGES = "scores"


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        sections: What the sections of numbers and charts show.
        other: Images that are shown instead of those of the dataset.
        most_predicted: Largest number of cases that are predicted for the report.
    """

    sections: SectionOptions = field(default_factory=SectionOptions)
    other: OtherImages | None = None
    most_predicted: int = MOST_PREDICTED


def make_report(path: str | os.PathLike[str], options: ReportOptions) -> Report:
    """Make the report on a model or a dataset.

    Args:
        path: A model folder, or a raw dataset: its folder, name or number.
        options: What it shows.

    Raises:
        DuplusError: It is neither, or a file of it or of the options cannot be read.
    """
    source = read_report_source(path)
    sections = list(make_sections(source, options.sections))
    images = _make_image_sections(source, options)
    anchors = [section.anchor for section in sections]
    place = anchors.index(_BEFORE_IMAGES) + 1 if _BEFORE_IMAGES in anchors else 1
    return Report(choose_title(source), _summarise(source), [*sections[:place], *images, *sections[place:]])


def make_prognosis_report(folder: Path) -> Report:
    """Make the report on a prognosis alone.

    Args:
        folder: Folder that `duplus survival evaluate -o FOLDER` wrote.

    Raises:
        DataError: A file of it cannot be read.
    """
    section, name = make_prognosis(folder), folder.resolve().name
    versions = [*list_versions().items(), ("this report was made", current_time())]
    title = "Versions and date of this report"
    manifest = Section("manifest", title, [Table("manifest", title, ("what", "value"), versions, len(versions))])
    return Report(f"Report on the prognosis {name}", "Cross-validated, beside other methods.", [section, manifest])


def choose_title(source: ReportSource) -> str:
    """Name the model or dataset; a model folder called "model" is named by its dataset."""
    kind = "model" if source.is_model else "dataset"
    name = source.name if source.name.casefold() != kind else f"of {source.dataset}"
    return f"Report on the {kind} {name}"


def _make_image_sections(source: ReportSource, options: ReportOptions) -> list[Section]:
    if source.bank is None and options.other is None:
        reason = source.missing.get("prompts") or source.missing.get("plans") or "There are no prompts."
        return [Section("images", "Images", [Paragraph(f"No images are shown. {reason}", "absent")])]
    model = find_cases(source, options.other, options.sections.scores)
    return make_viewer_sections(model, options.most_predicted, options.sections.device)


def _summarise(source: ReportSource) -> str:
    contexts = 0 if source.bank is None else len(source.bank.contexts)
    counts = {"target": len(source.targets), "context": contexts, "trained fold": len(source.folds)}
    counted = [f"{count} {what}" + ("" if count == 1 else "s") for what, count in counts.items() if count]
    return f"Dataset {source.dataset}: {', '.join(counted)}."
