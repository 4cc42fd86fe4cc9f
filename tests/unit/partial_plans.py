"""Plans of two kidneys and a liver in CT and MR, with random embeddings, and a table of cases for them."""

from typing import Any

import numpy as np

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.prompt_bank import encode_vector, measure_centre

NAMES = ("liver", "left kidney", "right kidney")
PARTNERS = {"left kidney": "right kidney", "right kidney": "left kidney"}
LENGTH = 4


def make_plans() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    texts = [*NAMES, *(f"{modality} of {name}" for modality in ("CT", "MR") for name in NAMES), "T1 CT", "T1 MR"]
    vectors = {text: rng.normal(size=LENGTH).astype(np.float32) for text in texts}
    centre = measure_centre(list(vectors.values()))
    return {
        "plans_name": "Test",
        "transpose_forward": [0, 1, 2],
        "duplus": {
            "version": 1,
            "default_context": "ct",
            "contexts": {
                modality.lower(): {
                    "sentences": [f"T1 {modality}"],
                    "target_prompts": {name: [f"{modality} of {name}"] for name in NAMES},
                    "targets": list(NAMES) if modality == "CT" else ["liver"],
                }
                for modality in ("CT", "MR")
            },
            "targets": [
                {"name": name, "label": name.title(), "synonyms": [], "partner": PARTNERS.get(name)} for name in NAMES
            ],
            "centres": dict.fromkeys(("context", "sentence", "name"), centre),
            "embeddings": {text: encode_vector(vector) for text, vector in vectors.items()},
            "left_right_axis": 2,
        },
    }


def make_table() -> CaseTable:
    """One CT with everything, one CT in which the left kidney alone was contoured, one MR with its liver."""
    sources = {
        "A": Source("Dataset001_A", "ct", NAMES, ("CT",)),
        "B": Source("Dataset002_B", "mr", ("liver",), ("MR",)),
    }
    cases = {
        "a_0": Case("A", "p0", NAMES, NAMES),
        "a_1": Case("A", "p1", ("left kidney",), ("left kidney",)),
        "b_0": Case("B", "p2", ("liver",), ()),
    }
    return CaseTable(sources, cases)
