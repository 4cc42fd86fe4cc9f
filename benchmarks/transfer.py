"""Measures whether targets are found in contrasts in which they were never annotated, as settings.transfer intends.

Three contrasts of generated bodies share six targets; in each contrast two of them are annotated in no training case.
All trainings have the same data, network, patch size and optimiser; a variant is a set of settings. Held-out bodies,
scanned in every contrast, are predicted by nnU-Net's command with all six targets asked for, and scored by contrast and
target. With --data sarcoma it is the same question on real data: sarcoma annotated in CT and PET, asked for in MR.
nnU-Net's three folders must be set.

Examples:
  python benchmarks/transfer.py prepare                   # or: prepare --data sarcoma
  python benchmarks/transfer.py train plain one_hot regions_names --seeds 1 2
  python benchmarks/transfer.py score plain one_hot regions_names --seeds 1 2 --prompts plain
  python benchmarks/transfer.py report regions_names one_hot --seeds 1 2 --keep scores.json  # first less others
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from intervals import Score, compare, estimate, estimate_each
from kept_results import keep_results

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_CT, PHANTOM_MR, PHANTOM_PET, TRUTH_FOLDER, write_phantom_sources
from duplus_nnunet.demo.control import copy_model

TARGETS = ("liver", "spleen", "left kidney", "right kidney", "aorta", "spine")
LACKING = {"CT": ("liver", "aorta"), "MR": ("spleen", "spine"), "PET": ("left kidney", "right kidney")}
# Soft-tissue sarcoma in CT, MR and PET of the same patients; MR images are in the plans, but in no training set.
SARCOMA, SARCOMA_ASKED = (60, 61, 62), "SarcomaMR"
# Targets that were never annotated, by contrast or source.
NEVER = {"phantoms": LACKING, "sarcoma": {SARCOMA_ASKED: ("sarcoma",)}}
SOURCES = [
    replace(
        source,
        number=910 + index,
        labels={name.replace(" ", "_"): name for name in TARGETS if name not in LACKING[source.name]},
        left_out=(),
    )
    for index, source in enumerate((PHANTOM_CT, PHANTOM_MR, PHANTOM_PET))
]
BODIES, TEST_BODIES, SEED = 24, 8, 0
NUMBERS = {"phantoms": 919, "sarcoma": 918}
SPEC = "patients: {shared: [[60, 61, 62]]}\n"
FOLD = {"phantoms": "all", "sarcoma": "0"}
PATCH = {"phantoms": [24, 32, 32], "sarcoma": [48, 64, 64]}
DIVISOR = 4

TRAINER = """
from duplus_nnunet.trainers import DuPLUSTrainer


class TransferTrainer(DuPLUSTrainer):
    def perform_actual_validation(self, save_probabilities=False):
        pass
"""
COMMON = {
    "iterations_per_epoch": 50,
    "validation_iterations": 1,
    "save_every": 1,
    "paraphrase_probability": 0.0,
    "mirror_left_right": False,
    "mirror_other_axes": True,
    "cpu_bfloat16": True,
}


@dataclass(frozen=True)
class Variant:
    """Changed settings: those of `transfer`, and others."""

    transfer: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


_ONE_HOT, _NAME = {"target_prompt": "one-hot"}, {"target_prompt": "name"}
_REMAP = {"contrast_augmentation": 0.5}
VARIANTS = {
    "plain": Variant(),
    "one_hot": Variant({}, _ONE_HOT),
    "no_t1": Variant({}, {"context_prompt": "none"}),
    "no_film": Variant({}, {"network": {"film": False}}),
    "names": Variant({"modality_dropout": 0.5}),
    "all_names": Variant({}, _NAME),
    "dropout": Variant({"modality_dropout": 0.5, "context_dropout": 0.5}),
    "remap": Variant(_REMAP),
    "remap_none": Variant({**_REMAP, "remapped_prompts": "none"}),
    "remap_dropout": Variant({**_REMAP, "modality_dropout": 0.5, "context_dropout": 0.5}),
    "regions": Variant({**_REMAP, "region_contrast": 1.0}),
    "regions_dropout": Variant({**_REMAP, "region_contrast": 1.0, "modality_dropout": 0.5, "context_dropout": 0.5}),
    "regions_names": Variant({**_REMAP, "region_contrast": 1.0}, _NAME),
    "regions_names_unmirrored": Variant({**_REMAP, "region_contrast": 1.0}, {**_NAME, "mirror_other_axes": False}),
    "regions_one_hot": Variant({**_REMAP, "region_contrast": 1.0}, _ONE_HOT),
    "remap_one_hot": Variant(_REMAP, _ONE_HOT),
}


def find_folder(kind: str) -> Path:
    """Return one of nnU-Net's three folders."""
    return Path(os.environ[f"nnUNet_{kind}"])


def find_dataset(number: int) -> str:
    """Return the full name of a dataset."""
    return next(find_folder("raw").glob(f"Dataset{number:03d}_*")).name


def call(*words: object) -> None:
    """Run a command of this environment with the trainer available; its output goes to stderr."""
    script = Path(sys.executable).with_name(str(words[0]))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "transfer_trainer.py").write_text(TRAINER)
        environment = {**os.environ, "nnUNet_extTrainer": folder}
        subprocess.run([str(script), *map(str, words[1:])], check=True, stdout=sys.stderr, env=environment)


def prepare(data: str) -> None:
    """Write or find the sources, compose, plan and preprocess them."""
    number, sources = NUMBERS[data], SARCOMA
    if data == "phantoms":
        write_phantom_sources(find_folder("raw"), BODIES, TEST_BODIES, SEED, SOURCES)
        sources = tuple(source.number for source in SOURCES)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "compose.yaml"
        spec.write_text(SPEC)
        words = ("duplus", "compose", "-o", number, "-n", f"Transfer{data.capitalize()}", *sources)
        call(*words, *(("--spec", spec) if data == "sarcoma" else ()))
    call("nnUNetv2_plan_and_preprocess", "-d", number, "-pl", "DuPLUSPlanner", "-c", "3d_fullres", "-np", 1, "--no_pp")
    file = find_plans(data, "DuPLUSPlans")
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {"patch_size": PATCH[data], "batch_size": 2}
    network = configuration["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [features // DIVISOR for features in network["features_per_stage"]]
    file.write_text(json.dumps(plans))
    call("nnUNetv2_preprocess", "-d", number, "-plans_name", "DuPLUSPlans", "-c", "3d_fullres", "-np", 1)
    if data == "sarcoma":
        write_split()


def write_split() -> None:
    """Write a fold that trains in CT and PET only, so that sarcoma is never annotated in MR; two patients are left."""
    folder = find_plans("sarcoma", "DuPLUSPlans").parent
    table = json.loads((folder / "duplus_cases.json").read_text())["cases"]
    cases = {name: case["patient"] for name, case in table.items() if case["source"] != SARCOMA_ASKED}
    held_out = sorted(set(cases.values()))[:2]
    split = [{"train": [name for name, patient in cases.items() if patient not in held_out],
              "val": [name for name, patient in cases.items() if patient in held_out]}]  # fmt: skip
    (folder / "splits_final.json").write_text(json.dumps(split))


def find_plans(data: str, name: str) -> Path:
    """Return a plans file."""
    return find_folder("preprocessed") / find_dataset(NUMBERS[data]) / f"{name}.json"


def find_model(data: str, variant: str, seed: int) -> Path:
    """Return a model folder."""
    return find_folder("results") / find_dataset(NUMBERS[data]) / f"TransferTrainer__{variant}-{seed}__3d_fullres"


def train(data: str, variant: str, seed: int, iterations: int, device: str) -> None:
    """Train one variant with one seed on all training cases, or go on with it, unless that is done."""
    if (find_model(data, variant, seed) / f"fold_{FOLD[data]}" / "checkpoint_final.pth").exists():
        return
    plans, choice = json.loads(find_plans(data, "DuPLUSPlans").read_text()), VARIANTS[variant]
    settings = plans["duplus"]["settings"]
    settings |= {**COMMON, "epochs": max(1, iterations // COMMON["iterations_per_epoch"]), "seed": seed}
    for name, value in {**choice.settings, "transfer": choice.transfer}.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    plans["plans_name"] = f"{variant}-{seed}"
    find_plans(data, plans["plans_name"]).write_text(json.dumps(plans))
    words = (NUMBERS[data], "3d_fullres", FOLD[data], "-tr", "TransferTrainer", "-p", plans["plans_name"])
    call("nnUNetv2_train", *words, "-device", device, "--c")


def hide_sentences(plans: dict[str, Any], context_too: bool) -> dict[str, Any]:
    """Replace the embeddings of target sentences, and of context prompts, by their centre: 0 when standardised."""
    section = plans["duplus"]
    centres, embeddings = section["centres"], section["embeddings"]
    for context in section["contexts"].values():
        sentences = [text for texts in context["target_prompts"].values() for text in texts]
        embeddings |= dict.fromkeys(sentences, centres["sentence"]["centre"])
        if context_too:
            embeddings |= dict.fromkeys(context["sentences"], centres["context"]["centre"])
    return plans


def list_images(data: str) -> dict[Path, str]:
    """Return the held-out images, each with its context."""
    if data == "phantoms":
        return {
            file: source.context
            for source in SOURCES
            for file in sorted((find_folder("raw") / source.dataset / "imagesTs").iterdir())
        }
    raw = find_folder("raw") / find_dataset(NUMBERS[data])
    table = json.loads((raw / "duplus_cases.json").read_text())
    contexts = {case: table["sources"][entry["source"]]["context"] for case, entry in table["tests"].items()}
    return {next((raw / "imagesTs").glob(f"{case}_0000.*")): context for case, context in contexts.items()}


def predict(data: str, variant: str, seed: int, prompts: str, device: str) -> Path:
    """Predict all targets on the held-out images with a model, unless that is done.

    Args:
        data: The data that it was trained on.
        variant: The model's variant.
        seed: The model's seed.
        prompts: "plain" as trained; "names" without the sentences of T2; "bare" also without T1.
        device: "cpu" or "cuda".
    """
    model = find_model(data, variant, seed)
    output = model / f"prediction_{prompts}"
    if (output / "dataset.json").exists():
        return output
    targets = ("--targets", *TARGETS) if data == "phantoms" else ()
    with tempfile.TemporaryDirectory() as temporary:
        images, table, used = Path(temporary) / "images", Path(temporary) / "contexts.csv", model
        images.mkdir()
        lines = ["case,context"]
        for file, context in list_images(data).items():
            (images / file.name).symlink_to(file.resolve())
            lines.append(f"{file.name.removesuffix('_0000.nii.gz')},{context}")
        table.write_text("\n".join(lines) + "\n")
        if prompts != "plain":
            used = Path(temporary) / model.name
            copy_model(model, used, lambda plans: hide_sentences(dict(plans), prompts == "bare"))
        call(
            "nnUNetv2_predict_from_modelfolder", "-i", images, "-o", output, "-m", used, "-f", FOLD[data], "--context",
            table, *targets, "--disable_tta", "-npp", 1, "-nps", 1, "-device", device,
        )  # fmt: skip
    return output


def measure(output: Path) -> list[dict[str, Any]]:
    """Score a prediction of phantoms: a row for each contrast, body and target."""
    labels = json.loads((output / "dataset.json").read_text())["labels"]
    values = {name: labels[name] for name in TARGETS}
    rows = []
    for source in SOURCES:
        for body in range(TEST_BODIES):
            case = source.name_case("test", body)
            truth = _read(find_folder("raw") / source.dataset / TRUTH_FOLDER / f"{case}.nii.gz")
            predicted = _read(output / f"{case}.nii.gz")
            for name in TARGETS:
                dice = measure_dice(truth == LABELS[name], predicted == values[name])
                rows.append({"contrast": source.name, "body": body, "target": name, "dice": dice})
    return rows


def measure_sarcoma(output: Path) -> list[dict[str, Any]]:
    """Score a prediction of sarcoma: a row for each source and patient."""
    raw = find_folder("raw") / find_dataset(NUMBERS["sarcoma"])
    rows = []
    for case, entry in json.loads((raw / "duplus_cases.json").read_text())["tests"].items():
        truth, predicted = (_read(folder / f"{case}.nii.gz") > 0 for folder in (raw / "labelsTs", output))
        found = {"contrast": entry["source"], "body": entry["patient"], "target": "sarcoma"}
        rows.append({**found, "dice": measure_dice(truth, predicted)})
    return rows


def measure_dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the Dice of two masks; 0 if both are empty."""
    return float(2 * np.sum(truth & predicted) / max(1, truth.sum() + predicted.sum()))


def _read(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


def summarise(rows: list[dict[str, Any]], lacking: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the mean Dice of annotated and never-annotated pairs, and of each pair, a never-annotated one with "*"."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        never = row["target"] in lacking.get(row["contrast"], ())
        for name in ("never annotated" if never else "annotated", f"{row['contrast']} {row['target']}{'*' * never}"):
            groups.setdefault(name, []).append(row["dice"])
    return {name: round(float(np.mean(own)), 3) for name, own in groups.items()}


def read_result(data: str, variant: str, seed: int, prompts: str) -> dict[str, Any]:
    """Read what was scored of a model, with the number of its iterations; {} if it was not."""
    model = find_model(data, variant, seed)
    file = model / f"prediction_{prompts}" / "dice.csv"
    if not file.is_file():
        return {}
    settings = json.loads((model / "plans.json").read_text())["duplus"]["settings"]
    with file.open(newline="") as table:
        rows = [{**row, "dice": float(row["dice"])} for row in csv.DictReader(table)]
    return {"iterations": settings["epochs"] * settings["iterations_per_epoch"], "rows": rows}


def list_scores(data: str, training: str, result: dict[str, Any], annotated: bool) -> list[Score]:
    """List the scores of annotated pairs of a contrast and a target, or of those that were never annotated."""
    lacking = NEVER[data]
    return [
        Score(training, row["body"], row["target"], row["dice"], row["contrast"])
        for row in result["rows"]
        if (row["target"] in lacking.get(row["contrast"], ())) is not annotated
    ]


def report(data: str, variants: list[str], seeds: list[int], prompts: str, file: Path | None) -> dict[str, Any]:
    """Report models: each kind, and the first kind less each of the others.

    Args:
        data: The data that they were trained on.
        variants: Kinds of model.
        seeds: Their seeds; those that were not scored are left out.
        prompts: As in `predict`.
        file: File to which these results are added, and whose results are reported, too.
    """
    found = {f"{name}-{prompts}-{seed}": read_result(data, name, seed, prompts) for name in variants for seed in seeds}
    results: dict[str, Any] = {name: result for name, result in found.items() if result}
    if file is not None:
        conditions = {"bodies": BODIES} if data == "phantoms" else {"sources": [*SARCOMA]}
        results = keep_results(file, {**conditions, "patch": PATCH[data], "divisor": DIVISOR}, results)
    content: dict[str, Any] = {"missing": [name for name in found if name not in results]}
    first: dict[str, list[Score]] = {}
    for variant in variants:
        own = {name: results[name] for seed in seeds if (name := f"{variant}-{prompts}-{seed}") in results}
        kinds = {"never annotated": False, "annotated": True}
        scores = {
            kind: [score for name, result in own.items() for score in list_scores(data, name, result, annotated)]
            for kind, annotated in kinds.items()
        }
        content[variant] = {kind: {**estimate(some), "pairs": estimate_each(some)} for kind, some in scores.items()}
        content[variant]["iterations"] = sorted({result["iterations"] for result in own.values()})
        if first:
            content[variant]["difference"] = {kind: compare(first[kind], some) for kind, some in scores.items()}
        first = first or scores
    return content


def score(data: str, variant: str, seed: int, prompts: str, device: str = "cpu") -> dict[str, Any]:
    """Predict and score a model; the scores are also written as a table beside the prediction."""
    output = predict(data, variant, seed, prompts, device)
    rows = measure_sarcoma(output) if data == "sarcoma" else measure(output)
    with (output / "dice.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return {"variant": variant, "seed": seed, "prompts": prompts, **summarise(rows, NEVER[data])}


def main() -> int:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("prepare", "train", "score", "report"))
    parser.add_argument("variants", nargs="*", help=", ".join(VARIANTS))
    parser.add_argument("--data", choices=tuple(NUMBERS), default="phantoms")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--prompts", nargs="+", choices=("plain", "names", "bare"), default=["plain"])
    parser.add_argument("--device", default="cpu")
    words = "report: file of results, to which those of this machine are added; named models in it are reported"
    parser.add_argument("--keep", type=Path, metavar="FILE", help=words)
    args = parser.parse_args()
    if args.stage == "prepare":
        prepare(args.data)
    elif args.stage == "report":
        print(json.dumps(report(args.data, args.variants, args.seeds, args.prompts[0], args.keep), indent=1))
    for variant in args.variants:
        for seed in args.seeds:
            if args.stage == "train":
                train(args.data, variant, seed, args.iterations, args.device)
            for prompts in args.prompts if args.stage == "score" else ():
                print(json.dumps(score(args.data, variant, seed, prompts, args.device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
