"""Keeps results of trainings in a JSON file, so that those of several machines and days are reported together."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def keep_results(file: Path, conditions: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Add results, as plain data by the name of the training, to those in a file, and return all.

    The program ends if the file has results under other conditions, with which these cannot be compared.
    """
    kept = json.loads(file.read_text()) if file.is_file() else {"conditions": dict(conditions), "results": {}}
    if kept["conditions"] != conditions:
        sys.exit(f"{file} is of trainings with {kept['conditions']}, not {conditions}. Give another file.")
    together = {**kept["results"], **results}
    content = {"conditions": dict(conditions), "results": {name: together[name] for name in sorted(together)}}
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(file)
    return together
