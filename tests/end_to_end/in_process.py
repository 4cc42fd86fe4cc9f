"""Runs `duplus` in the process of a test."""

import sys
from pathlib import Path

from duplus_nnunet.cli import main


def start(*words: str | Path) -> int:
    """Run a command; returns its exit code, as the interpreter would."""
    try:
        return main([str(word) for word in words]) or 0
    except SystemExit as ended:
        sys.stderr.write(f"{ended.code}\n")
        return 1
