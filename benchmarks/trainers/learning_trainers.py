"""Trainers of `learning.py`: choices that did not become settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch import nn
from torch.nn import functional

from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks import unwrap
from duplus_nnunet.networks.film import FiLMGenerator, scale_to_norm
from duplus_nnunet.trainers import DuPLUSTrainer
from duplus_nnunet.trainers.loss import TargetLoss, expand_target


class LearningTrainer(DuPLUSTrainer):
    """Validates without mirror images, which would take longer than the training."""

    def perform_actual_validation(self, save_probabilities=False):
        """Differs from DuPLUSTrainer: no mirror images."""
        self.inference_allowed_mirroring_axes = None
        super().perform_actual_validation(save_probabilities)


class _WithTerm(TargetLoss):
    """Adds a term to the loss, computed from masks (B, K, V) of all targets."""

    def forward(self, logits, labels):
        flat, table = labels.flatten(1), self.table if self._rows is None else self.table[self._rows]
        masks = torch.stack([torch.stack([expand_target(f, table, k) for k in range(len(table))]) for f in flat])
        counted = torch.ones(masks.shape[:2]) if self._annotated is None else self._annotated.float()
        return super().forward(logits, labels) + self.measure(logits.flatten(2).float(), masks.float(), counted)


class _Exclusion(_WithTerm):
    """Cross-entropy once more at voxels of another annotated target."""

    def measure(self, x, masks, counted):
        others = ((masks * counted[..., None]).sum(1, keepdim=True) > 0) & (masks == 0)
        terms = functional.softplus(x) * others
        sizes = others.sum(2).clamp_min(1)
        return 0.1 * (terms.sum(2) / sizes * counted).sum() / counted.sum().clamp_min(1)


class _Foreground(_WithTerm):
    """Cross-entropy once more, over the number of foreground voxels instead of that of all voxels."""

    def measure(self, x, masks, counted):
        terms = functional.binary_cross_entropy_with_logits(x, masks, reduction="none").sum(2)
        return (terms / masks.sum(2).clamp_min(100) * counted).sum() / counted.sum().clamp_min(1)


def _with_loss(kind):
    class Trainer(LearningTrainer):
        def _build_loss(self):
            loss = super()._build_loss()
            (loss.loss if self.enable_deep_supervision else loss).__class__ = kind
            return loss

    return Trainer


class TrainerExclusion(_with_loss(_Exclusion)):
    """Adds the exclusion term to the loss."""


class TrainerForeground(_with_loss(_Foreground)):
    """Adds the cross-entropy over foreground voxels to the loss."""


class TrainerEMA(LearningTrainer):
    """Validates and stores an exponential moving average of the weights, with a time constant of 100 iterations."""

    average = None

    def train_step(self, batch):
        """Differs from DuPLUSTrainer: updates the average."""
        step = super().train_step(batch)
        own = unwrap(self.network).state_dict()
        if self.average is None:
            self.average = {name: value.detach().clone() for name, value in own.items()}
        for name, value in own.items():
            self.average[name].lerp_(value, 0.01) if value.is_floating_point() else self.average[name].copy_(value)
        return step

    def perform_actual_validation(self, save_probabilities=False):
        """Differs from LearningTrainer: validates the average."""
        unwrap(self.network).load_state_dict(self.average)
        super().perform_actual_validation(save_probabilities)


class TrainerGeneratorsAdamW(LearningTrainer):
    """AdamW for MLP_FiLM, MLP_Pred and the projections, nnU-Net's SGD for the U-Net."""

    def _make_optimizer(self):
        class Both(torch.optim.Optimizer):
            def __init__(self, sgd, adamw):
                self.parts = [sgd, adamw]
                super().__init__([*sgd.param_groups, *adamw.param_groups], {"lr": 1e-3})
                for part, group in zip(self.parts, self.param_groups, strict=True):
                    part.param_groups = [group]

            def step(self, closure=None):
                for part in self.parts:
                    part.step()

        own, rest = [], []
        for name, value in self.network.named_parameters():
            added = name.startswith(("film.", "generator.")) or ".seg_layers." in name
            (own if added else rest).append(value)
        sgd = torch.optim.SGD(rest, 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
        adamw = torch.optim.AdamW(own, 1e-3, betas=(0.9, 0.98), weight_decay=1e-2)
        both = Both(sgd, adamw)

        class Schedule(PolyLRScheduler):
            def step(self, current_step=None):
                super().step(current_step)
                self.optimizer.param_groups[1]["lr"] *= 0.1

        return both, Schedule(both, 1e-2, self.num_epochs)


# The place of a patch: where its centre lies in the image, -1 to 1, and its size, as a share of the image's; 6 numbers.
PLACE = 6


def measure_place(lower: Sequence[int], upper: Sequence[int], shape: Sequence[int]) -> list[float]:
    """Measure the place of a patch, given its bounds and the shape of the image, in voxels."""
    triples = list(zip(lower, upper, shape, strict=True))
    centres = [(low + high) / size - 1 for low, high, size in triples]
    return centres + [(high - low) / size for low, high, size in triples]


class PlacedLoader(nnUNetDataLoader):
    """Adds the place of each image of a batch, (B, 6), under "place"."""

    def get_bbox(self, data_shape, *args, **options):
        """Differs from nnU-Net: notes the place."""
        lower, upper = super().get_bbox(data_shape, *args, **options)
        # What is cut out first is larger than the patch, around the same centre.
        margins = [(size - final) / 2 for size, final in zip(self.patch_size, self.final_patch_size, strict=True)]
        bounds = [low + margin for low, margin in zip(lower, margins, strict=True)]
        ends = [high - margin for high, margin in zip(upper, margins, strict=True)]
        self.places.append(measure_place(bounds, ends, data_shape))
        return lower, upper

    def generate_train_batch(self):
        """Differs from nnU-Net: the batch has the places."""
        self.places = []
        batch = super().generate_train_batch()
        return {**batch, "place": torch.tensor(self.places, dtype=torch.float32)}


def embed(place: torch.Tensor) -> torch.Tensor:
    """Return coordinates (..., n) together with their sines and cosines of one and two periods, (..., 5 n)."""
    turns = [torch.pi * place * periods for periods in (1, 2)]
    return torch.cat([place, *(wave(turn) for turn in turns for wave in (torch.sin, torch.cos))], -1)


class PlacedFiLM(FiLMGenerator):
    """Adds to scale and shift what is generated from the place of the patch."""

    def add_place(self, place: list[torch.Tensor]) -> None:
        """Add the layers, whose effect is 0 before training; `place` holds what is told before each call."""
        self.place = place
        self.place_hidden = nn.Linear(5 * PLACE, self.hidden.out_features)
        self.place_out = nn.Linear(self.hidden.out_features, 2 * sum(self.channels))
        nn.init.zeros_(self.place_out.weight)
        nn.init.zeros_(self.place_out.bias)

    def describe_place(self) -> torch.Tensor:
        """Return what is known of the patch, (B, N)."""
        return embed(self.place[0])

    def forward(self, context):
        """Map contexts (B, E) to a pair (gamma, beta), each (B, C), per stage."""
        hidden = scale_to_norm(self.nonlin(self.place_hidden(self.describe_place())), 1.0)
        added, moved = self.place_out(hidden).float().chunk(2, dim=1)
        parts = zip(added.split(self.channels, 1), moved.split(self.channels, 1), strict=True)
        both = zip(super().forward(context), parts, strict=True)
        return [(gamma + more, beta + shift) for (gamma, beta), (more, shift) in both]


class VoxelPlace(nn.Module):
    """Adds to a projected map what is computed from the place of each voxel."""

    def __init__(self, features: int, place: list[torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.place = nn.Linear(15, features), place
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Add to maps (B, F, D, H, W)."""
        centres, sizes = self.place[0].chunk(2, dim=1)
        total = maps
        for axis, length in enumerate(maps.shape[2:]):
            steps = torch.linspace(-1 + 1 / length, 1 - 1 / length, length)
            places = centres[:, axis, None] + sizes[:, axis, None] * steps
            waves = embed(places[..., None])
            weight = self.layer.weight[:, axis * 5 : axis * 5 + 5]
            shape = [len(places), -1, 1, 1, 1]
            shape[2 + axis] = length
            total = total + functional.linear(waves, weight).transpose(1, 2).reshape(shape)
        return total + self.layer.bias.view(1, -1, 1, 1, 1)


class _Placed(LearningTrainer):
    """Tells the network the place of each patch, in training and in validation; images must not be mirrored."""

    loader = PlacedLoader

    def configure_optimizers(self):
        self.place = [torch.zeros(1, PLACE), torch.zeros(1, 1, SMALL, SMALL, SMALL)]
        state = torch.get_rng_state()
        self.add_place(unwrap(self.network))
        torch.set_rng_state(state)
        return super().configure_optimizers()

    def get_dataloaders(self):
        stock.nnUNetDataLoader = self.loader
        try:
            return super().get_dataloaders()
        finally:
            stock.nnUNetDataLoader = nnUNetDataLoader

    def _bind_batch(self, batch: dict[str, Any], training: bool):
        self.place[0] = batch["place"]
        return super()._bind_batch(batch, training)

    def perform_actual_validation(self, save_probabilities=False):
        with tell_windows(self.place, unwrap(self.network)):
            super().perform_actual_validation(save_probabilities)


class TrainerPlaceFiLM(_Placed):
    """The place of the patch changes scale and shift of FiLM."""

    def add_place(self, network: Any) -> None:
        """Change FiLM's generator."""
        network.film.__class__ = PlacedFiLM
        network.film.add_place(self.place)


class TrainerPlaceHead(_Placed):
    """The place of each voxel is added to the map that the head reads."""

    def add_place(self, network: Any) -> None:
        """Change the projections that the head reads, of each resolution."""
        layers = network.decoder.seg_layers
        for index, layer in enumerate(layers):
            layers[index] = nn.Sequential(layer, VoxelPlace(layer.out_channels, self.place))


# Edge of a whole image that is made small, in voxels.
SMALL = 12


def shrink(image: torch.Tensor) -> torch.Tensor:
    """Make an image (C, D, H, W) small."""
    return functional.adaptive_avg_pool3d(torch.as_tensor(image)[None].float(), SMALL)[0]


class SurroundingsLoader(PlacedLoader):
    """Adds the whole image of each patch, made small, under "surroundings"."""

    def generate_train_batch(self):
        """Differs from PlacedLoader: the images are noted as they are read."""
        data, noted = self._data, []

        class Noting:
            """The dataset."""

            def load_case(self, identifier):
                """Read a case."""
                case = data.load_case(identifier)
                noted.append(shrink(case[0][:]))
                return case

        self._data = Noting()
        try:
            batch = super().generate_train_batch()
        finally:
            self._data = data
        return {**batch, "surroundings": torch.stack(noted)}


class SurroundedFiLM(PlacedFiLM):
    """Adds to scale and shift what is generated from the place of the patch and from the whole image."""

    def add_place(self, place: list[torch.Tensor]) -> None:
        """Add the layers, whose effect is 0 before training; `place` holds place and image."""
        super().add_place(place)
        layers = [nn.Conv3d(1, 16, 3, 2, 1), nn.InstanceNorm3d(16, affine=True), nn.LeakyReLU()]
        layers += [nn.Conv3d(16, 32, 3, 2, 1), nn.LeakyReLU(), nn.Flatten()]
        self.look = nn.Sequential(*layers)
        self.place_hidden = nn.Linear(5 * PLACE + 32 * (SMALL // 4) ** 3, self.hidden.out_features)

    def describe_place(self) -> torch.Tensor:
        """Return what is known of the patch, (B, N)."""
        return torch.cat([super().describe_place(), self.look(self.place[1])], 1)


class TrainerSurroundings(_Placed):
    """The place of the patch and the whole image, made small, change scale and shift of FiLM."""

    loader = SurroundingsLoader

    def add_place(self, network: Any) -> None:
        """Change FiLM's generator."""
        network.film.__class__ = SurroundedFiLM
        network.film.add_place(self.place)

    def _bind_batch(self, batch: dict[str, Any], training: bool):
        self.place[1] = batch["surroundings"]
        return super()._bind_batch(batch, training)


@contextmanager
def tell_windows(place: list[torch.Tensor], network: Any) -> Iterator[None]:
    """Set the place before each window that is predicted, without mirror images."""
    walk, call = WindowPredictor._internal_predict_sliding_window_return_logits, WindowPredictor.predict_window
    whole, bounds = WindowPredictor.predict_sliding_window_return_logits, []
    shape: list[int] = []

    def start(self, image):
        shape[:], place[1] = image.shape[1:], shrink(image)[None]
        return whole(self, image)

    def begin(self, data, slicers, do_on_device=True):
        before = [(padded - size) // 2 for padded, size in zip(data.shape[1:], shape, strict=True)]
        bounds[:] = [[(s.start - b, s.stop - b) for s, b in zip(part[1:], before, strict=True)] for part in slicers]
        return walk(self, data, slicers, do_on_device)

    def predict(self, given):
        lower, upper = zip(*bounds.pop(0), strict=True)
        place[0] = torch.tensor([measure_place(lower, upper, shape)])
        network._cache.clear()
        return call(self, given)

    WindowPredictor.predict_sliding_window_return_logits = start
    WindowPredictor._internal_predict_sliding_window_return_logits = begin
    WindowPredictor.predict_window = predict
    try:
        yield
    finally:
        WindowPredictor.predict_sliding_window_return_logits = whole
        WindowPredictor._internal_predict_sliding_window_return_logits = walk
        WindowPredictor.predict_window = call
