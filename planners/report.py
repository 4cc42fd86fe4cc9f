"""Reports the decisions in a plans file, and the reasons for them, as text or plain data."""

from collections.abc import Mapping
from math import prod
from typing import Any

from duplus_nnunet.mirroring import Anatomy, describe_axes
from duplus_nnunet.model_form import inherit
from duplus_nnunet.planners.context_plans import list_spacing
from duplus_nnunet.plans_form import PlansForm, as_form
from duplus_nnunet.prompt_registry.names import have_sides
from duplus_nnunet.settings import parse_settings

Plans = Mapping[str, Any]


def report_plans(plans: Plans) -> dict[str, Any]:
    """Collect the decisions of each configuration.

    Args:
        plans: A plans file's content.

    Returns:
        A dictionary by configuration: patch (voxels), batch size, the configuration's own spacing (mm), and for each
        source its context, number of cases, share of the drawn cases (0 to 1), target spacing (mm), median shape
        (voxels), share of the median volume that a patch covers (0 to 1), normalisation, and for each target the number
        of annotated cases and of those whose label map holds it (absent in older plans), and the targets that its
        images cannot show.

    Raises:
        PlansError: They are not DuPLUS plans, or were edited so that they cannot be used.
    """
    form = as_form(plans)
    configurations, file = plans["configurations"], f"plans {plans.get('plans_name')!r}"
    return {name: _report_configuration(form, inherit(configurations, name, file)) for name in configurations}


def _report_configuration(form: PlansForm, configuration: Mapping[str, Any]) -> dict[str, Any]:
    total = sum(source.weight for source in form.sources.values())
    patch = [int(length) for length in configuration["patch_size"]]
    fullres = form.reference_spacing or configuration["spacing"]
    shrink = [f / s for f, s in zip(fullres, configuration["spacing"], strict=True)]
    rows = {}
    for name, source in form.sources.items():
        shape = [length * factor for length, factor in zip(source.median_shape, shrink, strict=True)]
        covered = prod(min(1.0, p / max(1.0, s)) for p, s in zip(patch, shape, strict=True))
        spacing = list_spacing(form, configuration["spacing"], source.context)
        rows[name] = {
            "context": source.context,
            "cases": source.cases,
            "share": round(source.weight / total, 4),
            "spacing": [round(mm, 3) for mm in spacing],
            "median_shape": [round(length) for length in shape],
            "covered": round(covered, 3),
            "normalization": form.contexts[source.context].normalization_schemes or [],
            "targets": source.targets,
            "present": source.present,
            "implausible": form.contexts[source.context].implausible,
        }
    return {
        "patch": patch,
        "batch_size": int(configuration["batch_size"]),
        "spacing": [round(float(mm), 3) for mm in configuration["spacing"]],
        "sources": rows,
    }


def describe_plans(plans: Plans) -> str:
    """Describe the decisions and their reasons, as text for a terminal."""
    form = as_form(plans)
    each = "one for all contexts" if form.spacing == "shared" else "one for each context, the median of its own cases"
    lines = [
        "",
        f"DuPLUS plans {plans['plans_name']!r}: {len(form.targets)} target(s), {len(form.contexts)} context(s), "
        f"{len(form.sources)} source(s).",
        f"Axes are in nnU-Net's order {list(plans['transpose_forward'])} of the image's (z, y, x). Target spacing: "
        f"{each}. Sources are drawn by weight (duplus.sources.NAME.weight; by default the square root of the number "
        f"of annotations: cases times targets). {_describe_patch(form)}",
        _describe_axis(form.left_right_axis),
    ]
    rows = report_plans(plans)
    settings = parse_settings(form.settings, form.settings_version)
    sides = have_sides((target.name, target.partner) for target in form.targets)
    anatomy = Anatomy(form.left_right_axis, sides, {name: report["patch"] for name, report in rows.items()})
    axes = anatomy.list_axes(settings)
    for name, report in rows.items():
        size = f"patch {_join(report['patch'])}, batch size {report['batch_size']}"
        lines += ["", f"{name}: {size}, images {describe_axes(axes[name])}"]
        lines += [line for source, row in report["sources"].items() for line in _describe_source(source, row)]
    return "\n".join(lines) + "\n"


def _describe_patch(form: PlansForm) -> str:
    if form.base is not None or form.start is not None:
        return "Network, patch and batch size are those of the model that was planned for."
    return "nnU-Net chooses patch and batch size for the resulting shapes, drawn in these shares."


def _describe_axis(axis: int | None) -> str:
    if axis is None:
        return (
            "The direction of some image is unknown or oblique: if there are left and right targets, images are not "
            'mirrored. Add "overwrite_image_reader_writer": "SimpleITKIOWithReorient" to dataset.json to reorient them.'
        )
    return f"Array axis {axis} runs from left to right; mirror images along it have left and right exchanged."


def _describe_source(name: str, row: Mapping[str, Any]) -> list[str]:
    targets = ", ".join(_describe_target(target, count, row["present"]) for target, count in row["targets"].items())
    apart = [f"    cannot show, by where they lie: {', '.join(row['implausible'])}"] if row["implausible"] else []
    return [
        f"  {name}: {row['cases']} cases, {row['share']:.0%} of those drawn, context {row['context']}",
        f"    spacing {_join(row['spacing'])} mm, median shape {_join(row['median_shape'])} voxels, "
        f"{row['covered']:.0%} of it in a patch, {', '.join(row['normalization'])}",
        f"    annotated cases per target: {targets}",
        *apart,
    ]


def _describe_target(target: str, annotated: int, present: Mapping[str, int]) -> str:
    """Describe in how many cases a target is annotated; that no label map holds it is what matters then."""
    return f"{target} ({annotated}; in no case)" if present.get(target) == 0 else f"{target} ({annotated})"


def _join(numbers: list[Any]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
