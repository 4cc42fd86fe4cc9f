"""Runs several console scripts one after another in one process, which imports nnU-Net once for all of them."""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from duplus_nnunet.errors import HostError


def run_script(words: Sequence[str]) -> int:
    """Run the console script of an installed distribution in this process.

    Args:
        words: Name of the script, such as `nnUNetv2_predict`, and its arguments.

    Returns:
        The exit code that the script would have as a process of its own. What it raises otherwise is passed on.

    Raises:
        HostError: No installed distribution has a script of this name.
    """
    scripts = tuple(entry_points(group="console_scripts", name=words[0]))
    if not scripts:
        raise HostError(
            f"No installed package has the command {words[0]!r}. Run `duplus doctor`, and install with `pip install .`."
        )
    sys.argv = list(words)
    try:
        code = scripts[0].load()()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    return code if isinstance(code, int) else int(code is not None)


def main(calls: Sequence[Sequence[str]]) -> int:
    """Run scripts in turn until one fails.

    Returns:
        0, or the exit code of the script that failed.
    """
    for words in calls:
        sys.stdout.write(f"$ {' '.join(words)}\n")
        sys.stdout.flush()
        code = run_script(words)
        if code != 0:
            sys.stdout.write(f"`{' '.join(words)}` ended with exit code {code}.\n")
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
