"""Turns a clinical.yaml with several endpoints into one schema for each, and chooses one of them by name.

Each endpoint has its own time and event. The columns of the others are left out: they know the outcome.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.yaml_files import Keys

KEY = "endpoints"
# Keys of an endpoint; beside `endpoints` they have no place in the file.
OWN_KEYS = ("time", "event", "horizons")
# In `entry`, times are in the unit of `time`.
_IN_UNIT = "entry"
_ONE_COLUMN = ("column", "start", "end", "otherwise")
HOW_TO_CHOOSE = "Choose one: --endpoint NAME, or, in a training, `endpoint` in settings.survival of the plans"

Content = dict[str, Any]
Chosen = TypeVar("Chosen")


class EndpointError(ValueError):
    """A fault in the form of `endpoints`.

    Attributes:
        keys: Where it is in the file.
        text: What is wrong, and what is expected.
    """

    def __init__(self, keys: Keys, text: str) -> None:
        """Keep the place and the text."""
        super().__init__(text)
        self.keys, self.text = keys, text


def split_endpoints(content: Mapping[str, Any]) -> dict[str, Content]:
    """Return the content of a schema for each endpoint, by name.

    Args:
        content: Content of a clinical.yaml that has `endpoints`.

    Raises:
        EndpointError: The form of `endpoints` is wrong.
    """
    endpoints = content[KEY]
    if not isinstance(endpoints, Mapping) or not endpoints:
        raise EndpointError((KEY,), "Expected a name for each endpoint, and below it its `time` and `event`")
    for key in (*OWN_KEYS, "endpoint"):
        if key in content:
            raise EndpointError((key,), f"With `{KEY}`, {key!r} stands below the name of an endpoint")
    for name, form in endpoints.items():
        _check_endpoint(name, form)
    _check_units(content)
    columns = {name: {*_list_columns(form)} for name, form in endpoints.items()}
    return {name: _make_single(content, name, columns) for name in endpoints}


def locate(name: str, keys: Keys) -> Keys:
    """Return where a key of the schema of an endpoint stands in the file; the only endpoint has no name there."""
    return (KEY, name, *keys) if name and keys and keys[0] in OWN_KEYS else keys


def choose_endpoint(file: object, schemas: Mapping[str, Chosen], name: str | None) -> Chosen:
    """Choose an endpoint by name; None: the only one.

    Args:
        file: File of the schemas, for the message.
        schemas: Schemas by endpoint; "" is the name of an endpoint without one.
        name: Name of the endpoint.

    Raises:
        DataError: The name is unknown, or there are several endpoints and none is named.
    """
    if name is None:
        if len(schemas) == 1:
            return next(iter(schemas.values()))
        raise DataError(f"{file} has {len(schemas)} endpoints: {', '.join(map(repr, schemas))}. {HOW_TO_CHOOSE}.")
    if name not in schemas:
        if [*schemas] == [""]:
            raise DataError(
                f"{file} has one endpoint without a name, and none is called {name!r}. Leave out the name, or write "
                f"`endpoint: {name}` into the file."
            )
        raise DataError(f"{file}: {describe_unknown('endpoint', name, schemas)}")
    return schemas[name]


def _check_endpoint(name: object, form: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise EndpointError((KEY,), f"The name of an endpoint is {name!r}; expected a text. Quote it")
    if not isinstance(form, Mapping):
        raise EndpointError((KEY, name), "Expected its `time` and `event`")
    unknown = [key for key in form if key not in OWN_KEYS]
    if unknown:
        listed = ", ".join(OWN_KEYS)
        raise EndpointError((KEY, name, unknown[0]), f"Unknown key of an endpoint; expected one of: {listed}")


def _check_units(content: Mapping[str, Any]) -> None:
    times = {name: form.get("time") for name, form in content[KEY].items()}
    units = {name: time.get("unit", "days") for name, time in times.items() if isinstance(time, Mapping)}
    if content.get(_IN_UNIT) is not None and len({*map(str, units.values())}) > 1:
        listed = ", ".join(f"{name!r} in {unit}" for name, unit in units.items())
        raise EndpointError(
            (_IN_UNIT,),
            f"The entry is in the unit of the time, and the times of the endpoints differ: {listed}. Write all times "
            "in one unit",
        )


def _list_columns(form: Mapping[str, Any]) -> Iterator[str]:
    time, event = form.get("time"), form.get("event")
    columns = [time.get(key) for key in _ONE_COLUMN] if isinstance(time, Mapping) else []
    columns += [event.get("column")] if isinstance(event, Mapping) else []
    yield from (name for name in columns if isinstance(name, str))


def _make_single(content: Mapping[str, Any], name: str, columns: Mapping[str, set[str]]) -> Content:
    """Return the schema of one endpoint, in which the columns of the others are ignored."""
    rest = {key: value for key, value in content.items() if key != KEY}
    ignored = rest.get("ignored", {})
    others = {
        column: f"time or event of the endpoint {other!r}"
        for other, own in columns.items()
        for column in sorted(own - columns[name])
    }
    if isinstance(ignored, Mapping) and others:
        rest["ignored"] = {**others, **ignored}
    return {**rest, **content[KEY][name], "endpoint": name}
