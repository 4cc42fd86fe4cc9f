"""nnU-Net's preprocessor, with the target spacing, normalisation and intensities of each case's context."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.data.case_table import FILE_NAME as CASE_TABLE
from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.data.label_maps import check_labels
from duplus_nnunet.data.orientations import note_turn
from duplus_nnunet.data.plausibility import find_implausible
from duplus_nnunet.planners.context_plans import configure, with_context_intensities
from duplus_nnunet.planners.image_checks import PlannedGrid, find_doubts, read_headers
from duplus_nnunet.planners.orientation import find_image_turn, name_orientation
from duplus_nnunet.planners.preprocessing_record import write_record
from duplus_nnunet.plans_form import PlannedContext, PlansForm, as_form
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.dataset_labels import list_declared_values
from duplus_nnunet.substitution import call_with
from duplus_nnunet.text_files import load_json


def _find_implausible(data: Any, contexts: Mapping[str, PlannedContext], context: str) -> list[str]:
    """Return why an image cannot belong to its context; it is predicted all the same."""
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
            warnings.append(warning)
    return warnings


def read_identifier(image: str, file_ending: str) -> str:
    """Return the case identifier in an image's file name, which ends in a channel number."""
    return os.path.basename(image).removesuffix(file_ending)[: -len("_0000")]


class SharedPlans(PlansManager):
    """nnU-Net's plans, which processes receive as the name of a file, and each reads once.

    nnU-Net sends its plans to a worker with each case: tens of MB each time, where there are a thousand targets.

    Args:
        plans: The plans' content.
        file: File of the plans.
    """

    def __init__(self, plans: dict[str, Any], file: str) -> None:
        super().__init__(plans)
        self._file = file

    @cached_property
    def form(self) -> PlansForm:
        """The section `duplus` of the plans."""
        return as_form(self.plans)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_plans, (self._file, os.stat(self._file).st_mtime_ns)


@lru_cache(maxsize=1)
def _open_plans(file: str, _changed: int) -> SharedPlans:
    return SharedPlans(load_json(file), file)


@lru_cache(maxsize=1)
def _read_contexts(place: tuple[Path, int] | None) -> Mapping[str, str]:
    """Read the context of each case from the table in a folder, once in each process; empty without a table."""
    table = None if place is None else read_case_table(place[0])
    if table is None:
        return {}
    return {name: table.sources[case.source].context for name, case in table.cases.items()}


class DuPLUSPreprocessor(DefaultPreprocessor):
    """nnU-Net's default preprocessor, with target spacing and normalisation by context.

    Attributes:
        context: Context of all cases; empty: it is looked up for each case.
        case: Name of the case in warnings; empty: that of its first file.
    """

    def __init__(self, verbose: bool = True) -> None:
        super().__init__(verbose)
        self.context, self.case = "", ""
        # Folder of the table of cases that contexts are looked up in, and its time; None: the default context.
        self._table: tuple[Path, int] | None = None
        self._current: str | None = None
        self._case = ""
        self._doubts: list[str] = []
        self._parsed: tuple[Any, PlansForm] | None = None

    def run(
        self, dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str, num_processes: int
    ) -> None:
        """Differs from nnU-Net: looks contexts up by case, reads plans once a worker, and records how it worked."""
        folder = Path(nnUNet_preprocessed, maybe_convert_to_dataset_name(dataset_name_or_id))
        file = folder / CASE_TABLE
        self._table = (folder, file.stat().st_mtime_ns) if file.is_file() else None
        _read_contexts(self._table)  # so that a damaged table is refused before there are workers
        opened: list[SharedPlans] = []

        def open_plans(plans: dict[str, Any]) -> SharedPlans:
            opened.append(SharedPlans(plans, str(folder / f"{plans_identifier}.json")))
            return opened[-1]

        names = {"PlansManager": open_plans}
        call_with(super().run, names, dataset_name_or_id, configuration_name, plans_identifier, num_processes)
        for plans in opened:
            images = plans.get_configuration(configuration_name).data_identifier
            write_record(folder / images, plans.plans, configuration_name)

    def run_case(
        self,
        image_files: list[str],
        seg_file: str | None,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any],
    ) -> Any:
        """Differs from nnU-Net: checks the headers first, and preprocesses as the case's context requires.

        Raises:
            DataError: A file is missing, damaged, or not an image that the plans can take.
        """
        identifier = read_identifier(image_files[0], dataset_json["file_ending"])
        self._case = self.case or identifier
        self._current = self.context or self._find(identifier, self._parse(plans_manager))
        try:
            self._doubts = self._check_files(image_files, seg_file, plans_manager, configuration_manager)
            return super().run_case(image_files, seg_file, plans_manager, configuration_manager, dataset_json)
        finally:
            self._current, self._case, self._doubts = None, "", []

    def _check_files(
        self, images: list[str], labels: str | None, plans: PlansManager, configuration: ConfigurationManager
    ) -> list[str]:
        """Check the headers of a case; returns what is doubtful about images that are to be predicted."""
        form, reader = self._parse(plans), plans.plans["image_reader_writer"]
        headers = read_headers(images if labels is None else [*images, labels], reader)
        if labels is not None:
            return []
        spacing = configure(configuration, form, self._current or form.default_context).spacing
        return find_doubts(
            images, headers, PlannedGrid(spacing, plans.transpose_forward, name_orientation(form, reader))
        )

    def run_case_npy(
        self,
        data: Any,
        seg: Any,
        properties: dict[str, Any],
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict[str, Any],
    ) -> Any:
        """Differs from nnU-Net: turns the image as in training; uses the context's spacing and normalisation."""
        plans = self._parse(plans_manager)
        if seg is not None:  # nnU-Net cuts what lies behind the point off, so that 0.99999 would become 0
            seg = check_labels(seg, self._case or "The label map", list_declared_values(dataset_json["labels"])).labels
        context = self._current or self.context or self._find("", plans)
        reader = plans_manager.plans["image_reader_writer"]
        how = find_image_turn(properties, plans, plans_manager.transpose_forward, reader)
        warnings = [] if seg is not None else self._warn([*self._doubts, *how.warnings], data, plans.contexts, context)
        noted = {"context": context, "sides_known": how.sides_known, "warnings": warnings, **note_turn(how.turn)}
        properties[PLANS_KEY] = noted
        managers = (
            with_context_intensities(plans_manager, plans, context),
            configure(configuration_manager, plans, context),
        )
        spacing = properties["spacing"]
        properties["spacing"] = how.turn.sort(spacing)
        try:
            turned = how.turn.apply(data), None if seg is None else how.turn.apply(seg)
            return super().run_case_npy(*turned, properties, *managers, dataset_json)
        finally:
            properties["spacing"] = spacing

    def _warn(
        self, doubts: Sequence[str], data: Any, contexts: Mapping[str, PlannedContext], context: str
    ) -> list[str]:
        """Write on stderr, and return, what is doubtful about an image."""
        warnings = [*doubts, *_find_implausible(data, contexts, context)]
        for warning in warnings:
            sys.stderr.write(f"warning: {self._case + ': ' if self._case else ''}{warning}\n")
        return warnings

    def _parse(self, manager: PlansManager) -> PlansForm:
        """Return the typed form of plans, which is made once for all cases."""
        if isinstance(manager, SharedPlans):
            return manager.form
        if self._parsed is None or self._parsed[0] is not manager.plans:
            self._parsed = manager.plans, as_form(manager.plans)
        return self._parsed[1]

    def _find(self, identifier: str, plans: PlansForm) -> str:
        """Return the context of a case, or the default one."""
        return _read_contexts(self._table).get(identifier) or plans.default_context
