"""Writes a planned dataset to disk as a raw dataset of nnU-Net, completely or not at all.

It is written into a hidden folder beside it. If that is interrupted, the cases that are done stay there, and the same
command goes on from them.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import CaseTable, write_case_table
from duplus_nnunet.data.composing.journal import Journal, count_kept
from duplus_nnunet.data.composing.labels import LabelSummary
from duplus_nnunet.data.composing.plan import Plan
from duplus_nnunet.data.composing.processing import build_case_table, process_cases
from duplus_nnunet.data.composing.record import FILE_NAME as RECORD
from duplus_nnunet.data.composing.record import describe_plan, hash_prompts, read_record
from duplus_nnunet.data.composing.splits import FILE_NAME as SPLITS
from duplus_nnunet.data.label_maps import describe_rounding
from duplus_nnunet.errors import DataError
from duplus_nnunet.locks import hold
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.case_contexts import strip_rules
from duplus_nnunet.prompt_registry.draft_file import write_draft
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS

EDITED_PROMPTS = "prompts.before.yaml"
_REORIENTING = "SimpleITKIOWithReorient"
_ALREADY_REORIENTING = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
# nnU-Net's reorienting reader writes 8 bits, and does not accept 255.
_MOST_VALUES = 254


def write_dataset(plan: Plan, folder: Path, update: Callable[[], object]) -> CaseTable:
    """Write a dataset; an earlier one in the folder is replaced only when the new one is complete.

    Args:
        plan: The planned dataset.
        folder: Folder to write it to.
        update: Called after each case.

    Raises:
        DataError: A case cannot be used, the disk cannot be written to, or another process is writing the dataset.
    """
    record = describe_plan(plan)
    advice = "Wait for it to end, or compose with another number."
    with hold(folder.parent, f"composing {folder.name} in", advice, folder.name), open_new_folder(folder, True) as new:
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            if name.endswith("Tr") or any(case.is_test for case in plan.cases.values()):
                (new / name).mkdir(exist_ok=True)
        summaries = examine_cases(plan, new, update)
        table = build_case_table(plan, summaries)
        dataset_json = build_dataset_json(plan, summaries)
        _write_json(new / "dataset.json", dataset_json)
        (new / PROMPTS).write_text(write_draft(build_entry(plan)), encoding="utf-8")
        _check_prompts(plan, dataset_json, new)
        _write_json(new / SPLITS, plan.splits)
        write_case_table(table, new)
        _keep_edited_prompts(folder, new)
        _write_json(new / RECORD, {**record, "written_prompts": hash_prompts(new)})
        Journal(new).close()
    return table


def examine_cases(plan: Plan, folder: Path | None, update: Callable[[], object]) -> dict[str, LabelSummary]:
    """Check every case, and write it if there is a folder to write to; return a summary of each by its name."""
    jobs = dict(zip(plan.cases, plan.jobs(folder), strict=True))
    journal = None if folder is None else Journal(folder)
    done = {} if journal is None else journal.resume(jobs)
    for _ in done:
        update()
    rest = {name: job for name, job in jobs.items() if name not in done}
    for (name, job), summary in zip(rest.items(), process_cases(list(rest.values())), strict=True):
        done[name] = summary
        if journal is not None:
            journal.note(name, job, summary)
        update()
    summaries = {name: done[name] for name in jobs}
    note = describe_rounding({name: summary.rounded for name, summary in summaries.items()})
    if note:
        sys.stderr.write(f"note: {note}\n")
    return summaries


def build_entry(plan: Plan) -> Entry:
    """Collect the prompts of all sources."""
    # Channel and case names distinguish the contexts of one source; in a composed dataset the table of cases does.
    contexts = {key: replace(strip_rules(context), name=key) for key, context in plan.contexts.items()}
    entries = [source.entry for source in plan.sources]
    return Entry(
        dataset=plan.dataset,
        contexts=contexts,
        default_context=next(iter(contexts)),
        targets=tuple(merged.target for merged in plan.values.targets),
        origin=f"composed of {', '.join(entry.dataset for entry in entries)}",
        source="; ".join(dict.fromkeys(entry.source for entry in entries if entry.source)),
    )


def build_dataset_json(plan: Plan, summaries: Mapping[str, LabelSummary]) -> dict[str, Any]:
    """Build dataset.json.

    Raises:
        DataError: Images differ in orientation, and there are more label values than the reorienting reader can write.
    """
    content: dict[str, Any] = {
        "channel_names": dict(plan.channel_names),
        "labels": dict(plan.values.labels),
        "numTraining": sum(not case.is_test for case in plan.cases.values()),
        "file_ending": plan.ending,
    }
    if plan.values.class_order is not None:
        content["regions_class_order"] = plan.values.class_order
    reader = _choose_reader(plan, summaries)
    if reader is not None:
        content["overwrite_image_reader_writer"] = reader
    return content


def _choose_reader(plan: Plan, summaries: Mapping[str, LabelSummary]) -> str | None:
    """Choose a reader that gives all images the same orientation, so that left is on the same side of every array."""
    readers = {source.reader for source in plan.sources}
    reader = readers.pop() if len(readers) == 1 else None
    examples = {summary.orientation: name for name, summary in summaries.items()}
    if len(examples) > 1 and reader not in _ALREADY_REORIENTING:
        reader = _REORIENTING
    if reader == _REORIENTING and plan.values.largest > _MOST_VALUES:
        listed = ", ".join(f"{orientation} ({name})" for orientation, name in sorted(examples.items()))
        raise DataError(
            f"The images differ in orientation, {listed}, for which nnU-Net's reader {_REORIENTING} is needed; "
            f"it writes at most {_MOST_VALUES} label values, but there are {plan.values.largest}. Reorient the images "
            "to one orientation, or leave out targets with `skip` in the specification."
        )
    return reader


def _check_prompts(plan: Plan, dataset_json: Mapping[str, Any], folder: Path) -> None:
    """Check that planning will read the same prompts."""
    entry = find_entry(plan.dataset, dataset_json, folder)
    names = [merged.target.name for merged in plan.values.targets]
    if list(entry.contexts) != list(plan.contexts) or [target.name for target in entry.targets] != names:
        raise DataError(
            f"The composed prompts.yaml has the contexts {list(entry.contexts)} and the targets "
            f"{[target.name for target in entry.targets]}; expected {list(plan.contexts)} and {names}."
        )


def _keep_edited_prompts(folder: Path, new: Path) -> None:
    """Keep a copy of a prompts.yaml that the user edited in the dataset that is being replaced."""
    record = read_record(folder)
    current = hash_prompts(folder)
    if record is not None and current not in (None, record.get("written_prompts"), hash_prompts(new)):
        shutil.copyfile(folder / PROMPTS, new / EDITED_PROMPTS)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def open_new_folder(folder: Path, resumes: bool = False) -> Iterator[Path]:
    """Create a temporary folder beside the given one and rename it at the end; remove it if anything fails.

    Args:
        folder: The folder.
        resumes: Whether to go on with a folder that was left behind, and to leave it if cases in it are done.

    Raises:
        DataError: It cannot be written, or another process is writing it.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("writing", "old"))
    try:
        new.mkdir(exist_ok=resumes)
    except FileExistsError as error:
        raise DataError(
            f"{new} exists: another process is writing {folder.name}, or was killed while writing it. Wait for "
            "it to end, or remove that folder."
        ) from error
    except OSError as error:
        raise DataError(
            f"{new} cannot be created ({error.strerror}). Check that nnUNet_raw can be written to."
        ) from error
    try:
        yield new
        _swap(folder, new, old)
    except OSError as error:
        left = "What is done is kept" if resumes and count_kept(new) else "Nothing was left behind"
        raise DataError(f"{folder} cannot be written ({error}). {left}.") from error
    finally:
        kept = count_kept(new) if resumes else 0
        if kept:
            sys.stderr.write(f"note: {kept} cases are done and kept in {new}; the same command goes on from there.\n")
        else:
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
