"""The command line as a whole."""

import os
import subprocess
import sys


def test_output_that_nobody_reads_ends_the_command_without_a_stack_trace() -> None:
    code = "import sys; from duplus_nnunet.cli import main; sys.exit(main(['prompts', 'list', '--json']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
