"""Validates what nnU-Net's part of a model folder says, before anything of it is used.

`plans_form` validates our own part of the plans. Here are plans.json without it, and dataset.json. Both come with
models that others made. nnU-Net looks up and calls what they name, so only the names of networks and layers pass.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.plans_form import PlansForm, as_form
from duplus_nnunet.prompt_registry.dataset_labels import find_label_problems
from duplus_nnunet.text_files import load_json

_PROBLEMS_SHOWN = 3
_AXES = (0, 1, 2)
# What nnU-Net may import by the names in plans: networks, and layers. A longer path could lead to anything, such as to
# the module os by way of a module that imports it.
_NETWORK = re.compile(r"dynamic_network_architectures\.architectures\.[a-z0-9_]+\.[A-Z]\w*")
_LAYER = re.compile(
    r"(torch\.nn(\.modules\.[a-z0-9_]+)?|dynamic_network_architectures\.building_blocks\.[a-z0-9_]+)\.[A-Z]\w*"
)
# Statistics of intensities that a normalisation reads.
_STATISTICS = {
    "CTNormalization": ("mean", "std", "percentile_00_5", "percentile_99_5"),
    "SUVNormalization": ("log_mean", "log_std"),
}
# nnU-Net's normalisations that read none.
_WITHOUT_STATISTICS = (
    "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"
)  # fmt: skip

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Size = Annotated[int, Field(ge=1, le=4096)]
Sizes = Annotated[list[Size], Field(min_length=3, max_length=3)]
Width = Annotated[float, Field(gt=1e-4, lt=1e4, allow_inf_nan=False)]
Widths = Annotated[list[Width], Field(min_length=3, max_length=3)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Axes = Annotated[list[Annotated[int, Field(ge=0, le=2)]], Field(min_length=3, max_length=3)]
Kernel = Size | Annotated[list[Size], Field(min_length=3, max_length=3)]
PerStage = Annotated[int, Field(ge=1, le=64)] | list[Annotated[int, Field(ge=1, le=64)]]
Order = Annotated[int, Field(ge=0, le=5)]
Plain = dict[str, Any]


class _Form(BaseModel):
    """A mapping of nnU-Net's; keys without a field are not looked at."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class HostLayers(_Form):
    """The arguments of a network: its stages, and the names of its layers."""

    n_stages: Annotated[int, Field(ge=2, le=16)]
    features_per_stage: list[Size] | Size
    conv_op: Text
    kernel_sizes: list[Kernel] | Size
    strides: list[Kernel] | Size
    n_conv_per_stage_decoder: PerStage
    n_conv_per_stage: PerStage | None = None
    n_blocks_per_stage: PerStage | None = None
    conv_bias: bool = True
    norm_op: Text | None = None
    norm_op_kwargs: Plain | None = None
    dropout_op: Text | None = None
    dropout_op_kwargs: Plain | None = None
    nonlin: Text | None = None
    nonlin_kwargs: Plain | None = None


class HostArchitecture(_Form):
    """The network of a configuration."""

    network_class_name: Text
    arch_kwargs: HostLayers
    kw_requires_import: Annotated[list[str], Field(alias="_kw_requires_import")]


class HostResampling(_Form):
    """Arguments of the resampling of images, label maps or probabilities."""

    is_seg: bool = False
    order: Order = 3
    order_z: Order = 0
    force_separate_z: bool | None = None


class HostConfiguration(_Form):
    """A configuration, such as 3d_fullres; one that inherits is validated with what it inherits."""

    preprocessor_name: Text
    patch_size: Sizes
    spacing: Widths
    normalization_schemes: Annotated[list[Text], Field(min_length=1)]
    use_mask_for_norm: list[bool]
    architecture: HostArchitecture
    batch_size: Size = 2
    batch_dice: bool = False
    data_identifier: Text = "data"
    resampling_fn_data: Text
    resampling_fn_seg: Text
    resampling_fn_probabilities: Text
    resampling_fn_data_kwargs: HostResampling
    resampling_fn_seg_kwargs: HostResampling
    resampling_fn_probabilities_kwargs: HostResampling


class HostPlans(_Form):
    """nnU-Net's part of plans.json; configurations are validated one by one, as they may inherit."""

    plans_name: Text
    dataset_name: Text
    image_reader_writer: Text
    label_manager: Text
    transpose_forward: Axes
    transpose_backward: Axes
    configurations: Annotated[dict[Text, Plain], Field(min_length=1)]
    foreground_intensity_properties_per_channel: dict[str, dict[str, Number]] = {}


class HostDataset(_Form):
    """What a model reads in dataset.json."""

    labels: Annotated[dict[Text, Any], Field(min_length=2)]
    channel_names: Annotated[dict[str, Any], Field(min_length=1)]
    file_ending: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9.]+$", max_length=20)]
    regions_class_order: list[int] | None = None
    overwrite_image_reader_writer: Text | None = None


Form = TypeVar("Form", bound=BaseModel)


def read_json(file: Path, advice: str = "Export the model again.") -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Args:
        file: The file.
        advice: What to do if it cannot be read, a sentence.

    Raises:
        FileNotFoundError: There is none.
        ModelError: It cannot be read, or is no object; see `text_files.load_json`.
    """
    try:
        content = load_json(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}. {advice}") from error
    except DataError as error:
        raise ModelError(f"{error} {advice}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} cannot be read: expected an object, found a {type(content).__name__}. {advice}")
    return content


def check_model(plans: Mapping[str, Any], dataset: Mapping[str, Any], where: object) -> None:
    """Validate nnU-Net's part of the plans of a model, and its dataset.json.

    Args:
        plans: Content of plans.json.
        dataset: Content of dataset.json.
        where: The model folder, for messages.

    Raises:
        ModelError: Something is missing, of another type, contradictory or not allowed; the message says where.
        PlansError: The same of our part.
    """
    file = f"{where}/plans.json"
    form, channels = check_host_plans(plans, file)
    _refuse(list(_check_contexts(as_form(plans), form, channels)), file)
    check_dataset(dataset, f"{where}/dataset.json", channels)


def check_host_plans(plans: Mapping[str, Any], file: object) -> tuple[HostPlans, int | None]:
    """Validate nnU-Net's part of plans that name our preprocessor and our label manager.

    Args:
        plans: Content of plans.json; a section `duplus` is not looked at.
        file: The file, for messages.

    Returns:
        The plans as a form, and the number of channels that they normalise.

    Raises:
        ModelError: Something is missing, of another type, contradictory or not allowed; the message says where.
    """
    form = _parse(HostPlans, plans, file, "")
    problems = [*_check_axes(form), *_check_classes(form)]
    channels = None
    for name in form.configurations:
        content = inherit(form.configurations, name, file)
        configuration = _parse(HostConfiguration, content, file, f"configurations.{name}.")
        problems += [f"configurations.{name}.{problem}" for problem in _check_configuration(configuration, form)]
        channels = len(configuration.normalization_schemes)
    _refuse(problems, file)
    return form, channels


def check_dataset(dataset: Mapping[str, Any], file: object, channels: int | None = None) -> None:
    """Validate what a model reads in dataset.json.

    Args:
        dataset: Content of the file.
        file: The file, for messages.
        channels: Number of channels that the plans normalise; None: not known.

    Raises:
        ModelError: Something is missing, of another type, or contradictory.
    """
    renamed = {"channel_names": dataset["modality"]} if "modality" in dataset and "channel_names" not in dataset else {}
    form = _parse(HostDataset, {**dataset, **renamed}, file, "")
    problems = find_label_problems(form.labels, form.regions_class_order, ordered=False)
    if channels is not None and len(form.channel_names) != channels:
        problems.append(f"channel_names: {len(form.channel_names)} channel(s), but the plans normalise {channels}.")
    _refuse(problems, file)


def _parse(form: type[Form], content: Mapping[str, Any], file: object, prefix: str) -> Form:
    try:
        return form.model_validate(dict(content))
    except ValidationError as error:
        problems = [
            f"{prefix}{'.'.join(map(str, item['loc']))}: {item['msg']}"
            + ("." if item["type"] == "missing" else f"; found {shorten(item['input'])}.")
            for item in error.errors()
        ]
        _refuse(problems, file)
        raise


def shorten(value: object) -> str:
    """Return a value as text for a message, cut to 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _refuse(problems: list[str], file: object) -> None:
    more = f" (and {len(problems) - _PROBLEMS_SHOWN} more)" if len(problems) > _PROBLEMS_SHOWN else ""
    if problems:
        shown = " ".join(problems[:_PROBLEMS_SHOWN])
        raise ModelError(f"{file} cannot be used: {shown}{more} Undo that, or export the model again.")


def inherit(configurations: Mapping[str, Any], name: str, file: object) -> Plain:
    """Return a configuration with what it inherits, as nnU-Net resolves it.

    Args:
        configurations: All configurations of the plans.
        name: Name of one of them.
        file: Their file, for messages.

    Raises:
        ModelError: It inherits from one that is missing, or from itself.
    """
    chain, content = [name], dict(configurations[name])
    while "inherits_from" in content:
        parent = content.pop("inherits_from")
        if not isinstance(parent, str) or parent not in configurations or parent in chain:
            _refuse([f"configurations.{chain[-1]}.inherits_from: {shorten(parent)} cannot be inherited from."], file)
        chain.append(str(parent))
        content = {**configurations[str(parent)], **content}
    return content


def _check_axes(form: HostPlans) -> Iterator[str]:
    forward, backward = form.transpose_forward, form.transpose_backward
    if sorted(forward) != list(_AXES):
        yield f"transpose_forward: expected an order of the axes 0, 1 and 2; found {forward}."
    elif [forward[axis] for axis in backward] != list(_AXES):
        yield f"transpose_backward: expected the inverse of transpose_forward, {forward}; found {backward}."


def _check_classes(form: HostPlans) -> Iterator[str]:
    if form.label_manager != "DuPLUSLabelManager":
        yield f"label_manager: expected 'DuPLUSLabelManager', found {form.label_manager!r}."
    for channel, statistics in form.foreground_intensity_properties_per_channel.items():
        if statistics.get("std", 1.0) < 0:
            yield f"foreground_intensity_properties_per_channel.{channel}.std: below 0."


def _check_contexts(section: PlansForm, plans: HostPlans, channels: int | None) -> Iterator[str]:
    """Find contexts whose images could not be normalised."""
    for key, context in section.contexts.items():
        schemes, masks = context.normalization_schemes, context.use_mask_for_norm
        for name, values in (("normalization_schemes", schemes), ("use_mask_for_norm", masks)):
            if values is not None and len(values) != channels:
                yield f"duplus.contexts.{key}.{name}: expected {channels} value(s), found {len(values)}."
        own = context.foreground_intensity_properties_per_channel
        known = plans.foreground_intensity_properties_per_channel if own is None else own
        yield from (f"duplus.contexts.{key}.{problem}" for problem in check_statistics(schemes or [], known))


def _check_configuration(form: HostConfiguration, plans: HostPlans) -> Iterator[str]:
    """Find contradictions in a configuration, and classes that plans may not name."""
    if form.preprocessor_name != "DuPLUSPreprocessor":
        yield f"preprocessor_name: expected 'DuPLUSPreprocessor', found {form.preprocessor_name!r}."
    if len(form.use_mask_for_norm) != len(form.normalization_schemes):
        yield f"use_mask_for_norm: expected {len(form.normalization_schemes)} values, one for each channel."
    properties = plans.foreground_intensity_properties_per_channel
    yield from check_statistics(form.normalization_schemes, properties)
    yield from _check_architecture(form)


def check_statistics(schemes: list[str], properties: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Find statistics of intensities that the normalisation of a channel needs and that are missing.

    Args:
        schemes: Name of nnU-Net's normalisation of each channel.
        properties: Statistics by channel.
    """
    for channel, scheme in enumerate(schemes):
        for name in _STATISTICS.get(scheme, ()):
            if not math.isfinite(properties.get(str(channel), {}).get(name, math.nan)):
                yield f"foreground_intensity_properties_per_channel.{channel}.{name} is missing, needed by {scheme}."


def select_statistics(
    schemes: Sequence[str], properties: Mapping[Any, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Select, by channel, the statistics of intensities that its normalisation reads; of an unknown one, all.

    Args:
        schemes: Name of nnU-Net's normalisation of each channel.
        properties: Statistics by channel.
    """
    named = {str(channel): statistics for channel, statistics in properties.items()}
    selected = {}
    for channel, scheme in enumerate(schemes):
        known = named.get(str(channel), {})
        read = () if scheme in _WITHOUT_STATISTICS else _STATISTICS.get(scheme, tuple(known))
        selected[str(channel)] = {name: float(known[name]) for name in read if name in known}
    return selected


def _check_architecture(form: HostConfiguration) -> Iterator[str]:
    architecture, layers = form.architecture, form.architecture.arch_kwargs
    name = architecture.network_class_name
    if not _NETWORK.fullmatch(name):
        yield f"architecture.network_class_name: expected a network of dynamic_network_architectures, found {name!r}."
    content = layers.model_dump()
    for key in architecture.kw_requires_import:
        value = content.get(key)
        if key not in content or (value is not None and not _is_layer(value)):
            yield f"architecture.arch_kwargs.{key}: expected the name of a layer of torch.nn, found {shorten(value)}."
    for key in ("conv_op", "norm_op", "dropout_op", "nonlin"):
        if key not in architecture.kw_requires_import:
            yield f"architecture._kw_requires_import: {key!r} is missing."
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
        value = content.get(key)
        if isinstance(value, list) and len(value) != layers.n_stages:
            yield f"architecture.arch_kwargs.{key}: expected {layers.n_stages} values, one for each stage."
    given = layers.strides if isinstance(layers.strides, list) else [layers.strides] * layers.n_stages
    strides = [stride if isinstance(stride, list) else [stride] * 3 for stride in given]
    factors = [math.prod(axis) for axis in zip(*strides, strict=True)]
    if any(size % factor for size, factor in zip(form.patch_size, factors, strict=True)):
        yield f"patch_size: expected multiples of {factors}, the network's strides; found {form.patch_size}."


def _is_layer(value: object) -> bool:
    return isinstance(value, str) and _LAYER.fullmatch(value) is not None
