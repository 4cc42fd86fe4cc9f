"""Writes the tables of hours, GPUs and disk space in docs/how-to/cluster.md, from published times and assumptions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

# Hours of a training of 1,000 epochs of 250 iterations, and its memory, GB, on one A100 PCIe of 40 GB. Source: nnU-Net,
# documentation/resenc_presets.md, columns RT and VRAM, commit 3d03f504.
PUBLISHED = {
    "nnU-Net's default": (9, 7.7),
    "ResEnc M": (12, 9.1),
    "ResEnc L": (35, 22.7),
    "ResEnc XL": (66, 36.6),
}
EPOCHS, ITERATIONS, BATCH, FOLDS = 1000, 250, 2, 5
# A step of DuPLUS beside one of nnU-Net's network. Source: docs/measured.md, "What conditioning costs".
CONDITIONING = 1.1
# N GPUs train an N times larger batch in an N-th of the iterations; this share of their speed is left: an assumption.
EFFICIENCY = 0.85
# Assumptions on preprocessing: core-hours of a volume, from 1 minute of an MR to 5 of a large CT, on average.
CORE_MINUTES = 3.0
# MB of a preprocessed volume. Source: nnU-Net, documentation/reference/preprocessed-data-format.md, commit 5584b851, on
# TotalSegmentator v2 at 1.5 mm: 45 GB of images and 0.24 GB of segmentations of 1,228 cases.
PREPROCESSED_MB = 1000 * 45.24 / 1228
# MB of a volume of the same size as NIfTI, compressed: an assumption.
RAW_MB = 25.0


@dataclass(frozen=True)
class Collection:
    """A collection of datasets.

    Attributes:
        name: Its name.
        datasets: Number of datasets.
        volumes: Number of labelled volumes.
    """

    name: str
    datasets: int
    volumes: int


# Labelled volumes of the paper's datasets: BTCV 30, LiTS 131, KiTS19 210, AMOS 300 CT and 60 MR, StructSeg 50 and 50,
# CHAOS 60 (20 patients in three sequences), M&Ms 300 (150 patients in two phases), AutoPET 1,014; brain structure: 300,
# an assumption.
PAPER = Collection("the paper's", 10, 30 + 131 + 210 + 300 + 60 + 50 + 50 + 60 + 300 + 1014 + 300)
LARGE = Collection("190", 190, 68_500)


def compute_hours(preset: str, epochs: int = EPOCHS, conditioned: bool = True) -> float:
    """Compute the hours of one training on one A100.

    Args:
        preset: A key of PUBLISHED.
        epochs: Number of epochs of 250 iterations.
        conditioned: Whether it is DuPLUS, else nnU-Net.
    """
    return PUBLISHED[preset][0] * epochs / EPOCHS * (CONDITIONING if conditioned else 1.0)


def compute_equal_epochs(collection: Collection, reference: Collection) -> int:
    """Compute the epochs after which a volume was drawn as often as one of a reference in 1,000 epochs."""
    return round(EPOCHS * collection.volumes / reference.volumes)


def compute_draws(collection: Collection, epochs: int = EPOCHS) -> float:
    """Compute how often a volume is drawn on average."""
    return epochs * ITERATIONS * BATCH / collection.volumes


def compute_days(hours: float, gpus: int) -> float:
    """Compute the days of one training on GPUs that each have the batch of one GPU, in as many fewer iterations."""
    return hours / (gpus * (EFFICIENCY if gpus > 1 else 1.0)) / 24


def write_training_costs() -> str:
    """Write GPU-hours of one model, of five folds and of one specialist a dataset, as a Markdown table."""
    return "\n".join(
        [
            "| preset | GPU memory | one model, 1,000 epochs | five folds | five folds of 10 specialists | of 190 |",
            "|---|---|---|---|---|---|",
            *(_write_preset(preset) for preset in PUBLISHED),
        ]
    )


def write_long_costs() -> str:
    """Write what a training costs that draws each volume of the large collection as often, as a Markdown table."""
    epochs = compute_equal_epochs(LARGE, PAPER)
    lines = [
        "| preset | GPU-hours of one model | 1 GPU | 8 GPUs | 32 GPUs |",
        "|---|---|---|---|---|",
    ]
    for preset in PUBLISHED:
        hours = compute_hours(preset, epochs)
        days = (f"{compute_days(hours, gpus):,.1f} days" for gpus in (1, 8, 32))
        lines.append(f"| {preset} | {hours:,.0f} | {' | '.join(days)} |")
    return "\n".join(lines)


def write_data_costs() -> str:
    """Write core-hours and disk space of preprocessing, and how often a volume is drawn, as a Markdown table."""
    lines = [
        "| datasets | volumes | preprocessing, core-hours | on 64 cores | raw, GB | preprocessed, GB | draws each |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in (PAPER, LARGE):
        core_hours = each.volumes * CORE_MINUTES / 60
        raw, preprocessed = (each.volumes * size / 1000 for size in (RAW_MB, PREPROCESSED_MB))
        lines.append(
            f"| {each.name} | {each.volumes:,} | {core_hours:,.0f} | {core_hours / 64:,.1f} h | {raw:,.0f} | "
            f"{preprocessed:,.0f} | {compute_draws(each):,.1f} |"
        )
    return "\n".join(lines)


def _write_preset(preset: str) -> str:
    one, stock = compute_hours(preset), compute_hours(preset, conditioned=False)
    cells: Iterator[str] = (
        f"{hours:,.0f}" for hours in (one, FOLDS * one, FOLDS * PAPER.datasets * stock, FOLDS * LARGE.datasets * stock)
    )
    memory = next(size for size in (11, 24, 40) if size >= math.ceil(PUBLISHED[preset][1]))
    return f"| {preset} | {memory} GB | {' | '.join(cells)} |"
