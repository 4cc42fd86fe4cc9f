"""Names the score of stage 2, a concordance index, in the training log and in progress.png.

nnU-Net's training loop keeps it as its pseudo Dice (`mean_fg_dice`), by which it chooses the best epoch.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from duplus_nnunet.reporting.colours import COLOURS

FIGURE_NAME = "progress.png"
SCORE = "concordance index of inner held-out patients, patches"
_NAMES = {
    "Yayy! New best EMA pseudo Dice": f"New best moving average of the {SCORE}",
    "Pseudo dice": SCORE[0].upper() + SCORE[1:],
}
_PANELS = (
    ("loss", {"train_losses": "training", "val_losses": "inner held-out"}),
    ("concordance index", {"mean_fg_dice": SCORE, "ema_fg_dice": "moving average"}),
    ("learning rate", {"lrs": "learning rate"}),
)
_CHANCE = 0.5


def name_score(text: object) -> object:
    """Replace nnU-Net's name of the score in a part of a line of the log; other parts stay as they are."""
    if isinstance(text, str):
        for theirs, ours in _NAMES.items():
            text = text.replace(theirs, ours)
    return text


class ProgressLogger(LocalLogger):  # type: ignore[misc]
    """Differs from nnU-Net: the figure names the score as the concordance index that it is."""

    def plot_progress_png(self, output_folder: str | os.PathLike[str]) -> None:
        """Differs from nnU-Net: draws losses, the concordance index, the durations of epochs and the learning rate."""
        log: dict[str, Sequence[float]] = self.my_fantastic_logging
        starts, ends = log["epoch_start_timestamps"], log["epoch_end_timestamps"]
        durations = [end - start for start, end in zip(starts, ends, strict=False)]
        figure = Figure(figsize=(8, 11), dpi=100, layout="constrained")
        axes = figure.subplots(len(_PANELS) + 1, 1, sharex=True)
        for axis, (label, lines) in zip(axes, _PANELS, strict=False):
            for (key, name), colour in zip(lines.items(), COLOURS, strict=False):
                axis.plot(range(len(log[key])), log[key], color=colour, label=name)
            axis.set_ylabel(label)
            axis.legend(loc="best", fontsize=8)
        axes[1].axhline(_CHANCE, color="#606060", linewidth=0.8, linestyle="--")
        axes[1].set_title("higher is better; dashed: chance", fontsize=8)
        axes[-1].plot(range(len(durations)), durations, color=COLOURS[0])
        axes[-1].set(ylabel="duration (s)", xlabel="epoch")
        figure.savefig(Path(output_folder, FIGURE_NAME))
