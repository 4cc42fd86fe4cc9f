"""Looks up the classes and functions of nnU-Net that plans name, before images are read with them."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.errors import ModelError

_RESAMPLING = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")


def require_names(plans: Mapping[str, Any], configuration: str, where: object) -> None:
    """Check that nnU-Net has what plans name for reading, normalising and resampling images.

    Args:
        plans: Content of plans.json, validated.
        configuration: The configuration that is used.
        where: The model folder, for messages.

    Raises:
        ModelError: A name is unknown, or a function does not take the arguments that plans name for it.
    """
    manager = PlansManager(dict(plans))
    chosen = manager.get_configuration(configuration)
    place = f"configurations.{configuration}"
    _require(lambda: manager.image_reader_writer_class, where, "image_reader_writer", plans["image_reader_writer"])
    contexts = plans["duplus"]["contexts"].values()
    schemes = [context.get("normalization_schemes") or () for context in contexts]
    for scheme in {name for names in (chosen.normalization_schemes, *schemes) for name in names}:
        _require(partial(_find_normalisation, scheme), where, f"{place}.normalization_schemes", scheme)
    for name in _RESAMPLING:
        called = chosen.configuration[name]
        function = _require(partial(getattr, chosen, name), where, f"{place}.{name}", called)
        arguments = chosen.configuration[f"{name}_kwargs"]
        known = inspect.signature(function).parameters
        unknown = [key for key in arguments if key not in known]
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        if unknown and not takes_any:
            raise ModelError(f"{where}/plans.json cannot be used: {place}.{name}_kwargs.{unknown[0]} is unknown.")


def _require(find: Callable[[], Any], where: object, key: str, name: object) -> Any:
    try:
        found = find()
    except Exception as error:  # nnU-Net raises several kinds for a name that it does not know
        raise _describe_unknown(where, key, name) from error
    if found is None:
        raise _describe_unknown(where, key, name)
    return found


def _describe_unknown(where: object, key: str, name: object) -> ModelError:
    return ModelError(
        f"{where}/plans.json cannot be used: {key} is {name!r}, which the installed nnU-Net does not have. Correct it, "
        "or install the version that the model was trained with."
    )


def _find_normalisation(name: str) -> Any:
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = f"{nnunetv2.__path__[0]}/preprocessing/normalization"
    return recursive_find_python_class(folder, name, "nnunetv2.preprocessing.normalization")
