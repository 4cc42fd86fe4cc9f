"""Identifies the weights of a checkpoint, and compares the plans that they were trained by with those beside them.

nnU-Net stores the plans of a training in each checkpoint. Weights of another training fit plans as long as the shapes
do, but expect images of another spacing, order of axes or normalisation.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from duplus_nnunet.checkpoint_files import compute_checksum
from duplus_nnunet.errors import ModelError
from duplus_nnunet.model_form import inherit, select_statistics, shorten
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_section import PLANS_KEY, find_differences

TRANSPOSED = ("transpose_forward", "transpose_backward")
# Keys of a context that describe how its images are preprocessed.
IMAGES = ("spacing", "normalization_schemes", "use_mask_for_norm", "foreground_intensity_properties_per_channel")
_IMAGES_OF_CONFIGURATION = ("spacing", "normalization_schemes", "use_mask_for_norm", "architecture")
_INTENSITIES = "foreground_intensity_properties_per_channel"
# Keys that differ between the folds of one model.
_OF_A_RUN = ("continue_training",)
_SHOWN = 3
_MISSING = object()


def find_trained_plans(checkpoint: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the plans that a checkpoint was trained by; None if it holds none."""
    settings = checkpoint.get("init_args")
    plans = settings.get("plans") if isinstance(settings, Mapping) else None
    return plans if isinstance(plans, Mapping) and isinstance(plans.get("configurations"), Mapping) else None


def find_configuration(checkpoint: Mapping[str, Any]) -> str:
    """Return the configuration that a checkpoint was trained in; empty if it does not say it."""
    settings = checkpoint.get("init_args")
    name = settings.get("configuration") if isinstance(settings, Mapping) else None
    return name if isinstance(name, str) else ""


def identify(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the weights of a checkpoint, and that of its plans, which all folds of a model share.

    Returns:
        `weights` and `plans`; empty texts for what the checkpoint does not hold.
    """
    weights, plans = checkpoint.get("network_weights"), find_trained_plans(checkpoint)
    return {
        "weights": compute_checksum(weights) if weights else "",
        "plans": "" if plans is None else _compute_plans_checksum(plans),
    }


def find_mirroring(checkpoint: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the array axes (0 to 2) along which a checkpoint's training mirrored images; None: it does not say it."""
    axes = checkpoint.get("inference_allowed_mirroring_axes", _MISSING)
    if axes is None:
        return ()
    valid = isinstance(axes, (list, tuple)) and all(axis in (0, 1, 2) for axis in axes)
    return tuple(int(axis) for axis in axes) if valid else None


def _compute_plans_checksum(plans: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of plans as JSON, in which tuples are lists and keys are texts."""
    plain = json.loads(json.dumps({key: value for key, value in plans.items() if key not in _OF_A_RUN}, default=str))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def require_trained_by(
    plans: Mapping[str, Any],
    trained: Mapping[str, Any] | None,
    configurations: Iterable[str],
    where: tuple[object, ...],
) -> None:
    """Refuse weights that were trained by other plans than those beside them, in what the weights depend on.

    Network, reader, order of axes, spacing, normalisation and its statistics of intensities are compared, of plans of
    DuPLUS also those of each context and the centres of the embeddings.

    Args:
        plans: Content of plans.json.
        trained: The plans that the checkpoint was trained by, in the same form; None: not known, nothing is compared.
        configurations: Names of the configurations to compare.
        where: The checkpoint and plans.json, for the message.

    Raises:
        ModelError: They differ.
    """
    if trained is None:
        return
    names = tuple(dict.fromkeys(configurations))
    old, new = (_select(content, names, file) for content, file in zip((trained, plans), where, strict=True))
    shared = old["contexts"].keys() & new["contexts"].keys()  # prompts may have been added
    for parts in (old, new):
        parts["contexts"] = {name: parts["contexts"][name] for name in shared}
    differences = list(find_differences(old, new))
    if differences:
        listed = "; ".join(f"{key}: {shorten(was)}, now {shorten(now)}" for key, was, now in differences[:_SHOWN])
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ModelError(
            f"The weights {where[0]} were trained by other plans than {where[1]} ({listed}{more}), so that they would "
            "see images as they never did. Copy checkpoint and plans.json from the same model, or undo the change."
        )


def _select(plans: Mapping[str, Any], names: Iterable[str], file: object) -> dict[str, Any]:
    """Select what weights depend on."""
    section, configurations = PLANS_KEY in plans, plans["configurations"]
    chosen = {name: inherit(configurations, name, file) for name in names if name in configurations}
    parts: dict[str, Any] = {key: plans.get(key) for key in ("image_reader_writer", *TRANSPOSED)}
    parts["configurations"] = {
        name: {key: values.get(key) for key in _IMAGES_OF_CONFIGURATION} for name, values in chosen.items()
    }
    parts[_INTENSITIES] = {
        name: select_statistics(values.get("normalization_schemes") or (), plans.get(_INTENSITIES) or {})
        for name, values in chosen.items()
    }
    parts[PLANS_KEY], parts["contexts"] = section, {}
    if section:
        form = as_form(plans)
        parts["contexts"] = {name: context.model_dump(include=set(IMAGES)) for name, context in form.contexts.items()}
        parts["centres"] = form.centres.model_dump()
    return parts
