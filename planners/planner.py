"""nnU-Net's planners, with the two prompts: in comes a raw dataset and its fingerprint, out comes a plans file.

nnU-Net decides spacing, patch, batch and network; these planners add the part `duplus` and leave out what a
text-steered 3D network cannot be.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from duplus_nnunet.adaptation.base import (
    check_channels,
    declare_base,
    fit_contexts,
    fit_section,
    get_base,
    take_configurations,
)
from duplus_nnunet.adaptation.joining import check_overlap
from duplus_nnunet.data.case_table import CaseTable, read_case_table, write_case_table
from duplus_nnunet.data.volume_ranges import KEY as VOLUMES
from duplus_nnunet.data.volume_ranges import summarise_volumes
from duplus_nnunet.errors import DataError, PlansError
from duplus_nnunet.planners.contexts import ContextPlanner, choose_contexts, list_values, make_table, require_cases
from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.orientation import find_left_right_axis
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor
from duplus_nnunet.planners.prompt_section import build_section
from duplus_nnunet.planners.report import describe_plans
from duplus_nnunet.planners.survey import CaseSurvey, survey_dataset, survey_labels
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.settings import NOT_PLANNED, PLANS_KEY, NetworkSettings


def read_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path) -> Entry:
    """Read what the registry knows of a dataset, and check its labels.

    Raises:
        DuplusError: Labels or prompts are not as they have to be.
    """
    entry = find_entry(dataset_name, dataset_json, folder)
    try:
        DuPLUSLabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
    except (AssertionError, RuntimeError) as error:  # nnU-Net's own checks
        raise DataError(f"{Path(folder) / 'dataset.json'}: {error}") from error
    return entry


def read_section(entry: Entry, labels: Mapping[str, Any], table: CaseTable | None) -> dict[str, Any]:
    """Collect what a dataset's plans will hold under `duplus`; see build_section.

    Args:
        entry: The dataset's registry entry.
        labels: dataset.json's labels.
        table: All cases; without one, all are taken for cases of the default context.

    Raises:
        DuplusError: Labels, prompts or embeddings are not as they have to be.
    """
    trained: dict[str, set[str]] = {}
    if table is None:
        trained[entry.default_context] = {target.name for target in entry.targets}
    else:
        for source in table.sources.values():
            trained.setdefault(source.context, set()).update(source.targets)
    section, base = build_section(choose_contexts(entry, trained), labels, trained), get_base()
    return section if base is None else fit_section(section, base)


def check_dataset(dataset_name_or_id: str | int) -> None:
    """Find what would stop planning, before the fingerprint is taken, which can be an hour earlier.

    Raises:
        DuplusError: Labels, prompts or embeddings are not as they have to be, or plans cannot be written.
    """
    name = maybe_convert_to_dataset_name(dataset_name_or_id)
    folder = Path(nnUNet_raw, name)
    dataset_json = read_dataset_json(folder / "dataset.json")
    read_section(read_entry(name, dataset_json, folder), dataset_json["labels"], read_case_table(folder))
    base = get_base()
    if base is not None:
        check_channels(base, dataset_json)
        check_overlap(base.dataset, dataset_json)
    _refuse_other_splits(name)
    target = Path(nnUNet_preprocessed, name)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target} cannot be made: {error}. Point nnUNet_preprocessed to a writable folder.") from error
    if not os.access(target, os.W_OK):
        raise DataError(f"{target} is not writable. Point nnUNet_preprocessed to a writable folder.")


def _refuse_other_plans(file: Path) -> None:
    """Stop before plans of another planner are overwritten, and before their 2D configurations are taken along."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if PLANS_KEY not in found:
        raise PlansError(
            f"{file} holds plans of {found.get('experiment_planner_used')!r}, not of DuPLUS, and is not overwritten. "
            "Name others with -overwrite_plans_name, or leave that option out."
        )


def _refuse_other_splits(dataset_name: str) -> None:
    """Stop where the raw dataset's splits are not those of the preprocessed one; nnU-Net has a bare assert there."""
    raw, done = (Path(root, dataset_name, "splits_final.json") for root in (nnUNet_raw, nnUNet_preprocessed))
    try:
        wanted, found = (json.loads(file.read_text(encoding="utf-8")) for file in (raw, done))
    except (OSError, ValueError):
        return
    for number, (fold, other) in enumerate(zip(wanted, found, strict=False)):
        if any(set(fold[side]) != set(other[side]) for side in ("train", "val")):
            raise PlansError(
                f"Fold {number} of {raw} is another one than in {done}: the dataset was composed again with other "
                f"splits. Remove {done} (and train anew: older models saw cases that are held out now), or put the old "
                "splits back."
            )
    if len(wanted) > len(found):
        raise PlansError(f"{raw} has {len(wanted)} folds, {done} has {len(found)}. Remove the latter and train anew.")


class _Prompted:
    """What every DuPLUS planner adds to one of nnU-Net's. To be mixed in before it."""

    plans_name = "DuPLUSPlans"
    gpu_memory_gib: float = 8

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        """Differs from nnU-Net: plans name and preprocessor are ours by default; splits are compared with a message."""
        _refuse_other_splits(maybe_convert_to_dataset_name(dataset_name_or_id))
        if preprocessor_name == DefaultPreprocessor.__name__:
            preprocessor_name = DuPLUSPreprocessor.__name__
        super().__init__(  # type: ignore[call-arg]
            dataset_name_or_id,
            gpu_memory_target_in_gb=self.gpu_memory_gib if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb,
            preprocessor_name=preprocessor_name,
            plans_name=plans_name or self.plans_name,
            overwrite_target_spacing=overwrite_target_spacing,
            suppress_transpose=suppress_transpose,
        )

    def plan_experiment(self: Any) -> dict[str, Any]:
        """Differs from nnU-Net: prompts are checked first, then every context is planned, then the network for all."""
        entry = read_entry(self.dataset_name, self.dataset_json, self.raw_dataset_folder)
        composed = read_case_table(self.raw_dataset_folder)
        labels = self.dataset_json["labels"]
        section = read_section(entry, labels, composed)
        folder = Path(nnUNet_preprocessed, self.dataset_name)
        _refuse_other_plans(folder / f"{self.plans_identifier}.json")
        reader = self.determine_reader_writer()
        surveys = survey_dataset(self.dataset, reader)
        table = composed or self._make_table(entry, surveys, reader)
        require_cases(table, [target["name"] for target in section["targets"]], self.dataset)
        modalities = {name: found["modality"] for name, found in section["contexts"].items()}
        planner = ContextPlanner(self, table, surveys, modalities)
        self._section, self._contexts, self._shared = section, planner.plan_contexts(), planner.shared
        base = get_base()
        said = [] if base is None else fit_contexts(self._contexts, section["contexts"], base)
        section["sources"] = planner.plan_sources(self._contexts)
        regions = {target["name"]: list_values(labels[target["label"]]) for target in section["targets"]}
        volumes = summarise_volumes(table, {name: found.volumes for name, found in surveys.items()}, regions)
        for name, found in self._contexts.items():
            found[VOLUMES] = volumes[name]
        whole = self.dataset_fingerprint
        if planner.several:
            self.dataset_fingerprint, _ = planner.make_fingerprint(self._contexts)
        try:
            plans: dict[str, Any] = super().plan_experiment()  # type: ignore[misc]
        finally:
            self.dataset_fingerprint = whole
        write_case_table(table, folder)
        sys.stdout.write(describe_plans(plans))
        if base is not None:
            sys.stdout.write("\n".join([f"planned for the base {base.name}; patch and network are its own", *said, ""]))
        return plans

    def _make_table(self: Any, entry: Entry, surveys: Mapping[str, CaseSurvey], reader: type) -> CaseTable:
        """Say what is annotated in each case of a dataset that was not composed."""
        tests = survey_labels(Path(self.raw_dataset_folder, "labelsTs"), self.dataset_json["file_ending"], reader)
        return make_table(entry, self.dataset_json, {name: found.labels for name, found in surveys.items()}, tests)

    def generate_data_identifier(self: Any, configuration_name: str) -> str:
        """Differs from nnU-Net: residual-encoder plans do not write into the folder of nnU-Net's default plans."""
        return f"{self.plans_identifier}_{configuration_name}"

    def static_estimate_VRAM_usage(  # noqa: N802
        self: Any,
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> int:
        """Differs from nnU-Net: the last layer is the projection and a logit a target; FiLM needs no memory."""
        outputs = NetworkSettings().head_features + len(self._section["targets"])
        estimate: int = super().static_estimate_VRAM_usage(  # type: ignore[misc]
            patch_size,
            input_channels,
            outputs if len(patch_size) == 3 else output_channels,
            arch_class_name,
            arch_kwargs,
            arch_kwargs_req_import,
        )
        return estimate

    def save_plans(self: Any, plans: dict[str, Any]) -> None:
        """Differs from nnU-Net: unsupported configurations are dropped, labels and prompts are ours.

        Raises:
            DataError: The images are 2D.
        """
        if "3d_fullres" not in plans["configurations"]:
            raise DataError(
                f"The images of {self.dataset_name} are two-dimensional; the prompts steer a 3D network. Use nnU-Net's "
                "own planner and trainer for them."
            )
        base = get_base()
        if base is not None:
            take_configurations(plans, base, self.plans_identifier)
        for name in NOT_PLANNED:
            plans["configurations"].pop(name, None)
        for configuration in plans["configurations"].values():
            configuration.pop("next_stage", None)
        order = plans["transpose_forward"]
        axis = find_left_right_axis(self.dataset, plans["image_reader_writer"])
        for name, found in self._contexts.items():
            spacing = [found["spacing"][place] for place in order]
            self._section["contexts"][name] |= {**found, "spacing": spacing}
        for source in self._section["sources"].values():
            source["median_shape"] = [source["median_shape"][place] for place in order]
        self._section["reference_spacing"] = [float(mm) for mm in plans["configurations"]["3d_fullres"]["spacing"]]
        self._section["spacing"] = "shared" if self._shared else "context"
        self._section["left_right_axis"] = None if axis is None else [int(a) for a in order].index(axis)
        plans["label_manager"] = DuPLUSLabelManager.__name__
        plans[PLANS_KEY] = self._section
        if base is not None:
            declare_base(plans, base, self.dataset_json)
        super().save_plans(plans)  # type: ignore[misc]


class DuPLUSPlanner(_Prompted, ExperimentPlanner):
    """nnU-Net's default planner (plain U-Net), with prompts."""


class DuPLUSPlannerResEncM(_Prompted, nnUNetPlannerResEncM):
    """nnU-Net's residual-encoder preset M (8 GiB), with prompts."""

    plans_name = "DuPLUSResEncUNetMPlans"


class DuPLUSPlannerResEncL(_Prompted, nnUNetPlannerResEncL):
    """nnU-Net's residual-encoder preset L (24 GiB), with prompts."""

    plans_name = "DuPLUSResEncUNetLPlans"
    gpu_memory_gib = 24


class DuPLUSPlannerResEncXL(_Prompted, nnUNetPlannerResEncXL):
    """nnU-Net's residual-encoder preset XL (40 GiB), with prompts."""

    plans_name = "DuPLUSResEncUNetXLPlans"
    gpu_memory_gib = 40
