"""What was planned, and why: in comes a plans file's content, out comes text or plain data."""

from collections.abc import Mapping
from math import prod
from typing import Any

from duplus_nnunet.planners.context_plans import list_spacing
from duplus_nnunet.settings import find_section

Plans = Mapping[str, Any]


def report_plans(plans: Plans) -> dict[str, Any]:
    """Collect the decisions of each configuration.

    Returns:
        A dictionary by configuration: patch (voxels), batch size, spacing of the network's reference (mm), and for
        each source its context, number of cases, share of the drawn cases (0 to 1), target spacing (mm), median shape
        (voxels), share of the median volume that a patch covers (0 to 1), normalisation, and annotated cases a target.

    Raises:
        PlansError: They are not DuPLUS plans.
    """
    find_section(plans)
    return {name: _report_configuration(plans, found) for name, found in plans["configurations"].items()}


def _report_configuration(plans: Plans, configuration: Mapping[str, Any]) -> dict[str, Any]:
    section = plans["duplus"]
    sources = section.get("sources", {})
    total = sum(source["weight"] for source in sources.values())
    patch = [int(length) for length in configuration["patch_size"]]
    fullres = section.get("reference_spacing", configuration["spacing"])
    shrink = [f / s for f, s in zip(fullres, configuration["spacing"], strict=True)]
    rows = {}
    for name, source in sources.items():
        context = section["contexts"][source["context"]]
        shape = [length * factor for length, factor in zip(source["median_shape"], shrink, strict=True)]
        covered = prod(min(1.0, p / max(1.0, s)) for p, s in zip(patch, shape, strict=True))
        rows[name] = {
            "context": source["context"],
            "cases": source["cases"],
            "share": round(source["weight"] / total, 4),
            "spacing": [round(mm, 3) for mm in list_spacing(plans, configuration["spacing"], source["context"])],
            "median_shape": [round(length) for length in shape],
            "covered": round(covered, 3),
            "normalization": context["normalization_schemes"],
            "targets": source["targets"],
        }
    return {
        "patch": patch,
        "batch_size": int(configuration["batch_size"]),
        "spacing": [round(float(mm), 3) for mm in configuration["spacing"]],
        "sources": rows,
    }


def describe_plans(plans: Plans) -> str:
    """Say what was decided and why, as text for a terminal."""
    section = plans["duplus"]
    each = "one for all contexts" if section.get("spacing") == "shared" else "one a context, of its own cases' median"
    lines = [
        "",
        f"DuPLUS plans {plans['plans_name']!r}: {len(section['targets'])} target(s), {len(section['contexts'])} "
        f"context(s), {len(section.get('sources', {}))} source(s).",
        f"Axes are in nnU-Net's order {list(plans['transpose_forward'])} of the image's (z, y, x). Target spacing: "
        f"{each}. Sources are drawn by weight (duplus.sources.NAME.weight; by default the square root of the number "
        "of cases). Patch and batch are nnU-Net's choice for the shapes that result, drawn in these shares.",
        _describe_axis(section),
    ]
    for name, found in report_plans(plans).items():
        lines += ["", f"{name}: patch {_join(found['patch'])}, batch size {found['batch_size']}"]
        lines += [line for source, row in found["sources"].items() for line in _describe_source(source, row)]
    return "\n".join(lines) + "\n"


def _describe_axis(section: Mapping[str, Any]) -> str:
    axis = section.get("left_right_axis")
    if axis is None:
        return (
            "No axis runs from left to right, in the same way, in all images: with left and right targets, none is "
            'mirrored. Add "overwrite_image_reader_writer": "SimpleITKIOWithReorient" to dataset.json to turn them.'
        )
    return f"Array axis {axis} runs from left to right; mirrored along it, left and right targets change places."


def _describe_source(name: str, row: Mapping[str, Any]) -> list[str]:
    targets = ", ".join(f"{target} ({count})" for target, count in row["targets"].items())
    return [
        f"  {name}: {row['cases']} cases, {row['share']:.0%} of those drawn, context {row['context']}",
        f"    spacing {_join(row['spacing'])} mm, median shape {_join(row['median_shape'])} voxels, "
        f"{row['covered']:.0%} of it in a patch, {', '.join(row['normalization'])}",
        f"    annotated cases a target: {targets}",
    ]


def _join(numbers: list[Any]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
