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
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scale_collections import Size, make_plans, make_table, save_plans
from scale_growth import measure_growth

BATCHES = 200


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
