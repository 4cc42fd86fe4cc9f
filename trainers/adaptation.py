"""DuPLUSLoRATrainer: trains a LoRA and generators on a new dataset, beside a frozen base."""

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
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_section import BASE_KEY, PLANS_KEY, START_KEY
from duplus_nnunet.settings import Settings
from duplus_nnunet.trainers.checkpoint import refuse_masks
from duplus_nnunet.trainers.idle_settings import describe_unseen, list_idle_of_adapter
from duplus_nnunet.trainers.schedule import Factor, always
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer


def make_spec(network: ConditionedUNet, name: str, settings: Settings) -> AdapterSpec:
    """Describe the parts of an adapter, as the settings require.

    Args:
        network: The base's network.
        name: Name of the adapter.
        settings: Settings of the run.

    Raises:
        PlansError: A pattern matches no layer, or the rank is larger than a layer's.
    """
    own = settings.adaptation
    layers = choose_convolutions(network, own.target_modules, own.r)
    film = own.film and settings.network.film
    return AdapterSpec(name, own.r, own.lora_alpha, own.lora_dropout, layers, film, own.head)


class DuPLUSLoRATrainer(DuPLUSTrainer):
    """Trains an adapter for the base that the dataset was planned for; the weights of the base do not change.

    Start it with `-pretrained_weights BASE/fold_0/checkpoint_final.pth`. Its settings are `duplus.settings.adaptation`
    in the plans.
    """

    find_idle = staticmethod(list_idle_of_adapter)

    @classmethod
    def choose_plans(cls, plans: dict[str, Any]) -> dict[str, Any]:
        """Differs from DuPLUSTrainer: the plans must describe a base, and keep its description.

        Raises:
            PlansError: They describe none.
        """
        section = plans.get(PLANS_KEY)
        if isinstance(section, dict) and START_KEY in section and BASE_KEY not in section:
            model = as_form(plans).start
            raise PlansError(
                f"The plans {plans.get('plans_name')!r} were made for a stock model of nnU-Net, "
                f"{'' if model is None else model.model}, which has no prompts, so an adapter beside its frozen "
                "weights could not segment anything. Train all weights with -tr DuPLUSTrainer; the result can be a "
                "base of adapters."
            )
        if isinstance(section, dict) and BASE_KEY not in section:
            raise PlansError(
                f"The plans {plans.get('plans_name')!r} were made for no base, so an adapter would not fit any. Plan "
                "the dataset for one: `duplus adapt plan DATASET --from-model MODEL_FOLDER`."
            )
        return plans

    @classmethod
    def extend_network(cls, network: ConditionedUNet, plans: Mapping[str, Any], settings: Settings) -> None:
        """Differs from DuPLUSTrainer: adds an adapter, and freezes all other weights."""
        spec = make_spec(network, name_adapter(plans), settings)
        attach_adapter(network, spec)
        network.default_adapter = spec.name
        activate_adapter(network, spec.name)  # before torch.compile traces it

    @property
    def adapter(self) -> AdapterModules:
        """The parts of the adapter other than its LoRA."""
        network = unwrap(self.network)
        return cast(AdapterModules, network.adapters[network.default_adapter])

    def initialize(self) -> None:
        """Differs from DuPLUSTrainer: the log reports which weights are trained."""
        super().initialize()
        network = unwrap(self.network)
        counts = count_parameters(network.state_dict(), network.default_adapter)
        whole = counts["base"]
        self.print_to_log_file(
            f"adapter {network.default_adapter}: LoRA of rank {self.adapter.spec.r} on {len(self.adapter.spec.layers)} "
            f"convolutions, {counts['lora']} weights ({counts['lora'] / whole:.2%} of the base's {whole}); its own "
            f"generators: {counts['generators']} weights"
        )

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from nnU-Net: AdamW for the trained weights, as is usual for LoRA, at its own rate.

        With nnU-Net's SGD, a LoRA hardly changes, since its second factor is initialised to 0.
        """
        self.initial_lr = self.settings.adaptation.learning_rate
        trained = [value for value in self.network.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def meet_base(self, checkpoint: Mapping[str, Any], file: Any) -> None:
        """Differs from DuPLUSTrainer: compares the checkpoint with the base that the plans were made for."""
        refuse_masks(checkpoint, file)
        check_checkpoint(checkpoint, file, self.plans_manager.plans, self.configuration_name)
        super().meet_base(checkpoint, file)

    def _list_groups(self, network: ConditionedUNet) -> list[tuple[list[nn.Parameter], Factor]]:
        """Differs from DuPLUSTrainer: the LoRA has its own rate; encoder and decoder are frozen anyway."""
        factor = self.settings.adaptation.learning_rate_factor
        lora = [value for name, value in network.named_parameters() if ".lora_" in name and value.requires_grad]
        return [] if factor == 1 else [(lora, always(factor))]

    def on_train_start(self) -> None:
        """Differs from DuPLUSTrainer: a base is required.

        Raises:
            ModelError: No base was given, and the training does not continue one that had a base.
        """
        if not self.was_initialized:
            self.initialize()
        if not self.adapter.has_base:
            raise ModelError(
                "An adapter is trained beside the weights of its base: add -pretrained_weights with a checkpoint of "
                f"{self.bank.form.base_model}, such as fold_0/checkpoint_final.pth."
            )
        super().on_train_start()
        base = self.bank.form.base
        seen = () if base is None else base.mirroring_axes or ()
        for line in describe_unseen(self.inference_allowed_mirroring_axes or (), seen):
            self.print_to_log_file(line)

    def on_train_end(self) -> None:
        """Differs from DuPLUSTrainer: also writes the adapter as files of its own."""
        super().on_train_end()
        self._write_adapter()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from DuPLUSTrainer: adds the scores to the adapter's card."""
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
