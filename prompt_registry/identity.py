"""Identifies the text encoder of an embedding by name, pooling, weights and dimension, so that none are mixed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from duplus_nnunet.errors import EncoderError

DEFAULT_NAME = "all-MiniLM-L6-v2"
DEFAULT_ALIASES = (DEFAULT_NAME, f"sentence-transformers/{DEFAULT_NAME}")
POOLINGS = ("mean", "cls", "eos")


@dataclass(frozen=True)
class EncoderIdentity:
    """Identity of a text encoder; embeddings of two encoders are comparable only if all but the name agree.

    Attributes:
        name: Hub name or folder that the user gave.
        pooling: How token vectors become one vector: `mean`, `cls` (the first) or `eos` (the last).
        sha256: Checksum of the weights.
        dimension: Length E of an embedding.
    """

    name: str
    pooling: str
    sha256: str
    dimension: int

    def to_dict(self) -> dict[str, Any]:
        """Return the identity as plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EncoderIdentity":
        """Read the result of `to_dict`.

        Raises:
            EncoderError: The keys are not the expected ones.
        """
        expected = ("name", "pooling", "sha256", "dimension")
        if set(data) != set(expected):
            listed = ", ".join(map(repr, data)) or "none"
            message = f"The identity of an encoder has the keys {', '.join(expected)}; found {listed}."
            raise EncoderError(f"{message} Embed the prompts again.")
        return cls(str(data["name"]), str(data["pooling"]), str(data["sha256"]), int(data["dimension"]))

    def require_same(self, other: "EncoderIdentity", where: str) -> None:
        """Refuse embeddings of another encoder; names may differ, since a folder may have been moved.

        Raises:
            EncoderError: Weights, pooling or dimension differ.
        """
        differing = [
            f"{key} {getattr(other, key)!r} instead of {getattr(self, key)!r}"
            for key in ("dimension", "pooling", "sha256")
            if getattr(other, key) != getattr(self, key)
        ]
        if differing:
            message = f"{where}: found {'; '.join(differing)} (encoder {other.name!r}, expected {self.name!r})."
            remedy = (
                f"`duplus prompts embed --encoder {other.name} --pooling {other.pooling} --overwrite` and plan again"
            )
            raise EncoderError(f"{message} Give the encoder {self.name!r}, or embed all texts again: {remedy}.")


DEFAULT_ENCODER = EncoderIdentity(
    name=DEFAULT_NAME,
    pooling="mean",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    dimension=384,
)


def is_default(name: str | None) -> bool:
    """Whether a name means the default encoder."""
    return name is None or name in DEFAULT_ALIASES
