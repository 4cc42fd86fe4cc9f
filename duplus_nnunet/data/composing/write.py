"""A composed dataset on disk: a plan goes in, a raw dataset that nnU-Net reads comes out, whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import CaseTable, write_case_table
from duplus_nnunet.data.composing.labels import LabelSummary
from duplus_nnunet.data.composing.look import carry_out_all, tabulate
from duplus_nnunet.data.composing.plan import Plan
from duplus_nnunet.data.composing.record import FILE_NAME as RECORD
from duplus_nnunet.data.composing.record import describe, hash_prompts, read_record
from duplus_nnunet.data.composing.splits import FILE_NAME as SPLITS
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.draft_file import write_draft
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS

EDITED_PROMPTS = "prompts.before.yaml"
_REORIENTING = "SimpleITKIOWithReorient"
_ALREADY_REORIENTING = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
# nnU-Net's reorienting reader writes 8 bits, and 255 is what it counts as one too many.
_MOST_VALUES = 254


def write_dataset(plan: Plan, folder: Path, update: Callable[[], object]) -> CaseTable:
    """Write a dataset; what stood in the folder before is replaced only once everything is there.

    Args:
        plan: What to write.
        folder: Where to.
        update: Called after each case.

    Raises:
        DataError: A case cannot be used, or the disk cannot be written to. Nothing is left behind then.
    """
    record = describe(plan)
    with _new_folder(folder) as new:
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            if name.endswith("Tr") or any(case.is_test for case in plan.cases.values()):
                (new / name).mkdir()
        found = look(plan, new, update)
        table = tabulate(plan, found)
        dataset_json = build_dataset_json(plan, found)
        _write_json(new / "dataset.json", dataset_json)
        (new / PROMPTS).write_text(write_draft(build_entry(plan)), encoding="utf-8")
        _check_prompts(plan, dataset_json, new)
        _write_json(new / SPLITS, plan.splits)
        write_case_table(table, new)
        _keep_edited_prompts(folder, new)
        _write_json(new / RECORD, {**record, "written_prompts": hash_prompts(new)})
    return table


def look(plan: Plan, folder: Path | None, update: Callable[[], object]) -> dict[str, LabelSummary]:
    """Look at every case, and write it if there is a folder to write to."""
    found = carry_out_all(list(plan.jobs(folder)), update)
    return dict(zip(plan.cases, found, strict=True))


def build_entry(plan: Plan) -> Entry:
    """Collect the prompts of all sources."""
    # A context's channel tells those of one source apart; here each case's context stands in the table of cases.
    contexts = {key: replace(context, name=key, channel=None) for key, context in plan.contexts.items()}
    entries = [origin.entry for origin in plan.origins]
    return Entry(
        dataset=plan.dataset,
        contexts=contexts,
        default_context=next(iter(contexts)),
        targets=tuple(one.target for one in plan.values.targets),
        origin=f"composed of {', '.join(entry.dataset for entry in entries)}",
        source="; ".join(dict.fromkeys(entry.source for entry in entries if entry.source)),
    )


def build_dataset_json(plan: Plan, found: Mapping[str, LabelSummary]) -> dict[str, Any]:
    """Build dataset.json.

    Raises:
        DataError: Images run in different directions, and there are more labels than the reader that undoes it can
            write.
    """
    content: dict[str, Any] = {
        "channel_names": dict(plan.channel_names),
        "labels": dict(plan.values.labels),
        "numTraining": sum(not case.is_test for case in plan.cases.values()),
        "file_ending": plan.ending,
    }
    if plan.values.class_order is not None:
        content["regions_class_order"] = plan.values.class_order
    reader = _choose_reader(plan, found)
    if reader is not None:
        content["overwrite_image_reader_writer"] = reader
    return content


def _choose_reader(plan: Plan, found: Mapping[str, LabelSummary]) -> str | None:
    """Choose a reader that turns all images the same way, so that left is on the same side of every array."""
    readers = {origin.reader for origin in plan.origins}
    reader = readers.pop() if len(readers) == 1 else None
    examples = {one.orientation: name for name, one in found.items()}
    if len(examples) > 1 and reader not in _ALREADY_REORIENTING:
        reader = _REORIENTING
    if reader == _REORIENTING and plan.values.largest > _MOST_VALUES:
        listed = ", ".join(f"{orientation} ({name})" for orientation, name in sorted(examples.items()))
        raise DataError(
            f"The images run in different directions, {listed}, for which nnU-Net's reader {_REORIENTING} is needed; "
            f"it writes at most {_MOST_VALUES} label values, but there are {plan.values.largest}. Reorient the images "
            "to one direction, or leave out targets by `skip` in the specification."
        )
    return reader


def _check_prompts(plan: Plan, dataset_json: Mapping[str, Any], folder: Path) -> None:
    """Read the prompts back as planning will."""
    entry = find_entry(plan.dataset, dataset_json, folder)
    names = [one.target.name for one in plan.values.targets]
    if list(entry.contexts) != list(plan.contexts) or [target.name for target in entry.targets] != names:
        raise DataError(f"The composed prompts have {list(entry.contexts)} and {entry.targets}; expected others.")


def _keep_edited_prompts(folder: Path, new: Path) -> None:
    """Keep a copy of prompts that the user edited in the dataset that is being replaced."""
    record = read_record(folder)
    current = hash_prompts(folder)
    if record is not None and current not in (None, record.get("written_prompts"), hash_prompts(new)):
        shutil.copyfile(folder / PROMPTS, new / EDITED_PROMPTS)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside the one meant, and give it that name at the end; remove it if anything fails."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("writing", "old"))
    try:
        new.mkdir()
    except FileExistsError as error:
        raise DataError(
            f"{new} exists: {folder.name} is being composed by another process, or was when it was killed. Wait for "
            "it, or remove that folder."
        ) from error
    except OSError as error:
        raise DataError(f"{new} cannot be made ({error.strerror}). Check that nnUNet_raw can be written to.") from error
    try:
        yield new
        _swap(folder, new, old)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error}). Nothing was left behind.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _swap(folder: Path, new: Path, old: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.rename(old, folder)
        raise
