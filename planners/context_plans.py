"""nnU-Net's plans as one context has them: in come plans and a context's name, out come plans with its own numbers."""

from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.settings import PLANS_KEY

# Names under which a context in the plans, like a configuration of nnU-Net's, says how its images are preprocessed.
_NORMALIZATION = ("normalization_schemes", "use_mask_for_norm")
_INTENSITIES = "foreground_intensity_properties_per_channel"
# What a configuration was before it was made a context's own, so that it can be made another one's.
_BEFORE = "duplus_before"
_CONTEXT = "duplus_context"


def list_spacing(plans: Mapping[str, Any], spacing: list[float], context: str) -> list[float]:
    """Return a context's target spacing (mm, array order after nnU-Net's transposition) in a configuration.

    Args:
        plans: A plans file's content.
        spacing: The configuration's own spacing; a context's differs from it as in 3d_fullres.
        context: The context's name.
    """
    section = plans[PLANS_KEY]
    own, reference = section["contexts"][context].get("spacing"), section.get("reference_spacing")
    if own is None or reference is None:
        return list(spacing)
    return [o * s / r for o, s, r in zip(own, spacing, reference, strict=True)]


def configure(configuration: ConfigurationManager, plans: Mapping[str, Any], context: str) -> ConfigurationManager:
    """Return nnU-Net's configuration with a context's target spacing and normalisation, whosever it was before."""
    if configuration.configuration.get(_CONTEXT) == context:
        return configuration
    values = configuration.configuration.get(_BEFORE, configuration.configuration)
    found = plans[PLANS_KEY]["contexts"][context]
    own = {name: found[name] for name in _NORMALIZATION if name in found}
    spacing = list_spacing(plans, values["spacing"], context)
    return ConfigurationManager({**values, **own, "spacing": spacing, _CONTEXT: context, _BEFORE: values})


def measure(manager: PlansManager, context: str) -> PlansManager:
    """Return nnU-Net's plans with the foreground intensities of a context."""
    own = manager.plans[PLANS_KEY]["contexts"][context].get(_INTENSITIES)
    return manager if own is None else PlansManager({**manager.plans, _INTENSITIES: own})
