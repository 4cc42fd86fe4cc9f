"""Tiny text encoders with random weights, made where they are needed."""

from collections.abc import Callable
from pathlib import Path

import pytest
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
