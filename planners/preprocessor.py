"""nnU-Net's preprocessor, with the target spacing, normalisation and intensities of each case's context."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.data.label_maps import check_labels
from duplus_nnunet.data.plausibility import find_implausible
from duplus_nnunet.planners.context_plans import configure, with_context_intensities
from duplus_nnunet.planners.orientation import find_axis
from duplus_nnunet.plans_form import PlannedContext, PlansForm, as_form
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.dataset_labels import list_declared_values


def knows_sides(properties: Mapping[str, Any], axis: int | None, order: Sequence[int]) -> bool:
    """Test whether an image may be mirrored from left to right: its left-right axis is that of the training images.

    Args:
        properties: The image's properties, as nnU-Net's reader gives them.
        axis: Left-right axis of the training images, after nnU-Net's transposition; None: unknown.
        order: nnU-Net's transposition.
    """
    direction = properties.get("sitk_stuff", {}).get("direction")
    if axis is None or direction is None or len(direction) != 9:
        return True
    across = find_axis(direction)
    return across is not None and across[0] == order[axis]


def _warn_of_implausible(data: Any, contexts: Mapping[str, PlannedContext], context: str, case: str) -> list[str]:
    """Write on stderr, and return, why an image cannot belong to its context; it is predicted all the same."""
    warnings = []
    for channel, image in enumerate(data):
        ranges = {
            name: {"name": name, "modality": planned.modality, "intensities": planned.intensities[channel]}
            for name, planned in contexts.items()
            if len(planned.intensities) > channel
        }
        if context not in ranges:
            break
        warning = find_implausible(image, ranges[context], ranges)
        if warning:
            sys.stderr.write(f"warning: {case + ': ' if case else ''}{warning}\n")
            warnings.append(warning)
    return warnings


def read_identifier(image: str, file_ending: str) -> str:
    """Return the case identifier in an image's file name, which ends in a channel number."""
    return os.path.basename(image).removesuffix(file_ending)[: -len("_0000")]


class DuPLUSPreprocessor(DefaultPreprocessor):
    """nnU-Net's default preprocessor, with target spacing and normalisation by context.

    Attributes:
        context: Context of all cases; empty: it is looked up for each case.
        case: Name of the case in warnings; empty: that of its first file.
    """

    def __init__(self, verbose: bool = True) -> None:
        super().__init__(verbose)
        self.context, self.case = "", ""
        self._by_case: dict[str, str] = {}
        self._current: str | None = None
        self._case = ""
        self._parsed: tuple[Any, PlansForm] | None = None

    def run(
        self, dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str, num_processes: int
    ) -> None:
        """Differs from nnU-Net: each case's context is looked up first."""
        folder = Path(nnUNet_preprocessed, maybe_convert_to_dataset_name(dataset_name_or_id))
        table = read_case_table(folder)
        if table is not None:
            self._by_case = {name: table.sources[case.source].context for name, case in table.cases.items()}
        super().run(dataset_name_or_id, configuration_name, plans_identifier, num_processes)

    def run_case(
        self,
        image_files: list[str],
        seg_file: str | None,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any],
    ) -> Any:
        """Differs from nnU-Net: preprocesses as the case's context requires."""
        identifier = read_identifier(image_files[0], dataset_json["file_ending"])
        self._case = self.case or identifier
        self._current = self.context or self._find(identifier, self._parse(plans_manager.plans))
        try:
            return super().run_case(image_files, seg_file, plans_manager, configuration_manager, dataset_json)
        finally:
            self._current, self._case = None, ""

    def run_case_npy(
        self,
        data: Any,
        seg: Any,
        properties: dict[str, Any],
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any],
    ) -> Any:
        """Differs from nnU-Net: uses the context's spacing and normalisation; the properties name the context."""
        plans = self._parse(plans_manager.plans)
        if seg is not None:  # nnU-Net cuts what lies behind the point off, so that 0.99999 would become 0
            seg = check_labels(seg, self._case or "The label map", list_declared_values(dataset_json["labels"])).labels
        context = self._current or self.context or self._find("", plans)
        warnings = _warn_of_implausible(data, plans.contexts, context, self._case) if seg is None else []
        sides_known = knows_sides(properties, plans.left_right_axis, plans_manager.transpose_forward)
        properties[PLANS_KEY] = {"context": context, "sides_known": sides_known, "warnings": warnings}
        managers = (
            with_context_intensities(plans_manager, plans, context),
            configure(configuration_manager, plans, context),
        )
        return super().run_case_npy(data, seg, properties, *managers, dataset_json)

    def _parse(self, plans: dict[str, Any]) -> PlansForm:
        """Return the typed form of plans, which is made once for all cases."""
        if self._parsed is None or self._parsed[0] is not plans:
            self._parsed = plans, as_form(plans)
        return self._parsed[1]

    def _find(self, identifier: str, plans: PlansForm) -> str:
        """Return the context of a case, or the default one."""
        return self._by_case.get(identifier) or plans.default_context
