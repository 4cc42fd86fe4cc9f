"""DuPLUSLoRATrainer: a frozen base, and beside it a LoRA and generators that learn a new dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from duplus_nnunet.adaptation.base import check_checkpoint
from duplus_nnunet.adaptation.export import Trained, export_adapter, read_scores
from duplus_nnunet.adaptation.joining import name_adapter
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.networks import ConditionedUNet, unwrap
from duplus_nnunet.networks.adaptation import (
    AdapterModules,
    AdapterSpec,
    activate_adapter,
    attach_adapter,
    choose_convolutions,
    count_parameters,
)
from duplus_nnunet.settings import BASE_KEY, PLANS_KEY, read_settings
from duplus_nnunet.trainers.checkpoint import refuse_masks
from duplus_nnunet.trainers.schedule import Factor, always
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer


def make_spec(network: ConditionedUNet, plans: Mapping[str, Any]) -> AdapterSpec:
    """Return what the adapter of a dataset consists of, as the plans' settings say.

    Raises:
        PlansError: A pattern matches no layer, or the rank is larger than a layer's.
    """
    settings = read_settings(plans).adaptation
    layers = choose_convolutions(network, settings.target_modules, settings.r)
    return AdapterSpec(
        name_adapter(plans),
        settings.r,
        settings.lora_alpha,
        settings.lora_dropout,
        layers,
        settings.film and read_settings(plans).network.film,
        settings.head,
    )


class DuPLUSLoRATrainer(DuPLUSTrainer):
    """Trains an adapter for the base that the dataset was planned for; the base stays to the bit as it is.

    Start it with `-pretrained_weights BASE/fold_0/checkpoint_final.pth`. Its settings stand in the plans under
    `duplus.settings.adaptation`.
    """

    @classmethod
    def choose_plans(cls, plans: dict[str, Any]) -> dict[str, Any]:
        """Differs from DuPLUSTrainer: the plans have to name a base, and keep what they say of it.

        Raises:
            PlansError: They do not.
        """
        section = plans.get(PLANS_KEY)
        if isinstance(section, dict) and BASE_KEY not in section:
            raise PlansError(
                f"The plans {plans.get('plans_name')!r} were made for no base, so that an adapter would not fit one. "
                "Plan the dataset for it: `duplus adapt plan DATASET --from-model MODEL_FOLDER`."
            )
        return plans

    @classmethod
    def extend_network(cls, network: ConditionedUNet, plans: Mapping[str, Any]) -> None:
        """Differs from DuPLUSTrainer: an adapter stands beside the network's weights, and those are frozen."""
        spec = make_spec(network, plans)
        attach_adapter(network, spec)
        network.default_adapter = spec.name
        activate_adapter(network, spec.name)  # before torch.compile looks at it

    @property
    def adapter(self) -> AdapterModules:
        """What the adapter has beside its LoRA."""
        network = unwrap(self.network)
        return cast(AdapterModules, network.adapters[network.default_adapter])

    def initialize(self) -> None:
        """Differs from DuPLUSTrainer: the log says what learns."""
        super().initialize()
        network = unwrap(self.network)
        counts = count_parameters(network.state_dict(), network.default_adapter)
        whole = counts["base"]
        self.print_to_log_file(
            f"adapter {network.default_adapter}: LoRA of rank {self.adapter.spec.r} on {len(self.adapter.spec.layers)} "
            f"convolutions, {counts['lora']} weights ({counts['lora'] / whole:.2%} of the base's {whole}); generators "
            f"of its own: {counts['generators']} weights"
        )

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from nnU-Net: AdamW for what learns, as LoRA is usually trained, at a rate of its own.

        With nnU-Net's SGD a LoRA, whose second factor starts at 0, hardly leaves its start.
        """
        self.initial_lr = self.settings.adaptation.learning_rate
        learning = [value for value in self.network.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def meet_base(self, checkpoint: Mapping[str, Any], file: Any) -> None:
        """Differs from DuPLUSTrainer: the checkpoint is compared with the base that the plans were made for."""
        refuse_masks(checkpoint, file)
        check_checkpoint(checkpoint, file, self.plans_manager.plans, self.configuration_name)
        super().meet_base(checkpoint, file)

    def _list_groups(self, network: ConditionedUNet) -> list[tuple[list[nn.Parameter], Factor]]:
        """Differs from DuPLUSTrainer: the LoRA learns at its own rate; encoder and decoder are frozen anyway."""
        factor = self.settings.adaptation.learning_rate_factor
        lora = [value for name, value in network.named_parameters() if ".lora_" in name and value.requires_grad]
        return [] if factor == 1 else [(lora, always(factor))]

    def on_train_start(self) -> None:
        """Differs from DuPLUSTrainer: without a base, nothing begins.

        Raises:
            ModelError: No base was given, nor is this the continuation of a training that had one.
        """
        if not self.was_initialized:
            self.initialize()
        if not self.adapter.has_base:
            raise ModelError(
                "An adapter is trained beside the weights of its base: add -pretrained_weights with a checkpoint of "
                f"{self.plans_manager.plans[PLANS_KEY][BASE_KEY]['model']}, such as fold_0/checkpoint_final.pth."
            )
        super().on_train_start()

    def on_train_end(self) -> None:
        """Differs from DuPLUSTrainer: the adapter is written by itself too."""
        super().on_train_end()
        self._write_adapter()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from DuPLUSTrainer: the adapter's card gets the scores."""
        super().perform_actual_validation(save_probabilities)
        self._write_adapter()

    def _write_adapter(self) -> None:
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        folder = Path(self.output_folder)
        weights: dict[str, torch.Tensor] = unwrap(self.network).state_dict()
        trained = Trained(
            self.plans_manager.plans,
            self.dataset_json,
            self.adapter.spec,
            weights,
            self.inference_allowed_mirroring_axes,
        )
        card = export_adapter(folder, trained, read_scores(folder))
        size = sum(file.stat().st_size for file in folder.glob("adapter.*")) / 1e6
        self.print_to_log_file(f"adapter {card.name} written to {folder} ({size:.1f} MB)")
