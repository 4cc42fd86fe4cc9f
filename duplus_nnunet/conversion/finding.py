"""Finds the cases of a download by a recipe, and lists what is missing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duplus_nnunet.conversion.found_cases import FoundCase
from duplus_nnunet.conversion.recipe import Frames, Group, Layout, Recipe
from duplus_nnunet.conversion.splits import mark_tests
from duplus_nnunet.conversion.templates import fill, find_paths
from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import read_csv

_SHOWN = 5


@dataclass(frozen=True)
class Download:
    """What was found of a download.

    Attributes:
        root: The folder in which the recipe's paths begin.
        layout: The form that it has.
        cases: The complete cases, those for training first.
        problems: What is missing or doubtful, a sentence each.
    """

    root: Path
    layout: Layout
    cases: tuple[FoundCase, ...]
    problems: tuple[str, ...]


def find_download(recipe: Recipe, source: Path) -> Download:
    """Find the cases of a download.

    Args:
        recipe: The recipe.
        source: The download's folder, or the one around it, as archives are unpacked in different ways.

    Raises:
        DataError: There is no such folder, or it has none of the recipe's forms, or two of them with different files.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder. Unpack the download, and name the folder.")
    complete: list[Download] = []
    incomplete: list[Download] = []
    for root in _list_roots(source):
        for layout in recipe.layouts:
            found = [_find_group(root, group, recipe.labels) for group in layout.groups]
            cases = mark_tests(recipe, root, [case for group in found for case in group[0]])
            problems = [*(problem for group in found for problem in group[1]), *_find_double(cases)]
            download = Download(root, layout, tuple(_order(cases)), tuple(problems))
            if not problems and any(not case.group.test for case in cases):
                complete.append(download)
            incomplete += [download] if problems else []
    # What is complete may be a part of what is not, such as one of several folders.
    whole = [download for download in complete if not any(_is_part(download, other) for other in incomplete)]
    if whole:
        return _choose_complete(whole)
    if not incomplete:
        raise DataError(_describe_none(recipe, source))
    return max(incomplete, key=lambda download: len(download.cases))


def _choose_complete(downloads: Sequence[Download]) -> Download:
    """Choose the one with most cases, of downloads that are parts of it.

    Raises:
        DataError: One of them has other files than the largest, so that nothing tells which is meant.
    """
    files = [_list_images(download) for download in downloads]
    largest = max(range(len(downloads)), key=lambda index: len(files[index]))
    for download, own in zip(downloads, files, strict=True):
        if not own <= files[largest]:
            other = downloads[largest]
            raise DataError(
                f"There are two downloads: {other.root} ({other.layout.name}, {len(other.cases)} cases) and "
                f"{download.root} ({download.layout.name}, {len(download.cases)} cases). Name the folder of one, or "
                "move the other away."
            )
    return downloads[largest]


def _is_part(download: Download, other: Download) -> bool:
    return _list_images(download) <= _list_images(other)


def drop_copies(download: Download) -> Download:
    """Leave out all cases of the same name, since nothing tells which of them is right."""
    names = Counter(case.name for case in download.cases)
    return replace(download, cases=tuple(case for case in download.cases if names[case.name] == 1))


def _list_images(download: Download) -> set[Path]:
    return {image.resolve() for case in download.cases for image in case.images}


def _list_roots(source: Path) -> Iterator[Path]:
    """Yield the folder, and those in it."""
    yield source
    yield from sorted(entry for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _find_group(root: Path, group: Group, labels: Iterable[str]) -> tuple[list[FoundCase], list[str]]:
    """Find the complete cases of a group, and describe what others lack."""
    cases: list[FoundCase] = []
    problems: list[str] = []
    missing: dict[str, list[str]] = {}
    templates = {*group.images, *group.list_masks(labels).values(), *filter(None, (group.label, group.ground))}
    for fields, image in find_paths(root, group.images[0]):
        files = {
            template: next((path for _, path in find_paths(root, template, fields)), None) for template in templates
        }
        present = {template: path for template, path in files.items() if path is not None} | {group.images[0]: image}
        lacking = templates - present.keys()
        if lacking == {group.label} and group.unlabelled == "test":
            cases += _expand(root, group.model_copy(update={"test": True, "label": None}), fields, present, labels)
            continue
        for template in lacking:
            missing.setdefault(template, []).append(image.relative_to(root).as_posix())
        if not lacking:
            try:
                cases += _expand(root, group, fields, present, labels)
            except DataError as error:  # no frames of this image
                problems.append(str(error))
    problems += [
        f"{len(images)} image(s) have no {template}: {_list_some(images)}. Download them again, or remove the images."
        for template, images in missing.items()
    ]
    return cases, problems


def _expand(
    root: Path, group: Group, fields: Mapping[str, str], files: Mapping[str, Path], labels: Iterable[str]
) -> Iterator[FoundCase]:
    """Yield a case, or with `frames` one for each of its frames."""
    frames: dict[str, int | None] = {"": None}
    if group.frames is not None:
        frames = dict(_read_frames(root, group.frames, fields))
    for frame, number in frames.items():
        known = {**fields, "frame": frame}
        name = fill(group.case, known)
        yield FoundCase(
            name=name,
            patient=fill(group.patient, known) if group.patient is not None else name,
            group=group,
            fields=fields,
            images=tuple(files[template] for template in group.images),
            label=files.get(group.label or ""),
            masks={label: files[template] for label, template in group.list_masks(labels).items()},
            ground=files.get(group.ground or ""),
            frame=number,
        )


def _read_frames(root: Path, frames: Frames, fields: Mapping[str, str]) -> dict[str, int]:
    """Read the numbers of a case's frames from their table.

    Raises:
        DataError: There is no table, or no row of this case, or a number is missing.
    """
    file = next((path for _, path in find_paths(root, frames.table, fields)), None)
    if file is None:
        raise DataError(f"There is no {root / frames.table}, which says the frames of each case. Add it.")
    table = read_csv(file, "Download it again.")
    lacking = [name for name in (frames.key, *frames.columns.values()) if name not in table.columns]
    if lacking:
        raise DataError(f"{file} has no column {lacking[0]!r}; it has {', '.join(map(repr, table.columns))}.")
    for row in table.rows:
        cells = dict(zip(table.columns, row.cells, strict=False))
        if cells[frames.key] == fields[frames.field]:
            numbers = {name: cells.get(column, "") for name, column in frames.columns.items()}
            wrong = [name for name, text in numbers.items() if not text.isdigit()]
            if wrong:
                column = frames.columns[wrong[0]]
                raise DataError(f"{file}:{row.line}: expected a number in {column!r}, found {numbers[wrong[0]]!r}.")
            return {name: int(text) for name, text in numbers.items()}
    raise DataError(f"{file} has no row whose {frames.key!r} is {fields[frames.field]!r}. Add it, or remove the case.")


def _order(cases: list[FoundCase]) -> list[FoundCase]:
    return sorted(cases, key=lambda case: (case.group.test, case.name))


def _find_double(cases: list[FoundCase]) -> Iterator[str]:
    files: dict[str, list[str]] = {}
    for case in cases:
        files.setdefault(case.name, []).append(str(case.images[0]))
    for name, paths in files.items():
        if len(paths) > 1:
            yield f"{len(paths)} cases would be called {name!r}: {', '.join(paths)}. Remove the copies."


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _describe_none(recipe: Recipe, source: Path) -> str:
    entries = sorted(entry.name for entry in source.iterdir())
    expected = "; ".join(
        f"{layout.name}: {', '.join(group.images[0] for group in layout.groups)}" for layout in recipe.layouts
    )
    return (
        f"{source} has none of the known forms of {recipe.title} ({expected}). It holds "
        f"{_list_some(entries) or 'nothing'}. Name the folder in which these paths begin; the data come from "
        f"{recipe.source}."
    )
