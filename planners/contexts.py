"""Plans spacing, normalisation and the weights of sources for each context of a dataset.

nnU-Net's planner decides for one dataset; here it is called once for each context, on the cases of that context, and
then for the network, with shapes at each context's own spacing and cases as often as training draws them.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.data.plausibility import join_ranges
from duplus_nnunet.data.sampling import default_weight, measure_shares, repeat_cases
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.normalization import LARGEST_MEAN_SUV, SUVNormalization
from duplus_nnunet.planners.survey import CaseSurvey, summarise_foreground
from duplus_nnunet.prompt_registry import Entry

Surveys = Mapping[str, CaseSurvey]
_INTENSITIES = "foreground_intensity_properties_per_channel"


def require_cases(table: CaseTable, targets: list[str], dataset: Mapping[str, Any]) -> None:
    """Check that table and dataset have the same cases, and that each target is annotated in some case.

    Args:
        table: All cases.
        targets: Names of the targets.
        dataset: nnU-Net's mapping of case identifiers to files.

    Raises:
        DataError: A case is missing on one side, or a target is annotated in no case.
    """
    for missing, where in (
        (dataset.keys() - table.cases.keys(), "in its table of cases"),
        (table.cases.keys() - dataset.keys(), "among its images"),
    ):
        if missing:
            raise DataError(
                f"The dataset's case {min(missing)!r} is not {where} ({len(missing)} in all). Compose the dataset "
                "again."
            )
    annotated = {name for case in table.cases.values() for name in case.annotated}
    for name in targets:
        if name not in annotated:
            raise DataError(
                f"The target {name!r} is annotated in no training case, so it cannot be learned. Remove its label from "
                "dataset.json (and from the registry file), or correct the registry's rule for missing labels."
            )


@dataclass(frozen=True)
class ContextPlanner:
    """Plans the contexts of one dataset.

    Attributes:
        host: nnU-Net's planner, which makes the decisions.
        table: All cases.
        surveys: Survey of each case.
        modalities: Modality of each context.
    """

    host: Any
    table: CaseTable
    surveys: Surveys
    modalities: Mapping[str, str]

    @property
    def shared(self) -> bool:
        """Whether all contexts have the same target spacing."""
        return self.table.spacing == "shared" or self.host.overwrite_target_spacing is not None

    @property
    def several(self) -> bool:
        """Whether there is more than one context."""
        return len({source.context for source in self.table.sources.values()}) > 1

    @property
    def channels(self) -> dict[str, tuple[str, ...]]:
        """Names of the channels of each context."""
        return {source.context: source.channels for source in self.table.sources.values()}

    def list_cases(self) -> list[str]:
        """Return the cases as often as training draws them by default."""
        weights = {name: default_weight(self.table.of_source(name).values()) for name in self.table.sources}
        return repeat_cases(measure_shares(self.table.cases, weights))

    def plan_contexts(self) -> dict[str, dict[str, Any]]:
        """Choose target spacing (mm, before transposition) and normalisation of each context."""
        shared = self._find_spacing(self.list_cases()) if self.shared else None
        cases: dict[str, list[str]] = {context: [] for context in self.modalities}
        for name in self.table.cases:
            cases[self._context_of(name)].append(name)
        return {context: self._plan_context(context, of_context, shared) for context, of_context in cases.items()}

    def plan_sources(self, contexts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Describe each source: context, targets, cases, weight and median shape after resampling."""
        planned = {}
        for name, source in self.table.sources.items():
            cases = self.table.of_source(name)
            shapes = [self._resample(case, contexts[source.context]["spacing"]) for case in cases]
            annotated = Counter(target for case in cases.values() for target in case.annotated)
            present = Counter(target for case in cases.values() for target in case.present)
            planned[name] = {
                "dataset": source.dataset,
                "context": source.context,
                "targets": {target: annotated[target] for target in source.targets},
                "present": {target: present[target] for target in source.targets},
                "cases": len(cases),
                "weight": round(default_weight(cases.values()), 3),
                "median_shape": [float(length) for length in np.median(shapes, 0)],
            }
        return planned

    def make_fingerprint(self, contexts: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[float]]:
        """Make the fingerprint from which nnU-Net plans the network.

        Returns:
            The fingerprint, with the shape of each case after resampling, and the spacing (mm) that it gives for all
            cases: the geometric mean over the contexts, weighted by how often they are drawn.
        """
        drawn = self.list_cases()
        spacings = {name: contexts[self._context_of(name)]["spacing"] for name in self.table.cases}
        reference = np.exp(np.mean([np.log(spacings[name]) for name in drawn], 0)).tolist()
        fingerprint = {
            **self.host.dataset_fingerprint,
            "spacings": [reference] * len(drawn),
            "shapes_after_crop": [self._resample(name, spacings[name]) for name in drawn],
        }
        return fingerprint, reference

    def _context_of(self, identifier: str) -> str:
        return self.table.sources[self.table.cases[identifier].source].context

    def _resample(self, identifier: str, spacing: list[float]) -> list[int]:
        survey = self.surveys[identifier]
        return [int(length) for length in compute_new_shape(survey.shape, survey.spacing, spacing)]

    def _find_spacing(self, cases: list[str]) -> list[float]:
        """Let nnU-Net choose the target spacing for some cases."""
        with self._fingerprint_of(cases):
            return [float(mm) for mm in ExperimentPlanner.determine_fullres_target_spacing(self.host)]

    def _plan_context(self, context: str, cases: list[str], spacing: list[float] | None) -> dict[str, Any]:
        sources = [source for source in self.table.sources.values() if source.context == context]
        surveys = [self.surveys[name] for name in cases]
        foreground = summarise_foreground(surveys)
        with self._fingerprint_of(cases, sources[0].channels):
            schemes, masks = self.host.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        if _is_suv(self.modalities[context], foreground):
            schemes, masks = [SUVNormalization.__name__] * len(schemes), [False] * len(masks)
        return {
            "cases": len(cases),
            "targets": list(dict.fromkeys(target for source in sources for target in source.targets)),
            "spacing": spacing or self._find_spacing(cases),
            "normalization_schemes": schemes,
            "use_mask_for_norm": masks,
            _INTENSITIES: foreground if self.several else self._take_nnunets(foreground),
            "intensities": [
                join_ranges(images) for images in zip(*(survey.intensities for survey in surveys), strict=True)
            ],
        }

    def _take_nnunets(self, foreground: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """Replace statistics by nnU-Net's, which are of more voxels of the same cases."""
        pooled = self.host.dataset_fingerprint[_INTENSITIES]
        return {channel: {**statistics, **pooled.get(channel, {})} for channel, statistics in foreground.items()}

    @contextlib.contextmanager
    def _fingerprint_of(self, cases: list[str], channels: tuple[str, ...] | None = None) -> Iterator[None]:
        """Restrict nnU-Net's planner to some cases, with their own channel names."""
        whole, declared = self.host.dataset_fingerprint, self.host.dataset_json
        surveys = [self.surveys[name] for name in cases]
        self.host.dataset_fingerprint = {
            **whole,
            "spacings": [survey.spacing for survey in surveys],
            "shapes_after_crop": [survey.shape for survey in surveys],
            "median_relative_size_after_cropping": float(np.median([survey.relative_size for survey in surveys])),
        }
        if channels:
            named = {str(number): name for number, name in enumerate(channels)}
            self.host.dataset_json = {**declared, "channel_names": named}
        try:
            yield
        finally:
            self.host.dataset_fingerprint, self.host.dataset_json = whole, declared


def _is_suv(modality: str, foreground: Mapping[str, Mapping[str, float]]) -> bool:
    """Test whether images are of positron emission tomography only, with intensities in the range of SUV."""
    pet_only = "positron emission tomography" in modality and " and " not in modality
    return pet_only and all(0 < statistics["mean"] < LARGEST_MEAN_SUV for statistics in foreground.values())


def choose_contexts(entry: Entry, used: Collection[str]) -> Entry:
    """Return an entry with only those contexts that are used by some case.

    Raises:
        DataError: The entry lacks a context that is used.
    """
    unknown = [name for name in used if name not in entry.contexts]
    if unknown:
        raise DataError(
            f"The table of cases names the context {unknown[0]!r}, which {entry.origin} lacks; it has "
            f"{', '.join(map(repr, entry.contexts))}. Compose the dataset again, or add the context to the entry."
        )
    kept = {name: context for name, context in entry.contexts.items() if name in used}
    default = entry.default_context if entry.default_context in kept else next(iter(kept))
    return replace(entry, contexts=kept, default_context=default)
