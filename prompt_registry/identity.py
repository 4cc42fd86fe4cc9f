"""Which text encoder made an embedding: name, pooling, weights and size, compared before anything is mixed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from duplus_nnunet.errors import EncoderError

DEFAULT_NAME = "all-MiniLM-L6-v2"
DEFAULT_ALIASES = (DEFAULT_NAME, f"sentence-transformers/{DEFAULT_NAME}")
POOLINGS = ("mean", "cls", "eos")


@dataclass(frozen=True)
class EncoderIdentity:
    """What must agree for two embeddings to be comparable.

    Attributes:
        name: Hub name or folder under which it was asked for.
        pooling: How tokens become one vector: `mean`, `cls` (the first) or `eos` (the last).
        sha256: Checksum of the weights.
        dimension: Length E of an embedding.
    """

    name: str
    pooling: str
    sha256: str
    dimension: int

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EncoderIdentity":
        """Read what `to_dict` gave.

        Raises:
            EncoderError: A key is missing, or one too many.
        """
        expected = ("name", "pooling", "sha256", "dimension")
        if set(data) != set(expected):
            found = ", ".join(map(repr, data)) or "none"
            message = f"An encoder's identity has the keys {', '.join(expected)}; found {found}."
            raise EncoderError(f"{message} Embed the prompts again.")
        return cls(str(data["name"]), str(data["pooling"]), str(data["sha256"]), int(data["dimension"]))

    def require_same(self, found: "EncoderIdentity", where: str) -> None:
        """Refuse another encoder's embeddings; the name does not count, as a folder may have moved.

        Raises:
            EncoderError: Weights, pooling or dimension differ.
        """
        differing = [
            f"{key} {getattr(found, key)!r} instead of {getattr(self, key)!r}"
            for key in ("dimension", "pooling", "sha256")
            if getattr(found, key) != getattr(self, key)
        ]
        if differing:
            message = f"{where}: found {'; '.join(differing)} (encoder {found.name!r}, expected {self.name!r})."
            remedy = (
                f"`duplus prompts embed --encoder {found.name} --pooling {found.pooling} --overwrite` and plan again"
            )
            raise EncoderError(f"{message} Give the encoder {self.name!r}, or embed everything anew: {remedy}.")


DEFAULT_ENCODER = EncoderIdentity(
    name=DEFAULT_NAME,
    pooling="mean",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    dimension=384,
)


def is_default(name: str | None) -> bool:
    """Tell whether a name means the default encoder."""
    return name is None or name in DEFAULT_ALIASES
