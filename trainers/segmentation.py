"""DuPLUSTrainer: nnU-Net's training of a network that is conditioned on a context prompt and target prompts."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from duplus_nnunet.data.sampling import measure_shares, repeat_cases
from duplus_nnunet.errors import DataError
from duplus_nnunet.mirroring import choose_mirror_axes, describe_axes
from duplus_nnunet.networks import ConditionedUNet, TextTable, condition, unwrap
from duplus_nnunet.networks.precision import has_bfloat16
from duplus_nnunet.planners.preprocessing_record import require_fit
from duplus_nnunet.plans_section import leave_base_out
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import Settings
from duplus_nnunet.substitution import call_with
from duplus_nnunet.trainers.batches import (
    BatchPrompter,
    BatchPrompts,
    count_pairs,
    count_voxels,
    flip_images,
    list_pairs,
)
from duplus_nnunet.trainers.cases import bind_each_case, check_split, open_table, read_prompts, read_weights, score
from duplus_nnunet.trainers.checkpoint import collect_content, write_content, write_safely
from duplus_nnunet.trainers.contrast import remap_images
from duplus_nnunet.trainers.distributed import DistributedTrainer
from duplus_nnunet.trainers.ending import end_in_order, hold_fold, require_finite
from duplus_nnunet.trainers.idle_settings import list_idle, log_idle
from duplus_nnunet.trainers.loss import TargetLoss
from duplus_nnunet.trainers.monitoring import DrawnImages, log_epoch, open_logs
from duplus_nnunet.trainers.optimization import list_part, make_adamw, warm_up
from duplus_nnunet.trainers.progress import EpochProgress
from duplus_nnunet.trainers.resuming import describe_plans, meet_checkpoint, refuse_misfit, require_optimizer
from duplus_nnunet.trainers.schedule import Factor, GroupSchedule, always, from_epoch, separate
from duplus_nnunet.trainers.seeding import DROPOUT, PROMPTS, WEIGHTS, SeededLoaders, Seeds
from duplus_nnunet.trainers.starting import check_start, log_missing_start, log_start, report_siblings
from duplus_nnunet.trainers.text_adaptation import keep_buffers_apart, open_texts
from duplus_nnunet.trainers.training_cases import Base, TrainingCases, find_training_cases, note_training
from duplus_nnunet.trainers.transfer import describe_imitation, vary_prompts


class DuPLUSTrainer(DistributedTrainer):
    """nnU-Net's trainer with sigmoid Dice and cross-entropy for each target.

    Attributes:
        bank: The model's prompts.
        settings: Settings of the run, from `duplus.settings` in the plans.
        texts: Where the embeddings of prompts come from.
        table: All cases.
        base_cases: Training cases of the weights that the training starts from.
        training_cases: Those of this training; None before it starts.
        progress: Shows how far an epoch has come.
    """

    plans_manager: PlansManager
    my_init_kwargs: dict[str, Any]
    _best_ema: float | None
    # Lists the settings that have no effect in a training of this class.
    find_idle = staticmethod(list_idle)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        """Differs from nnU-Net: checks the plans first, and reads prompts and settings from them."""
        plans = self.choose_plans(plans)
        self.bank = read_prompts(plans, configuration, dataset_json)
        self.settings = self.bank.settings
        self.texts = open_texts(self.bank, Seeds(self.settings.seed, fold))
        try:
            super().__init__(plans, configuration, fold, dataset_json, device)
        except OSError as error:
            raise DataError(f"The model folder cannot be created: {error}. Change nnUNet_results.") from error
        self.num_epochs = self.settings.epochs
        self.num_iterations_per_epoch = self.settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.settings.validation_iterations
        self.initial_lr = self.settings.learning_rate
        self.save_every = self.settings.save_every
        require_fit(Path(self.preprocessed_dataset_folder), plans, configuration)
        self.table = open_table(plans, self.preprocessed_dataset_folder_base, self.bank)
        # nnU-Net passes plans to this class method, but not the prompts that were read from them.
        build = functools.partial(self.build_network_architecture, bank=self.bank)
        self.build_network_architecture = build  # type: ignore[method-assign]
        self.seeds = Seeds(self.settings.seed, self.fold, self.local_rank)
        self._step = 0
        self._rates: list[float] = []
        self._across: int | None = None
        self._pairs: dict[tuple[str, str], int] = {}
        self._prompter: BatchPrompter | None = None
        self.base_cases: Base = None
        self.training_cases: TrainingCases | None = None
        self.progress = EpochProgress(self.local_rank == 0)
        self._drawn = DrawnImages(self.table)

    @classmethod
    def choose_plans(cls, plans: dict[str, Any]) -> dict[str, Any]:
        """Return the plans to train by, without the description of a base: this trainer trains all weights."""
        return leave_base_out(plans)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
        bank: PromptBank | None = None,
    ) -> nn.Module:
        """Differs from nnU-Net: the network is conditioned, and bound to all targets in the default context.

        It is built without a text encoder: if one was adapted, the weights contain its final embeddings. Without
        `bank`, the prompts are read from the plans.
        """
        unet = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, 1, enable_deep_supervision
        )
        bank = bank or PromptBank(plans_manager.plans)
        settings = bank.settings
        table = TextTable(bank.keys, bank.vectors) if settings.text_adapter.enabled else None
        network = condition(unet, bank.embedding, settings.network, table)
        network.cpu_bfloat16 = settings.cpu_bfloat16
        network.bind(bank.draw())
        cls.extend_network(network, plans_manager.plans, settings)
        return network

    @classmethod
    def extend_network(cls, network: ConditionedUNet, plans: Mapping[str, Any], settings: Settings) -> None:
        """Add the parts of the network that a subclass trains; this class has none."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from nnU-Net: groups of weights, such as a text adapter, may start later or have other rates."""
        optimizer, schedule = self._make_optimizer()
        self.print_to_log_file(f"prompts: {self.texts}")
        factors = [always(1.0)]
        for parameters, factor in self._list_groups(unwrap(self.network)):
            separate(optimizer, parameters)
            factors.append(factor)
        factors += self.texts.join(unwrap(self.network), optimizer)
        return optimizer, schedule if len(factors) == 1 else GroupSchedule(optimizer, schedule, factors)

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from nnU-Net: AdamW, unless the settings choose SGD, under nnU-Net's schedule."""
        if self.settings.optimizer == "sgd":
            configured: tuple[torch.optim.Optimizer, Any] = super().configure_optimizers()
            return configured
        optimizer = make_adamw(self.network.parameters(), self.initial_lr, self.device)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _list_groups(self, network: ConditionedUNet) -> list[tuple[list[nn.Parameter], Factor]]:
        """List groups of weights that are not trained at nnU-Net's rate from the first epoch, each with its factor."""
        starts = (("encoder", self.settings.frozen_encoder_epochs), ("decoder", self.settings.frozen_decoder_epochs))
        return [(list_part(network, part), from_epoch(start)) for part, start in starts if start]

    def initialize(self) -> None:
        """Differs from nnU-Net: seeds the weights, DDP sends no buffers, checks a base, logs a CPU's precision."""
        self.seeds.seed_all(WEIGHTS)
        super().initialize()
        keep_buffers_apart(self.network)
        unwrap(self.network).check_pretrained = self.meet_base
        unwrap(self.network).report_pretrained = self.print_to_log_file
        if self.settings.cpu_bfloat16 and self.device.type == "cpu":
            precision = "in bfloat16" if has_bfloat16() else "in float32, as this processor has no bfloat16"
            self.print_to_log_file(f"convolutions are computed {precision}")

    def meet_base(self, checkpoint: Mapping[str, Any], file: Any) -> None:
        """Check the checkpoint that the training starts from, before its weights are loaded.

        Raises:
            ModelError: It cannot be the base of this training.
            DataError: The list of its training cases cannot be read.
        """
        check_start(self, checkpoint, file)
        self.base_cases = find_training_cases(checkpoint, Path(str(file)).parent)
        log_start(self, checkpoint)

    def on_train_start(self) -> None:
        """Differs from nnU-Net: writes a list of the training cases, and warns of what may not be intended."""
        report_siblings(self)
        super().on_train_start()
        log_missing_start(self)
        log_idle(self)
        note_training(self)

    def _build_loss(self) -> nn.Module:
        """Differs from nnU-Net: TargetLoss, under nnU-Net's own weights of deep supervision."""
        loss = TargetLoss(
            self.label_manager.foreground_regions,
            self.configuration_manager.batch_dice,
            self.label_manager.ignore_label,
            self.is_ddp,
            settings=self.settings.loss,
        ).to(self.device)
        wrapper: nn.Module = super()._build_loss()
        if not self.enable_deep_supervision:
            return loss
        wrapper.loss = loss
        return wrapper

    @staticmethod
    def get_training_transforms(*args: Any, regions: Any = None, **kwargs: Any) -> BasicTransform:
        """Differs from nnU-Net: label maps stay label maps; the loss expands them on the device."""
        return nnUNetTrainer.get_training_transforms(*args, regions=None, **kwargs)

    @staticmethod
    def get_validation_transforms(*args: Any, regions: Any = None, **kwargs: Any) -> BasicTransform:
        """Differs from nnU-Net: as in get_training_transforms."""
        return nnUNetTrainer.get_validation_transforms(*args, regions=None, **kwargs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Differs from nnU-Net: with left or right targets, train_step mirrors along the left-right axis.

        In prediction, mirroring along it exchanges the prompts of partners, as in train_step. The settings may leave
        axes out; see `choose_mirror_axes`.
        """
        rotation, dummy_2d, patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        across, has_sides = self.bank.form.left_right_axis, self.bank.has_sides
        chosen = choose_mirror_axes(axes or (), across, has_sides, self.settings, dummy_2d)
        self._across = across if has_sides and across in chosen else None
        self.inference_allowed_mirroring_axes = chosen or None
        turned = "; slices are turned by up to 180 degrees" if dummy_2d else ""
        self.print_to_log_file(f"images are {describe_axes(chosen)}; left-right axis: {across}{turned}")
        return rotation, dummy_2d, patch, tuple(axis for axis in chosen if axis != self._across) or None

    def get_dataloaders(self) -> Any:
        """Differs from nnU-Net: batches are seeded one by one, and arrive in order."""
        epochs = self.current_epoch
        first = epochs * self.num_iterations_per_epoch, epochs * self.num_val_iterations_per_epoch
        return call_with(super().get_dataloaders, SeededLoaders(self.seeds, first).names)

    def get_tr_and_val_datasets(self) -> Any:
        """Differs from nnU-Net: cases are repeated in the training set according to the weights of their sources."""
        training, validation = super().get_tr_and_val_datasets()
        cases = {name: self.table.find(name) for name in training.identifiers}
        repeated = repeat_cases(measure_shares(cases, read_weights(self.bank, self.table)))
        # nnU-Net would turn a list into an array for each batch.
        training.identifiers = np.array(repeated, dtype=object)
        pairs = list_pairs(self.table, validation.identifiers)
        self._pairs = {pair: number for number, pair in enumerate(pairs)}
        self.print_to_log_file("Pseudo dice is of:", "; ".join(f"{name} ({source})" for source, name in pairs))
        return training, validation

    def do_split(self) -> Any:
        """Differs from nnU-Net: refuses a patient on both sides of the split, or a case that is not in the table."""
        training, validation = super().do_split()
        check_split(self, training, validation)
        return training, validation

    def _bind_batch(self, batch: dict[str, Any], training: bool) -> BatchPrompts:
        """Bind network and loss to the prompts of a batch."""
        if self._prompter is None:
            everything = self.is_ddp and self.configuration_manager.batch_dice
            multiple = 8 if self._do_i_compile() else 1
            self._prompter = BatchPrompter(self.bank, self.table, everything, multiple, self.settings.negative_prompts)
            for line in filter(None, [self._prompter.describe_negatives(), *describe_imitation(self.bank)]):
                self.print_to_log_file(line)
        rng = self.seeds.draw(PROMPTS, self._step)
        flips = rng if training and self._across is not None else None
        chosen = self._prompter.choose(batch["keys"], flips, rng if training else None)
        network = unwrap(self.network)
        if training:
            chosen, hidden = vary_prompts(chosen, self.bank, batch["data"].shape[1], rng)
            prompts = self.texts.draw(chosen.images, rng, self.settings.paraphrase_probability, hidden)
        else:
            prompts = self.bank.compose_batch(self.bank.choose_batch(chosen.images, rng, 0.0))
        network.bind(prompts)
        self._target_loss.select(chosen.rows, chosen.annotated)
        return chosen

    @property
    def _target_loss(self) -> TargetLoss:
        loss: TargetLoss = self.loss.loss if self.enable_deep_supervision else self.loss
        return loss

    def on_train_epoch_start(self) -> None:
        """Differs from nnU-Net: seeds dropout, and shows a bar over the epoch's steps on a terminal."""
        super().on_train_epoch_start()
        self.seeds.seed_all(DROPOUT, self.current_epoch)
        self._step = self.current_epoch * self.num_iterations_per_epoch
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress.start(self.current_epoch, self.num_iterations_per_epoch + self.num_val_iterations_per_epoch)

    def on_epoch_end(self) -> None:
        """Differs from nnU-Net: removes that bar, and gives other loggers values by source and target."""
        self.progress.close()
        log_epoch(self, self._pairs, self._drawn.take())
        super().on_epoch_end()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: binds the prompts of each image first, mirrors half of the images and remaps some."""
        chosen = self._bind_batch(batch, training=True)
        self._drawn.count(batch["keys"])
        if self._across is not None:
            data, target = flip_images(batch["data"], batch["target"], chosen.flipped, self._across)
            batch = {**batch, "data": data, "target": target}
        if chosen.remapping is not None:
            ignore = self.label_manager.ignore_label
            data = batch["data"].to(self.device, non_blocking=True)
            batch = {**batch, "data": remap_images(data, batch["target"], chosen.remapping, ignore)}
        warm_up(self.optimizer, self._rates, self._step, self.settings.warmup_iterations)
        step: dict[str, Any] = super().train_step(batch)
        self._step += 1
        self.progress.advance()
        return step

    def on_validation_epoch_start(self) -> None:
        """Differs from nnU-Net: updates the network's table of embeddings first."""
        self.texts.refresh(unwrap(self.network))
        super().on_validation_epoch_start()

    def bind(self, context: str) -> None:
        """Bind the network to the targets that are trained in a context, as for prediction."""
        unwrap(self.network).bind(self.bank.draw(context))

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: counts annotated targets only, from the label map, by source and target."""
        chosen = self._bind_batch(batch, training=False)
        data = batch["data"].to(self.device, non_blocking=True)
        labels = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        labels = [level.to(self.device, non_blocking=True) for level in labels]
        with torch.autocast("cuda", enabled=True) if self.device.type == "cuda" else dummy_context():
            output = self.network(data)
            loss = self.loss(output, labels if self.enable_deep_supervision else labels[0])
        logits = output[0] if self.enable_deep_supervision else output
        self.progress.advance()
        return {"loss": loss.detach().cpu().numpy(), **self._count(logits, labels[0][:, 0], chosen)}

    def _count(self, logits: torch.Tensor, labels: torch.Tensor, chosen: BatchPrompts) -> dict[str, Any]:
        """Count true positives, false positives and false negatives over a batch, by source and target, shape (P)."""
        table = self._target_loss.table[chosen.rows].to(labels.device)
        sums = count_voxels(logits, labels, table, self.label_manager.ignore_label)
        tp, fp, fn = count_pairs(sums, chosen, self._pairs)
        return {"tp_hard": tp, "fp_hard": fp, "fn_hard": fn}

    def run_training(self) -> None:
        """Differs from nnU-Net: one process trains a fold, to TensorBoard if asked to; a full disk ends it in order."""
        with end_in_order(self):
            open_logs(self)
            super().run_training()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Differs from nnU-Net: non-finite weights, or no finite loss at all, end the training before it is saved."""
        super().on_train_epoch_end(train_outputs)
        require_finite(self.network.parameters(), [output["loss"] for output in train_outputs], self.current_epoch)

    def print_plans(self) -> None:
        """Differs from nnU-Net: the log gets a summary; plans with all prompts would fill pages of it."""
        if self.local_rank == 0:
            text = describe_plans(self.plans_manager.plans, self.configuration_name, self.output_folder_base)
            self.print_to_log_file(f"\n{text}\n", add_timestamp=False)

    def save_checkpoint(self, filename: str) -> None:
        """Differs from nnU-Net: the file has plain types, checksums and training cases, and is written atomically."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        self.texts.refresh(unwrap(self.network))
        save = super().save_checkpoint
        write_safely(filename, lambda file: write_content(self, collect_content(save, file), file))

    def load_checkpoint(self, filename_or_checkpoint: Any = None, checkpoint: Any = None) -> None:
        """Differs from nnU-Net: a file is first checked, and changes of the plans since then are reported in the log.

        nnU-Net 2.8 calls the argument `filename_or_checkpoint`, later versions call it `checkpoint`.
        """
        source = checkpoint if filename_or_checkpoint is None else filename_or_checkpoint
        if isinstance(source, (str, os.PathLike)):
            meet_checkpoint(self, source)
            source = str(source)
        with refuse_misfit(source):
            super().load_checkpoint(source)
        require_optimizer(self.optimizer, source)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from nnU-Net: predicts each case in its own context, as for a user."""
        self.texts.refresh(unwrap(self.network))
        with hold_fold(self, "validating"):
            with bind_each_case(self):
                super().perform_actual_validation(save_probabilities)
            if self.local_rank == 0:
                self.print_to_log_file(score(self))
