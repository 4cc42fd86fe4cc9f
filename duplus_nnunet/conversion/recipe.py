"""Reads recipes: YAML files that say where the files of a download lie, and what the values of its labels mean."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from duplus_nnunet.conversion.templates import check_template
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.yaml_files import read_marked_yaml

FOLDER = Path(__file__).parent / "recipes"
RESAMPLE = "resample"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Template = Annotated[Text, AfterValidator(check_template)]


def read_values(given: int | str) -> tuple[int, int]:
    """Return the first and the last value of a range of label values, such as `55-70` or `63`.

    Raises:
        ValueError: It is neither a whole number nor a range.
    """
    numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", str(given))
    if numbers is None or int(numbers[1]) > int(numbers[2] or numbers[1]):
        message = f"{given!r} is neither a label value nor a range such as 55-70"
        raise ValueError(message)
    return int(numbers[1]), int(numbers[2] or numbers[1])


def _check_values(given: int | str) -> int | str:
    read_values(given)
    return given


Values = Annotated[int | str, AfterValidator(_check_values)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Frames(_Strict):
    """Which frames of a 4D image become cases.

    Attributes:
        table: Template of a CSV file, relative to the download.
        key: Its column with the value of the field `field`.
        field: Field of the templates that names a row.
        columns: By the name of a frame, the column with its number, counted from 0.
    """

    table: Template
    key: Text
    field: Text = "id"
    columns: dict[Text, Text] = Field(min_length=1)


class Group(_Strict):
    """Files of one form that make up cases. Paths are relative to the download; `{field}` stands for part of a name.

    Attributes:
        case: Name of the case, from the fields and, with `frames`, `{frame}`.
        images: One template a channel: a NIfTI file, or a folder of a DICOM series.
        stacked: Whether the channels are the frames of one file of four dimensions, in their order; then `images` has
            that one template.
        label: Template of the label map; none where nothing was annotated.
        masks: Templates of one mask a label instead, by the label; `"*"` stands for all labels, by `{label}`.
        soft: Whether these masks are probabilities, of which the largest decides; where all are 0 is background.
        ground: Template of a folder of PNG masks, one for each slice of the DICOM series.
        patient: The patient, from the fields; by default each case is one.
        context: Their context in the prompt registry, where its rules do not say it.
        test: Whether the cases are for testing (imagesTs).
        unlabelled: What an image without its label map is: "missing", which is reported, or "test", a case for testing.
        frames: Where images have several frames, those that become cases.
    """

    case: Text
    images: list[Template] = Field(min_length=1)
    stacked: bool = False
    label: Template | None = None
    masks: dict[Text, Template] = {}
    soft: bool = False
    ground: Template | None = None
    patient: Text | None = None
    context: Text | None = None
    test: bool = False
    unlabelled: Literal["missing", "test"] = "missing"
    frames: Frames | None = None

    def list_masks(self, labels: Iterable[str]) -> dict[str, str]:
        """Return the template of each label's mask."""
        if "*" in self.masks:
            return {label: self.masks["*"].replace("{label}", label) for label in labels}
        return dict(self.masks)


class Layout(_Strict):
    """One form in which a dataset is downloaded, such as a release."""

    name: Text
    groups: list[Group] = Field(min_length=1)


class Step(_Strict):
    """A change to the images and label maps of a case, by its name and options."""

    step: Text
    options: dict[str, Any] = {}


class SplitTable(_Strict):
    """A published table that says which cases are for training, validation and testing.

    Attributes:
        table: Template of a CSV file.
        key: Its column with the names of the cases.
        column: Its column with the part of each case.
        validation: What stands there for validation; all other training cases are trained on.
        test: What stands there for testing; such cases are written to imagesTs.
    """

    table: Template
    key: Text
    column: Text
    validation: Text
    test: Text


class Clinical(_Strict):
    """A clinical table, made of one or several tables of the download.

    Attributes:
        tables: Templates of CSV files, which are joined by the patient column.
        meaning: Content of clinical.yaml, as `duplus survival draft` writes it. Covariates that a release does not have
            are left out.
    """

    tables: list[Template] = Field(min_length=1)
    meaning: dict[str, Any]


class Recipe(_Strict):
    """How a download becomes a raw dataset.

    Attributes:
        title: What it is.
        source: Where to get it.
        licence: Under which conditions, as its owners say; "see source" if these differ by part.
        size: What to expect: cases, and bytes where known.
        dataset: nnU-Net's name without a number; the prompt registry knows it by that name.
        channels: Names of the channels.
        labels: Values of each label in the files, by its name in dataset.json.
        regions: Labels of dataset.json that unite several of these, by name; they stand there instead of `labels`.
        class_order: With `regions`, the value that is written where each of them is predicted, later ones on top.
        reader: nnU-Net's reader, where the default one is not right.
        layouts: The forms of the download, the first that fits is taken.
        steps: Changes to each case, in turn.
        notes: What is known to be wrong with single cases, by case.
        splits: A published splits_final.json, whose case names are those of the dataset, or a table of their parts.
        clinical: The clinical table.
    """

    title: Text
    source: Text
    licence: Text
    size: Text
    dataset: Text
    channels: list[Text] = Field(min_length=1)
    labels: dict[Text, Values | list[Values]] = Field(min_length=1)
    regions: dict[Text, list[Text]] = {}
    class_order: list[int] | None = None
    reader: Text | None = None
    layouts: list[Layout] = Field(min_length=1)
    steps: list[Step] = []
    notes: dict[Text, Text] = {}
    splits: Template | SplitTable | None = None
    clinical: Clinical | None = None

    @property
    def values(self) -> dict[int, int]:
        """New label value of each value in the files: labels are numbered from 1 in their order; 0 is background."""
        table = {0: 0}
        for number, given in enumerate(self.labels.values(), start=1):
            for item in given if isinstance(given, list) else [given]:
                low, high = read_values(item)
                table |= dict.fromkeys(range(low, high + 1), number)
        return table


def list_recipes() -> dict[str, Path]:
    """Return the file of each shipped recipe by its name, such as `btcv`."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def load_recipe(name: str) -> Recipe:
    """Read a recipe by the name of a shipped one, or by its file.

    Raises:
        DataError: There is no such recipe, or it has problems; all are listed with their lines.
    """
    shipped = {normalise(stem): file for stem, file in list_recipes().items()}
    if name.endswith((".yaml", ".yml")):
        return read_recipe(Path(name))
    if normalise(name) not in shipped:
        text = describe_unknown("dataset", name, list_recipes())
        raise DataError(f"{text} A recipe of your own is named by its file, such as mine.yaml.")
    return read_recipe(shipped[normalise(name)])


def set_grid(recipe: Recipe, channel: str) -> Recipe:
    """Return a recipe that resamples images and label maps to the grid of a channel.

    Raises:
        DataError: The recipe has no such channel, or only one.
    """
    if channel not in recipe.channels:
        raise DataError(describe_unknown("channel", channel, recipe.channels))
    if len(recipe.channels) == 1:
        raise DataError(f"{recipe.title} has one channel, {channel}: there is nothing to resample.")
    step = Step(step=RESAMPLE, options={"channel": recipe.channels.index(channel)})
    others = [other for other in recipe.steps if other.step != RESAMPLE]
    return recipe.model_copy(update={"steps": [*others, step]})


@cache
def read_recipe(file: Path) -> Recipe:
    """Read a recipe from a file.

    Raises:
        DataError: It has problems; all are listed with their lines.
    """
    marks = read_marked_yaml(file)
    problems = [str(problem) for problem in marks.problems]
    if not problems:
        try:
            recipe = Recipe.model_validate(marks.data)
            problems = [f"{marks.file}: {problem}" for problem in _find_problems(recipe)]
            if not problems:
                return recipe
        except ValidationError as error:
            problems = [
                f"{marks.file}:{marks.line_of(tuple(item['loc']))}: {'.'.join(map(str, item['loc']))}: "
                f"{item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            ]
    raise DataError("\n".join(problems))


def _find_problems(recipe: Recipe) -> list[str]:
    """Find contradictions between the parts of a recipe."""
    from duplus_nnunet.conversion.steps import STEPS

    united = [name for names in recipe.regions.values() for name in names if name not in recipe.labels]
    problems = [describe_unknown("label", name, recipe.labels) for name in united]
    if len(recipe.class_order or ()) != len(recipe.regions):
        problems.append("`class_order` needs one value for each of `regions`.")
    problems += _find_clinical_problems(recipe.clinical)
    problems += [describe_unknown("step", step.step, STEPS) for step in recipe.steps if step.step not in STEPS]
    for layout in recipe.layouts:
        for group in layout.groups:
            expected = 1 if group.stacked else len(recipe.channels)
            if len(group.images) != expected or (group.stacked and group.frames is not None):
                problems.append(
                    f"layout {layout.name!r}, {group.case!r}: {len(group.images)} images, but {len(recipe.channels)} "
                    "channels. Give a template for each channel; with `stacked`, one for all of them and no `frames`."
                )
            unknown = [name for name in group.masks if name not in (*recipe.labels, "*")]
            problems += [describe_unknown("label", name, recipe.labels) for name in unknown]
    return problems


def _find_clinical_problems(clinical: Clinical | None) -> list[str]:
    """Find what clinical.yaml could not have."""
    from duplus_nnunet.survival.records.schema import ClinicalSchema

    try:
        if clinical is not None:
            ClinicalSchema.model_validate(clinical.meaning)
    except ValidationError as error:
        return [f"clinical.meaning.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return []
