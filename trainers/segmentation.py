"""DuPLUSTrainer: nnU-Net's recipe for a network that two prompts steer."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from duplus_nnunet.data.sampling import measure_shares, repeat_cases
from duplus_nnunet.errors import DataError, ModelError, PlansError
from duplus_nnunet.networks import ConditionedUNet, TextTable, condition, unwrap
from duplus_nnunet.networks.precision import has_bfloat16
from duplus_nnunet.networks.sums import expand_target
from duplus_nnunet.planners.label_manager import check_labels
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import BASE_KEY, NOT_PLANNED, PLANS_KEY, leave_base_out, read_settings
from duplus_nnunet.trainers.batches import BatchPrompter, BatchPrompts, count_pairs, flip_images, list_pairs
from duplus_nnunet.trainers.cases import bind_each_case, open_table, score
from duplus_nnunet.trainers.checkpoint import make_plain, read_checkpoint, require_embedding, write_safely
from duplus_nnunet.trainers.ending import end_in_order
from duplus_nnunet.trainers.loss import TargetLoss
from duplus_nnunet.trainers.schedule import Factor, GroupSchedule, always, from_epoch, separate
from duplus_nnunet.trainers.text_adaptation import keep_buffers_apart, open_texts
from duplus_nnunet.trainers.training_cases import Base, note_training, read_training_cases


def list_nnunets(network: ConditionedUNet, part: str) -> list[nn.Parameter]:
    """List the weights of nnU-Net's own encoder or decoder; projections are the head's."""
    named = network.named_parameters()
    return [value for name, value in named if name.startswith(f"{part}.") and ".seg_layers." not in name]


def _say_first(error: Exception) -> str:
    """Return the first of the differences that torch lists."""
    lines = [line.strip() for line in str(error).splitlines()]
    return (lines[1:] or lines)[0].rstrip(".")


def _check(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
    """Stop before anything is written if plans, configuration and dataset.json do not belong together."""
    bank = PromptBank(plans)
    if configuration not in plans["configurations"]:
        reason = f" ({NOT_PLANNED[configuration]})" if configuration in NOT_PLANNED else ""
        raise PlansError(
            f"The plans {plans['plans_name']!r} have no configuration {configuration!r}{reason}. They have: "
            f"{', '.join(map(repr, plans['configurations']))}."
        )
    check_labels(dataset_json, bank.labels, plans["plans_name"])


class DuPLUSTrainer(nnUNetTrainer):
    """nnU-Net's trainer with per-target sigmoid Dice + BCE; its settings stand in the plans under `duplus`."""

    plans_manager: PlansManager
    my_init_kwargs: dict[str, Any]
    _best_ema: float | None

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        """Differs from nnU-Net: plans are checked first, and the run's settings are read from them."""
        plans = self.choose_plans(plans)
        _check(plans, configuration, dataset_json)
        self.settings = read_settings(plans)
        self.bank = PromptBank(plans)
        self.texts = open_texts(plans, self.bank)
        try:
            super().__init__(plans, configuration, fold, dataset_json, device)
        except OSError as error:
            raise DataError(f"The model folder cannot be made: {error}. Change nnUNet_results.") from error
        self.num_epochs = self.settings.epochs
        self.num_iterations_per_epoch = self.settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.settings.validation_iterations
        self.initial_lr = self.settings.initial_learning_rate
        self.save_every = self.settings.save_every
        self.table = open_table(plans, self.preprocessed_dataset_folder_base, self.bank)
        self._rng = np.random.default_rng()
        self._across: int | None = None
        self._pairs: dict[tuple[str, str], int] = {}
        self._questioner: BatchPrompter | None = None
        self.base_cases: Base = None

    @classmethod
    def choose_plans(cls, plans: dict[str, Any]) -> dict[str, Any]:
        """Return the plans that this trainer trains by: all of its weights learn, so that of a base nothing is left."""
        return leave_base_out(plans)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Differs from nnU-Net: its network is conditioned, and bound to all targets in the default context.

        It is built without a text encoder: where one was adapted, its final embeddings come with the weights.
        """
        unet = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, 1, enable_deep_supervision
        )
        bank = PromptBank(plans_manager.plans)
        settings = read_settings(plans_manager.plans)
        table = TextTable(bank.keys, bank.vectors) if settings.text_adapter.enabled else None
        network = condition(unet, bank.embedding, settings.network, table)
        network.cpu_bfloat16 = settings.cpu_bfloat16
        network.bind(bank.draw())
        cls.extend_network(network, plans_manager.plans)
        return network

    @classmethod
    def extend_network(cls, network: ConditionedUNet, plans: Mapping[str, Any]) -> None:
        """Add what a kind of training needs beside the network that the plans ask for: here nothing."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from nnU-Net: groups of weights may learn later or at other rates; a text adapter's join them."""
        optimizer, schedule = self._make_optimizer()
        self.print_to_log_file(f"prompts: {self.texts}")
        factors = [always(1.0)]
        for parameters, factor in self._list_groups(unwrap(self.network)):
            separate(optimizer, parameters)
            factors.append(factor)
        factors += self.texts.join(unwrap(self.network), optimizer)
        return optimizer, schedule if len(factors) == 1 else GroupSchedule(optimizer, schedule, factors)

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """Make an optimizer and its schedule: nnU-Net's."""
        made: tuple[torch.optim.Optimizer, Any] = super().configure_optimizers()
        return made

    def _list_groups(self, network: ConditionedUNet) -> list[tuple[list[nn.Parameter], Factor]]:
        """List the weights that do not learn at nnU-Net's rate from the first epoch on."""
        waits = (("encoder", self.settings.frozen_encoder_epochs), ("decoder", self.settings.frozen_decoder_epochs))
        return [(list_nnunets(network, part), from_epoch(start)) for part, start in waits if start]

    def initialize(self) -> None:
        """Differs from nnU-Net: DDP leaves buffers alone, a base is looked at, and the log says how a CPU computes."""
        super().initialize()
        keep_buffers_apart(self.network)
        unwrap(self.network).check_pretrained = self.meet_base
        if self.settings.cpu_bfloat16 and self.device.type == "cpu":
            found = "in bfloat16" if has_bfloat16() else "in float32, as this processor has no bfloat16"
            self.print_to_log_file(f"convolutions are computed {found}")

    def meet_base(self, checkpoint: Mapping[str, Any], file: Any) -> None:
        """Look at the checkpoint that the training starts from, before its weights are taken over.

        Raises:
            ModelError: It cannot be the base of this training.
            DataError: What says whom it was trained on cannot be read.
        """
        self.base_cases = read_training_cases(Path(str(file)).parent)

    def on_train_start(self) -> None:
        """Differs from nnU-Net: whom the model is trained on is written beside its checkpoints."""
        super().on_train_start()
        note_training(self)

    def _build_loss(self) -> nn.Module:
        """Differs from nnU-Net: our loss a target, under nnU-Net's own weights of deep supervision."""
        ours = TargetLoss(
            self.label_manager.foreground_regions,
            self.configuration_manager.batch_dice,
            self.label_manager.ignore_label,
            self.is_ddp,
        ).to(self.device)
        wrapper: nn.Module = super()._build_loss()
        if not self.enable_deep_supervision:
            return ours
        wrapper.loss = ours
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
        """Differs from nnU-Net: left and right targets are mirrored in train_step; if that axis is unknown, nothing is.

        At prediction, mirroring along it exchanges the prompts of partners, as train_step does.
        """
        rotation, dummy_2d, patch, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.bank.has_sides:
            across = self.plans_manager.plans[PLANS_KEY].get("left_right_axis")
            others = tuple(axis for axis in axes or () if axis != across) or None
            mirrored = self.settings.mirror_left_right and across is not None and across in (axes or ())
            self._across = across if mirrored else None
            allowed = axes if mirrored else others
            self.inference_allowed_mirroring_axes = None if across is None else allowed
            axes = None if across is None else others
            self.print_to_log_file(
                f"left/right targets: mirrored along {self.inference_allowed_mirroring_axes}, left-right axis {across}"
            )
        return rotation, dummy_2d, patch, axes

    def get_tr_and_val_datasets(self) -> Any:
        """Differs from nnU-Net: cases stand in the training set as often as the weights of their sources ask for."""
        training, validation = super().get_tr_and_val_datasets()
        cases = {name: self.table.find(name) for name in training.identifiers}
        training.identifiers = repeat_cases(measure_shares(cases, self._read_weights()))
        pairs = list_pairs(self.table, validation.identifiers)
        self._pairs = {pair: number for number, pair in enumerate(pairs)}
        self.print_to_log_file("Pseudo dice is of:", "; ".join(f"{name} ({source})" for source, name in pairs))
        return training, validation

    def do_split(self) -> Any:
        """Differs from nnU-Net: a patient on both sides, or a case that the table does not know, ends the training."""
        training, validation = super().do_split()
        patients = {self.table.find(name).patient: name for name in training}
        for name in validation if self.fold != "all" else ():
            other = patients.get(self.table.find(name).patient)
            if other is not None:
                raise DataError(
                    f"Fold {self.fold} holds the validation case {name!r} out, but trains on {other!r} of the same "
                    f"patient, {self.table.find(name).patient!r}. Correct splits_final.json in "
                    f"{self.preprocessed_dataset_folder_base}."
                )
        return training, validation

    def _read_weights(self) -> dict[str, float]:
        """Read the sources' weights from the plans; what they do not say has nnU-Net's, the number of cases."""
        sources = self.plans_manager.plans[PLANS_KEY].get("sources", {})
        return {
            name: sources[name]["weight"] if name in sources else float(len(self.table.of_source(name)))
            for name in self.table.sources
        }

    def _ask(self, batch: dict[str, Any], training: bool) -> BatchPrompts:
        """Bind network and loss to what a batch is asked for."""
        if self._questioner is None:
            everything = self.is_ddp and self.configuration_manager.batch_dice
            multiple = 8 if self._do_i_compile() else 1
            self._questioner = BatchPrompter(self.bank, self.table, everything, multiple)
        flips = self._rng if training and self._across is not None else None
        question = self._questioner.ask(batch["keys"], flips)
        network = unwrap(self.network)
        if training:
            prompts = self.texts.draw(question.images, self._rng, self.settings.paraphrase_probability)
        else:
            prompts = self.bank.compose_batch(self.bank.choose_batch(question.images, self._rng, 0.0))
        network.bind(prompts)
        self._target_loss.select(question.rows, question.annotated)
        return question

    @property
    def _target_loss(self) -> TargetLoss:
        found: TargetLoss = self.loss.loss if self.enable_deep_supervision else self.loss
        return found

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: prompts are bound first, an image each; half of the images are mirrored here."""
        question = self._ask(batch, training=True)
        if self._across is not None:
            data, target = flip_images(batch["data"], batch["target"], question.flipped, self._across)
            batch = {**batch, "data": data, "target": target}
        step: dict[str, Any] = super().train_step(batch)
        return step

    def on_validation_epoch_start(self) -> None:
        """Differs from nnU-Net: embeddings are brought up to date."""
        self.texts.refresh(unwrap(self.network))
        super().on_validation_epoch_start()

    def bind(self, context: str) -> None:
        """Bind the network to the targets that were trained in a context, as they are for prediction."""
        unwrap(self.network).bind(self.bank.draw(context))

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: annotated targets alone are counted, from the label map, a source and target each."""
        question = self._ask(batch, training=False)
        data = batch["data"].to(self.device, non_blocking=True)
        labels = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        labels = [level.to(self.device, non_blocking=True) for level in labels]
        with torch.autocast("cuda", enabled=True) if self.device.type == "cuda" else dummy_context():
            output = self.network(data)
            loss = self.loss(output, labels if self.enable_deep_supervision else labels[0])
        logits = output[0] if self.enable_deep_supervision else output
        return {"loss": loss.detach().cpu().numpy(), **self._count(logits, labels[0][:, 0], question)}

    def _count(self, logits: torch.Tensor, labels: torch.Tensor, question: BatchPrompts) -> dict[str, Any]:
        """Count true positives, false positives and false negatives over a batch, by source and target, shape (P)."""
        table = self._target_loss.table[question.rows].to(labels.device)
        ignore = self.label_manager.ignore_label
        valid = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
        rows = []
        for k in range(logits.shape[1]):
            found, truth = (logits[:, k] > 0) & valid, expand_target(labels, table, k)
            hits = (found & truth).flatten(1).sum(1)
            false = found.flatten(1).sum(1) - hits
            rows.append(torch.stack([hits, false, (truth & valid).flatten(1).sum(1) - hits]))
        sums = torch.stack(rows, dim=2).double().cpu().numpy()
        tp, fp, fn = count_pairs(sums, question, self._pairs)
        return {"tp_hard": tp, "fp_hard": fp, "fn_hard": fn}

    def run_training(self) -> None:
        """Differs from nnU-Net: a disk that fills up ends with a message, whatever was being written."""
        with end_in_order(self):
            super().run_training()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Differs from nnU-Net: weights that are no numbers any more end the training, before they are saved."""
        super().on_train_epoch_end(train_outputs)
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            raise DataError(
                f"The weights became NaN or infinite in epoch {self.current_epoch}; the last checkpoint is unharmed. "
                "Look for NaN in the images (nnUNetv2_plan_and_preprocess --verify_dataset_integrity finds them), or "
                "lower settings.initial_learning_rate in the plans, and continue with --c."
            )

    def print_plans(self) -> None:
        """Differs from nnU-Net: embeddings and the wordings of targets are left out of the log."""
        manager = self.plans_manager
        section = dict(manager.plans[PLANS_KEY])
        for key in ("embeddings", "centres", BASE_KEY):
            section.pop(key, None)
        section["contexts"] = {
            name: {key: value for key, value in context.items() if key != "target_prompts"}
            for name, context in section["contexts"].items()
        }
        self.plans_manager = PlansManager({**manager.plans, PLANS_KEY: section})
        try:
            super().print_plans()
        finally:
            self.plans_manager = manager

    def save_checkpoint(self, filename: str) -> None:
        """Differs from nnU-Net: plain types only, written to a temporary name, then renamed."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        self._best_ema = make_plain(self._best_ema)
        self.my_init_kwargs = make_plain(self.my_init_kwargs)
        self.texts.refresh(unwrap(self.network))
        log = self.logger.local_logger
        log.load_checkpoint(make_plain(log.get_checkpoint()))
        write_safely(filename, super().save_checkpoint)

    def load_checkpoint(self, filename_or_checkpoint: Any = None, checkpoint: Any = None) -> None:
        """Differs from nnU-Net: a file is first read with weights_only=True, and a damaged one is named.

        nnU-Net 2.8 calls the argument `filename_or_checkpoint`, later versions call it `checkpoint`.
        """
        filename_or_checkpoint = checkpoint if filename_or_checkpoint is None else filename_or_checkpoint
        if isinstance(filename_or_checkpoint, (str, os.PathLike)):
            found = read_checkpoint(filename_or_checkpoint)
            require_embedding(found["network_weights"], self.bank.embedding, filename_or_checkpoint)
            filename_or_checkpoint = str(filename_or_checkpoint)
        try:
            super().load_checkpoint(filename_or_checkpoint)
        except RuntimeError as error:
            raise ModelError(
                f"The checkpoint {filename_or_checkpoint} does not fit the network of the plans: {_say_first(error)}. "
                "The plans changed after the training began: restore those of the model folder, or train without --c."
            ) from error

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from nnU-Net: each case is predicted in its own context, as it would be for a user."""
        self.texts.refresh(unwrap(self.network))
        with bind_each_case(self):
            super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            self.print_to_log_file(score(self))
