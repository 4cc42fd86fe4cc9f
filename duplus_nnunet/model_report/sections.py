"""Makes the sections of numbers and charts of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.model_report.adapters import make_ablations, make_adapters
from duplus_nnunet.model_report.blocks import Section
from duplus_nnunet.model_report.calibration import make_calibration
from duplus_nnunet.model_report.feature_map import make_feature_map
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.model_report.prognosis import list_patients, make_prognosis
from duplus_nnunet.model_report.scores import make_scores
from duplus_nnunet.model_report.summary import make_manifest, make_summary
from duplus_nnunet.model_report.training_curves import make_training_curves
from duplus_nnunet.model_report.wording import make_wording


@dataclass(frozen=True)
class SectionOptions:
    """What the sections show beside what lies in the folder.

    Attributes:
        feature_map: Whether to compute the feature map, which runs the network on some windows of the images.
        device: As for nnU-Net's `-device`, for the feature map; None: CUDA if there is one.
        scores: scores.json of `duplus evaluate`, such as of a test set; None: those of the validation.
        wording: JSON file of `duplus prompts sensitivity`; None: none.
        calibration: calibration.json of `duplus evaluate --calibration`; None: none.
        prognosis: Folder that `duplus survival evaluate -o` wrote; None: none.
        adapters: Folders of adapters of this model.
        ablations: JSON file of benchmarks with ablations; None: none.
    """

    feature_map: bool = False
    device: str | None = None
    scores: Path | None = None
    wording: Path | None = None
    calibration: Path | None = None
    prognosis: Path | None = None
    adapters: Sequence[Path] = ()
    ablations: Path | None = None


def make_sections(source: ReportSource, options: SectionOptions) -> Sequence[Section]:
    """Make all sections, in the order in which they are read.

    Args:
        source: What is known of the model or dataset.
        options: What is shown beside.

    Raises:
        DuplusError: A file that the options name cannot be read.
    """
    sections = [make_summary(source)]
    if source.is_model:
        sections += [
            make_training_curves(source),
            make_scores(source, options.scores),
            make_feature_map(source, options.feature_map, options.device),
            make_wording(options.wording),
            make_calibration(options.calibration),
            make_adapters(source, options.adapters),
        ]
    sections += [make_prognosis(options.prognosis, list_patients(source))]
    sections += [make_ablations(options.ablations)] if options.ablations is not None else []
    return [*sections, make_manifest(source)]
