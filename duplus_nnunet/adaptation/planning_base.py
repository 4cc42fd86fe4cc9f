"""What a dataset is planned for: a trained model, of DuPLUS or of stock nnU-Net, its files and what it decides."""

import contextlib
import json
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.mirroring import Anatomy, compare_mirroring
from duplus_nnunet.model_form import inherit, read_json, shorten
from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.plans_section import BASE_KEY, PLANS_KEY, SETTINGS_VERSION_KEY, START_KEY, find_differences
from duplus_nnunet.prompt_registry.names import have_sides
from duplus_nnunet.settings import parse_settings

_PREPROCESSED = "nnUNet_preprocessed"
# Values of a configuration that users edit, for their GPU.
_SIZES = ("patch_size", "batch_size")
# nnU-Net's checkpoints, the one to start from first.
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")


class PlanningBase(Protocol):
    """A trained model that a dataset is planned for: one of DuPLUS, or one of stock nnU-Net."""

    @property
    def name(self) -> str:
        """Dataset and folder."""

    @property
    def weights(self) -> str:
        """SHA-256 of its weights; empty: not known."""

    @property
    def configuration(self) -> str:
        """The configuration to preprocess and to train where none is named."""

    @property
    def configurations(self) -> tuple[str, ...]:
        """Names of the configurations that can be trained from it."""

    @property
    def orientation(self) -> str | None:
        """Orientation of the images that the weights were trained with, such as LPS; None: unknown."""

    @property
    def shares_spacing(self) -> bool:
        """Whether all contexts have one target spacing."""

    def name_plans(self, planners: str) -> str:
        """Return the name of new plans where none is given, from the planner's own."""

    def check_dataset(self, dataset_json: Mapping[str, Any]) -> None:
        """Refuse a dataset that cannot be planned for this model, before anything is computed."""

    def fit_section(self, section: dict[str, Any]) -> dict[str, Any]:
        """Set those values in the section `duplus` that must agree with this model."""

    def fit_contexts(
        self,
        contexts: Mapping[str, dict[str, Any]],
        named: Mapping[str, PlannedContext],
        channels: Mapping[str, Sequence[str]],
    ) -> list[str]:
        """Preprocess contexts, changed in place, as this model's images were; returns notes for the user."""

    def take_configurations(self, plans: dict[str, Any], identifier: str) -> None:
        """Give plans, changed in place, the configurations and the order of axes of this model."""

    def declare(self, plans: dict[str, Any], dataset_json: Mapping[str, Any]) -> list[str]:
        """Name this model in the plans, changed in place; returns notes for the user."""

    def write_training(self, dataset: str, configuration: str, plans_name: str) -> str:
        """Write the command line of the training."""


_current: PlanningBase | None = None


@contextlib.contextmanager
def use_base(base: PlanningBase | None) -> Iterator[None]:
    """Plan all datasets in this block for a base."""
    global _current
    before, _current = _current, base
    try:
        yield
    finally:
        _current = before


def get_base() -> PlanningBase | None:
    """Return the base that datasets are currently planned for."""
    return _current


def find_model(given: Path) -> Path:
    """Return the model folder, given it, a fold in it, or a checkpoint of that fold."""
    folders = [path for path in (given, *list(given.parents)[:2]) if (path / "plans.json").is_file()]
    return folders[0] if folders else given


def find_checkpoint(given: Path, model: Path) -> Path:
    """Return the checkpoint that was given, or that of the given fold; of a model, the first fold's.

    A fold or a checkpoint that was named is never replaced by another one: other folds were trained on other cases.

    Args:
        given: The model folder, a fold in it, or a checkpoint of that fold.
        model: The model folder.

    Raises:
        ModelError: There is none.
    """
    if given.is_file() and given.suffix == ".pth":
        return given
    files = _list_checkpoints(model)
    if not files:
        raise ModelError(f"{model} has no checkpoint in a fold_X, so there is nothing to start from. Train it first.")
    inside = files if given == model else [file for file in files if file.parent == given]
    if not inside:
        problem = "has no checkpoint" if given.is_dir() else "is no checkpoint" if given.exists() else "does not exist"
        there = ", ".join(str(file.relative_to(model)) for file in files)
        raise ModelError(f"{given} {problem}. {model} has {there}: name one of these, its fold, or the model folder.")
    return inside[0]


def _list_checkpoints(model: Path) -> list[Path]:
    """List the checkpoints of all folds, final ones first."""
    folds = sorted(model.glob("fold_*"))
    files = [fold / name for name in _CHECKPOINTS for fold in folds if (fold / name).is_file()]
    return [*files, *(file for file in sorted(model.glob("fold_*/checkpoint_*.pth")) if file not in files)]


def write_training(dataset: str, configuration: str, trainer: str, plans_name: str, weights: Path) -> str:
    """Write the command line of a training that starts from weights."""
    words = ["nnUNetv2_train", dataset, configuration, "0", "-tr", trainer, "-p", plans_name]
    return shlex.join([*words, "-pretrained_weights", str(weights)])


def keep_plans(dataset_name: str, plans_name: str, base: PlanningBase) -> Mapping[str, Any]:
    """Refuse to overwrite plans of a dataset that were not made for the same base.

    Args:
        dataset_name: nnU-Net's name of the dataset.
        plans_name: Name of the new plans.
        base: The base that they are made for.

    Returns:
        Content of the plans of that name; empty if there are none.

    Raises:
        PlansError: Other plans of that name exist: for no base, for another one, or for other weights of its name.
    """
    file = Path(os.environ.get(_PREPROCESSED, "."), dataset_name, f"{plans_name}.json")
    if not file.is_file():
        return {}
    plans = read_json(file, "Remove it.")
    described = describe_model(plans)
    model, weights = described.get("model"), described.get("weights")
    if model == base.name and not (weights and base.weights and weights != base.weights):
        return plans
    made = f"for other weights of {model}" if model == base.name else f"for {model}" if model else "for no model"
    raise PlansError(
        f"{file} exists and was made {made}; planning for {base.name} would overwrite it, and models trained with "
        "it could not be continued. Give the new plans a name of their own: `duplus adapt plan ... --plans-name "
        f"{plans_name}Adapted` (nnUNetv2_plan_and_preprocess: -overwrite_plans_name), or remove the file."
    )


def describe_model(plans: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what plans say about the model that they were made for; empty if they were made for none."""
    section = _get_mapping(plans, PLANS_KEY)
    return _get_mapping(section, BASE_KEY) or _get_mapping(section, START_KEY)


def keep_settings(plans: dict[str, Any], before: Mapping[str, Any], fixed: Collection[str] = ()) -> list[str]:
    """Give new plans the settings of those that they overwrite, which may have been edited by hand.

    Args:
        plans: The new plans, changed in place.
        before: Content of the plans that are overwritten; empty if there are none.
        fixed: Settings that the model decides.

    Returns:
        Notes for the user: which settings are kept, and which other values that users edit are planned again.

    Raises:
        PlansError: Their settings cannot be used.
    """
    section, old = plans[PLANS_KEY], _get_mapping(before, PLANS_KEY)
    new = kept = section.get("settings", {})
    if "settings" in old or SETTINGS_VERSION_KEY in old:
        kept = {
            **read_overwritten(old, "the plans that are overwritten"),
            **{name: new[name] for name in fixed if name in new},
        }
        section["settings"] = kept
    changes = [f"{name} {shorten(value)}" for name, _, value in find_differences(new, kept)]
    notes = [f"settings of the plans that were overwritten are kept: {', '.join(changes)}"] if changes else []
    return [*notes, *_list_replanned(plans, before)]


def take_mirroring(plans: Mapping[str, Any], axes: Collection[int]) -> None:
    """Let the images of new plans be mirrored along the array axes (0 to 2) along which a model's images were."""
    section = plans[PLANS_KEY]
    section["settings"] = {**section.get("settings", {}), **_find_anatomy(plans).follow(axes)}


def list_mirroring(plans: Mapping[str, Any], axes: Sequence[int] | None) -> list[str]:
    """Compare along which axes images of new plans are mirrored and a model's were, as notes for the user.

    Args:
        plans: The new plans, with settings that may have been kept.
        axes: Array axes (0 to 2) along which the model's images were mirrored; None: not known.
    """
    section = plans[PLANS_KEY]
    settings = parse_settings(section.get("settings", {}), section.get(SETTINGS_VERSION_KEY))
    return compare_mirroring(_find_anatomy(plans).list_axes(settings), axes)


def _find_anatomy(plans: Mapping[str, Any]) -> Anatomy:
    section = plans[PLANS_KEY]
    sides = have_sides((target["name"], target.get("partner")) for target in section["targets"])
    configurations = plans["configurations"]
    patches = {name: inherit(configurations, name, "the plans")["patch_size"] for name in configurations}
    return Anatomy(section["left_right_axis"], sides, patches)


def _list_replanned(plans: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    """List the values that users edit and that are not kept, as notes for the user."""
    section, old = plans[PLANS_KEY], _get_mapping(before, PLANS_KEY)
    parts = [(name, key, plans, before, "configurations") for name in plans.get("configurations", {}) for key in _SIZES]
    parts += [(name, "weight", section, old, "sources") for name in section.get("sources", {})]
    for name, key, now, then, part in parts:
        own, other = (_get_mapping(values, part, name).get(key) for values in (now, then))
        if own is None or other is None:
            continue
        own = json.loads(json.dumps(own, default=int))  # nnU-Net's planner has numpy's numbers here
        if own != other:
            yield f"{name}: {key} is now {own}, as planned; the plans that were overwritten had {other}"


def read_overwritten(section: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Read all the settings of a section `duplus` that is overwritten, completed as its version meant them.

    Raises:
        PlansError: They cannot be used; `where` says in the message where they are.
    """
    try:
        return parse_settings(section.get("settings", {}), section.get(SETTINGS_VERSION_KEY)).to_dict()
    except PlansError as error:
        raise PlansError(
            f"The settings in {where} cannot be kept: {error} Correct them, or remove the file to have the defaults."
        ) from error


def _get_mapping(values: Any, *keys: str) -> Mapping[str, Any]:
    """Return what lies below keys of nested mappings; empty if there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}
