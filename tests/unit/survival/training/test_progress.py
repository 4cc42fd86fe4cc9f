"""The concordance index is named in the training log and in progress.png."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from duplus_nnunet.survival.training.progress import FIGURE_NAME, ProgressLogger, name_score

NUMBERS = ("mean_fg_dice", "ema_fg_dice", "train_losses", "val_losses", "lrs", "epoch_start_timestamps")


def make_logger(epochs: int) -> ProgressLogger:
    logger = ProgressLogger()
    for epoch in range(epochs):
        for key in (*NUMBERS, "epoch_end_timestamps"):
            logger.log(key, 0.5 + epoch, epoch)
    return logger


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_figure_names_no_dice(epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def save(figure: Figure, file: Path) -> None:
        texts.extend(text.get_text() for text in figure.findobj(Text))
        assert file == tmp_path / FIGURE_NAME

    monkeypatch.setattr(Figure, "savefig", save)
    make_logger(epochs).plot_progress_png(tmp_path)
    assert any("concordance" in text for text in texts)
    assert not any("dice" in text.lower() for text in texts)


def test_figure_is_written(tmp_path: Path) -> None:
    make_logger(2).plot_progress_png(str(tmp_path))
    assert (tmp_path / FIGURE_NAME).stat().st_size > 0


@pytest.mark.parametrize("text", ["Pseudo dice", "Yayy! New best EMA pseudo Dice: 0.51"])
def test_lines_of_the_log_name_no_dice(text: str) -> None:
    named = str(name_score(text))
    assert "dice" not in named.lower()
    assert named.endswith(text.partition(":")[1] + text.partition(":")[2])


@pytest.mark.parametrize("part", ["train_loss", 0.5, [0.5]])
def test_other_parts_of_the_log_stay_as_they_are(part: object) -> None:
    assert name_score(part) is part
