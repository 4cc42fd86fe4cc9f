"""Raw datasets of phantoms for tests, in one contrast and with all organs annotated."""

from pathlib import Path

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import describe_dataset, make_phantom, open_new_dataset, write_case
from duplus_nnunet.data.scans import CT, Scan


def write_phantom_dataset(folder: Path, training_cases: int, test_cases: int, seed: int, scan: Scan = CT) -> list[str]:
    """Write a raw dataset to a new folder, each case with an anatomy of its own; return the test cases' identifiers."""
    tests = [f"test_{number:03d}" for number in range(test_cases)]
    with open_new_dataset(folder) as new:
        for number in range(training_cases):
            write_case(new, "Tr", f"train_{number:03d}", make_phantom(seed, 0, number, scan))
        for number, case in enumerate(tests):
            write_case(new, "Ts", case, make_phantom(seed, 1, number, scan))
        describe_dataset(new, LABELS, scan.channel, training_cases)
    return tests
