"""Implements `duplus doctor`, which checks the installation and names a remedy for each fault."""

import argparse
import contextlib
import itertools
import json
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duplus_nnunet.doctor import Diagnosis

EXAMPLE = """\
examples:
  duplus doctor                  a report to read; exit code 1 if something that is needed is missing
  duplus doctor --json           the same for programs: {"ok": ..., "folders": {"nnUNet_raw": {"ok": ..., ...}}, ...}
"""
# Topics with a row for each of many names: the text counts the rows that are ok and shows only the others.
SUMMARISED = {"probe": "names of nnU-Net that DuPLUS uses are as expected"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "doctor",
        description="Check whether the start-up hook is live, which nnU-Net is installed and whether it offers every "
        "name that DuPLUS uses, where each class comes from, and whether nnU-Net's folders, the text embeddings and a "
        "device are available.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report and return 1 if something that is needed is missing."""
    from duplus_nnunet.doctor import examine

    # What other packages print or warn about when they are imported is not part of the report.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        findings = examine()
    print(json.dumps(to_json(findings), indent=2) if args.json else to_text(findings))
    return 1 if any(finding.is_fault for finding in findings) else 0


def to_json(findings: "Sequence[Diagnosis]") -> dict[str, Any]:
    """Return the findings by topic and name."""
    report: dict[str, Any] = {"ok": not any(finding.is_fault for finding in findings)}
    for finding in findings:
        entry = {"ok": finding.ok, "needed": finding.needed, "found": finding.found, "remedy": finding.remedy}
        report.setdefault(finding.topic, {})[finding.name] = entry
    return report


def to_text(findings: "Sequence[Diagnosis]") -> str:
    """Write the findings topic by topic, each fault with its remedy, and a closing line."""
    lines = []
    for topic, group in itertools.groupby(findings, key=lambda finding: finding.topic):
        lines.append(topic)
        rows = list(group)
        if topic in SUMMARISED:
            shown = [finding for finding in rows if not finding.ok]
            lines.append(f"  {'ok':7} {len(rows) - len(shown)} of {len(rows)} {SUMMARISED[topic]}")
            rows = shown
        for finding in rows:
            lines.append(f"  {mark(finding):7} {finding.name}: {finding.found}")
            if not finding.ok:
                lines.append(f"          -> {finding.remedy}")
    faults = [finding.name for finding in findings if finding.is_fault]
    lines.append(f"Not ready; wrong or missing: {', '.join(faults)}." if faults else "Ready.")
    return "\n".join(lines)


def mark(finding: "Diagnosis") -> str:
    """Return a finding's state in one word."""
    if finding.ok:
        return "ok"
    return "WRONG" if finding.needed else "absent"
