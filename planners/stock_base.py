"""Plans a dataset for the weights of a stock nnU-Net model, whose network, patch, spacing and normalisation it takes.

Plans of all versions of nnU-Net 2 are read; those before 2.6 describe the network by other keys, which nnU-Net itself
translates.
"""

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nnunetv2
import torch
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.adaptation.base import read_base, read_model
from duplus_nnunet.adaptation.channels import check_channels, describe_channels, require_order
from duplus_nnunet.adaptation.planning_base import (
    PlanningBase,
    find_checkpoint,
    find_model,
    keep_plans,
    keep_settings,
    list_mirroring,
    take_mirroring,
    write_training,
)
from duplus_nnunet.adaptation.trained_weights import (
    TRANSPOSED,
    find_configuration,
    find_mirroring,
    find_trained_plans,
    identify,
    require_trained_by,
)
from duplus_nnunet.checkpoint_files import read_checkpoint, require_finite_weights
from duplus_nnunet.errors import DuplusError, ModelError
from duplus_nnunet.model_form import check_host_plans, inherit
from duplus_nnunet.networks import condition
from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.orientation import REORIENTED, name_reader_orientation
from duplus_nnunet.planners.preprocessor import DuPLUSPreprocessor
from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.plans_section import PLANS_KEY, START_KEY
from duplus_nnunet.prompt_registry.dataset_labels import channel_names

NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_ARCHITECTURES = "dynamic_network_architectures.architectures."
_INTENSITIES = "foreground_intensity_properties_per_channel"
_FULL = "3d_fullres"
_DEFAULT_PREPROCESSOR = "DefaultPreprocessor"
# What nnU-Net raises when plans are not what it expects.
_UNREADABLE = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, ImportError)

Plain = dict[str, Any]


@dataclass(frozen=True)
class StockBase:
    """A trained model of stock nnU-Net.

    Attributes:
        name: Dataset and folder.
        plans: Its plans, with our preprocessor and label manager, and with those configurations only whose network can
            be conditioned, each without inheritance.
        dataset: Content of its dataset.json.
        configuration: The configuration that it was trained in.
        trainer: Name of its trainer, which need not be installed.
        checkpoint: The checkpoint to start from.
        preprocessor: Name of the preprocessor of its images.
        weights: SHA-256 of its weights; empty: not known.
        trained_plans: SHA-256 of the plans in its checkpoint; empty: it holds none.
        mirroring: Array axes along which its images were mirrored in training; None: not known.
        shares_spacing: Always true: all contexts have its spacing.
    """

    name: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    configuration: str
    trainer: str
    checkpoint: Path
    preprocessor: str = _DEFAULT_PREPROCESSOR
    weights: str = ""
    trained_plans: str = ""
    mirroring: tuple[int, ...] | None = None
    shares_spacing: bool = field(default=True, init=False)

    @property
    def configurations(self) -> tuple[str, ...]:
        """Names of the configurations whose network can be conditioned."""
        return tuple(self.plans["configurations"])

    @property
    def orientation(self) -> str | None:
        """Orientation of its training images, if its reader turned all of them to one; None: unknown."""
        return name_reader_orientation(self.plans["image_reader_writer"])

    @property
    def values(self) -> Mapping[str, Any]:
        """Values of its configuration 3d_fullres, to which the spacings of contexts relate."""
        values: Mapping[str, Any] = self.plans["configurations"][_FULL]
        return values

    def name_plans(self, planners: str) -> str:
        """Return a name of its own for new plans, so that those without a base are kept."""
        return f"{planners.removesuffix('Plans')}PretrainedPlans"

    def check_dataset(self, dataset_json: Mapping[str, Any]) -> None:
        """Refuse another number or another order of channels.

        Raises:
            PlansError: They differ.
        """
        check_channels(self, dataset_json)

    def fit_section(self, section: Plain) -> Plain:
        """Return the section as it is: the model has no prompts."""
        return section

    def fit_contexts(
        self,
        contexts: Mapping[str, Plain],
        named: Mapping[str, PlannedContext],
        channels: Mapping[str, Sequence[str]],
    ) -> list[str]:
        """Give each context the model's spacing, and the model's normalisation to channels of the same kind.

        A channel is of the same kind if it has the same name, or if it is normalised in the same way, as all channels
        of CT are. With the way come the statistics of intensities that it uses.

        Args:
            contexts: How images of each context would be preprocessed, changed in place; spacing (mm) not transposed.
            named: The same contexts with modality and region.
            channels: Names of the channels of each context.

        Returns:
            A note on each context, one on each channel that has another name than the model's, one on the orientation,
            and one on another preprocessor.

        Raises:
            PlansError: The channels of a context have the names of the model's in another order.
        """
        notes, theirs = [], channel_names(self.dataset)
        for name, context in contexts.items():
            require_order(theirs, channels[name], f"Context {name!r}")
            context["spacing"] = [float(self.values["spacing"][axis]) for axis in self.plans["transpose_backward"]]
            taken = [self._fit_channel(context, number, own) for number, own in enumerate(channels[name])]
            ways = ", ".join(context["normalization_schemes"])
            whose = "the model's" if all(taken) else "its own" if not any(taken) else "partly the model's"
            notes.append(f"context {name}: the model's spacing; {whose} normalisation ({ways})")
            notes += [f"context {name}: {note}" for note in describe_channels(theirs, channels[name])]
        if self.preprocessor != _DEFAULT_PREPROCESSOR:
            notes.append(
                f"the model's images were preprocessed by {self.preprocessor}; the new ones are preprocessed as by "
                "nnU-Net's default, and the weights may fit them less well"
            )
        return [*notes, *self._describe_orientation()]

    def _fit_channel(self, context: Plain, number: int, name: str) -> bool:
        """Take over the normalisation of a channel if it is of the same kind; report whether it was."""
        way, masked = (self.values[key][number] for key in ("normalization_schemes", "use_mask_for_norm"))
        theirs = channel_names(self.dataset)[number]
        same = theirs.casefold() == name.casefold() or way == context["normalization_schemes"][number]
        if not same or not _is_installed(way):
            return False
        for key, value in (("normalization_schemes", way), ("use_mask_for_norm", masked)):
            context[key] = [value if place == number else other for place, other in enumerate(context[key])]
        own = context[_INTENSITIES].get(str(number), {})
        context[_INTENSITIES] = {
            **context[_INTENSITIES], str(number): {**own, **self.plans[_INTENSITIES].get(str(number), {})}
        }  # fmt: skip
        return True

    def _describe_orientation(self) -> list[str]:
        if self.orientation is not None:
            return [f"images are turned to {self.orientation}, as the model's reader did"]
        return [
            "the model's plans do not say how its training images were stored; the new ones stay as they are stored. "
            f'If the model was trained on images in {REORIENTED} orientation, as TotalSegmentator is, add "overwrite_'
            'image_reader_writer": "SimpleITKIOWithReorient" to dataset.json and plan again'
        ]

    def take_configurations(self, plans: Plain, identifier: str) -> None:
        """Give plans the model's configurations and order of axes.

        Args:
            plans: Plans of the new dataset, changed in place.
            identifier: Prefix of the names of folders with preprocessed data.
        """
        own = plans["configurations"][_FULL]
        kept = {key: own[key] for key in ("normalization_schemes", "use_mask_for_norm")}
        if own["normalization_schemes"] == list(self.values["normalization_schemes"]):
            kept = {key: self.values[key] for key in kept}
        plans["configurations"] = {
            name: {**copy.deepcopy(values), **kept, "data_identifier": f"{identifier}_{name}"}
            for name, values in self.plans["configurations"].items()
        }
        plans |= {key: list(self.plans[key]) for key in TRANSPOSED}

    def declare(self, plans: Plain, dataset_json: Mapping[str, Any]) -> list[str]:
        """Name the model in the plans of a new dataset.

        Returns:
            Notes for the user, see `keep_settings` and `list_mirroring`.

        Raises:
            PlansError: The channels differ, or plans of that name that were not made for the model exist.
        """
        before = keep_plans(str(plans.get("dataset_name")), str(plans.get("plans_name")), self)
        check_channels(self, dataset_json)
        plans[PLANS_KEY][START_KEY] = {
            "model": self.name, "configuration": self.configuration, "trainer": self.trainer,
            "weights": self.weights, "plans": self.trained_plans,
        }  # fmt: skip
        take_mirroring(plans, self.mirroring or ())
        notes = keep_settings(plans, before)
        return [*list_mirroring(plans, self.mirroring), *notes]

    def write_training(self, dataset: str, configuration: str, plans_name: str) -> str:
        """Write the command line of the training that starts from its weights."""
        return write_training(dataset, configuration, "DuPLUSTrainer", plans_name, self.checkpoint)


def _is_installed(normalization: str) -> bool:
    folder = os.path.join(nnunetv2.__path__[0], "preprocessing", "normalization")
    return recursive_find_python_class(folder, normalization, "nnunetv2.preprocessing.normalization") is not None


def read_planning_base(folder: str | Path) -> PlanningBase:
    """Read a trained model to plan for, of DuPLUS or of stock nnU-Net, given its folder, a fold or a checkpoint in it.

    Raises:
        ModelError: It is no model, or one that a dataset cannot be planned for.
        PlansError: Its plans were edited so that they cannot be used.
    """
    plans, _ = read_model(find_model(Path(folder).resolve()))
    return read_base(folder) if PLANS_KEY in plans else read_stock_base(folder)


def read_stock_base(folder: str | Path) -> StockBase:
    """Read a trained model of stock nnU-Net, and check that its weights fit a network with prompts.

    Args:
        folder: Its folder, a fold in it, or a checkpoint of that fold.

    Raises:
        ModelError: It is no such model, its configuration is 2D or a cascade's second stage, its network is none that
            can be conditioned, its weights do not fit its plans, were trained by others, or are not finite.
    """
    given = Path(folder).resolve()
    model = find_model(given)
    content, dataset = read_model(model)
    file = find_checkpoint(given, model)
    checkpoint = read_checkpoint(file)
    require_finite_weights(checkpoint["network_weights"], file)
    trainer, configuration = _find_names(checkpoint, model)
    plans = _convert(content, configuration, model, model / "plans.json")
    _, normalised = check_host_plans(plans, f"{model}/plans.json")
    try:
        named = len(channel_names(dataset))
    except _UNREADABLE:
        named = 0
    if named != normalised:
        raise ModelError(
            f"{model}/dataset.json names {named} channel(s) under 'channel_names', and plans.json beside it normalises "
            f"{normalised}. Copy both from the same published model."
        )
    trained = find_trained_plans(checkpoint)
    if trained is not None:
        trained = _convert(dict(trained), configuration, model, f"The plans in {file}")
        require_trained_by(plans, trained, (configuration, _FULL), (file, model / "plans.json"))
    preprocessor = str(inherit(content["configurations"], configuration, model).get("preprocessor_name"))
    name = f"{model.parent.name}/{model.name}"
    found = identify(checkpoint)
    base = StockBase(
        name, plans, dataset, configuration, trainer, file, preprocessor, found["weights"], found["plans"],
        find_mirroring(checkpoint),
    )  # fmt: skip
    _check_weights(base, checkpoint["network_weights"])
    return base


def _find_names(checkpoint: Mapping[str, Any], model: Path) -> tuple[str, str]:
    """Find the names of trainer and configuration, in a checkpoint or, if they are missing, in the folder's name."""
    parts = model.name.split("__")
    configuration = find_configuration(checkpoint) or (parts[-1] if len(parts) == 3 else _FULL)
    trainer = checkpoint.get("trainer_name")
    return str(trainer if isinstance(trainer, str) else parts[0]), configuration


def _convert(content: Plain, configuration: str, model: Path, file: object) -> Plain:
    """Return plans with configurations that stand alone, in nnU-Net's present form, and with our classes.

    Args:
        content: The plans.
        configuration: The configuration that was trained.
        model: The model folder, for messages.
        file: Where the plans are, for messages.

    Raises:
        ModelError: They cannot be used, or not in the configuration that was trained.
    """
    try:
        configurations = {name: _resolve(content, name, file) for name in content["configurations"]}
        unfit = {name: reason for name, values in configurations.items() if (reason := _find_obstacle(values))}
        statistics = PlansManager(content).foreground_intensity_properties_per_channel
    except DuplusError:
        raise
    except _UNREADABLE as error:
        raise ModelError(
            f"{file} cannot be used ({type(error).__name__}: {error}). Expected plans of nnU-Net 2; copy the file from "
            "the published model again."
        ) from error
    for name in (configuration, _FULL):
        if name in unfit or name not in configurations:
            reason = unfit.get(name, "its plans lack it")
            what = "was trained in" if name == configuration else "needs"
            raise ModelError(
                f"{model} {what} the configuration {name!r}, which cannot be used: {reason}. Give the folder of a 3D "
                f"model of {' or '.join(NETWORKS)} that is not the second stage of a cascade, such as one that ends in "
                "__3d_fullres."
            )
    plans = {
        **content,
        "configurations": {name: values for name, values in configurations.items() if name not in unfit},
        "label_manager": DuPLUSLabelManager.__name__,
        _INTENSITIES: statistics,
    }
    return plans


def _resolve(content: Plain, name: str, file: object) -> Plain:
    """Return a configuration with what it inherits, its network described as nnU-Net does now."""
    values = copy.deepcopy(inherit(content["configurations"], name, file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nnU-Net warns that it translates old plans
        values = ConfigurationManager(values).configuration
    architecture = values["architecture"]
    package, _, kind = str(architecture["network_class_name"]).rpartition(".")
    # nnU-Net translates old plans to a module that newer versions of the package lack.
    if kind in NETWORKS and package.startswith(_ARCHITECTURES):
        architecture = {**architecture, "network_class_name": f"{_ARCHITECTURES}unet.{kind}"}
    return {**values, "architecture": architecture, "preprocessor_name": DuPLUSPreprocessor.__name__}


def _find_obstacle(values: Plain) -> str:
    """Return why a configuration cannot be used; empty if it can."""
    network = str(values["architecture"]["network_class_name"])
    layers = values["architecture"]["arch_kwargs"]
    norm, options = str(layers.get("norm_op")), layers.get("norm_op_kwargs") or {}
    if len(values["patch_size"]) != 3:
        return f"it is {len(values['patch_size'])}D, and prompts need a 3D network"
    if values.get("previous_stage"):
        return "it is the second stage of a cascade, which takes the first stage's label map as channels"
    if network not in [f"{_ARCHITECTURES}unet.{name}" for name in NETWORKS]:
        return f"its network is {network}"
    if not norm.endswith("InstanceNorm3d") or not options.get("affine"):
        return f"its norm is {norm} with {options}, and FiLM needs an affine InstanceNorm3d"
    return ""


def _check_weights(base: StockBase, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that weights fit the network of the plans; nothing is computed.

    Raises:
        ModelError: They do not, or nnU-Net cannot build the network.
    """
    network = base.plans["configurations"][base.configuration]["architecture"]
    names = network["network_class_name"], network["arch_kwargs"], network["_kw_requires_import"]
    try:
        with torch.device("meta"):
            unet = get_network_from_plans(*names, len(channel_names(base.dataset)), 1, deep_supervision=True)
            misfits = condition(unet, (1, 1)).match_pretrained(weights).misfits
    except _UNREADABLE as error:
        misfits = [f"{type(error).__name__}: {error}"]
    if misfits:
        raise ModelError(
            f"The weights {base.checkpoint} do not fit the configuration {base.configuration!r} of the plans in their "
            f"folder: {'; '.join(misfits[:3])}. Copy checkpoint, plans.json and dataset.json from the same published "
            f"model; if its trainer, {base.trainer}, builds a network of its own, it cannot be used."
        )
