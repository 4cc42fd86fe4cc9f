"""The form of the part `duplus` of a plans file, which people edit by hand: in it comes, out comes nothing or an error.

Only what the prompts need is looked at; settings have a form of their own, and other keys are left alone.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from duplus_nnunet.errors import PlansError, list_nearest_first

Text = Annotated[str, Field(min_length=1)]
Sentences = Annotated[list[Text], Field(min_length=1)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
_PROBLEMS_SHOWN = 3


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Context(_Form):
    sentences: Sentences
    target_prompts: dict[Text, Sentences]
    targets: list[Text] = []
    spacing: Annotated[list[Length], Field(min_length=3, max_length=3)] | None = None


class _Source(_Form):
    context: Text
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]


class _Target(_Form):
    name: Text
    label: Text
    synonyms: list[Text] = []
    partner: str | None = None


class _Centre(_Form):
    centre: Text
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
    directions: Text | None = None
    gains: list[Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]] = []


class _Centres(_Form):
    context: _Centre
    sentence: _Centre
    name: _Centre


class _Section(_Form):
    default_context: Text
    contexts: Annotated[dict[Text, _Context], Field(min_length=1)]
    targets: Annotated[list[_Target], Field(min_length=1)]
    centres: _Centres
    embeddings: Annotated[dict[str, Text], Field(min_length=1)]
    sources: dict[Text, _Source] = {}
    left_right_axis: Annotated[int, Field(ge=0, le=2)] | None = None


def check_form(section: Mapping[str, Any], plans_name: object) -> None:
    """Check the part `duplus` of plans as a whole, before anything is read from it.

    Raises:
        PlansError: Something is missing, of another type, or contradicts itself; the message says where.
    """
    try:
        form = _Section.model_validate(dict(section))
    except ValidationError as error:
        problems = [_describe(one["loc"], one["msg"], one["input"]) for one in error.errors()]
    else:
        problems = [*_check_names(form), *_check_sources(form), *_check_embeddings(form)]
    if problems:
        more = f" (and {len(problems) - _PROBLEMS_SHOWN} more)" if len(problems) > _PROBLEMS_SHOWN else ""
        raise PlansError(
            f"The plans {plans_name!r} cannot be used: {' '.join(problems[:_PROBLEMS_SHOWN])}{more} Undo that, or "
            "plan the dataset again."
        )


def _describe(place: tuple[int | str, ...], message: str, found: object) -> str:
    where = ".".join(map(str, ("duplus", *place)))
    if message == "Field required":
        return f"{where} is missing."
    shown = repr(found)
    return f"{where}: {message}; found {shown if len(shown) <= 60 else shown[:57] + '...'}."


def _check_names(form: _Section) -> Iterator[str]:
    """Find names that say nothing, or say two things."""
    if form.default_context not in form.contexts:
        listed = ", ".join(map(repr, list_nearest_first(form.default_context, form.contexts)))
        yield f"duplus.default_context is {form.default_context!r}, which is no context; there are {listed}."
    for kind in ("name", "label"):
        words = [getattr(target, kind) for target in form.targets]
        for word in {word for word in words if words.count(word) > 1}:
            yield f"duplus.targets: two targets have the {kind} {word!r}."
    prompted = {name for context in form.contexts.values() for name in context.target_prompts}
    for target in form.targets:
        if target.name not in prompted:
            yield f"duplus.contexts: no target_prompts hold a prompt for the target {target.name!r}."


def _check_sources(form: _Section) -> Iterator[str]:
    """Find sources of contexts that are not there, or that are never drawn from."""
    for name, source in form.sources.items():
        if source.context not in form.contexts:
            listed = ", ".join(map(repr, list_nearest_first(source.context, form.contexts)))
            yield f"duplus.sources.{name}.context is {source.context!r}, which is no context; there are {listed}."
    if form.sources and not any(source.weight for source in form.sources.values()):
        yield "duplus.sources: every weight is 0, so that no case would ever be drawn; raise one of them."
    known = {target.name for target in form.targets}
    for key, context in form.contexts.items():
        for name in context.targets:
            if name not in known or name not in context.target_prompts:
                yield f"duplus.contexts.{key}.targets: {name!r} is no target with a prompt there."


def _check_embeddings(form: _Section) -> Iterator[str]:
    """Find prompts without an embedding, paraphrases included: those are drawn late in a training."""
    texts = {target.name for target in form.targets}
    for context in form.contexts.values():
        texts |= {*context.sentences, *(text for many in context.target_prompts.values() for text in many)}
    for text in sorted(texts - form.embeddings.keys()):
        yield f"duplus.embeddings has none of the text {text!r}; every prompt needs one, which planning makes."
    for kind in ("context", "sentence", "name"):
        centre = getattr(form.centres, kind)
        length = _measure(centre.centre) * len(centre.gains)
        if (centre.directions or centre.gains) and _measure(centre.directions or "") != length:
            yield f"duplus.centres.{kind}.directions do not have as many numbers as centre times gains, {length}."
    lengths = {text: _measure(vector) for text, vector in form.embeddings.items()}
    expected = _measure(form.centres.context.centre)
    for text, length in lengths.items():
        if not length or length != expected:
            yield f"duplus.embeddings: that of {text!r} has {length} numbers, expected {expected}."


def _measure(vector: str) -> int:
    """Count the numbers of an embedding written as text; 0 if it is damaged."""
    try:
        return len(base64.b64decode(vector, validate=True)) // 2
    except (binascii.Error, ValueError):
        return 0
