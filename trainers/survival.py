"""DuPLUSSurvivalTrainer: prognosis from what a segmentation model sees in images, and from health records.

In come a dataset with clinical.csv, nnU-Net's split and a trained base, out comes a model folder that segments as the
base does, and whose checkpoints hold the prognosis beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.helpers import dummy_context
from torch import nn

from duplus_nnunet.errors import HostError, ModelError
from duplus_nnunet.networks import ConditionedUNet, unwrap
from duplus_nnunet.settings import SCRATCH
from duplus_nnunet.survival.evaluation.study import choose_horizons
from duplus_nnunet.survival.imaging.feature_store import FEATURES_NAME, FeatureStore, collect, make_key
from duplus_nnunet.survival.imaging.image_features import FeatureReader, HostModel, choose_lesions, note_lesions
from duplus_nnunet.survival.models.forecasts import Forecast
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.training.base import VALIDATION, check_base, copy_summary, judge_overlap, require_base
from duplus_nnunet.survival.training.checkpoint import LORA_TABLE_NAME, TABLE_NAME, make_checkpoint, take_checkpoint
from duplus_nnunet.survival.training.data import (
    InnerSplit,
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
    is_gain,
    make_spec,
    measure_curves,
)
from duplus_nnunet.survival.training.report import FoldReport, describe_training, measure_concordance, write_report
from duplus_nnunet.survival.training.scratch import (
    NOTE,
    UNJUDGED,
    UNUSED,
    BestEpoch,
    learn_encoder,
    refuse_base,
    require_split,
)
from duplus_nnunet.trainers.checkpoint import write_safely
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer
from duplus_nnunet.trainers.text_adaptation import StoredTexts
from duplus_nnunet.trainers.training_cases import TrainingCases

_SEED = 0
_LORA_FEATURES = FEATURES_NAME.replace(".npz", "_lora.npz")
# Each is used by nnU-Net's own loop, whose log calls it by another name.
_SCORE = "what nnU-Net calls pseudo dice is the concordance index of the inner held-out patients' patches"


class DuPLUSSurvivalTrainer(DuPLUSTrainer):
    """Learns prognosis on a trained base, which stays to the bit as it is.

    Start it with `-pretrained_weights SEGMENTATION/fold_X/checkpoint_final.pth`. First, features are read and kept;
    then nnU-Net's loop trains a LoRA in the encoder, which is kept if patients within the training fold, held out for
    that, gain. Settings stand in the plans under `duplus.settings.survival`; with its `encoder` "scratch" there is no
    base: all of the encoder is trained then, and no lesion is known.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        """Differs from DuPLUSTrainer: the clinical table is read and checked, and there are as many epochs as LoRA has.

        Raises:
            DataError: The clinical table cannot be learned from.
            HostError: Several GPUs are asked for.
        """
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:
            raise HostError("Prognosis is trained on one GPU; leave -num_gpus out.")
        self.texts = StoredTexts(self.bank)
        self.scratch = self.settings.survival.encoder == SCRATCH
        if not self.scratch:  # from scratch, there is no lesion to look at in particular when features are read
            self.oversample_foreground_percent = 1.0
        self.lesions = (
            dict.fromkeys(self.bank.contexts, ())
            if self.scratch
            else choose_lesions(self.bank, self.settings.survival.lesion_targets)
        )
        self.clinic = read_clinical_data(self.plans_manager.dataset_name, self.table)
        training, validation = self.do_split()
        self.cohort = split_patients(self.clinic, training, validation, self.fold)
        imaged = {image.patient for image in self.clinic.list_images(list(self.table.cases))}
        self.inner = split_within(self.cohort.train, imaged, _SEED)
        if self.scratch:
            require_split(self.inner)
        wanted = self.settings.survival.scratch_epochs if self.scratch else self.settings.survival.lora_epochs
        self.num_epochs = wanted if self.inner else 0
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

    # --- the network: nnU-Net builds the base's, LoRA and head are put beside it

    def _do_i_compile(self) -> bool:
        """Differs from nnU-Net: the encoder alone runs, on few epochs, for which compiling does not pay."""
        return False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Differs from DuPLUSTrainer: the LoRA, or the encoder, and its head learn alone, by AdamW."""
        network = unwrap(self.network)
        network.requires_grad_(False)
        weights: list[nn.Parameter] = []
        if self.num_epochs and self.inner:
            weights = learn_encoder(network) if self.scratch else self._attach_lora(network)
            self.print_to_log_file(f"{sum(weight.numel() for weight in weights)} weights learn from outcomes")
            self.targets = HazardTargets.of(self.inner.train, self.cohort.train, self.settings.survival.bins)
        bins = len(self.targets.edges) if weights else 1
        self.head = HazardHead(int(network.encoder.output_channels[-1]), len(self.bank.contexts), bins).to(self.device)
        learned = [*weights, *self.head.parameters()]
        optimizer = torch.optim.AdamW(learned, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        return optimizer, PolyLRScheduler(optimizer, LEARNING_RATE, max(1, self.num_epochs))

    def _attach_lora(self, network: ConditionedUNet) -> list[nn.Parameter]:
        self.spec = make_spec(network, self.settings.survival)
        self.print_to_log_file(f"LoRA of rank {self.spec.r} on {len(self.spec.layers)} convolutions")
        return attach_lora(network, self.spec)

    def meet_base(self, checkpoint: Mapping[str, Any], file: Any) -> None:
        """Differs from DuPLUSTrainer: it has to be a whole model of these plans."""
        if self.scratch:
            refuse_base(file)
        check_base(checkpoint, file, unwrap(self.network), self.plans_manager.plans)
        super().meet_base(checkpoint, file)
        self.inference_allowed_mirroring_axes = checkpoint.get("inference_allowed_mirroring_axes")
        self.base_file = str(Path(str(file)).resolve())

    # --- stage 1

    def on_train_start(self) -> None:
        """Differs from DuPLUSTrainer: the base is judged and images are read before the epochs begin."""
        if not self.was_initialized:
            self.initialize()
        if self.scratch:
            copy_summary(None, Path(self.output_folder))
        else:
            require_base(self.base_file)
            self._judge_base()
        self._begin()
        super().on_train_start()

    def _judge_base(self) -> None:
        """Refuse a base that has seen who is held out, unless that is allowed."""
        training, validation = self.do_split()
        held = {record.patient for record in self.cohort.held_out}
        names = {patient: found for patient, found in list_names(self.clinic, validation).items() if patient in held}
        base, dataset = self.base_cases, self.plans_manager.dataset_name
        self._note(*judge_overlap(base, names, self.settings.survival.allow_overlap, self.clinic, dataset))
        if not self.continued:
            same = isinstance(base, TrainingCases) and (base.dataset, set(base.cases)) == (dataset, set(training))
            copy_summary(Path(str(self.base_file)).parent if same else None, Path(self.output_folder))

    def _begin(self) -> None:
        """Read features, or find them read; what was begun can be continued from here on."""
        if self.model is None and not self.continued:
            self._save_at("checkpoint_latest.pth")
        if self.num_epochs and self.inner and self.current_epoch == 0:
            patients = [record.patient for record in self.inner.train]
            # From scratch too: in features of an encoder that learned nothing yet, patients hardly differ unscaled.
            self.head.start(self.read_features(""), list(self.bank.contexts), patients)
            with torch.no_grad():
                self.head.base.copy_(self.targets.base_hazards(patients))
            self.print_to_log_file(_SCORE)

    def read_features(self, adapter: str) -> FeatureTable:
        """Return the features of all patients with images, as the base or the LoRA sees them.

        Args:
            adapter: "" is the base.
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
        """Differs from DuPLUSTrainer: training cases that can be read are split once more, by patient.

        Raises:
            DataError: A side has none.
        """
        training, _ = self.do_split()
        images = [image for image in self.clinic.list_images(training) if image.case not in self.unread]
        sides = part_images(images, self.inner)
        return tuple(self.dataset_class(self.preprocessed_dataset_folder, cases) for cases in sides)

    def get_dataloaders(self) -> Any:
        """Differs from nnU-Net: where no epoch is left, no worker is started; images are mirrored as the base's."""
        axes = self.inference_allowed_mirroring_axes
        try:
            return super().get_dataloaders() if self.current_epoch < self.num_epochs else (None, None)
        finally:
            self.inference_allowed_mirroring_axes = axes

    def _measure(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Return loss and logits of a batch's patches by the encoder that learns, and whose they are."""
        network = unwrap(self.network)
        contexts = [self.table.sources[self.table.find(key).source].context for key in batch["keys"]]
        patients = [str(self.clinic.find_patient(key)) for key in batch["keys"]]
        any_target = tuple(self.bank.names[:1])
        prompts = self.texts.draw([(context, any_target) for context in contexts], self._rng, 0.0)
        places = torch.tensor([list(self.bank.contexts).index(context) for context in contexts], device=self.device)
        network.default_adapter = "" if self.scratch else ADAPTER
        try:
            with torch.autocast("cuda", enabled=True) if self.device.type == "cuda" else dummy_context():
                bottleneck = network.encode(batch["data"].to(self.device, non_blocking=True), prompts)
        finally:
            network.default_adapter = ""
        logits = self.head(bottleneck.float().mean(dim=(2, 3, 4)), places)
        return self.targets.measure(logits, patients), logits, patients

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: patches go through the encoder alone, and are judged by what became of the patient."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, _, _ = self._measure(batch)
        learned = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        if self.grad_scaler is not None:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(learned, 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learned, 12)
            self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Differs from nnU-Net: the loss and risk of patches of inner held-out patients."""
        loss, logits, patients = self._measure(batch)
        risk = -nn.functional.logsigmoid(-logits.double()).sum(1).cpu().numpy()
        return {"loss": loss.cpu().numpy(), "risk": list(risk), "patient": patients}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Differs from nnU-Net: what it logs as Dice is a concordance index, higher is better, 0.5 chance."""
        risks: dict[str, list[float]] = {}
        for output in val_outputs:
            for patient, risk in zip(output["patient"], output["risk"], strict=True):
                risks.setdefault(patient, []).append(float(risk))
        records = [record for record in self.cohort.train if record.patient in risks]
        mean = np.array([np.mean(risks[record.patient]) for record in records])
        found = measure_concordance(records, Forecast(mean, np.zeros((len(records), 0))))
        score = 0.5 if found is None else found
        self.logger.log("mean_fg_dice", score, self.current_epoch)
        self.logger.log("dice_per_class_or_region", [score], self.current_epoch)
        loss = float(np.mean([output["loss"] for output in val_outputs]))
        self.logger.log("val_losses", loss, self.current_epoch)
        if self.scratch:
            self.best.offer(unwrap(self.network), loss, self.current_epoch)

    def on_train_end(self) -> None:
        """Differs from nnU-Net: whether the LoRA stays is decided, and the prognosis fitted, before the end."""
        if self.model is None:
            if self.num_epochs:
                self._save_at("checkpoint_latest.pth")
            self._conclude()
        self.logger.plot_progress_png(self.output_folder)
        super().on_train_end()

    def _conclude(self) -> None:
        """Compare what was before with what was learned, within the training fold; then learn from all its patients."""
        if self.scratch:
            self.best.put_back(unwrap(self.network))
            self._tables.clear()  # of the encoder as it began
            self.print_to_log_file(f"the encoder of epoch {self.best.epoch} is used")
        seen = self.read_features("")
        images: FeatureTable | None = seen
        if self.scratch:
            images = self._judge_images(seen)
        elif self.num_epochs:
            adapted = self.read_features(ADAPTER)
            self.kept = self._gains({"frozen": seen, "LoRA": adapted})
            images = adapted if self.kept else seen
        self.model = fit_model(self.cohort.train, self.clinic.schema, images, self.settings.survival, _SEED)

    def _judge_images(self, images: FeatureTable) -> FeatureTable | None:
        """Return the features of an encoder from scratch; None: records are as good without them."""
        if not self.clinic.schema.covariates:
            self._note(UNJUDGED)
            return images
        if self._gains({"records alone": None, "images": images}):
            return images
        self._note(UNUSED)
        return None

    def _gains(self, tables: Mapping[str, FeatureTable | None]) -> bool:
        """Say whether inner held-out patients gain by the second one of two tables, rather than by chance."""
        if self.inner is None:
            return False
        before, after = (self._measure_inner(table, self.inner) for table in tables.values())
        self.losses = {name: float(loss.mean()) for name, loss in zip(tables, (before, after), strict=True)}
        gained = is_gain(before, after)
        said = ", ".join(f"{name} {loss:.4f}" for name, loss in self.losses.items())
        self.print_to_log_file(f"loss of {len(self.inner.held_out)} inner held-out patients: {said}; "
                               f"{list(tables)[1]} {'kept' if gained else 'dropped'}")  # fmt: skip
        return gained

    def _measure_inner(self, images: FeatureTable | None, inner: InnerSplit) -> Numbers:
        """Learn from the inner training patients, and return the loss of each one held out there, (N)."""
        model = fit_model(inner.train, self.clinic.schema, images, self.settings.survival, _SEED)
        found = model.forecast(inner.held_out, images, self.targets.edges)
        return measure_curves(found.survival, self.targets, [record.patient for record in inner.held_out])

    # --- checkpoints

    def _save_at(self, name: str) -> None:
        """Save a checkpoint that goes on with the current epoch; nnU-Net's holds the next one."""
        self.current_epoch -= 1
        self.save_checkpoint(str(Path(self.output_folder, name)))
        self.current_epoch += 1

    def save_checkpoint(self, filename: str) -> None:
        """Differs from nnU-Net: weights are the base's, the prognosis stands beside them; no epoch is the best one."""
        if not self.disable_checkpointing and Path(filename).name != "checkpoint_best.pth":
            content = make_checkpoint(self)
            write_safely(filename, lambda file: torch.save(content, file))

    def load_checkpoint(self, filename_or_checkpoint: Any = None, checkpoint: Any = None) -> None:
        """Differs from nnU-Net: weights are put under the LoRA, and the prognosis is taken up where it was left.

        The argument has both of the names that versions of nnU-Net give it.

        Raises:
            ModelError: It is damaged, no checkpoint of this trainer, or does not fit the plans.
        """
        take_checkpoint(self, checkpoint if filename_or_checkpoint is None else filename_or_checkpoint)

    # --- what was held out

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from nnU-Net: the prognosis of held-out patients is written; segmentation is the base's.

        Raises:
            ModelError: The checkpoint was written before the prognosis was learned.
        """
        if self.model is None:
            raise ModelError("The prognosis was not learned yet. Continue the training with --c.")
        seen = self.read_features("")  # its table is evaluated beside the LoRA's
        images = self.read_features(ADAPTER) if self.kept else seen
        train, held = self.cohort.train, self.cohort.held_out
        horizons = choose_horizons(read_outcome(train))
        found = self.model.forecast(held or train, images, np.array(horizons))
        details = describe_training(self)
        dataset = self.plans_manager.dataset_name
        report = FoldReport(dataset, self.fold, held or train, bool(held), horizons, found, images, details)
        files = write_report(report, Path(self.output_folder, VALIDATION))
        score = measure_concordance(report.records, found) if held else None
        self.print_to_log_file(f"prognosis of {len(held)} held-out patients: Harrell's C "
                               f"{'not defined' if score is None else f'{score:.3f}'}; {files[0]}")  # fmt: skip
