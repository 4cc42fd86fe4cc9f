"""Plans a dataset for an adapter of a trained base, whose spacing, patch, network and normalisation it shares."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from duplus_nnunet.adaptation.channels import check_channels, describe_channels
from duplus_nnunet.adaptation.joining import ModelPart, check_overlap, describe_base, join_plans, name_adapter
from duplus_nnunet.adaptation.planning_base import (
    find_checkpoint,
    find_model,
    keep_plans,
    keep_settings,
    list_mirroring,
    take_mirroring,
    write_training,
)
from duplus_nnunet.adaptation.trained_weights import (
    IMAGES,
    TRANSPOSED,
    find_configuration,
    find_mirroring,
    find_trained_plans,
    identify,
    require_trained_by,
)
from duplus_nnunet.checkpoint_files import read_checkpoint, require_finite_weights
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.model_form import check_model, read_json
from duplus_nnunet.plans_form import PlannedContext, PlansForm, as_form
from duplus_nnunet.plans_section import BASE_KEY, PLANS_KEY
from duplus_nnunet.prompt_registry import EncoderIdentity
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.settings import parse_settings, read_settings

_FULL = "3d_fullres"
# Settings that must be those of the base.
_FIXED = ("context_prompt", "target_prompt", "network")


@dataclass(frozen=True)
class Base:
    """A trained model that adapters are trained for.

    Attributes:
        name: Dataset and folder.
        plans: Content of its plans.json.
        dataset: Content of its dataset.json.
        mirroring: Array axes along which it was trained with mirror images; None: none.
        checkpoint: One of its checkpoints.
        configuration: The configuration that it was trained in.
        shares_spacing: Always false: each context may have a spacing of its own.
        weights: SHA-256 of the weights in it; empty: not known.
    """

    name: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    mirroring: Sequence[int] | None = None
    checkpoint: Path = Path("fold_0/checkpoint_final.pth")
    configuration: str = _FULL
    shares_spacing: bool = False
    weights: str = ""

    @cached_property
    def form(self) -> PlansForm:
        """Section `duplus` of its plans.

        Raises:
            PlansError: The plans were edited so that they cannot be used.
        """
        return as_form(self.plans)

    @property
    def configurations(self) -> tuple[str, ...]:
        """Names of the configurations in its plans."""
        return tuple(self.plans.get("configurations", {}))

    @property
    def orientation(self) -> str | None:
        """Orientation of its training images; None: unknown."""
        return self.form.orientation

    def name_plans(self, planners: str) -> str:
        """Return the planner's own name of plans."""
        return planners

    def check_dataset(self, dataset_json: Mapping[str, Any]) -> None:
        """Refuse other channels, and labels that may overlap where the base's may not.

        Raises:
            PlansError: The dataset cannot be planned for this base.
        """
        check_channels(self, dataset_json)
        check_overlap(self.dataset, dataset_json)

    def fit_section(self, section: dict[str, Any]) -> dict[str, Any]:
        """See `fit_section`."""
        return fit_section(section, self)

    def fit_contexts(
        self,
        contexts: Mapping[str, dict[str, Any]],
        named: Mapping[str, PlannedContext],
        channels: Mapping[str, Sequence[str]],
    ) -> list[str]:
        """Preprocess contexts as `fit_contexts` does; the notes also name channels with other names than the base's."""
        notes, theirs = fit_contexts(contexts, named, self), channel_names(self.dataset)
        for name in contexts:
            notes += [f"context {name}: {note}" for note in describe_channels(theirs, channels[name])]
        return notes

    def take_configurations(self, plans: dict[str, Any], identifier: str) -> None:
        """See `take_configurations`."""
        take_configurations(plans, self, identifier)

    def declare(self, plans: dict[str, Any], dataset_json: Mapping[str, Any]) -> list[str]:
        """See `declare_base`."""
        return declare_base(plans, self, dataset_json)

    def write_training(self, dataset: str, configuration: str, plans_name: str) -> str:
        """Write the command line that trains an adapter."""
        return write_training(dataset, configuration, "DuPLUSLoRATrainer", plans_name, self.checkpoint)


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read plans.json and dataset.json of a model folder.

    Raises:
        ModelError: A file is missing or damaged.
    """
    try:
        plans, dataset = (read_json(folder / f"{name}.json") for name in ("plans", "dataset"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} is no model folder: it has no {Path(str(error.filename)).name}. A model folder is, for example, "
            "nnUNet_results/Dataset501_Universal/DuPLUSTrainer__DuPLUSPlans__3d_fullres."
        ) from error
    return plans, dataset


def read_base(folder: str | Path) -> Base:
    """Read a trained model, given its folder, a fold in it, or a checkpoint of that fold.

    Raises:
        ModelError: It is no DuPLUS model, one that cannot be a base, or its weights were trained by other plans or are
            not finite.
        PlansError: Its plans were edited so that they cannot be used.
    """
    given = Path(folder).resolve()
    model = find_model(given)
    plans, dataset = read_model(model)
    if PLANS_KEY not in plans:
        raise ModelError(
            f"{model} is a model of {plans.get('experiment_planner_used')!r}, not of DuPLUS: it takes no prompts. "
            "Train a base with DuPLUSTrainer; it can start from that model with -pretrained_weights."
        )
    as_form(plans)
    if BASE_KEY in plans[PLANS_KEY]:
        raise ModelError(
            f"{model} is the model of an adapter. Adapt its base, {as_form(plans).base_model}, or turn the adapter "
            "into a base with `duplus adapt merge`."
        )
    if read_settings(plans).text_adapter.enabled:
        raise ModelError(
            f"{model} was trained together with its text encoder, on its own texts only, so that embeddings of new "
            "prompts would not match it. Adapt a base whose settings.text_adapter is disabled."
        )
    check_model(plans, dataset, model)
    file = find_checkpoint(given, model)
    checkpoint = read_checkpoint(file)
    require_finite_weights(checkpoint["network_weights"], file)
    trained_in = find_configuration(checkpoint)
    require_trained_by(plans, find_trained_plans(checkpoint), (trained_in, _FULL), (file, model / "plans.json"))
    return Base(
        f"{model.parent.name}/{model.name}", plans, dataset, _read_mirroring(checkpoint, file), file,
        configuration=trained_in if trained_in in plans["configurations"] else _FULL,
        weights=identify(checkpoint)["weights"],
    )  # fmt: skip


def _read_mirroring(checkpoint: Mapping[str, Any], file: Path) -> list[int] | None:
    """Read along which axes a model was trained with mirror images, from any fold: they are the same for all."""
    axes = find_mirroring(checkpoint)
    if axes is None:
        raise ModelError(
            f"The checkpoint {file} does not name the axes along which it was trained with mirror images "
            "('inference_allowed_mirroring_axes'). Train that fold again."
        )
    return list(axes) or None


def fit_section(section: dict[str, Any], base: Base) -> dict[str, Any]:
    """Set those values in the section `duplus` of a new dataset's plans that must, or should, agree with its base.

    Raises:
        EncoderError: Their embeddings were made by different text encoders.
        PlansError: The base was trained without target prompts.
    """
    theirs = EncoderIdentity.from_dict(base.form.encoder or {})
    theirs.require_same(EncoderIdentity.from_dict(section["encoder"]), "The text encoder of the new dataset's prompts")
    settings = parse_settings(base.form.settings, base.form.settings_version)
    if settings.target_prompt == "one-hot":
        raise PlansError(
            "The base was trained with the numbers of its targets as prompts (settings.target_prompt is 'one-hot'), so "
            "it has no use for a new text. Adapt a base that was trained with texts."
        )
    whole = asdict(settings)
    kept = {name: whole[name] for name in _FIXED}
    centres = base.form.centres.model_dump(exclude_unset=True)
    return {**section, "centres": centres, "settings": {**section["settings"], **kept}}


def fit_contexts(contexts: Mapping[str, dict[str, Any]], named: Mapping[str, PlannedContext], base: Base) -> list[str]:
    """Preprocess each context as the base preprocesses the one of the same name, or of the same modality and region.

    Args:
        contexts: How images of each new context would be preprocessed, changed in place; spacing (mm) not transposed.
        named: The same contexts with modality and region.
        base: The base.

    Returns:
        A note on each context.
    """
    notes = []
    for name, context in contexts.items():
        twin = _find_twin(name, named[name], base)
        theirs = base.form.contexts.get(twin)
        if theirs is None or theirs.spacing is None:
            notes.append(f"context {name}: its own spacing and normalisation; the base has none of its modality")
            continue
        context.update(theirs.model_dump(include=set(IMAGES), exclude_unset=True))
        context["spacing"] = [theirs.spacing[axis] for axis in base.plans["transpose_backward"]]
        notes.append(f"context {name}: spacing and normalisation of the base's {twin}")
    return notes


def _find_twin(name: str, context: PlannedContext, base: Base) -> str:
    """Return the key of the base's context by which a new one is preprocessed; empty if there is none."""
    theirs = {key: planned for key, planned in base.form.contexts.items() if planned.spacing is not None}
    if name in theirs:
        return name
    kind = context.modality, context.region
    return next((key for key, planned in theirs.items() if (planned.modality, planned.region) == kind), "")


def take_configurations(plans: dict[str, Any], base: Base, identifier: str) -> None:
    """Give plans the base's configurations and order of axes.

    Args:
        plans: Plans of the new dataset, changed in place.
        base: The base.
        identifier: Prefix of the names of folders with preprocessed data.
    """
    plans["configurations"] = {
        name: {**values, "data_identifier": f"{identifier}_{name}"}
        for name, values in base.plans["configurations"].items()
    }
    plans |= {key: base.plans[key] for key in TRANSPOSED}


def declare_base(plans: dict[str, Any], base: Base, dataset_json: Mapping[str, Any]) -> list[str]:
    """Describe the base in the plans of a new dataset, after checking that both can be joined to one model.

    Returns:
        Notes for the user, see `keep_settings` and `list_mirroring`.

    Raises:
        PlansError: Contexts or labels contradict the base's, its channels are others, or plans of that name that
            were not made for the base exist.
        PromptError: A target contradicts one of the base's.
    """
    before = keep_plans(str(plans.get("dataset_name")), str(plans.get("plans_name")), base)
    check_channels(base, dataset_json)
    check_overlap(base.dataset, dataset_json)
    join_plans(base.plans, [ModelPart(name_adapter(plans), plans[PLANS_KEY], dataset_json)])
    described = describe_base(base.name, base.plans, base.dataset, base.mirroring)
    plans[PLANS_KEY][BASE_KEY] = {**described, "weights": base.weights}
    take_mirroring(plans, base.mirroring or ())
    notes = keep_settings(plans, before, _FIXED)
    return [*list_mirroring(plans, base.mirroring or ()), *notes]


def check_checkpoint(checkpoint: Mapping[str, Any], file: object, plans: Mapping[str, Any], configuration: str) -> None:
    """Compare a checkpoint with the base that plans were made for.

    Args:
        checkpoint: Content of an nnU-Net checkpoint.
        file: Its file, for messages.
        plans: The adapter's plans.
        configuration: The configuration that is trained.

    Raises:
        ModelError: It is no checkpoint of a DuPLUS model, or network, patch or the centres of embeddings differ.
    """
    theirs = checkpoint.get("init_args", {}).get("plans", {})
    model = as_form(plans).base_model
    if PLANS_KEY not in theirs:
        raise ModelError(
            f"{file} is no DuPLUS model's checkpoint. Give -pretrained_weights a checkpoint of the base that the "
            f"dataset was planned for, {model}."
        )
    other, own = (content["configurations"].get(configuration, {}) for content in (theirs, plans))
    wrong = [name for name in ("architecture", "patch_size") if other.get(name) != own.get(name)]
    if theirs[PLANS_KEY].get("centres") != plans[PLANS_KEY]["centres"]:
        wrong.append("the centres of the embeddings")
    if read_settings(theirs).network != read_settings(plans).network:
        wrong.append("settings.network")
    if wrong:
        raise ModelError(
            f"{file} is of another base than the plans {plans.get('plans_name')!r} were made for ({model}): "
            f"{', '.join(wrong)} differ. Plan the dataset for this base: `duplus adapt plan DATASET --from-model "
            f"{Path(str(file)).parent}`, and preprocess it again."
        )
