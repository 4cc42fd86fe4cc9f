"""Tiny text encoders with random weights and tiny raw datasets, made where they are needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "a", "computed", "tomography", "of", "liver", "spleen", "left", "right", "kidney"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def _save_tokenizer(folder: Path, longest: int = 12) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    unknown = {"unk_token": special["unk_token"]}
    words = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, **unknown))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=longest, **special).save_pretrained(folder)


def _save_bert(folder: Path, seed: int = 0) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES)).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def _save_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    ends = {"eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 2}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 20, **ends, **SIZES}
    image = {"image_size": 8, "patch_size": 4, **SIZES}
    CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=8)).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def words() -> list[str]:
    """What the tiny encoders know, in the order of their tokens."""
    return WORDS


@pytest.fixture(scope="session")
def save_bert() -> Callable[..., Path]:
    """Give what writes a BERT to a folder, its weights drawn from a seed."""
    return _save_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_clip(tmp_path_factory.mktemp("clip"))


SHAPE = (4, 5, 6)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_volume(file: Path, values: Any, direction: Sequence[float] = IDENTITY) -> Path:
    """Write an array (z, y, x) as an image with an odd spacing and origin."""
    image = SimpleITK.GetImageFromArray(np.asarray(values))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-11.0, 3.5, 40.25))
    image.SetDirection(direction)
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(file))
    return file


def _write_raw(root: Path, name: str, cases: Mapping[str, Any], **changes: Any) -> Path:
    """Write a raw dataset.

    Args:
        root: nnUNet_raw.
        name: nnU-Net's name of the dataset.
        cases: Label values of each training case, an array (z, y, x) or one value for a whole small volume.
        changes: `tests` like `cases`, where None is a case without label; `direction`; `prompts`, the text of a
            prompts.yaml; anything else goes into dataset.json.
    """
    folder = root / name
    tests, direction, prompts = (changes.pop(key, None) for key in ("tests", "direction", "prompts"))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        **changes,
    }
    for part, held in (("Tr", cases), ("Ts", tests or {})):
        for case, label in held.items():
            values = np.full(SHAPE, label or 0, np.uint8) if np.ndim(label if label is not None else 0) == 0 else label
            for channel in content["channel_names"]:
                image = np.random.default_rng(int(channel)).normal(size=np.shape(values)).astype(np.float32)
                file = folder / f"images{part}" / f"{case}_{int(channel):04}.nii.gz"
                write_volume(file, image, direction or IDENTITY)
            if label is not None:
                write_volume(folder / f"labels{part}" / f"{case}.nii.gz", values, direction or IDENTITY)
    (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    if prompts is not None:
        (folder / "prompts.yaml").write_text(prompts, encoding="utf-8")
    return folder


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give nnU-Net folders of the test's own; what comes back is nnUNet_raw."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.delenv("DUPLUS_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "nnUNet_raw"


@pytest.fixture
def write_raw(raw: Path) -> Callable[..., Path]:
    """Give what writes a tiny raw dataset: name, label values of each case, and what shall be otherwise, `root` too."""

    def write(name: str, cases: Mapping[str, Any], **changes: Any) -> Path:
        return _write_raw(Path(changes.pop("root", raw)), name, cases, **changes)

    return write


@pytest.fixture
def sources(write_raw: Callable[..., Path]) -> None:
    """Make two sources: A has a liver in five cases, B a spleen and a liver under other values, and tests."""
    write_raw("Dataset001_A", {f"a{i}": 1 for i in range(5)})
    labels = {"background": 0, "spleen": 1, "liver": 2}
    write_raw("Dataset002_B", {f"b{i}": i % 3 for i in range(5)}, labels=labels, tests={"t0": 2, "t1": None})
