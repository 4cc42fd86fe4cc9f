"""Gives nnU-Net's plans and configurations the spacing, normalisation and intensities of one context."""

from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.plans_form import PlannedContext, PlansForm, as_form

Plans = Mapping[str, Any] | PlansForm

_INTENSITIES = "foreground_intensity_properties_per_channel"
# Keys of a configuration that was given a context: that context, and the configuration as it was before.
_CONTEXT, _BEFORE = "duplus_context", "duplus_before"


def list_spacing(plans: Plans, spacing: list[float], context: str) -> list[float]:
    """Return a context's target spacing in a configuration (mm, array order after nnU-Net's transposition).

    Args:
        plans: A plans file's content, or its form.
        spacing: The configuration's own spacing, which relates to the context's as in 3d_fullres.
        context: Key of the context.
    """
    form = as_form(plans)
    own, reference = form.contexts[context].spacing, form.reference_spacing
    if own is None or reference is None:
        return list(spacing)
    return [o * s / r for o, s, r in zip(own, spacing, reference, strict=True)]


def configure(configuration: ConfigurationManager, plans: Plans, context: str) -> ConfigurationManager:
    """Return nnU-Net's configuration with a context's target spacing and normalisation.

    Args:
        configuration: The configuration, possibly already with those of another context.
        plans: A plans file's content, or its form.
        context: Key of the context.
    """
    if configuration.configuration.get(_CONTEXT) == context:
        return configuration
    values = configuration.configuration.get(_BEFORE, configuration.configuration)
    form = as_form(plans)
    own = {**_list_normalization(form.contexts[context]), "spacing": list_spacing(form, values["spacing"], context)}
    return ConfigurationManager({**values, **own, _CONTEXT: context, _BEFORE: values})


def _list_normalization(context: PlannedContext) -> dict[str, Any]:
    """Return what a context's plans contain of normalisation, under the names of nnU-Net's configurations."""
    own = {"normalization_schemes": context.normalization_schemes, "use_mask_for_norm": context.use_mask_for_norm}
    return {key: value for key, value in own.items() if value is not None}


def with_context_intensities(manager: PlansManager, plans: Plans, context: str) -> PlansManager:
    """Return nnU-Net's plans with the foreground intensities of a context.

    Args:
        manager: nnU-Net's plans.
        plans: Their content, or its form.
        context: Key of the context.
    """
    own = as_form(plans).contexts[context].foreground_intensity_properties_per_channel
    return manager if own is None else PlansManager({**manager.plans, _INTENSITIES: own})
