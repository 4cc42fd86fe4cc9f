"""`duplus survival features`: writes measurements of lesions as a table that joins the clinical table."""

import argparse
import sys
from pathlib import Path

from duplus_nnunet.command_map import CommandMap

_DESCRIPTION = """\
Write a CSV file with measurements of the lesions of each patient, a row a patient, for models of your own or as more
columns of clinical.csv. For each lesion target, and for all together: number of lesions, volume, largest lesion,
largest distance between lesions and from the primary tumour; in PET (SUV) SUVmax, SUVmean, SUVpeak (sphere of 1 ml),
MTV and TLG.
"""
_EXAMPLES = """\
  duplus survival features 62 -o features.csv
  duplus survival features 62 -o features.csv --predictions predictions --suv-threshold 41%
  duplus survival features 62 -o features.csv --ibsi      also IBSI features by MIRP; needs the extra radiomics

The first column is the patient, named as in clinical.yaml if there is one. Masks of patients that were measured by a
model must not come from a model that was trained on these patients, if survival is to be predicted from them.
"""


def add_action(commands: CommandMap) -> None:
    """Add the sub-command."""
    parser = commands.add("features", _EXAMPLES, _DESCRIPTION)
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="raw dataset: number, name or folder")
    add("-o", "--output", metavar="FILE", type=Path, required=True, help="CSV file to write")
    add("--predictions", metavar="FOLDER", type=Path, help="measure predicted label maps CASE.nii.gz instead of the "
        "reference masks in labelsTr; images are those of imagesTr and imagesTs")  # fmt: skip
    add("--targets", metavar="LABEL", nargs="+", default=(), help="labels of lesions in dataset.json (default: those "
        "that are named as lesions)")  # fmt: skip
    add("--primary", metavar="LABEL", default="", help="label of the primary tumour, from which the distances of other "
        "lesions are measured (default: the one that is named so)")  # fmt: skip
    add(
        "--pet",
        metavar="NUMBER",
        type=int,
        help="channel of the PET in SUV, from 0 (default: the one that is named so)",
    )
    add("--suv-threshold", metavar="SUV|PERCENT%", help="lowest uptake in MTV, TLG and SUVmean, such as 4, or 41%% for "
        "41 %% of the target's SUVmax (default: the whole mask)")  # fmt: skip
    add("--ibsi", action="store_true", help="also compute IBSI features in PET by MIRP (a minute a patient or more)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the lesions and write the table."""
    from duplus_nnunet.files import require_writable
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset
    from duplus_nnunet.survival.lesions.ibsi import require_mirp
    from duplus_nnunet.survival.lesions.measures import parse_threshold
    from duplus_nnunet.survival.lesions.table import FeatureChoice, measure_dataset, read_identifier
    from duplus_nnunet.survival.records.table import join_names
    from duplus_nnunet.table_files import write_csv

    raw = open_raw_dataset(args.dataset)
    if args.ibsi:
        require_mirp()
    threshold = None if args.suv_threshold is None else parse_threshold(args.suv_threshold)
    require_writable(args.output.parent)
    choice = FeatureChoice(tuple(args.targets), args.primary, args.pet, args.predictions, threshold, args.ibsi)
    table = measure_dataset(raw, choice)
    write_csv(args.output, table.to_csv(read_identifier(raw)))
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    if table.left_out:
        print(f"note: {len(table.left_out)} case(s) have no label map and no row: {join_names(table.left_out)}.",
              file=sys.stderr)  # fmt: skip
    print(f"Wrote {args.output}: {len(table.rows)} patients, {len(table.columns)} measurements.")
    return 0
