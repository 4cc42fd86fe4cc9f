"""Measures the bookkeeping of a very large composed dataset, with made-up names and tiny images.

68,000 cases of 158 sources, 48 contexts (eight modalities, six regions) and 1,087 targets: size of the table of cases
and of the plans, and the time to read them; the time to set up sampling, and to choose the prompts of a batch; memory
of a data worker, compared with that of one dataset; and the time to compose and plan datasets of different size. Texts
have random embeddings of the shipped encoder's length. Each measurement runs in a process of its own. Times are of the
processor, not of the clock, so that other processes on the machine do not count.

Examples:
  python benchmarks/scale.py table                             # writes and reads the table of cases; JSON on stdout
  python benchmarks/scale.py plans sampling question worker    # several measurements
  python benchmarks/scale.py plans --cases 4000 --sources 20 --targets 200
  python benchmarks/scale.py growth --linear 1000 4000 16000 -np 2
  python benchmarks/scale.py all --name after --results benchmarks/results/scale.json    # adds to a file
"""

import argparse
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
BATCHES = 200


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


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of processor time that a call takes, and its result."""
    gc.collect()
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def measure_table(size: Size, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Measure the table of cases: MB on disk, and seconds to write and to read it."""
    from duplus_nnunet.data.case_table import FILE_NAME, read_case_table, write_case_table

    table = make_table(size)
    written, _ = time_call(lambda: write_case_table(table, folder))
    seconds, again = time_call(lambda: read_case_table(folder))
    if again != table:
        raise SystemExit("the table is not read as it was written")
    return {"table_mb": _megabytes(folder / FILE_NAME), "write_s": round(written, 2), "read_s": round(seconds, 2)}


def measure_plans(size: Size, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Measure the plans: MB on disk, texts, and seconds to build and to open them: JSON, validation, prompts."""
    from batchgenerators.utilities.file_and_folder_operations import load_json

    from duplus_nnunet.prompt_bank import PromptBank

    built, plans = time_call(lambda: make_plans(size, make_table(size)))
    file = save_plans(plans, folder)
    seconds, bank = time_call(lambda: PromptBank(load_json(str(file))))
    return {
        "plans_mb": _megabytes(file),
        "contexts": len(bank.contexts),
        "embedded_texts": len(bank.form.embeddings),
        "build_s": round(built, 2),
        "open_s": round(seconds, 2),
    }


def measure_sampling(size: Size, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Measure what a training does before its first batch: check the split, repeat cases by their shares."""
    from types import SimpleNamespace

    from duplus_nnunet.data.sampling import measure_shares, repeat_cases
    from duplus_nnunet.prompt_bank import PromptBank
    from duplus_nnunet.trainers.batches import list_pairs
    from duplus_nnunet.trainers.cases import check_split, read_weights

    table = make_table(size)
    bank = PromptBank(make_plans(size, table))
    training, validation = _split(table)
    trainer = SimpleNamespace(table=table, fold=0, preprocessed_dataset_folder_base=folder)

    def set_up() -> Any:
        check_split(trainer, training, validation)
        cases = {name: table.find(name) for name in training}
        repeated = repeat_cases(measure_shares(cases, read_weights(bank, table)))
        return np.array(repeated, dtype=object), list_pairs(table, validation)

    seconds, (repeated, pairs) = time_call(set_up)
    draw, _ = time_call(lambda: [np.random.choice(repeated, 2, replace=True) for _ in range(20)])
    return {
        "set_up_s": round(seconds, 2),
        "repeated_cases": len(repeated),
        "pairs": len(pairs),
        "draw_a_batch_ms": round(draw / 20 * 1000, 3),
    }


def measure_question(size: Size, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Measure the prompts of a batch of two: targets, texts and their embeddings; median and 99th percentile."""
    from duplus_nnunet.prompt_bank import PromptBank
    from duplus_nnunet.trainers.batches import BatchPrompter

    table = make_table(size)
    bank = PromptBank(make_plans(size, table))
    prompter = BatchPrompter(bank, table)
    rng, identifiers = np.random.default_rng(4), list(table.cases)
    weights = {name: len(table.of_source(name)) ** -0.5 for name in table.sources}
    chances = np.array([weights[case.source] for case in table.cases.values()])
    drawn = rng.choice(len(identifiers), (BATCHES, 2), p=chances / chances.sum())

    def ask(rows: Any) -> tuple[float, int]:
        start = time.process_time()
        chosen = prompter.choose([identifiers[row] for row in rows], rng, rng)
        bank.compose_batch(bank.choose_batch(chosen.images, rng, 0.5))
        return (time.process_time() - start) * 1000, len(chosen.names)

    for rows in drawn:  # embeddings are decoded on first use
        ask(rows)
    times, widths = zip(*map(ask, drawn), strict=True)
    return {
        "median_ms": round(statistics.median(times), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
        "median_targets": statistics.median(widths),
    }


def measure_worker(size: Size, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Measure the memory of a data worker that was forked from a training, and that of one of a single dataset.

    The resident set is what the worker maps; what is its own was written to after the fork.
    """
    small = Size(size.cases // size.sources, 1, max(1, size.targets // size.sources))
    words = [sys.executable, __file__, "_worker"]
    results = {}
    for name, own in (("one_dataset", small), ("all", size)):
        numbers = ["--cases", own.cases, "--sources", own.sources, "--targets", own.targets]
        done = subprocess.run([*words, *map(str, numbers)], stdout=subprocess.PIPE, check=True, text=True)
        results[name] = json.loads(done.stdout)["_worker"]
    return {**results, "ratio": round(results["all"]["resident_mb"] / results["one_dataset"]["resident_mb"], 3)}


def fork_worker(size: Size, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Open plans and table from files as a training does, in a fresh process; fork; draw cases; report memory in MB."""
    from duplus_nnunet.data.case_table import write_case_table

    pid = os.fork()
    if pid == 0:  # so that what was needed for writing is not in the memory that is measured
        table = make_table(size)
        write_case_table(table, folder)
        save_plans(make_plans(size, table), folder)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the files could not be written")
    words = [sys.executable, __file__, "_open", "--folder", str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout)["_open"])


def open_and_fork(_: Size, folder: Path, __: argparse.Namespace) -> dict[str, Any]:
    """Do as a training does until its data workers run, and measure one."""
    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # its imports are part of a worker

    from duplus_nnunet.data.case_table import read_case_table
    from duplus_nnunet.data.sampling import measure_shares, repeat_cases
    from duplus_nnunet.prompt_bank import PromptBank
    from duplus_nnunet.trainers.cases import read_weights

    plans, table = load_json(str(folder / "DuPLUSPlans.json")), read_case_table(folder)
    bank = PromptBank(plans)
    training, _ = _split(table)
    cases = {name: table.find(name) for name in training}
    repeated = np.array(repeat_cases(measure_shares(cases, read_weights(bank, table))), dtype=object)
    del cases
    read, write = os.pipe()
    if os.fork() == 0:
        rng = np.random.RandomState(5)
        for _ in range(50):
            [str(name) for name in rng.choice(repeated, 2, replace=True)]
        os.write(write, json.dumps(_read_memory()).encode())
        os._exit(0)
    os.wait()
    return {
        **json.loads(os.read(read, 10_000)),
        "trainer": nnUNetTrainer.__name__,
        "held": len(plans) + len(bank.names),
    }


def _read_memory() -> dict[str, float]:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"resident_mb": round(kib["Rss"] / 1000, 1), "own_mb": round(own / 1000, 1)}


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


def measure_growth(_: Size, __: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure composing, nnU-Net's fingerprint, and planning of 8 sources and 40 targets at several numbers of cases.

    Exponents are those of the growth from the first to the last number; 1 means linear.
    """
    rows = {}
    for cases in options.linear:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows[cases] = _compose_and_plan(Path(folder), cases, options)
        print(cases, rows[cases], file=sys.stderr, flush=True)
    few, many = options.linear[0], options.linear[-1]
    exponents = {
        name: round(float(np.log(rows[many][name] / rows[few][name]) / np.log(many / few)), 2) for name in rows[few]
    }
    return {"cases": {str(cases): row for cases, row in rows.items()}, "exponents": exponents}


def _compose_and_plan(folder: Path, cases: int, options: argparse.Namespace) -> dict[str, float]:
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
    numbers = write_raw(folder / "raw", Size(cases, 8, 40))
    return {
        "compose_s": _run(folder, [_COMPOSE, "compose", "-o", "999", "-n", "Scale", *numbers], options),
        "fingerprint_s": _run(folder, [_FINGERPRINT, str(options.processes)], options),
        "plan_s": _run(folder, [_PLAN], options),
    }


_COMPOSE = """
from duplus_nnunet.cli import main
if __name__ == "__main__":
    raise SystemExit(main())
"""
_FINGERPRINT = """
import sys
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
if __name__ == "__main__":
    extract_fingerprints([999], num_processes=int(sys.argv[1]))
"""
_PLAN = """
from duplus_nnunet.planners import planner, prompt_section
def embed(texts):
    import numpy as np
    from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER
    vectors = np.random.default_rng(3).normal(size=(len(texts), 384)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), DEFAULT_ENCODER
if __name__ == "__main__":
    prompt_section.embed = embed
    planner.DuPLUSPlanner(999).plan_experiment()
"""


def _run(folder: Path, words: list[str], options: argparse.Namespace) -> float:
    """Run a Python program, given as text and arguments, with nnU-Net's folders in a folder; returns seconds."""
    variables = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    environment = {**os.environ, **variables, "nnUNet_def_n_proc": str(options.processes)}
    script = folder / "step.py"  # a file, so that processes can be spawned from it
    script.write_text(words[0])
    start = _count_children()
    words = [sys.executable, str(script), *words[1:]]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return round(_count_children() - start, 2)


def _count_children() -> float:
    """Return the seconds of processor time that all commands so far took, with their workers."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _split(table: Any) -> tuple[list[str], list[str]]:
    names = list(table.cases)
    return [name for row, name in enumerate(names) if row % 5], names[::5]


def _megabytes(file: Path) -> float:
    return round(file.stat().st_size / 1e6, 2)


MEASUREMENTS: dict[str, Callable[[Size, Path, argparse.Namespace], dict[str, Any]]] = {
    "table": measure_table,
    "plans": measure_plans,
    "sampling": measure_sampling,
    "question": measure_question,
    "worker": measure_worker,
    "growth": measure_growth,
}
_INNER = {"_worker": fork_worker, "_open": open_and_fork}


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("measurements", nargs="+", choices=("all", *MEASUREMENTS, *_INNER), metavar="MEASUREMENT")
    add("--cases", type=int, default=68_000)
    add("--sources", type=int, default=158)
    add("--targets", type=int, default=1_087)
    add("--linear", type=int, nargs="+", default=[1000, 4000, 16_000], help="numbers of cases to compose and plan")
    add("-np", dest="processes", type=int, default=2, help="processes of composing and planning")
    add("--folder", help="where to write temporary files; default: the system's folder")
    add("--name", default="after", help="under which name the results are added to the file")
    add("--results", type=Path, help="file that the results are added to")
    return parser.parse_args()


def main() -> None:
    """Run measurements and write the results as JSON."""
    options = _read_options()
    names = list(MEASUREMENTS) if "all" in options.measurements else options.measurements
    size = Size(options.cases, options.sources, options.targets)
    if len(names) == 1:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            folder = Path(options.folder if names[0] == "_open" else temporary)
            results = {names[0]: {**MEASUREMENTS, **_INNER}[names[0]](size, folder, options)}
        if names[0] not in _INNER:
            peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            results[names[0]]["peak_mb"] = round(peak * 1.024 / 1000)
    else:
        rest = sys.argv[1 + len(options.measurements) :]
        results = {}
        for name in names:  # memory of one measurement must not count in another
            words = [sys.executable, __file__, name, *(_without_results(rest))]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
            results |= json.loads(done.stdout)
    if options.results is not None:
        known = json.loads(options.results.read_text()) if options.results.is_file() else {}
        known[options.name] = {**known.get(options.name, {}), **results}
        options.results.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def _without_results(words: list[str]) -> list[str]:
    return [
        word for row, word in enumerate(words) if word != "--results" and (row == 0 or words[row - 1] != "--results")
    ]


if __name__ == "__main__":
    main()
