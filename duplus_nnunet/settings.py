"""Settings of a run: in comes the part `duplus` of a plans file, out comes one frozen dataclass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from duplus_nnunet.errors import PlansError, describe_unknown

PLANS_KEY = "duplus"
PLANS_VERSION = 1
# What plans say, under PLANS_KEY, of the model that an adapter is planned for.
BASE_KEY = "base"

# Configurations of nnU-Net's that DuPLUS plans never hold -> why.
NOT_PLANNED = {
    "2d": "the two texts steer a 3D network",
    "3d_cascade_fullres": "a cascade feeds label maps of all targets to its second stage, which contradicts targets "
    "that are chosen by text",
}


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the parts that the two prompts add to nnU-Net's network.

    Attributes:
        film: Whether T1 steers encoder and decoder; false is an ablation.
        film_hidden: Width of MLP_FiLM's hidden layer.
        head_features: Channels of the projected decoder map and of the dynamic head's hidden layers.
        head_hidden: Width of MLP_Pred's hidden layers.
    """

    film: bool = True
    film_hidden: int = 128
    head_features: int = 8
    head_hidden: int = 128

    def __post_init__(self) -> None:
        for name in ("film_hidden", "head_features", "head_hidden"):
            _check_at_least(f"settings.network.{name}", getattr(self, name), 1)
        _check("settings.network.film", self.film, isinstance(self.film, bool), "true or false")


@dataclass(frozen=True)
class TextAdapterSettings:
    """LoRA on the text encoder, trained with the network. Off, embeddings stay as they stand in the plans.

    Attributes:
        enabled: Whether the text encoder is adapted; training then needs it, prediction never does.
        r: Rank of the adapter.
        lora_alpha: The adapter's output is scaled by lora_alpha / r.
        lora_dropout: Share, 0 to below 1, of the adapter's inputs that are dropped in training.
        target_modules: Ends of the names of the encoder's linear layers that are adapted; none means the attention's
            query and value, whatever the encoder calls them.
        learning_rate_factor: The adapter's learning rate, as a multiple of the network's.
    """

    enabled: bool = False
    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        enabled = self.enabled
        _check("settings.text_adapter.enabled", enabled, isinstance(enabled, bool), "true or false")
        _check_lora("settings.text_adapter", self, "a list of names, such as ['query', 'value']")


@dataclass(frozen=True)
class AdaptationSettings:
    """What DuPLUSLoRATrainer trains beside a frozen base.

    Attributes:
        r: Rank of the LoRA beside convolutions.
        lora_alpha: The LoRA's output is scaled by lora_alpha / r.
        lora_dropout: Share, 0 to below 1, of the LoRA's inputs that are dropped in training.
        target_modules: Patterns (regular expressions) that are looked for in the names of convolutions, such as
            "^encoder" or "decoder"; none means all of encoder and decoder.
        film: Whether the adapter gets an MLP_FiLM of its own, which starts as the base's.
        head: Whether it gets an MLP_Pred and projections of its own, which start as the base's.
        learning_rate: AdamW's, of the first epoch; nnU-Net's polynomial schedule follows.
        learning_rate_factor: The LoRA's learning rate, as a multiple of the generators'.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    film: bool = True
    head: bool = True
    learning_rate: float = 3e-3
    learning_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        _check_lora("settings.adaptation", self, "a list of patterns, such as ['^encoder']")
        for name in ("film", "head"):
            value = getattr(self, name)
            _check(f"settings.adaptation.{name}", value, isinstance(value, bool), "true or false")
        rate = self.learning_rate
        fits = _is_number(rate) and 0 < rate < math.inf
        _check("settings.adaptation.learning_rate", rate, fits, "a number above 0")


# Where the encoder of a prognosis comes from.
PRETRAINED, SCRATCH = "pretrained", "scratch"
# Its losses.
SURVIVAL_LOSSES = ("logistic hazard", "mtlr", "deephit", "cox")


@dataclass(frozen=True)
class SurvivalSettings:
    """The prognosis: how image features and EHR become a risk.

    Attributes:
        loss: One of SURVIVAL_LOSSES; "cox" needs torchsurv.
        bins: Number of time bins, 2 or more; fewer are used where there are fewer training events.
        networks: Number of networks that are averaged; each stops by another inner part of the training patients.
        hidden: Width of MLP_Prog's hidden layer.
        image_features: Number of numbers that the image features are projected to.
        dropout: Share, 0 to below 1, of the inputs of MLP_Prog that are dropped in training.
        column_dropout: Share of the EHR columns, 0 to below 1, that a patient is trained without, drawn anew each time.
        table_dropout: Share of the patients, 0 to below 1, who are trained without their EHR, drawn anew each time.
        modality_dropout: Share of the modalities, 0 to below 1, that a patient is trained without.
        lesion_targets: Names of the targets that are the lesion; none means that they are chosen by name.
        encoder: "pretrained" takes what a segmentation model sees; "scratch" trains the encoder by outcomes alone.
        scratch_epochs: Number of epochs of that, of which inner held-out patients choose one; there is no LoRA then.
        lora_epochs: Number of epochs of the second stage, in which a LoRA in the encoder learns too; 0: none.
        lora_r: Rank of that LoRA.
        lora_alpha: Its output is scaled by lora_alpha / lora_r.
        allow_overlap: Whether the segmentation model may have been trained on held-out patients; it is reported.
    """

    loss: str = "logistic hazard"
    bins: int = 10
    networks: int = 5
    hidden: int = 16
    image_features: int = 8
    dropout: float = 0.1
    column_dropout: float = 0.1
    table_dropout: float = 0.1
    modality_dropout: float = 0.1
    lesion_targets: tuple[str, ...] = ()
    encoder: str = PRETRAINED
    scratch_epochs: int = 100
    lora_epochs: int = 10
    lora_r: int = 8
    lora_alpha: float = 32.0
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        where = "settings.survival"
        _check(f"{where}.loss", self.loss, self.loss in SURVIVAL_LOSSES, " or ".join(map(repr, SURVIVAL_LOSSES)))
        _check_at_least(f"{where}.bins", self.bins, 2)
        _check_at_least(f"{where}.lora_epochs", self.lora_epochs, 0)
        known = f"{PRETRAINED!r} or {SCRATCH!r}"
        _check(f"{where}.encoder", self.encoder, self.encoder in (PRETRAINED, SCRATCH), known)
        for name in ("networks", "hidden", "image_features", "lora_r", "scratch_epochs"):
            _check_at_least(f"{where}.{name}", getattr(self, name), 1)
        for name in ("dropout", "column_dropout", "table_dropout", "modality_dropout"):
            share = getattr(self, name)
            _check(f"{where}.{name}", share, _is_number(share) and 0 <= share < 1, "a share from 0 to below 1")
        alpha, listed, overlap = self.lora_alpha, self.lesion_targets, self.allow_overlap
        _check(f"{where}.lora_alpha", alpha, _is_number(alpha) and 0 < alpha < math.inf, "a number above 0")
        fits = isinstance(listed, (list, tuple)) and all(isinstance(name, str) and name for name in listed)
        _check(f"{where}.lesion_targets", listed, fits, "a list of names, such as ['sarcoma']")
        _check(f"{where}.allow_overlap", overlap, isinstance(overlap, bool), "true or false")
        object.__setattr__(self, "lesion_targets", tuple(listed))


@dataclass(frozen=True)
class Settings:
    """What a user changes in the plans to change a run; the defaults are nnU-Net's but for `save_every`.

    Attributes:
        epochs: Number of epochs.
        iterations_per_epoch: Training iterations in an epoch.
        validation_iterations: Validation iterations in an epoch.
        initial_learning_rate: Learning rate of the first epoch; nnU-Net's polynomial schedule follows.
        save_every: Epochs between two writings of checkpoint_latest.pth (nnU-Net: 50).
        paraphrase_probability: Share of the prompts drawn in training, 0 to 1, that a paraphrase stands in for.
        mirror_left_right: Whether images are mirrored from left to right, with partners' prompts exchanged. False: they
            never are, so that a short training can tell sides by what lies beside them.
        context_prompt: What the network is told of T1: its "text", or "none" (an ablation).
        target_prompt: What the network is told of T2: its "text", or the number of the target, "one-hot" (an ablation:
            the plain universal model).
        cpu_bfloat16: Whether convolutions run in bfloat16, in training and at prediction, on a CPU that has it; nnU-Net
            computes in float32 there, and in mixed precision on a GPU alone.
        frozen_encoder_epochs: Number of epochs, from the first, in which nnU-Net's encoder does not learn: for
            fine-tuning in stages; as many as `epochs` leave it as it was.
        frozen_decoder_epochs: The same for its decoder.
        network: Sizes of the conditioning.
        text_adapter: LoRA on the text encoder; off by default.
        adaptation: LoRA on the network, for DuPLUSLoRATrainer.
        survival: The prognosis, for DuPLUSSurvivalTrainer.
    """

    epochs: int = 1000
    iterations_per_epoch: int = 250
    validation_iterations: int = 50
    initial_learning_rate: float = 1e-2
    save_every: int = 1
    paraphrase_probability: float = 0.25
    mirror_left_right: bool = True
    context_prompt: str = "text"
    target_prompt: str = "text"
    cpu_bfloat16: bool = False
    frozen_encoder_epochs: int = 0
    frozen_decoder_epochs: int = 0
    network: NetworkSettings = field(default_factory=NetworkSettings)
    text_adapter: TextAdapterSettings = field(default_factory=TextAdapterSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    survival: SurvivalSettings = field(default_factory=SurvivalSettings)

    def __post_init__(self) -> None:
        for name in ("epochs", "iterations_per_epoch", "validation_iterations", "save_every"):
            _check_at_least(f"settings.{name}", getattr(self, name), 1)
        for name in ("frozen_encoder_epochs", "frozen_decoder_epochs"):
            _check_at_least(f"settings.{name}", getattr(self, name), 0)
        share, rate = self.paraphrase_probability, self.initial_learning_rate
        fits = _is_number(share) and 0 <= share <= 1
        _check("settings.paraphrase_probability", share, fits, "a number from 0 to 1")
        fits = _is_number(rate) and 0 < rate < math.inf
        _check("settings.initial_learning_rate", rate, fits, "a number above 0")
        for name in ("mirror_left_right", "cpu_bfloat16"):
            value = getattr(self, name)
            _check(f"settings.{name}", value, isinstance(value, bool), "true or false")
        for name, words in (("context_prompt", ("text", "none")), ("target_prompt", ("text", "one-hot"))):
            value = getattr(self, name)
            _check(f"settings.{name}", value, value in words, " or ".join(map(repr, words)))
        if self.text_adapter.enabled and (self.context_prompt, self.target_prompt) != ("text", "text"):
            raise PlansError(
                "settings.text_adapter.enabled is true in the plans, but settings.context_prompt or "
                "settings.target_prompt leaves the texts out. An adapted text encoder needs both to be 'text'."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they stand in a plans file."""
        return asdict(self)


def _check_at_least(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise PlansError(f"{name} is {value!r} in the plans; it must be a whole number of {least} or more.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise PlansError(f"{name} is {value!r} in the plans; it must be {expected}.")


def _check_lora(where: str, given: Any, modules: str) -> None:
    """Check what all settings of a LoRA have in common, and make its modules a tuple."""
    _check_at_least(f"{where}.r", given.r, 1)
    for name in ("lora_alpha", "learning_rate_factor"):
        value = getattr(given, name)
        _check(f"{where}.{name}", value, _is_number(value) and 0 < value < math.inf, "a number above 0")
    dropout, listed = given.lora_dropout, given.target_modules
    _check(f"{where}.lora_dropout", dropout, _is_number(dropout) and 0 <= dropout < 1, "a share from 0 to below 1")
    fits = isinstance(listed, (list, tuple)) and all(isinstance(name, str) and name for name in listed)
    _check(f"{where}.target_modules", listed, fits, modules)
    object.__setattr__(given, "target_modules", tuple(listed))


def _check_keys(name: str, given: object, known: type) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise PlansError(f"{name} in the plans is {type(given).__name__}; expected a mapping of names to values.")
    names = [item.name for item in fields(known)]
    for key in given:
        if key not in names:
            raise PlansError(f"In the plans, {name}: {describe_unknown('setting', str(key), names)}")
    return given


def refuse_unplanned(asked: Sequence[str], where: str) -> None:
    """Stop at a configuration that DuPLUS does not plan.

    Raises:
        PlansError: If there is one among those asked for.
    """
    for name in asked:
        if name in NOT_PLANNED:
            raise PlansError(
                f"Configuration {name!r} was asked for, but {where} cannot hold it: {NOT_PLANNED[name]}. "
                "DuPLUS plans '3d_fullres' and, for large images, '3d_lowres': use `-c 3d_fullres`."
            )


def leave_base_out(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return plans that say nothing of a base; those that do not anyway, and those of others, as they are."""
    section = plans.get(PLANS_KEY)
    if not isinstance(section, Mapping) or BASE_KEY not in section:
        return dict(plans)
    return {**plans, PLANS_KEY: {key: value for key, value in section.items() if key != BASE_KEY}}


def find_section(plans: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part `duplus` of plans.

    Raises:
        PlansError: The plans are not DuPLUS plans, or of a newer version.
    """
    section = plans.get(PLANS_KEY)
    if not isinstance(section, Mapping):
        raise PlansError(
            f"The plans {plans.get('plans_name')!r} have no part {PLANS_KEY!r}, so no prompts. DuPLUS needs plans made "
            "by a DuPLUS planner: run `nnUNetv2_plan_and_preprocess -d DATASET -pl DuPLUSPlanner -c 3d_fullres` and "
            "train and predict with `-p DuPLUSPlans`."
        )
    if section.get("version") != PLANS_VERSION:
        raise PlansError(
            f"The plans {plans.get('plans_name')!r} hold DuPLUS version {section.get('version')!r}; this package reads "
            f"version {PLANS_VERSION}. Plan again, or install the package version that wrote them."
        )
    return section


def read_settings(plans: Mapping[str, Any]) -> Settings:
    """Read the settings from plans; names left out have their defaults.

    Raises:
        PlansError: A name is unknown or a value is out of range.
    """
    given = dict(_check_keys("duplus.settings", find_section(plans).get("settings", {}), Settings))
    network = _check_keys("duplus.settings.network", given.pop("network", {}), NetworkSettings)
    adapter = _check_keys("duplus.settings.text_adapter", given.pop("text_adapter", {}), TextAdapterSettings)
    adaptation = _check_keys("duplus.settings.adaptation", given.pop("adaptation", {}), AdaptationSettings)
    survival = _check_keys("duplus.settings.survival", given.pop("survival", {}), SurvivalSettings)
    return Settings(
        **given,
        network=NetworkSettings(**network),
        text_adapter=TextAdapterSettings(**adapter),
        adaptation=AdaptationSettings(**adaptation),
        survival=SurvivalSettings(**survival),
    )
