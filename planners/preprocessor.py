"""nnU-Net's preprocessor, a context at a time: in come plans and images, out come nnU-Net's preprocessed cases.

All work on voxels is nnU-Net's; it is handed the spacing, the normalisation and the intensities of the case's context.
"""

import os
import sys
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.data.plausibility import find_implausible
from duplus_nnunet.planners.context_plans import configure, measure
from duplus_nnunet.planners.orientation import find_axis
from duplus_nnunet.settings import PLANS_KEY


def knows_sides(properties: dict[str, Any], plans: dict[str, Any]) -> bool:
    """Tell whether an image's left-right axis is the training images', so that it may be mirrored along it."""
    axis = plans[PLANS_KEY].get("left_right_axis")
    direction = properties.get("sitk_stuff", {}).get("direction")
    if axis is None or direction is None or len(direction) != 9:
        return True
    found = find_axis(direction)
    return found is not None and found[0] == plans["transpose_forward"][axis]


def _warn_of_implausible(data: Any, contexts: dict[str, Any], context: str, case: str) -> list[str]:
    """Say on stderr, and return, why an image cannot be of its context; it is predicted all the same."""
    warnings = []
    for channel, image in enumerate(data):
        ranges = {
            name: {**found, "name": name, "intensities": found["intensities"][channel]}
            for name, found in contexts.items()
            if len(found.get("intensities", ())) > channel
        }
        if context not in ranges:
            break
        found = find_implausible(image, ranges[context], ranges)
        if found:
            sys.stderr.write(f"warning: {case + ': ' if case else ''}{found}\n")
            warnings.append(found)
    return warnings


def read_identifier(image: str, file_ending: str) -> str:
    """Return the case identifier in an image's file name, which ends in a channel number."""
    return os.path.basename(image).removesuffix(file_ending)[: -len("_0000")]


class DuPLUSPreprocessor(DefaultPreprocessor):
    """nnU-Net's default preprocessor, with target spacing and normalisation by context.

    Attributes:
        context: Context of all cases; empty: it is looked up for each.
        case: What the case is called in warnings; empty: as its first file is.
    """

    def __init__(self, verbose: bool = True) -> None:
        super().__init__(verbose)
        self.context, self.case = "", ""
        self._by_case: dict[str, str] = {}
        self._current: str | None = None
        self._case = ""

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
        """Differs from nnU-Net: the case's context decides."""
        identifier = read_identifier(image_files[0], dataset_json["file_ending"])
        self._case = self.case or identifier
        self._current = self.context or self._find(identifier, plans_manager.plans)
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
        """Differs from nnU-Net: with the context's spacing and normalisation; which one stands in the properties."""
        plans = plans_manager.plans
        context = self._current or self.context or self._find("", plans)
        contexts = plans[PLANS_KEY]["contexts"]
        warnings = _warn_of_implausible(data, contexts, context, self._case) if seg is None else []
        sides_known = knows_sides(properties, plans)
        properties[PLANS_KEY] = {"context": context, "sides_known": sides_known, "warnings": warnings}
        managers = measure(plans_manager, context), configure(configuration_manager, plans, context)
        return super().run_case_npy(data, seg, properties, *managers, dataset_json)

    def _find(self, identifier: str, plans: dict[str, Any]) -> str:
        found: str = self._by_case.get(identifier) or plans[PLANS_KEY]["default_context"]
        return found
