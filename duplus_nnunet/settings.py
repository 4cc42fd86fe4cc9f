"""Settings of a run, read from the section `duplus` of a plans file into one frozen dataclass."""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from duplus_nnunet.errors import PlansError, describe_unknown
from duplus_nnunet.plans_section import SETTINGS_VERSION, SETTINGS_VERSION_KEY, find_section

# Initial learning rate of each optimizer, used unless the plans have one: nnU-Net's for SGD.
LEARNING_RATES: Final = {"adamw": 1e-3, "sgd": 1e-2}
# Where the encoder of a prognosis comes from.
PRETRAINED: Final = "pretrained"
SCRATCH: Final = "scratch"
SurvivalLoss = Literal["logistic hazard", "mtlr", "deephit", "cox"]
SURVIVAL_LOSSES: tuple[str, ...] = get_args(SurvivalLoss)

# The description of a type completes the message "X is ... in the plans; it must be ...".
Flag = Annotated[bool, Field(strict=True, description="true or false")]
Count = Annotated[int, Field(strict=True, ge=0, description="a whole number of 0 or more")]
PositiveCount = Annotated[int, Field(strict=True, ge=1, description="a whole number of 1 or more")]
Bins = Annotated[int, Field(strict=True, ge=2, description="a whole number of 2 or more")]
Factor = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False, description="a number above 0")]
Share = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False, description="a share from 0 to below 1")]
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False, description="a number of 0 or more")]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1")]
Rate = Annotated[
    Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None,
    Field(description="a number above 0, or null"),
]
Name = Annotated[str, Field(strict=True, description="a text")]
Names = tuple[Annotated[str, Field(strict=True, min_length=1)], ...]
LayerNames = Annotated[Names, Field(description="a list of names, such as ['query', 'value']")]
LayerPatterns = Annotated[Names, Field(description="a list of patterns, such as ['^encoder']")]
TargetNames = Annotated[Names, Field(description="a list of names, such as ['sarcoma']")]

_FORM = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_FORM)
class NetworkSettings:
    """Sizes of the parts that the two prompts add to nnU-Net's network.

    Attributes:
        film: Whether the context prompt conditions encoder and decoder; false is an ablation.
        film_hidden: Width of MLP_FiLM's hidden layer.
        head_features: Channels of the projected decoder map and of the dynamic head's hidden layers.
        head_hidden: Width of MLP_Pred's hidden layers.
    """

    film: Flag = True
    film_hidden: PositiveCount = 128
    head_features: PositiveCount = 8
    head_hidden: PositiveCount = 128


@dataclass(frozen=True, config=_FORM)
class TransferSettings:
    """What training does so that a target is found in contexts in which it was never annotated.

    Attributes:
        modality_dropout: Probability, 0 to 1, that the target prompts of an image are their names alone, without the
            sentence that states the modality.
        context_dropout: Probability, 0 to 1, that an image has no context prompt.
        contrast_augmentation: Probability, 0 to 1, that the intensities of an image are remapped at random.
        region_contrast: Standard deviation of random intensities that are added to the annotated targets of a remapped
            image, in standard deviations of the image.
        remapped_prompts: Prompts of a remapped image: "imitated", those of a context that it could be of, drawn from
            its own and those of the same, an adjoining or an unknown part of the body that have prompts for what is
            annotated in it and can show it (the log lists them); or "none", no context prompt and target names alone.
    """

    modality_dropout: Probability = 0.0
    context_dropout: Probability = 0.0
    contrast_augmentation: Probability = 0.0
    region_contrast: Weight = 0.0
    remapped_prompts: Literal["imitated", "none"] = "imitated"


@dataclass(frozen=True, config=_FORM)
class TextAdapterSettings:
    """LoRA on the text encoder, trained with the network. If disabled, embeddings are those in the plans.

    Attributes:
        enabled: Whether the text encoder is adapted; training then needs the encoder, prediction never does.
        r: Rank of the adapter.
        lora_alpha: The adapter's output is scaled by lora_alpha / r.
        lora_dropout: Share, 0 to below 1, of the adapter's inputs that are dropped in training.
        target_modules: Ends of the names of the encoder's linear layers that are adapted; if empty, the query and value
            projections of the attention, whatever their names in the encoder.
        learning_rate_factor: The adapter's learning rate, as a multiple of the network's.
    """

    enabled: Flag = False
    r: PositiveCount = 8
    lora_alpha: Factor = 8
    lora_dropout: Share = 0.0
    target_modules: LayerNames = ()
    learning_rate_factor: Factor = 0.1


@dataclass(frozen=True, config=_FORM)
class AdaptationSettings:
    """What DuPLUSLoRATrainer trains beside a frozen base.

    Attributes:
        r: Rank of the LoRA on convolutions.
        lora_alpha: The LoRA's output is scaled by lora_alpha / r.
        lora_dropout: Share, 0 to below 1, of the LoRA's inputs that are dropped in training.
        target_modules: Regular expressions that are searched for in the names of convolutions, such as "^encoder" or
            "decoder"; if empty, all convolutions of encoder and decoder are adapted.
        film: Whether the adapter gets its own MLP_FiLM, initialised from the base's.
        head: Whether the adapter gets its own MLP_Pred and projections, initialised from the base's.
        learning_rate: Learning rate of AdamW (betas 0.9 and 0.999, nnU-Net's weight decay) in the first epoch;
            nnU-Net's polynomial schedule follows.
        learning_rate_factor: The LoRA's learning rate, as a multiple of that of MLP_FiLM and MLP_Pred.
    """

    r: PositiveCount = 8
    lora_alpha: Factor = 16
    lora_dropout: Share = 0.0
    target_modules: LayerPatterns = ()
    film: Flag = True
    head: Flag = True
    learning_rate: Factor = 3e-3
    learning_rate_factor: Factor = 1.0


@dataclass(frozen=True, config=_FORM)
class SurvivalSettings:
    """The prognosis: how image features and clinical records are turned into a risk.

    Attributes:
        endpoint: Name of the endpoint in clinical.yaml that is trained on; empty: the only one.
        loss: Loss function; "cox" needs torchsurv.
        bins: Number of time bins, 2 or more; fewer are used where there are fewer training events.
        networks: Number of networks whose predictions are averaged; each is stopped early on another inner fold of the
            training patients.
        hidden: Width of MLP_Prog's hidden layer.
        image_features: Number of features that the image features are projected to.
        dropout: Share, 0 to below 1, of the inputs of MLP_Prog that are dropped in training.
        column_dropout: Probability, 0 to below 1, that a column of the clinical table is hidden in a training step.
        table_dropout: Probability, 0 to below 1, that all of a patient's record is hidden in a training step.
        modality_dropout: Probability, 0 to below 1, that a modality is hidden in a training step.
        lesion_targets: Names of the targets that are the lesion; if empty, they are chosen by name.
        encoder: "pretrained": image features are those of a segmentation model; "scratch": the encoder is trained on
            outcomes alone.
        scratch_epochs: Number of epochs of "scratch", the best of which is chosen on inner held-out patients; there is
            no LoRA then.
        lora_epochs: Number of epochs of the second stage, which trains a LoRA in the encoder; 0: no second stage.
        lora_r: Rank of that LoRA.
        lora_alpha: The LoRA's output is scaled by lora_alpha / lora_r.
        allow_overlap: Whether the segmentation model may have been trained on held-out patients; it is reported.
    """

    endpoint: Name = ""
    loss: SurvivalLoss = "logistic hazard"
    bins: Bins = 10
    networks: PositiveCount = 5
    hidden: PositiveCount = 16
    image_features: PositiveCount = 8
    dropout: Share = 0.1
    column_dropout: Share = 0.1
    table_dropout: Share = 0.1
    modality_dropout: Share = 0.1
    lesion_targets: TargetNames = ()
    encoder: Literal["pretrained", "scratch"] = PRETRAINED
    scratch_epochs: PositiveCount = 100
    lora_epochs: Count = 10
    lora_r: PositiveCount = 8
    lora_alpha: Factor = 32.0
    allow_overlap: Flag = False


@dataclass(frozen=True, config=_FORM)
class LossSettings:
    """How the losses of the annotated targets of an image are combined.

    Attributes:
        reduction: How the n annotated targets of an image are combined: by their "mean", their "sum", or "sqrt", their
            mean times the square root of n. With the mean, all images have the same weight.
        separation: Weight of a term that separates targets at voxels of exactly one of them: the cross-entropy of a
            softmax over the annotated targets of the image.
        dice_share: Which targets share the weight of an image in Dice: those that are "present" in the patch, so that
            each patch with a target has the same weight; or all that are "annotated", so that a patch with one of seven
            targets has a seventh of the weight of one with its only target. Weights are relative to the other patches
            of the batch that show a target: one that is alone in that has all of it. The n targets of `reduction` are
            the same ones.
    """

    reduction: Literal["mean", "sqrt", "sum"] = "mean"
    separation: Weight = 0.0
    dice_share: Literal["present", "annotated"] = "present"


@dataclass(frozen=True, config=_FORM)
class Settings:
    """What a user changes in the plans to change a run.

    Attributes:
        seed: Seeds initial weights, batches, augmentation and prompts. On a CPU, two trainings with equal seeds are
            equal to the bit.
        epochs: Number of epochs.
        iterations_per_epoch: Training iterations in an epoch.
        validation_iterations: Validation iterations in an epoch.
        optimizer: "adamw" (betas 0.9 and 0.98, weight decay 0.01), or "sgd" as nnU-Net has it. Adapters and the
            prognosis have their own, and do not read this.
        initial_learning_rate: Learning rate of the first epoch, which nnU-Net's polynomial schedule lowers; null: 1e-3
            for AdamW, 1e-2 for SGD. Adapters have `adaptation.learning_rate`, and the prognosis has its own.
        warmup_iterations: Number of iterations, from the first, over which the learning rate rises from 0.
        save_every: Number of epochs between two saves of checkpoint_latest.pth (nnU-Net: 50).
        paraphrase_probability: Probability, 0 to 1, that a paraphrase replaces a prompt in training.
        negative_prompts: Largest number of targets, in a training batch, that are asked for in images which cannot show
            them, such as a brainstem in a thigh; `implausible` in the plans' contexts lists them. 0: none. In the
            cross-entropy of such an image they count as annotated targets, so that each of these weighs less.
        mirror_left_right: Whether images are mirrored from left to right in training, with the prompts of left and
            right targets exchanged, and mirror images are predicted, too. nnU-Net does so; trainings of up to 5,000
            iterations were better without.
        mirror_other_axes: The same for the other two axes: upside down, and back to front. Where nnU-Net turns slices
            by any angle (thick slices), images of targets with sides are not mirrored from front to back: with half a
            turn, that would exchange the sides.
        context_prompt: What the network receives as context prompt: its "text", or "none" (an ablation).
        target_prompt: What the network receives as target prompt: its "text", its "name" alone without the sentence
            that states the modality, or the number of the target, "one-hot" (an ablation: the plain universal model).
        cpu_bfloat16: Whether convolutions run in bfloat16 on a CPU that supports it, in training, its validation and
            the image features of a prognosis; nnU-Net computes in float32 on a CPU, and in mixed precision on a GPU
            only. Prediction has `--precision`, whose default is bfloat16 where the CPU supports it.
        frozen_encoder_epochs: Number of epochs, from the first, in which nnU-Net's encoder is frozen, for fine-tuning
            in stages; with as many as `epochs`, it is never trained.
        frozen_decoder_epochs: The same for nnU-Net's decoder.
        loss: How the losses of several targets are combined.
        network: Sizes of the conditioning.
        transfer: Training for contexts in which a target was never annotated; disabled by default.
        text_adapter: LoRA on the text encoder; disabled by default.
        adaptation: LoRA on the network, for DuPLUSLoRATrainer.
        survival: The prognosis, for DuPLUSSurvivalTrainer.
    """

    seed: Count = 0
    epochs: PositiveCount = 1000
    iterations_per_epoch: PositiveCount = 250
    validation_iterations: PositiveCount = 50
    optimizer: Literal["adamw", "sgd"] = "adamw"
    initial_learning_rate: Rate = None
    warmup_iterations: Count = 0
    save_every: PositiveCount = 1
    paraphrase_probability: Probability = 0.25
    negative_prompts: Count = 0
    mirror_left_right: Flag = False
    mirror_other_axes: Flag = False
    context_prompt: Literal["text", "none"] = "text"
    target_prompt: Literal["text", "name", "one-hot"] = "text"
    cpu_bfloat16: Flag = False
    frozen_encoder_epochs: Count = 0
    frozen_decoder_epochs: Count = 0
    loss: LossSettings = field(default_factory=LossSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    text_adapter: TextAdapterSettings = field(default_factory=TextAdapterSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    survival: SurvivalSettings = field(default_factory=SurvivalSettings)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first epoch."""
        return self.initial_learning_rate or LEARNING_RATES[self.optimizer]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, as they are written in a plans file."""
        return asdict(self)


_SETTINGS: TypeAdapter[Any] = TypeAdapter(Settings)
# The first version of the defaults that plans name; up to it, images were mirrored unless the plans said otherwise.
_MIRRORED_VERSION: Final = 2
_MIRRORED: Final = {"mirror_left_right": True, "mirror_other_axes": True}
# What every version wrote; a user may write some.
_ALWAYS_WRITTEN = frozenset(
    {
        "epochs", "iterations_per_epoch", "validation_iterations", "initial_learning_rate", "save_every",
        "paraphrase_probability", "network",
    }
)  # fmt: skip
# Types of pydantic's errors: an unknown name, or one that is no text; something else than a mapping.
_UNKNOWN, _NO_MAPPING = ("unexpected_keyword_argument", "invalid_key"), "dataclass_type"


def read_settings(plans: Mapping[str, Any]) -> Settings:
    """Read the settings from plans; those that are left out have their defaults.

    Raises:
        PlansError: A name is unknown, a value is out of range, or two settings contradict each other.
    """
    section = find_section(plans)
    return parse_settings(section.get("settings", {}), section.get(SETTINGS_VERSION_KEY))


def parse_settings(content: object, version: object = None) -> Settings:
    """Validate settings as they are written in plans; those that are left out have their defaults.

    What earlier versions of the package wrote is completed by what they did. Version 2 and those before mirrored
    images unless told not to. Those without a version wrote all the settings that they had: without `optimizer` they
    trained with SGD, and without `loss.dice_share` they shared Dice among the annotated targets.

    Args:
        content: The settings.
        version: Version of the defaults, `duplus.settings_version` of the plans; None: they have none.

    Raises:
        PlansError: A name is unknown, a value is out of range, or two settings contradict each other.

    Example:
        >>> parse_settings({"epochs": 250, "survival": {"bins": 20}}).survival.bins
        20
        >>> parse_settings({"epochs": 250}, 3).mirror_left_right, parse_settings({"epochs": 250}, 2).mirror_left_right
        (False, True)
        >>> parse_settings({"epochs": 0})
        Traceback (most recent call last):
        duplus_nnunet.errors.PlansError: settings.epochs is 0 in the plans; it must be a whole number of 1 or more.
    """
    known = range(_MIRRORED_VERSION, SETTINGS_VERSION + 1)
    if version is not None and (type(version) is not int or version not in known):
        raise PlansError(
            f"duplus.{SETTINGS_VERSION_KEY} is {version!r} in the plans; this package reads "
            f"{' and '.join(map(str, known))}, and plans without it. Install the package version that wrote them, or "
            "remove them and plan again."
        )
    if isinstance(content, Mapping) and version != SETTINGS_VERSION:
        content = {**_MIRRORED, **(_complete_older(content) if version is None else content)}
    try:
        settings: Settings = _SETTINGS.validate_python(content)
    except ValidationError as error:
        unknown_first = sorted(error.errors(), key=lambda item: item["type"] not in _UNKNOWN)
        raise PlansError(_describe(unknown_first[0], content)) from error
    if settings.text_adapter.enabled and (settings.context_prompt, settings.target_prompt) != ("text", "text"):
        raise PlansError(
            "settings.text_adapter.enabled is true in the plans, but settings.context_prompt or settings.target_prompt "
            "leaves the texts out. An adapted text encoder needs both to be 'text'."
        )
    return settings


def _complete_older(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add what versions without a number did without saying so to the settings that they wrote."""
    if not content.keys() >= _ALWAYS_WRITTEN:
        return content
    if "optimizer" not in content:
        content = {"loss": {"reduction": "mean", "separation": 0.0}, **content, "optimizer": "sgd"}
    loss = content.get("loss")
    if isinstance(loss, Mapping) and loss.keys() == {"reduction", "separation"}:
        content = {**content, "loss": {**loss, "dice_share": "annotated"}}
    return content


def _describe(error: ErrorDetails, content: Any) -> str:
    """Turn an error of pydantic into a message that names the setting, the value found and what is expected."""
    where, value = "settings", content
    fields: dict[str, FieldInfo] = vars(Settings)["__pydantic_fields__"]
    expected = None
    for step in error["loc"]:
        if error["type"] in _UNKNOWN and step not in fields:
            return f"In the plans, duplus.{where}: {describe_unknown('setting', str(step), fields)}"
        if step not in fields:
            break
        info = fields[str(step)]
        where, value, expected = f"{where}.{step}", value[step], info.description
        fields = getattr(info.annotation, "__pydantic_fields__", {})
    if error["type"] == _NO_MAPPING:
        return f"duplus.{where} in the plans is {type(value).__name__}; expected a mapping of names to values."
    return f"{where} is {value!r} in the plans; it must be {error.get('ctx', {}).get('expected', expected)}."
