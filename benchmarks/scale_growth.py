"""Measures for `scale.py` how the time to compose and plan grows with the number of cases."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scale_collections import Size, write_raw


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
