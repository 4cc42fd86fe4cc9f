"""Makes up large collections for `scale.py`: names, tables of cases, plans, and raw datasets of tiny images."""

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODALITIES = (
    "computed tomography",
    "T1-weighted magnetic resonance imaging",
    "T2-weighted magnetic resonance imaging",
    "contrast-enhanced magnetic resonance imaging",
    "diffusion-weighted magnetic resonance imaging",
    "positron emission tomography",
    "ultrasound",
    "cone-beam computed tomography",
)
REGIONS = ("head", "head and neck", "thorax", "abdomen", "pelvis", "whole body")
DIMENSION, FIRST_SHARE, PRESENT_SHARE = 384, 0.5, 0.8


@dataclass(frozen=True)
class Size:
    """Numbers of cases, sources and targets."""

    cases: int
    sources: int
    targets: int


def name_targets(count: int) -> list[str]:
    """Name structures; every tenth pair is left and right."""
    names = []
    for number in range(count):
        side = ("left ", "right ")[number % 2] if number % 20 in (0, 1) else ""
        names.append(f"{side}structure {number - number % 2 if side else number:04d}")
    return names


def draw_sources(size: Size) -> list[tuple[str, tuple[str, str], int, list[int]]]:
    """Draw name, modality and region, number of cases, and targets of each source.

    Half of the sources are of computed tomography. Numbers of cases and targets are skewed, as those of public datasets
    are; together, the sources have all targets.
    """
    rng = random.Random(1)  # noqa: S311 - not used for security
    shares = sorted((rng.lognormvariate(0, 1.2) for _ in range(size.sources)), reverse=True)
    counts = [max(5, int(size.cases * share / sum(shares))) for share in shares]
    counts[0] += size.cases - sum(counts)
    order = list(range(size.targets))
    rng.shuffle(order)
    sources, first = [], 0
    for number, count in enumerate(counts):
        modality = MODALITIES[0] if rng.random() < FIRST_SHARE else rng.choice(MODALITIES)
        several = max(1, min(200, int(rng.lognormvariate(3.0, 1.1))))
        fresh = -(-(size.targets - first) // (size.sources - number))
        chosen = [*order[first : first + fresh], *rng.sample(order, min(several, size.targets))]
        first += fresh
        context = modality, rng.choice(REGIONS)
        sources.append((f"Source{number:03d}", context, count, sorted(set(chosen))))
    return sources


def key_context(context: tuple[str, str]) -> str:
    """Return the key of a context."""
    return " ".join(context).replace(" ", "_").replace("-", "_")


def make_table(size: Size) -> Any:
    """Make a table of cases; each target is present in most cases that have it annotated."""
    from duplus_nnunet.data.case_table import Case, CaseTable, Source

    rng, names = random.Random(2), name_targets(size.targets)  # noqa: S311 - not used for security
    sources, cases = {}, {}
    for number, (name, context, count, members) in enumerate(draw_sources(size)):
        annotated = tuple(names[member] for member in members)
        sources[name] = Source(f"Dataset{number + 1:03d}_{name}", key_context(context), annotated, ("image",))
        for case in range(count):
            present = tuple(target for target in annotated if rng.random() < PRESENT_SHARE)
            cases[f"{name}_{case:05d}"] = Case(name, f"{name}/{case:05d}", annotated, present)
    return CaseTable(sources, cases)


def embed_at_random(texts: Any, *_: Any, **__: Any) -> Any:
    """Stand for the text encoder: unit vectors that are alike, as sentences of one template are."""
    from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER

    rng = np.random.default_rng(3)
    common = rng.normal(size=DIMENSION)
    vectors = common + 0.5 * rng.normal(size=(len(texts), DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32), DEFAULT_ENCODER


def make_plans(size: Size, table: Any) -> dict[str, Any]:
    """Make plans as planning does, with the settings of a training."""
    from duplus_nnunet.planners import planner, prompt_section
    from duplus_nnunet.prompt_registry import Context, Entry, Target
    from duplus_nnunet.prompt_registry.sentences import compose_prompt

    prompt_section.embed = embed_at_random
    names = name_targets(size.targets)
    partners = {
        name: name.replace("left", "right") if name.startswith("left") else name.replace("right", "left")
        for name in names
    }
    targets = tuple(
        Target(
            label=name,
            name=name,
            synonyms=(f"{name} region",),
            partner=partners[name] if partners[name] != name and partners[name] in names else None,
        )
        for name in names
    )
    contexts = {}
    for _, context, _, _ in draw_sources(size):
        key, (modality, region) = key_context(context), context
        contexts[key] = Context(key, modality, region, compose_prompt(modality, region))
    entry = Entry("Dataset999_Scale", contexts, next(iter(contexts)), targets, "benchmarks/scale.py")
    labels = {"background": 0, **{name: value for value, name in enumerate(names, 1)}}
    section = planner.read_section(entry, labels, table)
    for name, source in table.sources.items():
        section.setdefault("sources", {})[name] = {
            "context": source.context,
            "weight": len(table.of_source(name)) ** 0.5,
            "targets": dict.fromkeys(source.targets, 1),
            "present": dict.fromkeys(source.targets, 1),
            "cases": len(table.of_source(name)),
            "median_shape": [100.0, 100.0, 100.0],
        }
    for key, context in section["contexts"].items():
        members = {target for source in table.sources.values() if source.context == key for target in source.targets}
        context["targets"] = [name for name in names if name in members]
    section["left_right_axis"] = 2
    configuration = {"data_identifier": "DuPLUSPlans_3d_fullres", "patch_size": [64] * 3, "batch_size": 2}
    return {
        "plans_name": "DuPLUSPlans",
        "dataset_name": "Dataset999_Scale",
        "configurations": {"3d_fullres": configuration},
        "duplus": section,
    }


def save_plans(plans: Mapping[str, Any], folder: Path) -> Path:
    """Write plans as nnU-Net does."""
    from batchgenerators.utilities.file_and_folder_operations import save_json

    from duplus_nnunet.plans_packing import pack_plans

    file = folder / "DuPLUSPlans.json"
    save_json(pack_plans(plans), str(file), sort_keys=False)
    return file


def write_raw(folder: Path, size: Size) -> list[str]:
    """Write raw datasets of tiny images; files of equal content are hard links."""
    import SimpleITK

    rng, names, numbers = np.random.default_rng(6), [f"structure {number:04d}" for number in range(size.targets)], []
    for number, (name, (_, region), count, members) in enumerate(draw_sources(size), 1):
        modality = MODALITIES[0]  # planning refuses images whose intensities are not of their modality
        dataset = folder / f"Dataset{number:03d}_{name}"
        for part in ("imagesTr", "labelsTr"):
            (dataset / part).mkdir(parents=True)
        labels = {names[member]: value for value, member in enumerate(members, 1)}
        content = {
            "channel_names": {"0": "image"},
            "labels": {"background": 0, **labels},
            "numTraining": count,
            "file_ending": ".nii.gz",
        }
        (dataset / "dataset.json").write_text(json.dumps(content))
        targets = "".join(f"  {target}:\n" for target in labels)
        context = f"contexts:\n  {key_context((modality, region))}: {{modality: {modality}, region: {region}}}\n"
        (dataset / "prompts.yaml").write_text(f"dataset: {name}\n{context}targets:\n{targets}")
        shown = np.zeros((8, 8, 16), np.uint8)
        shown.ravel()[: len(labels) * 4] = np.repeat(np.arange(1, len(labels) + 1), 4)[: shown.size]
        for part, ending, array in (
            ("imagesTr", "_0000", rng.normal(0, 400, shown.shape).clip(-1024, 2000).round().astype(np.float32)),
            ("labelsTr", "", shown),
        ):
            first = dataset / part / f"{name}_00000{ending}.nii.gz"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(first), True)
            for case in range(1, count):
                os.link(first, dataset / part / f"{name}_{case:05d}{ending}.nii.gz")
        numbers.append(str(number))
    return numbers
