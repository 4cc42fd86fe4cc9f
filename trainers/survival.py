"""DuPLUSSurvivalTrainer: trains survival models on clinical records and image features of a segmentation model.

The model folder segments like the base model; its checkpoints hold the survival model as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.helpers import dummy_context
from torch import nn

from duplus_nnunet.checkpoint_files import save_checkpoint
from duplus_nnunet.errors import HostError, ModelError
from duplus_nnunet.networks import ConditionedUNet, unwrap
from duplus_nnunet.settings import SCRATCH
from duplus_nnunet.survival.imaging.feature_store import FEATURES_NAME, FeatureStore, collect, make_key
from duplus_nnunet.survival.imaging.image_features import FeatureReader, HostModel, choose_lesions, note_lesions
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.horizons import choose_horizons
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.training.base import VALIDATION, check_base, copy_summary, judge_overlap, require_base
from duplus_nnunet.survival.training.checkpoint import LORA_TABLE_NAME, TABLE_NAME, make_checkpoint, take_checkpoint
from duplus_nnunet.survival.training.data import (
    list_names,
    part_images,
    read_clinical_data,
    split_patients,
    split_within,
)
from duplus_nnunet.survival.training.lora import (
    ADAPTER,
    LEARNING_RATE,
    WEIGHT_DECAY,
    HazardHead,
    HazardTargets,
    attach_lora,
    make_lora_spec,
)
from duplus_nnunet.survival.training.progress import ProgressLogger, name_score
from duplus_nnunet.survival.training.report import (
    FoldReport,
    describe_training,
    measure_concordance,
    measure_patch_concordance,
    write_report,
)
from duplus_nnunet.survival.training.scratch import (
    NOTE,
    UNJUDGED,
    UNUSED,
    BestEpoch,
    learn_encoder,
    refuse_base,
    require_split,
)
from duplus_nnunet.survival.training.selection import compare_features
from duplus_nnunet.trainers.checkpoint import write_safely
from duplus_nnunet.trainers.idle_settings import list_idle_of_prognosis
from duplus_nnunet.trainers.monitoring import log_concordance
from duplus_nnunet.trainers.seeding import PROMPTS
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer
from duplus_nnunet.trainers.text_adaptation import StoredTexts
from duplus_nnunet.trainers.training_cases import TrainingCases

_LORA_FEATURES = FEATURES_NAME.replace(".npz", "_lora.npz")


class DuPLUSSurvivalTrainer(DuPLUSTrainer):
    """Trains a survival model on a trained segmentation model (the base), whose weights do not change.

    Start it with `-pretrained_weights SEGMENTATION/fold_X/checkpoint_final.pth`. Stage 1 computes and stores image
    features. Stage 2 trains a LoRA in the encoder with nnU-Net's loop; the LoRA is kept if it lowers the loss of inner
    held-out patients. Settings are in the plans under `duplus.settings.survival`. With `encoder: scratch` there is no
    base: the whole encoder is trained, and no lesion is known.
    """

    spreads = False
    find_idle = staticmethod(list_idle_of_prognosis)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        """Differs from DuPLUSTrainer: reads and checks the clinical table; the number of epochs is that of stage 2.

        Raises:
            DataError: The clinical table cannot be used.
            HostError: Several processes are requested.
        """
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.logger.local_logger = ProgressLogger()
        if self.is_ddp:
            raise HostError("DuPLUSSurvivalTrainer trains in one process: use nnUNetv2_train without -num_gpus.")
        self.texts = StoredTexts(self.bank)
        self.scratch = self.settings.survival.encoder == SCRATCH
        if not self.scratch:  # without a base no lesion is known that patches could be centred on
            self.oversample_foreground_percent = 1.0
        own = self.settings.survival
        unknown = dict.fromkeys(self.bank.contexts, ())
        self.lesions = unknown if self.scratch else choose_lesions(self.bank, own.lesion_targets)
        endpoint = own.endpoint or None
        self.clinic = read_clinical_data(self.plans_manager.dataset_name, self.table, endpoint)
        training, validation = self.do_split()
        self.cohort = split_patients(self.clinic, training, validation, self.fold)
        imaged = {image.patient for image in self.clinic.list_images(list(self.table.cases))}
        self.inner = split_within(self.cohort.train, imaged, self.settings.seed)
        if self.scratch:
            require_split(self.inner)
        self.num_epochs = (own.scratch_epochs if self.scratch else own.lora_epochs) if self.inner else 0
        self.notes = [*self.clinic.notes, *([NOTE] if self.scratch else note_lesions(self.lesions))]
        self.base_file: str | None = None
        self.continued = False
        self.model: SurvivalModel | None = None
        self.losses: dict[str, float] = {}
        self.kept = False
        self.best = BestEpoch()
        self.unread: list[str] = []
        self.table_keys: dict[str, str] = {}
        self._tables: dict[str, FeatureTable] = {}

    # --- network: nnU-Net builds that of the base; LoRA and head are added

    def print_to_log_file(self, *args: Any, **kwargs: Any) -> None:
        """Differs from nnU-Net: names the concordance index, which nnU-Net's loop logs as its pseudo Dice."""
        super().print_to_log_file(*map(name_score, args), **kwargs)

    def _do_i_compile(self) -> bool:
        """Differs from nnU-Net: never compiles, as only the encoder runs, for few epochs."""
        return False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from DuPLUSTrainer: only the LoRA (or the encoder) and the head are trained, with AdamW."""
        network = unwrap(self.network)
        network.requires_grad_(False)
        weights: list[nn.Parameter] = []
        if self.num_epochs and self.inner:
            weights = learn_encoder(network) if self.scratch else self._attach_lora(network)
            self.print_to_log_file(f"{sum(weight.numel() for weight in weights)} weights are trained on outcomes")
            self.targets = HazardTargets.of(self.inner.train, self.cohort.train, self.settings.survival.bins)
        bins = len(self.targets.edges) if weights else 1
        self.head = HazardHead(int(network.encoder.output_channels[-1]), len(self.bank.contexts), bins).to(self.device)
        trained = [*weights, *self.head.parameters()]
        optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        return optimizer, PolyLRScheduler(optimizer, LEARNING_RATE, max(1, self.num_epochs))

    def _attach_lora(self, network: ConditionedUNet) -> list[nn.Parameter]:
        self.spec = make_lora_spec(network, self.settings.survival)
        self.print_to_log_file(f"LoRA of rank {self.spec.r} on {len(self.spec.layers)} convolutions")
        return attach_lora(network, self.spec)

    def meet_base(self, checkpoint: Mapping[str, Any], file: Any) -> None:
        """Differs from DuPLUSTrainer: the base must be a complete model of these plans."""
        if self.scratch:
            refuse_base(file)
        check_base(checkpoint, file, unwrap(self.network), self.plans_manager.plans)
        super().meet_base(checkpoint, file)
        self.inference_allowed_mirroring_axes = checkpoint.get("inference_allowed_mirroring_axes")
        self.base_file = str(Path(str(file)).resolve())

    # --- stage 1

    def on_train_start(self) -> None:
        """Differs from DuPLUSTrainer: checks the base and computes image features before the first epoch."""
        if not self.was_initialized:
            self.initialize()
        if self.scratch:
            copy_summary(None, Path(self.output_folder))
        else:
            require_base(self.base_file)
            self._check_overlap()
        self._begin()
        super().on_train_start()

    def _check_overlap(self) -> None:
        """Check that the base was not trained on held-out patients, unless that is allowed."""
        training, validation = self.do_split()
        held = {record.patient for record in self.cohort.held_out}
        names = {patient: cases for patient, cases in list_names(self.clinic, validation).items() if patient in held}
        base, dataset = self.base_cases, self.plans_manager.dataset_name
        self._note(*judge_overlap(base, names, self.settings.survival.allow_overlap, self.clinic, dataset))
        if not self.continued:
            same = isinstance(base, TrainingCases) and (base.dataset, set(base.cases)) == (dataset, set(training))
            copy_summary(Path(str(self.base_file)).parent if same else None, Path(self.output_folder))

    def _begin(self) -> None:
        """Compute the features unless they are stored; from here on the training can be continued."""
        if self.model is None and not self.continued:
            self._save_at("checkpoint_latest.pth")
        if self.num_epochs and self.inner and self.current_epoch == 0:
            patients = [record.patient for record in self.inner.train]
            # From scratch too: unscaled features of an untrained encoder hardly differ between patients.
            self.head.start(self.read_features(""), list(self.bank.contexts), patients)
            with torch.no_grad():
                self.head.base.copy_(self.targets.base_hazards(patients))

    def read_features(self, adapter: str) -> FeatureTable:
        """Return the image features of all patients with images.

        Args:
            adapter: Adapter that computes them; "": the base.
        """
        if adapter not in self._tables:
            training, validation = self.do_split()
            host = HostModel(self.plans_manager, self.configuration_manager, self.dataset_json, self.device)
            reader = FeatureReader(unwrap(self.network), host, self.bank, self.lesions, adapter)
            file = Path(self.output_folder, _LORA_FEATURES if adapter else FEATURES_NAME)
            images = self.clinic.list_images([*training, *validation])
            dataset = self.dataset_class(self.preprocessed_dataset_folder, [image.case for image in images])
            store = FeatureStore.open(file, make_key(reader))
            self._tables[adapter], notes = collect(store, reader, dataset, images, self.print_to_log_file)
            self._tables[adapter].to_npz(file.with_name(LORA_TABLE_NAME if adapter else TABLE_NAME))
            self.table_keys[adapter] = store.key
            self.unread = [image.case for image in images if image.case not in store.rows]
            self._note(*notes)
        return self._tables[adapter]

    def _note(self, *notes: str) -> None:
        for note in notes:
            if note not in self.notes:
                self.notes.append(note)
                self.print_to_log_file(f"note: {note}")

    # --- stage 2: nnU-Net's loop

    def get_tr_and_val_datasets(self) -> Any:
        """Differs from DuPLUSTrainer: the readable training cases are split into inner training and held-out patients.

        Raises:
            DataError: A side has no case.
        """
        training, _ = self.do_split()
        images = [image for image in self.clinic.list_images(training) if image.case not in self.unread]
        sides = part_images(images, self.inner)
        return tuple(self.dataset_class(self.preprocessed_dataset_folder, cases) for cases in sides)

    def get_dataloaders(self) -> Any:
        """Differs from nnU-Net: starts no workers if no epoch is left; keeps the mirroring axes of the base."""
        axes = self.inference_allowed_mirroring_axes
        try:
            return super().get_dataloaders() if self.current_epoch < self.num_epochs else (None, None)
        finally:
            self.inference_allowed_mirroring_axes = axes

    def _measure(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Return loss and logits of the patches of a batch, and their patients."""
        network = unwrap(self.network)
        contexts = [self.table.sources[self.table.find(key).source].context for key in batch["keys"]]
        patients = [str(self.clinic.find_patient(key)) for key in batch["keys"]]
        any_target = tuple(self.bank.names[:1])
        rng = self.seeds.draw(PROMPTS, self._step)
        prompts = self.texts.draw([(context, any_target) for context in contexts], rng, 0.0)
        indices = torch.tensor([list(self.bank.contexts).index(context) for context in contexts], device=self.device)
        network.default_adapter = "" if self.scratch else ADAPTER
        try:
            with torch.autocast("cuda", enabled=True) if self.device.type == "cuda" else dummy_context():
                bottleneck = network.encode(batch["data"].to(self.device, non_blocking=True), prompts)
        finally:
            network.default_adapter = ""
        logits = self.head(bottleneck.float().mean(dim=(2, 3, 4)), indices)
        return self.targets.measure(logits, patients), logits, patients

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: runs the encoder only, with the hazard loss of the patients' outcomes."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, _, _ = self._measure(batch)
        trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(trained, 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 12)
            self.optimizer.step()
        self._step += 1
        self.progress.advance()
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: returns loss and risk of patches of inner held-out patients."""
        loss, logits, patients = self._measure(batch)
        self.progress.advance()
        risk = -nn.functional.logsigmoid(-logits.double()).sum(1).cpu().numpy()
        return {"loss": loss.cpu().numpy(), "risk": list(risk), "patient": patients}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Differs from nnU-Net: logs a concordance index in place of the Dice; higher is better, 0.5 is chance."""
        concordance = measure_patch_concordance(self.cohort.train, val_outputs)
        score = 0.5 if concordance is None else concordance
        log_concordance(self, score)
        loss = float(np.mean([output["loss"] for output in val_outputs]))
        self.logger.log("val_losses", loss, self.current_epoch)
        if self.scratch:
            self.best.offer(unwrap(self.network), loss, self.current_epoch)

    def on_train_end(self) -> None:
        """Differs from nnU-Net: decides whether the LoRA is kept, and fits the survival model."""
        if self.model is None:
            if self.num_epochs:
                self._save_at("checkpoint_latest.pth")
            self._conclude()
        self.logger.plot_progress_png(self.output_folder)
        super().on_train_end()

    def _conclude(self) -> None:
        """Choose the image features by inner held-out patients, then fit the model to all training patients."""
        if self.scratch:
            self.best.put_back(unwrap(self.network))
            self._tables.clear()  # features of the untrained encoder
            self.print_to_log_file(f"the encoder of epoch {self.best.epoch} is used")
        frozen = self.read_features("")
        images: FeatureTable | None = frozen
        if self.scratch:
            images = self._choose_images(frozen)
        elif self.num_epochs:
            adapted = self.read_features(ADAPTER)
            self.kept = self._improves({"frozen": frozen, "LoRA": adapted})
            images = adapted if self.kept else frozen
        self.model = fit_model(
            self.cohort.train, self.clinic.schema, images, self.settings.survival, self.settings.seed
        )

    def _choose_images(self, images: FeatureTable) -> FeatureTable | None:
        """Return the features of an encoder trained from scratch; None if they do not improve on clinical records."""
        if not self.clinic.schema.covariates:
            self._note(UNJUDGED)
            return images
        if self._improves({"records alone": None, "images": images}):
            return images
        self._note(UNUSED)
        return None

    def _improves(self, tables: Mapping[str, FeatureTable | None]) -> bool:
        """Whether the second of two sets of features lowers the loss of inner held-out patients."""
        if self.inner is None:
            return False
        schema, settings = self.clinic.schema, self.settings.survival
        self.losses, improved = compare_features(tables, self.inner, self.targets, schema, settings, self.settings.seed)
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in self.losses.items())
        self.print_to_log_file(f"loss of {len(self.inner.held_out)} inner held-out patients: {losses}; "
                               f"{list(tables)[1]} {'kept' if improved else 'dropped'}")  # fmt: skip
        return improved

    # --- checkpoints

    def _save_at(self, name: str) -> None:
        """Save a checkpoint from which the current epoch is repeated; nnU-Net's continues with the next one."""
        self.current_epoch -= 1
        self.save_checkpoint(str(Path(self.output_folder, name)))
        self.current_epoch += 1

    def save_checkpoint(self, filename: str) -> None:
        """Differs from nnU-Net: stores the weights of the base and the survival model; never a best checkpoint."""
        if not self.disable_checkpointing and Path(filename).name != "checkpoint_best.pth":
            content = make_checkpoint(self)
            write_safely(filename, lambda file: save_checkpoint(content, file))

    def load_checkpoint(self, filename_or_checkpoint: Any = None, checkpoint: Any = None) -> None:
        """Differs from nnU-Net: loads the weights of the base below the LoRA, and the state of the survival model.

        The argument has both of the names that versions of nnU-Net give it.

        Raises:
            ModelError: It is damaged, not of this trainer, or does not match the plans.
        """
        take_checkpoint(self, checkpoint if filename_or_checkpoint is None else filename_or_checkpoint)

    # --- validation

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from nnU-Net: writes predictions for held-out patients; the segmentation is not validated.

        Raises:
            ModelError: The training is not finished.
        """
        if self.model is None:
            raise ModelError("The training of the survival model is not finished. Continue it with --c.")
        frozen = self.read_features("")  # also stores the table for methods on frozen features
        images = self.read_features(ADAPTER) if self.kept else frozen
        train, held = self.cohort.train, self.cohort.held_out
        horizons = choose_horizons(read_outcome(train))
        forecast = self.model.forecast(held or train, images, np.array(horizons))
        details = describe_training(self)
        dataset = self.plans_manager.dataset_name
        report = FoldReport(dataset, self.fold, held or train, bool(held), horizons, forecast, images, details)
        files = write_report(report, Path(self.output_folder, VALIDATION))
        score = measure_concordance(report.records, forecast) if held else None
        self.print_to_log_file(f"{len(held)} held-out patients predicted: Harrell's C "
                               f"{'not defined' if score is None else f'{score:.3f}'}; {files[0]}")  # fmt: skip
