"""Validates the section `duplus` of a plans file, which users edit by hand, and returns it as typed attributes.

Only what prompts, contexts and sources need is checked here; settings are validated by `settings`. Keys without a field
are kept as they are, unless `plans_keys` finds that another one was meant.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    ValidationError,
)

from duplus_nnunet.errors import PlansError, list_nearest_first
from duplus_nnunet.plans_keys import find_misspelt
from duplus_nnunet.plans_packing import PackedEmbeddings, find_shared, unpack_section
from duplus_nnunet.plans_section import find_section


def _refuse_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Text = Annotated[str, Field(min_length=1)]
Sentences = Annotated[list[Text], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False), BeforeValidator(_refuse_truth)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False), BeforeValidator(_refuse_truth)]
Spacing = Annotated[list[Positive], Field(min_length=3, max_length=3)]
# Written by nnU-Net or by planning: numbers of either type, lists or tuples.
Numbers = Annotated[list[float], Field(strict=False)]
Statistics = dict[str, Annotated[float, Field(strict=False), BeforeValidator(_refuse_truth)]]
Entry = Annotated[tuple[str, str], Field(strict=False)]

_PROBLEMS_SHOWN = 3


class _PlannedForm(BaseModel):
    """A mapping in the plans, as attributes; keys without a field are kept and written back by `model_dump`."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class PlannedContext(_PlannedForm):
    """A context: its prompts, and how its images are preprocessed.

    Attributes:
        sentences: Context prompt, then its paraphrases.
        target_prompts: For each target, its target prompt in this context, then the paraphrases.
        targets: Names of the targets that are annotated in the context; `trained` also serves plans without the key.
        implausible: Names of the targets that its images cannot show, by where in the body both lie.
        modality: Spelled out, such as "computed tomography".
        region: Part of the body.
        spacing: Target spacing in 3d_fullres (mm, array order after nnU-Net's transposition); None: nnU-Net's own.
        normalization_schemes: Name of nnU-Net's normalisation for each channel; None: the configuration's.
        use_mask_for_norm: Whether each channel is normalised inside the nonzero mask only; None: the configuration's.
        foreground_intensity_properties_per_channel: As in nnU-Net's plans; None: those of the whole dataset.
        intensities: For each channel, lowest and highest value of each statistic over the training images.
        volumes: Range of each target's volume; validated by `data.volume_ranges`, which is the only reader.
        adapters: In a joined model, the adapter that predicts each target ("" is the base model); None in others.
    """

    sentences: Sentences
    target_prompts: dict[Text, Sentences]
    targets: list[Text] = []
    implausible: list[Text] = []
    modality: str = ""
    region: str = ""
    spacing: Spacing | None = None
    normalization_schemes: Annotated[list[str], Field(strict=False)] | None = None
    use_mask_for_norm: Annotated[list[bool], Field(strict=False)] | None = None
    foreground_intensity_properties_per_channel: dict[str, Statistics] | None = None
    intensities: Annotated[list[dict[str, Numbers]], Field(strict=False)] = []
    volumes: Any = {}
    adapters: dict[str, str] | None = None

    @property
    def trained(self) -> list[str]:
        """Names of the targets that are trained in the context: every target with a prompt, unless some are listed."""
        return self.targets if "targets" in self.model_fields_set else list(self.target_prompts)


class PlannedSource(_PlannedForm):
    """A source of cases.

    Attributes:
        context: Key of the context of its cases.
        weight: How often its cases are drawn in training, relative to other sources.
        targets: Number of annotated cases of each target.
        present: Number of cases whose label map holds each target; empty in older plans.
        cases: Number of cases.
        median_shape: Voxels after resampling, in array order after nnU-Net's transposition.
    """

    context: Text
    weight: Weight
    targets: dict[str, Annotated[int, Field(strict=False)]] = {}
    present: dict[str, Annotated[int, Field(strict=False)]] = {}
    cases: Annotated[int, Field(strict=False)] = 0
    median_shape: Numbers = []


class PlannedTarget(_PlannedForm):
    """A target.

    Attributes:
        name: Its standard name.
        label: The name that dataset.json gives it.
        synonyms: Other names that users may ask for it by.
        partner: Name of the same structure on the other side of the body.
        missing: What it means that a case lacks the label: "absent" or "not annotated".
    """

    name: Text
    label: Text
    synonyms: list[Text] = []
    partner: str | None = None
    missing: str | None = "absent"


class EmbeddingCentre(_PlannedForm):
    """How embeddings of one kind are centred and scaled.

    Attributes:
        centre: What is subtracted: an embedding, as text.
        scale: What the difference is multiplied by.
        directions: Unit vectors along which embeddings are stretched, one after the other, as text.
        gains: Factor of each direction.
    """

    centre: Text
    scale: Positive
    directions: Text | None = None
    gains: list[Positive] = []


class EmbeddingCentres(_PlannedForm):
    """How each kind of embedding is centred and scaled: context prompts, target prompts and names of targets."""

    context: EmbeddingCentre
    sentence: EmbeddingCentre
    name: EmbeddingCentre


class PlannedBase(_PlannedForm):
    """The base model that an adapter is planned for.

    Attributes:
        model: Name of its model folder.
        section: Section `duplus` of its plans, without settings.
        dataset: Labels of its dataset.json.
        mirroring_axes: Array axes along which it was trained with mirror images; None: none.
        weights: SHA-256 of its weights; empty in older plans.
    """

    model: str
    weights: str = ""
    section: dict[str, Any] = {}
    dataset: dict[str, Any] = {}
    mirroring_axes: Annotated[list[int], Field(strict=False)] | None = None


class PlannedStart(_PlannedForm):
    """The stock nnU-Net model from whose weights a training is to start.

    Attributes:
        model: Name of its model folder.
        configuration: The configuration that it was trained in.
        trainer: Name of its trainer.
        weights: SHA-256 of its weights; empty in older plans.
        plans: SHA-256 of the plans that it was trained by; empty in older plans, and if its checkpoint holds none.
    """

    model: str
    configuration: str = ""
    trainer: str = ""
    weights: str = ""
    plans: str = ""


def _check_orientation(name: str) -> str:
    if sorted("LRAPSI".index(letter) // 2 for letter in name if letter in "LRAPSI") != [0, 1, 2] or len(name) != 3:
        raise ValueError("an orientation has three letters, one each of L or R, A or P, and S or I, such as LPS")
    return name


class PlansForm(_PlannedForm):
    """The section `duplus` of a plans file.

    Attributes:
        default_context: Key of the context that is used where none is named.
        contexts: All contexts by key.
        targets: All targets, in the order of dataset.json.
        centres: How embeddings are centred and scaled.
        embeddings: Embedding of each text: little-endian float16 in base64.
        encoder: Identity of the text encoder that made them.
        settings: Settings of a run, to be parsed by `settings.parse_settings`.
        settings_version: Version of the settings' defaults, see `settings.parse_settings`.
        sources: All sources by name.
        entries: In a joined model, the entries of the table of texts that come first; see `list_entries`.
        left_right_axis: Array axis from left to right, after nnU-Net's transposition; None: unknown.
        orientation: Orientation of the training images, such as "LPS": the directions of a file's first, second and
            third axis. Images are turned to it before nnU-Net's transposition; None: they are used as they are.
        reference_spacing: Spacing of the 3d_fullres configuration (mm), to which those of contexts are relative.
        spacing: "shared": one target spacing for all contexts; "context": one for each.
        base: The base model, in the plans of an adapter.
        start: The stock model whose architecture the plans have; None: nnU-Net planned it.
    """

    default_context: Text
    contexts: Annotated[dict[Text, PlannedContext], Field(min_length=1)]
    targets: Annotated[list[PlannedTarget], Field(min_length=1)]
    centres: EmbeddingCentres
    embeddings: InstanceOf[PackedEmbeddings] | Annotated[dict[str, Text], Field(min_length=1)]
    encoder: dict[str, Any] | None = None
    settings: Any = {}
    settings_version: Any = None
    sources: dict[Text, PlannedSource] = {}
    entries: Annotated[list[Entry], Field(strict=False)] = []
    left_right_axis: Annotated[int, Field(ge=0, le=2)] | None = None
    orientation: Annotated[str, AfterValidator(_check_orientation)] | None = None
    reference_spacing: Spacing | None = None
    spacing: str | None = None
    base: PlannedBase | None = None
    start: PlannedStart | None = None

    _plans_name: object = PrivateAttr(default=None)

    @property
    def plans_name(self) -> object:
        """Name of the plans, for messages."""
        return self._plans_name

    @property
    def base_model(self) -> str:
        """Name of the base's model folder; empty in plans that were not made for a base."""
        return "" if self.base is None else self.base.model

    def list_entries(self) -> list[tuple[str, str]]:
        """List all texts with an embedding that can be drawn, paraphrases included.

        Returns:
            N pairs of a kind (`context`, `sentence`, `name`) and a text, each once.
        """
        contexts = self.contexts.values()
        listed = [*self.entries, *(("context", text) for context in contexts for text in context.sentences)]
        listed += [("sentence", text) for context in contexts for text in _list_target_prompts(context)]
        return list(dict.fromkeys([*listed, *(("name", target.name) for target in self.targets)]))


def as_form(plans: Mapping[str, Any] | PlansForm) -> PlansForm:
    """Return the section `duplus` of a plans file's content as a form; a form is returned unchanged.

    Raises:
        PlansError: The plans are no DuPLUS plans, or something in the section is missing, of another type, or
            contradictory; the message says where.
    """
    return plans if isinstance(plans, PlansForm) else parse_section(find_section(plans), plans.get("plans_name"))


def parse_section(section: Mapping[str, Any], plans_name: object) -> PlansForm:
    """Validate the section `duplus` of plans as a whole.

    Args:
        section: Content of the section.
        plans_name: Name of the plans, for messages.

    Raises:
        PlansError: Something is missing, of another type, or contradictory; the message says where.
    """
    plain = unpack_section(section)
    shared = _find_sharing(section.get("contexts"))
    if shared:  # validated once, and held once: there are thousands of target prompts
        contexts = plain["contexts"].items()
        plain["contexts"] = {
            key: {**value, "target_prompts": {}} if key in shared else value for key, value in contexts
        }
    try:
        form = PlansForm.model_validate(plain)
    except ValidationError as error:
        problems = [_describe(item["loc"], item["msg"], item["input"]) for item in error.errors()]
        raise _refuse(plans_name, problems) from error
    for key, first in shared.items():
        prompts = form.contexts[first].target_prompts
        form.contexts[key] = form.contexts[key].model_copy(update={"target_prompts": prompts})
    problems = [*find_misspelt(form), *_check_names(form), *_check_sources(form), *_check_embeddings(form)]
    if problems:
        raise _refuse(plans_name, problems)
    form._plans_name = plans_name
    return form


def _find_sharing(contexts: object) -> dict[str, str]:
    """Find the contexts of a packed section that share the target prompts of another, and that other."""
    items = contexts.items() if isinstance(contexts, Mapping) else ()
    return {key: first for key, context in items if (first := find_shared(context)) is not None}


def _refuse(plans_name: object, problems: list[str]) -> PlansError:
    more = f" (and {len(problems) - _PROBLEMS_SHOWN} more)" if len(problems) > _PROBLEMS_SHOWN else ""
    return PlansError(
        f"The plans {plans_name!r} cannot be used: {' '.join(problems[:_PROBLEMS_SHOWN])}{more} Undo that, or plan the "
        "dataset again."
    )


def _describe(location: tuple[int | str, ...], message: str, value: object) -> str:
    where = ".".join(map(str, ("duplus", *location)))
    if message == "Field required":
        return f"{where} is missing."
    shown = repr(value)
    return f"{where}: {message}; found {shown if len(shown) <= 60 else shown[:57] + '...'}."


def _check_names(form: PlansForm) -> Iterator[str]:
    """Find names that refer to nothing, or to two things."""
    if form.default_context not in form.contexts:
        listed = ", ".join(map(repr, list_nearest_first(form.default_context, form.contexts)))
        yield f"duplus.default_context is {form.default_context!r}, which is no context; the contexts are {listed}."
    for kind in ("name", "label"):
        words = [getattr(target, kind) for target in form.targets]
        for word in {word for word in words if words.count(word) > 1}:
            yield f"duplus.targets: two targets have the {kind} {word!r}."
    prompted = {name for context in form.contexts.values() for name in context.target_prompts}
    for target in form.targets:
        if target.name not in prompted:
            yield f"duplus.contexts: no target_prompts hold a prompt for the target {target.name!r}."


def _check_sources(form: PlansForm) -> Iterator[str]:
    """Find sources of unknown contexts, sources that are never drawn from, and trained targets without a prompt."""
    for name, source in form.sources.items():
        if source.context not in form.contexts:
            listed = ", ".join(map(repr, list_nearest_first(source.context, form.contexts)))
            yield (
                f"duplus.sources.{name}.context is {source.context!r}, which is no context; the contexts are {listed}."
            )
    if form.sources and not any(source.weight for source in form.sources.values()):
        yield "duplus.sources: every weight is 0, so that no case would ever be drawn; raise one of them."
    known = {target.name for target in form.targets}
    for key, context in form.contexts.items():
        for name in context.targets:
            if name not in known or name not in context.target_prompts:
                yield f"duplus.contexts.{key}.targets: {name!r} is no target with a prompt in this context."
        for name in context.implausible:
            if name not in known or name in context.targets:
                why = "is trained in this context" if name in known else "is no target"
                yield f"duplus.contexts.{key}.implausible: {name!r} {why}."


def _check_embeddings(form: PlansForm) -> Iterator[str]:
    """Find prompts without an embedding, paraphrases included: training may not draw those for many epochs."""
    texts = {target.name for target in form.targets}
    for context in form.contexts.values():
        texts |= {*context.sentences, *_list_target_prompts(context)}
    for text in sorted(texts - form.embeddings.keys()):
        yield f"duplus.embeddings has none of the text {text!r}; every prompt needs one, which planning makes."
    centres = {"context": form.centres.context, "sentence": form.centres.sentence, "name": form.centres.name}
    for kind, centre in centres.items():
        length = _measure(centre.centre) * len(centre.gains)
        if (centre.directions or centre.gains) and _measure(centre.directions or "") != length:
            yield f"duplus.centres.{kind}.directions do not have as many numbers as centre times gains, {length}."
    expected = _measure(form.centres.context.centre)
    packed = form.embeddings if isinstance(form.embeddings, PackedEmbeddings) else None
    if packed is not None and packed.length != expected:
        yield f"duplus.embeddings have {packed.length} numbers each, expected {expected}."
    for text, vector in () if packed is not None else form.embeddings.items():
        length = _measure(vector)
        if not length or length != expected:
            yield f"duplus.embeddings: that of {text!r} has {length} numbers, expected {expected}."


def _list_target_prompts(context: PlannedContext) -> list[str]:
    return [text for sentences in context.target_prompts.values() for text in sentences]


def _measure(vector: str) -> int:
    """Count the numbers of an embedding written as text; 0 if it is damaged."""
    try:
        return len(base64.b64decode(vector, validate=True)) // 2
    except (binascii.Error, ValueError):
        return 0
