"""nnU-Net's planners, which also plan contexts and prompts.

nnU-Net chooses spacing, patch, batch size and network; these planners add the section `duplus` and leave out the
configurations that a 3D network with prompts cannot have.
"""

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from duplus_nnunet.adaptation.planning_base import (
    PlanningBase,
    describe_model,
    get_base,
    keep_settings,
    read_overwritten,
)
from duplus_nnunet.data.case_table import CaseTable, write_case_table
from duplus_nnunet.data.converted_table import is_composed, read_raw_table, update_present
from duplus_nnunet.data.default_table import list_values, make_table
from duplus_nnunet.data.raw_checks import check_label_maps, check_raw_files
from duplus_nnunet.data.volume_ranges import KEY as VOLUMES
from duplus_nnunet.data.volume_ranges import summarise_volumes
from duplus_nnunet.errors import DataError, PlansError
from duplus_nnunet.files import require_writable
from duplus_nnunet.model_form import read_json
from duplus_nnunet.planners.context_checks import check_contexts
from duplus_nnunet.planners.contexts import ContextPlanner, choose_contexts, require_cases
from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.orientation import read_training_orientation
from duplus_nnunet.planners.preprocessing_record import keep_records
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor
from duplus_nnunet.planners.prompt_section import build_section
from duplus_nnunet.planners.report import describe_plans
from duplus_nnunet.planners.survey import (
    CaseSurvey,
    count_survey_processes,
    summarise_foreground,
    survey_dataset,
    survey_labels,
)
from duplus_nnunet.plans_form import parse_section
from duplus_nnunet.plans_packing import pack_plans
from duplus_nnunet.plans_section import NOT_PLANNED, PLANS_KEY, SETTINGS_VERSION_KEY
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.case_contexts import find_case_contexts
from duplus_nnunet.prompt_registry.dataset_labels import channel_names, check_label_values, list_declared_values
from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset
from duplus_nnunet.prompt_registry.reviewing import list_numbered
from duplus_nnunet.settings import NetworkSettings
from duplus_nnunet.text_files import load_json


def read_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path) -> Entry:
    """Read the registry entry of a dataset, and check the dataset's labels.

    Raises:
        DuplusError: Labels or prompts are invalid.
    """
    entry = find_entry(dataset_name, dataset_json, folder)
    check_label_values(dataset_json["labels"], dataset_json.get("regions_class_order"), Path(folder) / "dataset.json")
    numbered = list_numbered(entry)
    if numbered:
        raise DataError("\n".join(numbered))
    return entry


def read_section(
    entry: Entry, labels: Mapping[str, Any], table: CaseTable | None, contexts: Collection[str] = ()
) -> dict[str, Any]:
    """Build the section `duplus` of a dataset's plans; see build_section.

    Args:
        entry: The dataset's registry entry.
        labels: Labels of dataset.json.
        table: All cases; None: every target counts as annotated in every context.
        contexts: Without a table, the contexts of the cases.

    Raises:
        DuplusError: Labels, prompts or embeddings are invalid or missing.
    """
    trained: dict[str, set[str]] = {}
    if table is None:
        trained = {context: {target.name for target in entry.targets} for context in contexts}
    else:
        for source in table.sources.values():
            trained.setdefault(source.context, set()).update(source.targets)
    section, base = build_section(choose_contexts(entry, trained), labels, trained), get_base()
    return section if base is None else base.fit_section(section)


def check_dataset(dataset_name_or_id: str | int, strict: bool = False) -> None:
    """Check what planning needs before the fingerprint is extracted, which can take an hour.

    Nothing is written; doubts are written on stderr.

    Args:
        dataset_name_or_id: nnU-Net's name or number of the dataset.
        strict: Whether to require also what only nnU-Net's `--verify_dataset_integrity` requires.

    Raises:
        DuplusError: There is no such dataset; its files, grids, labels, label maps, prompts or embeddings are invalid
            or missing; or plans cannot be written. All problems of the files are listed.
    """
    require_folders()
    raw = open_raw_dataset(str(dataset_name_or_id))
    name, folder, dataset_json = raw.name, raw.folder, raw.dataset_json
    processes = count_survey_processes()
    checked = check_raw_files(folder, dataset_json, processes, strict)
    checked.require(folder)
    entry = read_entry(name, dataset_json, folder)
    table = read_raw_table(folder, entry, dataset_json, checked.files.cases.keys())
    contexts = (
        ()
        if table is not None
        else set(find_case_contexts(entry, checked.files.cases, channel_names(dataset_json)).values())
    )
    read_section(entry, dataset_json["labels"], table, contexts)
    base = get_base()
    if base is not None:
        base.check_dataset(dataset_json)
    _refuse_other_splits(name)
    require_writable(Path(nnUNet_preprocessed, name), "Point nnUNet_preprocessed to a writable folder.")
    values = check_label_maps(checked, dataset_json, recursive_find_reader_writer_by_name(checked.reader), processes)
    values.require(folder)
    for note in (*checked.notes, *values.notes):
        sys.stderr.write(f"note: {folder.name}: {note}\n")


def require_folders() -> None:
    """Check that the folders which planning reads and writes are set.

    Raises:
        DataError: One of nnU-Net's variables is not set, or nnUNet_raw is not a folder.
    """
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        if not os.environ.get(name):
            raise DataError(f"{name} is not set. Write `export {name}=FOLDER`, as for nnU-Net.")
    if not Path(nnUNet_raw).is_dir():
        raise DataError(f"nnUNet_raw is {str(nnUNet_raw)!r}, which is not a folder. Correct the variable.")


def _read_other_plans(file: Path, base: PlanningBase | None) -> Mapping[str, Any]:
    """Return the plans that will be overwritten; empty if there are none.

    Raises:
        ModelError: They cannot be read.
        PlansError: They have no configurations, which nnU-Net reads; they are another planner's, whose 2D
            configurations nnU-Net would keep; or they were made for a model though these are made for none.
    """
    if not file.is_file():
        return {}
    plans = read_json(file, "Remove it, and plan again.")
    if not isinstance(plans.get("configurations"), Mapping):
        raise PlansError(f"{file} has no configurations. Remove it, and plan again.")
    if PLANS_KEY not in plans:
        raise PlansError(
            f"{file} contains plans of {plans.get('experiment_planner_used')!r}, not of DuPLUS, and is not "
            "overwritten. Give another name with -overwrite_plans_name, or leave that option out."
        )
    model = describe_model(plans).get("model")
    if base is None and model:
        raise PlansError(
            f"{file} was made for the model {model}; planning without --from-model would overwrite it, and models "
            "trained with it could not be continued. Name the model with --from-model, give the new plans another name "
            "with -overwrite_plans_name, or remove the file."
        )
    if isinstance(section := plans[PLANS_KEY], Mapping) and {"settings", SETTINGS_VERSION_KEY} & section.keys():
        read_overwritten(section, file)
    return plans


def _refuse_other_splits(dataset_name: str) -> None:
    """Refuse splits of the raw dataset that differ from those of the preprocessed one; nnU-Net only asserts it."""
    raw, preprocessed = (Path(root, dataset_name, "splits_final.json") for root in (nnUNet_raw, nnUNet_preprocessed))
    try:
        new, old = (load_json(file) for file in (raw, preprocessed))
    except (OSError, ValueError):
        return
    for number, (fold, other) in enumerate(zip(new, old, strict=False)):
        if any(set(fold[side]) != set(other[side]) for side in ("train", "val")):
            raise PlansError(
                f"Fold {number} of {raw} differs from that of {preprocessed}: the dataset was composed again with "
                f"other splits. Remove {preprocessed} (and train again: older models were trained on cases that are "
                "held out now), or restore the old splits."
            )
    if len(new) > len(old):
        raise PlansError(
            f"{raw} has {len(new)} folds, {preprocessed} has {len(old)}. Remove the latter and train again."
        )


def _name_plans(own: str, base: PlanningBase | None) -> str:
    """Return the name of new plans where none is given."""
    return own if base is None else base.name_plans(own)


def name_plans(planner: str, base: PlanningBase | None) -> str | None:
    """Return the name that one of our planners gives its plans where none is given; None for an unknown planner."""
    own = getattr(globals().get(planner), "plans_name", None)
    return None if own is None else _name_plans(own, base)


class _Prompted:
    """Mixin that adds contexts and prompts to one of nnU-Net's planners."""

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
        """Differs from nnU-Net: plans name and preprocessor are DuPLUS's by default, and splits are compared first."""
        _refuse_other_splits(maybe_convert_to_dataset_name(dataset_name_or_id))
        if preprocessor_name == DefaultPreprocessor.__name__:
            preprocessor_name = DuPLUSPreprocessor.__name__
        super().__init__(  # type: ignore[call-arg]
            dataset_name_or_id,
            gpu_memory_target_in_gb=self.gpu_memory_gib if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb,
            preprocessor_name=preprocessor_name,
            plans_name=plans_name or _name_plans(self.plans_name, get_base()),
            overwrite_target_spacing=overwrite_target_spacing,
            suppress_transpose=suppress_transpose,
        )

    def plan_experiment(self: Any) -> dict[str, Any]:
        """Differs from nnU-Net: checks prompts, then plans each context, then one network for all of them."""
        # nnU-Net's names of cases are numpy's texts, which messages would show as np.str_('a').
        self.dataset = {str(name): files for name, files in self.dataset.items()}
        entry = read_entry(self.dataset_name, self.dataset_json, self.raw_dataset_folder)
        labels = self.dataset_json["labels"]
        folder = Path(nnUNet_preprocessed, self.dataset_name)
        base = get_base()
        self._before = _read_other_plans(folder / f"{self.plans_identifier}.json", base)
        reader = self.determine_reader_writer()
        surveys = self._survey(reader, None if base is None else base.orientation)
        table = self._find_table(entry, surveys, reader)
        section = read_section(entry, labels, table)
        require_cases(table, [target["name"] for target in section["targets"]], self.dataset)
        form = parse_section(section, self.plans_identifier)
        check_contexts(table, surveys, {name: context.modality for name, context in form.contexts.items()})
        planner = ContextPlanner(
            self, table, surveys, {name: context.modality for name, context in form.contexts.items()}
        )
        self._section, self._contexts, self._shared = section, planner.plan_contexts(), planner.shared
        self._notes: list[str] = []
        if base is not None:
            self._shared |= base.shares_spacing
            self._notes = base.fit_contexts(self._contexts, form.contexts, planner.channels)
        section["sources"] = planner.plan_sources(self._contexts)
        regions = {target.name: list_values(labels[target.label]) for target in form.targets}
        volumes = summarise_volumes(table, {name: survey.volumes for name, survey in surveys.items()}, regions)
        for name, context in self._contexts.items():
            context[VOLUMES] = volumes[name]
        whole = self.dataset_fingerprint
        if planner.several:
            self.dataset_fingerprint, _ = planner.make_fingerprint(self._contexts)
        try:
            plans: dict[str, Any] = super().plan_experiment()  # type: ignore[misc]
        finally:
            self.dataset_fingerprint = whole
        write_case_table(table, folder)
        sys.stdout.write(describe_plans(plans))
        first = [] if base is None else [f"planned for the model {base.name}, with its patch and network"]
        sys.stdout.write("".join(f"{line}\n" for line in [*first, *self._notes]))
        return plans

    def _survey(self: Any, reader: type, orientation: str | None) -> dict[str, CaseSurvey]:
        """Survey all cases, and turn surveys and fingerprint to the orientation of the training."""
        surveys = survey_dataset(self.dataset, reader, list_declared_values(self.dataset_json["labels"]))
        self._replace_foreground(surveys)
        self._orientation = read_training_orientation(self.dataset, reader.__name__, orientation)
        self.dataset_fingerprint = self._orientation.turn_fingerprint(self.dataset_fingerprint, list(self.dataset))
        turned: dict[str, CaseSurvey] = self._orientation.turn_surveys(surveys)
        return turned

    def _replace_foreground(self: Any, surveys: Mapping[str, CaseSurvey]) -> None:
        """Replace nnU-Net's intensities where labels were rounded, since it takes 0.0001 for foreground."""
        if any(survey.rounded for survey in surveys.values()):
            key = "foreground_intensity_properties_per_channel"
            self.dataset_fingerprint = {**self.dataset_fingerprint, key: summarise_foreground(list(surveys.values()))}

    def _find_table(self: Any, entry: Entry, surveys: Mapping[str, CaseSurvey], reader: type) -> CaseTable:
        """Read the table of cases that composing or converting wrote, or make one."""
        folder, values = Path(self.raw_dataset_folder), {name: survey.labels for name, survey in surveys.items()}
        table = read_raw_table(folder, entry, self.dataset_json, surveys.keys())
        if table is not None:
            return table if is_composed(folder) else update_present(table, entry, self.dataset_json, values)
        known, ending = list_declared_values(self.dataset_json["labels"]), self.dataset_json["file_ending"]
        tests = survey_labels(folder / "labelsTs", ending, reader, known)
        return make_table(entry, self.dataset_json, values, tests)

    def generate_data_identifier(self: Any, configuration_name: str) -> str:
        """Differs from nnU-Net: residual-encoder plans get their own folder, not that of nnU-Net's default plans."""
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
        """Differs from nnU-Net: counts the projection and one logit per target as last layer; FiLM needs no memory."""
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
        """Differs from nnU-Net: drops unsupported configurations, and adds label manager and section `duplus`.

        Raises:
            DataError: The images are 2D.
        """
        if "3d_fullres" not in plans["configurations"]:
            raise DataError(
                f"The images of {self.dataset_name} are two-dimensional; prompts need a 3D network. Use nnU-Net's own "
                "planner and trainer for them."
            )
        base = get_base()
        if base is not None:
            base.take_configurations(plans, self.plans_identifier)
        for name in NOT_PLANNED:
            plans["configurations"].pop(name, None)
        for configuration in plans["configurations"].values():
            configuration.pop("next_stage", None)
        order = plans["transpose_forward"]
        across = self._orientation.across
        for name, context in self._contexts.items():
            spacing = [context["spacing"][axis] for axis in order]
            self._section["contexts"][name] |= {**context, "spacing": spacing}
        for source in self._section["sources"].values():
            source["median_shape"] = [source["median_shape"][axis] for axis in order]
        self._section["reference_spacing"] = [float(mm) for mm in plans["configurations"]["3d_fullres"]["spacing"]]
        self._section["spacing"] = "shared" if self._shared else "context"
        self._section["left_right_axis"] = None if across is None else [int(axis) for axis in order].index(across)
        self._section["orientation"] = self._orientation.name
        plans["label_manager"] = DuPLUSLabelManager.__name__
        plans[PLANS_KEY] = self._section
        self._notes += keep_settings(plans, self._before) if base is None else base.declare(plans, self.dataset_json)
        keep_records(Path(nnUNet_preprocessed, self.dataset_name, f"{self.plans_identifier}.json"))
        super().save_plans(pack_plans(plans))  # type: ignore[misc]


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
