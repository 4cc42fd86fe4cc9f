"""Label files predicted by a segmentation model: `duplus survival draft --masks-from`, and their note in `check`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset
    from duplus_nnunet.survival.records.checking import TableReport


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for predicted label files."""
    add = parser.add_argument
    add("--masks-from", metavar="FOLDER", type=Path, help="model folder of a DuPLUS segmentation model; predict label "
        "files for images without one, and list them in predicted_labels.json")  # fmt: skip
    add(
        "--context", metavar="CONTEXT|FILE", help="context of the images for that model, or a table of contexts by case"
    )
    add("--device", help="cpu, cuda or mps (default: cuda if available)")


def draft_masks(raw: "RawDataset", args: argparse.Namespace) -> None:
    """Predict label files for the training images of a dataset that have none."""
    from duplus_nnunet.files import require_writable
    from duplus_nnunet.inference.devices import choose_device
    from duplus_nnunet.inference.label_drafts import draft_labels
    from duplus_nnunet.outputs.predicted_labels import RECORD_NAME

    require_writable(raw.folder)
    cases = draft_labels(raw, args.masks_from, args.context, choose_device(args.device))
    if not cases:
        print(f"Every training image of {raw.name} has a label file; none was predicted.")
        return
    print(f"Predicted {len(cases)} label file(s) into {raw.folder / 'labelsTr'}, listed in {RECORD_NAME}.")
    sys.stderr.write(
        "note: predicted masks are not ground truth: inspect them before use, and do not train a segmentation on them "
        "unseen.\n"
    )


def add_finding(report: "TableReport", datasets: "list[RawDataset]") -> "TableReport":
    """Add a note on which label files are predictions."""
    from duplus_nnunet.outputs.predicted_labels import describe_predicted, list_predicted
    from duplus_nnunet.survival.records.table import Finding

    notes = []
    for raw in datasets:
        predicted = list_predicted(raw.folder, str(raw.dataset_json.get("file_ending")))
        notes += [Finding("note", f"{raw.name}: {describe_predicted(predicted)}")] if predicted else []
    return replace(report, findings=(*report.findings, *notes))
