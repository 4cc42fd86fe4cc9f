"""The option `--endpoint`: which of the endpoints of clinical.yaml a command works on."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.records.schema import ClinicalSchema


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--endpoint", metavar="NAME", help="endpoint, if clinical.yaml has several (`endpoints`)")


def require_same(trained: "ClinicalSchema", chosen: "ClinicalSchema") -> None:
    """Require that a trained model predicts the chosen endpoint.

    Raises:
        DataError: Either has a name, and time or event differ.
    """
    from duplus_nnunet.errors import DataError

    if trained.endpoint is None and chosen.endpoint is None:
        return
    before, now = ((schema.time.columns, schema.event) for schema in (trained, chosen))
    if before != now:
        raise DataError(
            f"The model was trained on the endpoint {describe_endpoint(trained)}; the one to evaluate is "
            f"{describe_endpoint(chosen)}. "
            "Choose the endpoint of the model: --endpoint NAME."
        )


def describe_endpoint(schema: "ClinicalSchema") -> str:
    """Return name and columns of an endpoint."""
    columns = f"event {schema.event.column!r}, time {', '.join(map(repr, schema.time.columns))}"
    return f"{schema.endpoint!r} ({columns})" if schema.endpoint else columns
