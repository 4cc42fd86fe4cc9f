"""Planning for a base: in comes a trained model's folder, out come plans by which an adapter fits its network.

Spacing, patch, network and normalisation are the base's, and embeddings are placed as it saw them.
"""

import contextlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.adaptation.joining import ModelPart, check_overlap, describe_base, join_plans, name_adapter
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.prompt_registry import EncoderIdentity
from duplus_nnunet.settings import BASE_KEY, PLANS_KEY, read_settings

# Of a context: how its images are preprocessed.
_IMAGES = ("spacing", "normalization_schemes", "use_mask_for_norm", "foreground_intensity_properties_per_channel")
_TRANSPOSED = ("transpose_forward", "transpose_backward")


@dataclass(frozen=True)
class Base:
    """A trained model that others are adapted from.

    Attributes:
        name: Dataset and folder.
        plans: Content of its plans.json.
        dataset: Content of its dataset.json.
        mirroring: Array axes along which it saw mirror images; None: none.
    """

    name: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    mirroring: Sequence[int] | None = None

    @property
    def section(self) -> Mapping[str, Any]:
        """Its plans' part `duplus`."""
        found: Mapping[str, Any] = self.plans[PLANS_KEY]
        return found


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read plans.json and dataset.json of a model folder.

    Raises:
        ModelError: One is missing or damaged.
    """
    try:
        plans, dataset = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("plans", "dataset"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is no model folder: there is no {Path(str(error.filename)).name}. Name one such as "
            "nnUNet_results/Dataset501_Universal/DuPLUSTrainer__DuPLUSPlans__3d_fullres."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"The plans in {folder} cannot be read: {error}. Export the model again.") from error
    return plans, dataset


def read_base(folder: str | Path) -> Base:
    """Read a trained model's folder, or the one of a checkpoint in it.

    Raises:
        ModelError: It is none of a DuPLUS model, or of one that cannot be a base.
    """
    place = Path(folder).resolve()
    place = next((one for one in (place, *list(place.parents)[:2]) if (one / "plans.json").is_file()), place)
    plans, dataset = read_model(place)
    if PLANS_KEY not in plans:
        raise ModelError(
            f"{place} holds a model of {plans.get('experiment_planner_used')!r}, not of DuPLUS: no prompt steers it. "
            "Train a base with DuPLUSTrainer; it can start from that model with -pretrained_weights."
        )
    if BASE_KEY in plans[PLANS_KEY]:
        raise ModelError(
            f"{place} is an adapter's model itself. Adapt its base, {plans[PLANS_KEY][BASE_KEY]['model']}, or make a "
            "base of it with `duplus adapt merge`."
        )
    if read_settings(plans).text_adapter.enabled:
        raise ModelError(
            f"{place} was trained together with its text encoder, which only its own texts went through, so that new "
            "prompts would mean something else to it. Adapt a base whose settings.text_adapter is off."
        )
    return Base(f"{place.parent.name}/{place.name}", plans, dataset, _read_mirroring(place))


def _read_mirroring(folder: Path) -> list[int] | None:
    """Read along which axes a model saw mirror images; all of its folds did alike."""
    import torch

    files = sorted(folder.glob("fold_*/checkpoint_*.pth"))
    if not files:
        raise ModelError(f"{folder} has no checkpoint in a fold_X, so there is nothing to adapt. Train it first.")
    try:
        found = torch.load(files[0], map_location="cpu", weights_only=True, mmap=True)
        axes = found["inference_allowed_mirroring_axes"]
    except (RuntimeError, OSError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ModelError(f"The checkpoint {files[0]} cannot be read: {error}. Train that fold again.") from error
    return None if axes is None else [int(axis) for axis in axes]


_current: Base | None = None


@contextlib.contextmanager
def use_base(base: Base | None) -> Iterator[None]:
    """Let datasets that are planned in this block be planned for a base."""
    global _current
    before, _current = _current, base
    try:
        yield
    finally:
        _current = before


def get_base() -> Base | None:
    """Return the base that datasets are planned for now."""
    return _current


def fit_section(section: dict[str, Any], base: Base) -> dict[str, Any]:
    """Give the part `duplus` of a new dataset's plans what it has to have in common with its base.

    Raises:
        EncoderError: Their embeddings are of different text encoders.
        PlansError: The base knows its targets by number.
    """
    theirs = EncoderIdentity.from_dict(base.section["encoder"])
    theirs.require_same(EncoderIdentity.from_dict(section["encoder"]), "The text encoder of the new dataset's prompts")
    settings = read_settings(base.plans)
    if settings.target_prompt != "text":
        raise PlansError(
            "The base knows its targets by number (settings.target_prompt is 'one-hot'), so that it cannot learn what "
            "a new sentence means. Adapt a base that was trained with texts."
        )
    kept = {"context_prompt": settings.context_prompt, "network": asdict(settings.network)}
    return {**section, "centres": base.section["centres"], "settings": {**section["settings"], **kept}}


def fit_contexts(contexts: Mapping[str, dict[str, Any]], named: Mapping[str, Any], base: Base) -> list[str]:
    """Preprocess each context as the base does the one of the same name, or else of the same modality and region.

    Args:
        contexts: How images of each new context would be preprocessed, changed in place; spacing (mm) not transposed.
        named: The same contexts' modality and region.
        base: The base.

    Returns:
        A sentence on each context.
    """
    said = []
    for name, found in contexts.items():
        twin = _find_twin(name, named[name], base)
        if twin is None:
            said.append(f"context {name}: spacing and normalisation of its own; the base has none of its modality")
            continue
        theirs = base.section["contexts"][twin]
        found.update({key: theirs[key] for key in _IMAGES if key in theirs})
        found["spacing"] = [theirs["spacing"][place] for place in base.plans["transpose_backward"]]
        said.append(f"context {name}: spacing and normalisation of the base's {twin}")
    return said


def _find_twin(name: str, context: Mapping[str, Any], base: Base) -> str | None:
    theirs = {key: found for key, found in base.section["contexts"].items() if "spacing" in found}
    if name in theirs:
        return name
    what = ("modality", "region")
    alike = [key for key, found in theirs.items() if all(found.get(word) == context.get(word) for word in what)]
    return alike[0] if alike else None


def take_configurations(plans: dict[str, Any], base: Base, identifier: str) -> None:
    """Give plans the base's configurations and order of axes.

    Args:
        plans: Plans of the new dataset, changed in place.
        base: The base.
        identifier: Start of the names of folders with preprocessed data.
    """
    plans["configurations"] = {
        name: {**found, "data_identifier": f"{identifier}_{name}"}
        for name, found in base.plans["configurations"].items()
    }
    plans |= {key: base.plans[key] for key in _TRANSPOSED}


def declare_base(plans: dict[str, Any], base: Base, dataset_json: Mapping[str, Any]) -> None:
    """Let plans say what their base is, and make sure that both together make one model.

    Raises:
        PlansError: Contexts or labels contradict the base's, or the channels are not as many.
        PromptError: A target contradicts one of the base's.
    """
    check_channels(base, dataset_json)
    check_overlap(base.dataset, dataset_json)
    join_plans(base.plans, [ModelPart(name_adapter(plans), plans[PLANS_KEY], dataset_json)])
    plans[PLANS_KEY][BASE_KEY] = describe_base(base.name, base.plans, base.dataset, base.mirroring)


def check_channels(base: Base, dataset_json: Mapping[str, Any]) -> None:
    """Refuse images of another number of channels.

    Raises:
        PlansError: They have.
    """
    theirs, own = (len(one.get("channel_names", one.get("modality", ()))) for one in (base.dataset, dataset_json))
    if theirs != own:
        raise PlansError(
            f"The base takes images of {theirs} channel(s); the new dataset has {own}. Adapt with as many: `duplus "
            "compose` splits several channels into one context each."
        )


def check_checkpoint(checkpoint: Mapping[str, Any], file: object, plans: Mapping[str, Any], configuration: str) -> None:
    """Compare a checkpoint with the base that plans were made for.

    Args:
        checkpoint: A checkpoint of nnU-Net's form.
        file: Its file, for messages.
        plans: The adapter's plans.
        configuration: The configuration that is trained.

    Raises:
        ModelError: It is no DuPLUS model's, or of another network, patch or placing of embeddings.
    """
    theirs = checkpoint.get("init_args", {}).get("plans", {})
    if PLANS_KEY not in theirs:
        raise ModelError(
            f"{file} is no DuPLUS model's checkpoint. Give -pretrained_weights one of the base that the dataset was "
            f"planned for, {plans[PLANS_KEY][BASE_KEY]['model']}."
        )
    other, own = (one["configurations"].get(configuration, {}) for one in (theirs, plans))
    wrong = [name for name in ("architecture", "patch_size") if other.get(name) != own.get(name)]
    if theirs[PLANS_KEY].get("centres") != plans[PLANS_KEY]["centres"]:
        wrong.append("the centres of the embeddings")
    if read_settings(theirs).network != read_settings(plans).network:
        wrong.append("settings.network")
    if wrong:
        raise ModelError(
            f"{file} is of another base than the plans {plans.get('plans_name')!r} were made for "
            f"({plans[PLANS_KEY][BASE_KEY]['model']}): {', '.join(wrong)} differ. Plan the dataset for this base: "
            f"`duplus adapt plan DATASET --from-model {Path(str(file)).parent}`, and preprocess it again."
        )
