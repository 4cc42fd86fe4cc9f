"""Lines that are typed become answers, files, and messages that help."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference import predictor as predictor_module
from duplus_nnunet.inference.conversation import AskSettings, Conversation
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.outputs import preview

from .test_rivals import NAMES, FakeReader, make_model


@pytest.fixture
def conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    monkeypatch.setattr(predictor_module, "Reader", FakeReader)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    own = Conversation(DuPLUSPredictor(make_model(), Options()), "image", AskSettings(output=tmp_path / "answers"))
    yield own
    own.close()
    torch.set_num_threads(before)


def test_a_target_is_answered_with_volume_and_time(conversation: Conversation) -> None:
    volume = conversation.scan.volume("liver")
    assert volume > 0
    reply = conversation.reply("  liver ")
    assert reply.startswith(f"liver: {volume:.2f} ml")
    assert reply.endswith(" s")
    assert conversation.reply("Liver").startswith("liver: ")
    assert conversation.reply("") == ""
    absent = [name for name in NAMES if not conversation.scan.segment(name).any()]
    assert absent
    assert conversation.reply(absent[0]).startswith(f"{absent[0]}: not found")


def test_what_was_asked_is_listed_once(conversation: Conversation) -> None:
    assert "yet" in conversation.reply("volumes")
    for line in ("liver", "spleen", "liver"):
        conversation.reply(line)
    rows = conversation.reply("volumes").splitlines()
    assert [row.split("  ")[0] for row in rows if row.startswith(NAMES)] == ["spleen", "liver"]
    assert conversation.reply("targets").splitlines() == list(NAMES)


def read_mask(file: str) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file)).astype(bool)


def test_masks_are_saved_on_the_grid_of_the_image(conversation: Conversation, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="target"):
        conversation.reply("save")
    conversation.reply("liver")
    conversation.reply("left kidney")
    saved = conversation.reply("save")
    assert saved == str(tmp_path / "answers" / "left_kidney.nii.gz")
    np.testing.assert_array_equal(read_mask(saved), conversation.scan.segment("left kidney"))
    (liver,) = conversation.reply("save liver").splitlines()
    np.testing.assert_array_equal(read_mask(liver), conversation.scan.segment("liver"))
    # A target that was not asked before is asked now.
    assert conversation.reply("save spleen") == str(tmp_path / "answers" / "spleen.nii.gz")
    assert len(conversation.reply("save all").splitlines()) == 3


def test_a_picture_is_written(conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def draw(answer: Any, image: Any, folder: Path) -> tuple[Path, ...]:
        drawn.extend(target.name for target in answer.targets)
        (folder / "a.png").write_bytes(image)
        return (folder / "a.png",)

    monkeypatch.setattr(preview, "write_preview", draw)
    monkeypatch.setattr(DuPLUSPredictor, "_read_again", lambda *_: b"pixels")
    file = conversation.reply("show left kidney")
    assert Path(file) == tmp_path / "answers" / "left_kidney.png"
    assert Path(file).read_bytes() == b"pixels"
    assert drawn == ["left kidney"]


def test_a_mistyped_target_is_not_taken_for_a_text(conversation: Conversation) -> None:
    with pytest.raises(PromptError, match=r"(?s)'spleen'.*text splean"):
        conversation.reply("splean")
    with pytest.raises(PromptError):
        conversation.reply("save splean")
    with pytest.raises(PromptError, match="text"):
        conversation.reply("text")


@pytest.mark.parametrize("line", ["text CT of spleen", '"CT of spleen"', "'CT of spleen'"])
def test_the_target_prompt_of_a_known_target_is_that_target(conversation: Conversation, line: str) -> None:
    assert conversation.reply(line).startswith("spleen: ")
    mask = conversation.scan.segment("spleen")
    np.testing.assert_array_equal(conversation.scan.segment(prompt="CT of spleen"), mask)


def test_contexts_are_listed_and_unknown_ones_refused(conversation: Conversation) -> None:
    assert conversation.reply("context") == "* ct"
    assert conversation.reply("context ct") == conversation.describe()
    with pytest.raises(PromptError, match="ct"):
        conversation.reply("context mr")
    assert conversation.scan.is_open


@pytest.mark.parametrize("line", ["quit", "exit", " QUIT "])
def test_it_ends(conversation: Conversation, line: str) -> None:
    assert not conversation.is_over
    assert conversation.reply(line) == ""
    assert conversation.is_over


def test_lines_are_completed(conversation: Conversation) -> None:
    assert conversation.complete("left") == ["left kidney"]
    assert conversation.complete("sp") == ["spleen"]
    assert conversation.complete("context ") == ["context ct"]
    conversation.reply("liver")
    assert conversation.complete("save ") == ["save liver"]
    assert set(NAMES) < set(conversation.complete(""))


def test_help_names_every_word(conversation: Conversation) -> None:
    words = {line.split()[0] for line in conversation.reply("help").splitlines()}
    assert {"text", "targets", "volumes", "show", "save", "context", "quit"} <= words
