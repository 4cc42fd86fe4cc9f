"""Keeps with preprocessed images how they were made, so that images which other plans call for are not trained on.

nnU-Net finds preprocessed images by the name of the plans alone; plans of that name may be written again.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError, DuplusError, PlansError
from duplus_nnunet.files import read_form, write_text
from duplus_nnunet.model_form import inherit, select_statistics, shorten
from duplus_nnunet.planners.context_plans import list_spacing
from duplus_nnunet.plans_form import PlannedContext, PlansForm, as_form
from duplus_nnunet.plans_section import PLANS_KEY, find_differences
from duplus_nnunet.text_files import load_json

# In a folder of its own: nnU-Net takes each file beside the images for part of a case.
RECORD = Path("duplus", "preprocessing.json")
_VERSION = 1
_INTENSITIES = "foreground_intensity_properties_per_channel"
_RESAMPLING = ("resampling_fn_data", "resampling_fn_data_kwargs", "resampling_fn_seg", "resampling_fn_seg_kwargs")
_TOLERANCE = 1e-5
_SHOWN = 3


@dataclass(frozen=True)
class ContextRecord:
    """How the images of a context were preprocessed.

    Attributes:
        spacing: Target spacing (mm, array order after nnU-Net's transposition).
        normalization_schemes: Name of nnU-Net's normalisation for each channel.
        use_mask_for_norm: Whether each channel was normalised inside the nonzero mask only.
        statistics: By channel, the statistics of intensities that its normalisation reads.
    """

    spacing: list[float]
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    statistics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class PreprocessingRecord:
    """How the images of a dataset were preprocessed.

    Attributes:
        image_reader_writer: Name of nnU-Net's reader.
        orientation: Orientation that the images were turned to; None: as they are stored.
        transpose_forward: Order of the axes.
        resampling: Functions and arguments of nnU-Net's resampling of images and label maps.
        contexts: By context.
    """

    image_reader_writer: str
    orientation: str | None
    transpose_forward: list[int]
    resampling: dict[str, Any]
    contexts: dict[str, ContextRecord]


def describe_preprocessing(plans: Mapping[str, Any], configuration: str) -> PreprocessingRecord:
    """Describe how plans call for images to be preprocessed.

    Args:
        plans: Content of plans of DuPLUS.
        configuration: Name of a configuration.

    Raises:
        PlansError: They were edited so that they do not say it.
    """
    try:
        form, values = as_form(plans), inherit(plans["configurations"], configuration, "the plans")
        return PreprocessingRecord(
            image_reader_writer=str(plans["image_reader_writer"]),
            orientation=form.orientation,
            transpose_forward=[int(axis) for axis in plans["transpose_forward"]],
            resampling={name: values.get(name) for name in _RESAMPLING},
            contexts={name: _describe_context(context, name, plans, values, form)
                      for name, context in form.contexts.items()},
        )  # fmt: skip
    except DuplusError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlansError(
            f"The plans {plans.get('plans_name')!r} do not say how images are preprocessed in {configuration!r} "
            f"({type(error).__name__}: {error}). Undo what was edited, or plan the dataset again."
        ) from error


def _describe_context(
    context: PlannedContext, name: str, plans: Mapping[str, Any], values: Mapping[str, Any], form: PlansForm
) -> ContextRecord:
    own, masks = context.foreground_intensity_properties_per_channel, context.use_mask_for_norm
    schemes = list(context.normalization_schemes or values["normalization_schemes"])
    return ContextRecord(
        spacing=[float(mm) for mm in list_spacing(form, values["spacing"], name)],
        normalization_schemes=schemes,
        use_mask_for_norm=list(values["use_mask_for_norm"] if masks is None else masks),
        statistics=select_statistics(schemes, plans.get(_INTENSITIES, {}) if own is None else own),
    )


def write_record(folder: Path, plans: Mapping[str, Any], configuration: str) -> None:
    """Write into a folder of preprocessed images how plans made them.

    Raises:
        DataError: The folder is not writable, or the disk is full.
        PlansError: The plans do not say it.
    """
    content = asdict(describe_preprocessing(plans, configuration))
    write_text(folder / RECORD, json.dumps({"version": _VERSION, **content}, indent=1) + "\n")


def read_record(folder: Path) -> PreprocessingRecord | None:
    """Read how the images of a folder were preprocessed; None if earlier versions, or nnU-Net itself, made them.

    Raises:
        DataError: The file is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    return read_form(file, PreprocessingRecord, _VERSION, "Remove it and preprocess the dataset again.")


def list_misfits(record: PreprocessingRecord, plans: Mapping[str, Any], configuration: str) -> list[str]:
    """List in what the preprocessing of images differs from that of plans; a text for each key.

    A context that was renamed is no difference.
    """
    now = describe_preprocessing(plans, configuration)
    known = record.contexts
    pairs: list[tuple[Any, Any, str]] = [({**asdict(record), "contexts": None}, {**asdict(now), "contexts": None}, "")]
    for name, context in now.contexts.items():
        if name in known:
            pairs.append((asdict(known[name]), asdict(context), f"contexts.{name}"))
        elif all(any(_list_unequal(asdict(other), asdict(context), "")) for other in known.values()):
            pairs.append((None, asdict(context), f"contexts.{name}"))
    return [
        f"{key} was {shorten(old)} and is {shorten(new)}"
        for before, after, name in pairs
        for key, old, new in _list_unequal(before, after, name)
    ]


def _list_unequal(before: Any, now: Any, name: str) -> list[tuple[str, Any, Any]]:
    return [row for row in find_differences(before, now, name) if not _is_close(row[1], row[2])]


def _is_close(one: Any, other: Any) -> bool:
    """Report whether two values are numbers, or lists of numbers, that are equal but for rounding."""
    rows = [value if isinstance(value, list) else [value] for value in (one, other)]
    numeric = all(isinstance(value, (int, float)) for row in rows for value in row)
    return numeric and len(rows[0]) == len(rows[1]) and all(
        math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(*rows, strict=True)
    )  # fmt: skip


def is_preprocessed(dataset: Path, plans_name: str, configuration: str) -> bool:
    """Report whether images are known to be preprocessed as plans call for.

    Args:
        dataset: nnU-Net's folder of a dataset's preprocessed data.
        plans_name: Name of plans in it.
        configuration: Name of a configuration.
    """
    with contextlib.suppress(DuplusError, OSError, AttributeError, KeyError, TypeError):
        plans = load_json(dataset / f"{plans_name}.json")
        record = read_record(dataset / _name_folder(plans, configuration))
        return record is not None and not list_misfits(record, plans, configuration)
    return False


def keep_records(plans_file: Path) -> None:
    """Write records for images of earlier versions, which have none, before the plans that made them are overwritten.

    Args:
        plans_file: The plans; those that do not exist or cannot be read are left alone.
    """
    with contextlib.suppress(DuplusError, OSError, AttributeError, KeyError, TypeError):
        plans = load_json(plans_file)
        for name in plans["configurations"] if PLANS_KEY in plans else ():
            folder = plans_file.parent / _name_folder(plans, name)
            if folder.is_dir() and not (folder / RECORD).exists():
                write_record(folder, plans, name)


def _name_folder(plans: Mapping[str, Any], configuration: str) -> str:
    return str(inherit(plans["configurations"], configuration, "the plans")["data_identifier"])


def require_fit(folder: Path, plans: Mapping[str, Any], configuration: str) -> None:
    """Refuse preprocessed images that were not made as plans call for.

    Args:
        folder: The images; those without a record, of earlier versions, are accepted.
        plans: Content of the plans of a training.
        configuration: The configuration that is trained.

    Raises:
        DataError: They were made in another way, or their record is damaged.
    """
    record = read_record(folder)
    misfits = [] if record is None else list_misfits(record, plans, configuration)
    if misfits:
        more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        digits = str(plans.get("dataset_name")).removeprefix("Dataset").partition("_")[0]
        number = int(digits) if digits.isdecimal() else "DATASET"
        raise DataError(
            f"The images in {folder} were not preprocessed by the present plans {plans.get('plans_name')!r}, which "
            f"were changed since: {'; '.join(misfits[:_SHOWN])}{more}. Preprocess them again: nnUNetv2_preprocess -d "
            f"{number} -plans_name {plans.get('plans_name')} -c {configuration}; or restore the plans."
        )
