"""Loads a text encoder and computes one embedding for each text; transformers and torch are imported only when needed.

Any text encoder of transformers and the text towers of CLIP models are supported. Python code that comes with an
encoder is run only if the user names that encoder, by DUPLUS_TRUST_REMOTE_CODE or
`duplus prompts embed --trust-remote-code`.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.encoder_folder import (
    TRUST_VARIABLE,
    checksum_weights,
    find_encoder_folder,
    find_own_code,
    is_trusted,
    require_default_weights,
    require_tokenizer,
)
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER, POOLINGS, EncoderIdentity, is_default
from duplus_nnunet.text_files import load_json

_BATCH = 64
# Tokenizers without a limit of their own report a number above this one.
_NO_LIMIT = 100_000


class TextEncoder:
    """A loaded encoder.

    Attributes:
        identity: Name, pooling, checksum and dimension.
        model: The model of transformers, in eval mode.
        longest: Largest number of tokens of a text, including special tokens.
    """

    def __init__(
        self, name: str | None, pooling: str | None = None, trusted: bool = False, device: str | None = None
    ) -> None:
        """Load an encoder by hub name or folder.

        Args:
            name: Hub name or folder; None means the default encoder.
            pooling: `mean`, `cls` or `eos`; None means the model's own.
            trusted: Run Python code that comes with the encoder, because the user named this encoder.
            device: Device of the model; None means the GPU if there is one.

        Raises:
            EncoderError: It cannot be found or used.
        """
        trusted = trusted or is_trusted(name)
        folder = find_encoder_folder(name, trusted)
        require_tokenizer(folder)
        sha256 = checksum_weights(folder)
        if is_default(name):
            require_default_weights(folder, sha256)
        self.model, self._tokenizer = _load(folder, str(name), trusted, device)
        chosen = pooling or _choose_pooling(folder, self.model)
        if chosen not in POOLINGS:
            message = f"Unknown pooling {chosen!r}. Valid: {', '.join(map(repr, POOLINGS))}."
            raise EncoderError(message)
        shown = DEFAULT_ENCODER.name if is_default(name) else str(name)
        self.identity = EncoderIdentity(shown, chosen, sha256, int(self.model.config.hidden_size))
        self.longest = _find_limit(self.model, self._tokenizer)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: N texts.

        Returns:
            (N, E) float32 of length 1.
        """
        lengths = [len(tokens) for tokens in self._tokenizer(list(texts), verbose=False)["input_ids"]]
        self._warn_if_cut(texts, lengths)
        vectors = np.zeros((len(texts), self.identity.dimension), dtype=np.float32)
        for rows in _group(lengths):
            vectors[rows] = self._encode_batch([texts[row] for row in rows])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def _encode_batch(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            return np.asarray(self.run(texts).cpu().numpy())

    def run(self, texts: list[str]) -> Any:
        """Run the model once on N texts, padded to one length; return a pooled, not normalised tensor (N, E)."""
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        states = self.model(**tokens).last_hidden_state.float()
        return _pool(states, tokens["attention_mask"], self.identity.pooling)

    def _warn_if_cut(self, texts: Sequence[str], lengths: Sequence[int]) -> None:
        for text, length in zip(texts, lengths, strict=True):
            if length > self.longest:
                message = f"The encoder {self.identity.name!r} reads {self.longest} tokens; this prompt has {length}"
                warnings.warn(f"{message} and is truncated: {text!r}. Shorten it.", UserWarning, stacklevel=4)


def _group(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of texts of equal token length: without padding, embeddings do not depend on the batch."""
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    for rows in by_length.values():
        for start in range(0, len(rows), _BATCH):
            yield rows[start : start + _BATCH]


def _load(folder: Path, name: str, trusted: bool, device: str | None) -> tuple[Any, Any]:
    try:
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel
    except ImportError as error:
        message = f"Embedding texts needs torch and transformers ({error})."
        raise EncoderError(f"{message} Install them with `pip install torch transformers`.") from error
    options = {"trust_remote_code": trusted, "local_files_only": True}
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, **options)
            chosen = CLIPTextModel if config.model_type == "clip" else AutoModel
            model, info = chosen.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        if not trusted and find_own_code(folder):
            raise EncoderError(_describe_own_code(folder, name)) from error
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
        message = f"Text encoder {str(folder)!r} cannot be loaded: {reason}."
        raise EncoderError(
            f"{message} It must be a text model or a CLIP model that transformers knows without remote code."
        ) from error
    _require_all_weights(folder, info["missing_keys"])
    model = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
    tokenizer.padding_side = "right"
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), tokenizer


def _describe_own_code(folder: Path, name: str) -> str:
    return (
        f"Text encoder {name!r} comes with its own Python code ({', '.join(find_own_code(folder))} in {folder}), which "
        f"is run only with your consent. Review it; if you trust it, set {TRUST_VARIABLE}={name} for all commands, "
        f"or run `duplus prompts embed --encoder {name} --trust-remote-code {name}`."
    )


def _require_all_weights(folder: Path, missing: Iterable[str]) -> None:
    """Refuse missing weights, which transformers would initialise at random; a pooler is not used here."""
    needed = sorted(name for name in missing if "pooler" not in name)
    if needed:
        message = (
            f"Text encoder {str(folder)!r} lacks {len(needed)} weights of its architecture, {needed[0]!r} among them."
        )
        raise EncoderError(
            f"{message} Weights and config.json belong to different models: give a folder where they match."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report of unused weights, such as those of CLIP's image tower."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _pool(states: Any, mask: Any, pooling: str) -> Any:
    """Reduce states (B, L, E) under a mask (B, L) to (B, E)."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "eos":
        last = mask.sum(dim=1) - 1
        return states[range(len(states)), last]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _choose_pooling(folder: Path, model: Any) -> str:
    """Return the pooling that a model was trained with, where its folder states it; CLIP uses the last token."""
    if str(model.config.model_type).startswith("clip"):
        return "eos"
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        modes = load_json(path)
        if modes.get("pooling_mode_cls_token"):
            return "cls"
        if modes.get("pooling_mode_lasttoken"):
            return "eos"
    return "mean"


def _find_limit(model: Any, tokenizer: Any) -> int:
    limits = [getattr(tokenizer, "model_max_length", None), getattr(model.config, "max_position_embeddings", None)]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(known) if known else 512
