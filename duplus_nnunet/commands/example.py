"""`duplus example`: write a small trained model and images to try it on."""

import argparse
import shlex
from pathlib import Path

_DESCRIPTION = """\
Write a small trained model and one image each of CT, MR and PET with its true label map, within seconds and without
network. The images show a generated body that the model was not trained on. In all three, liver, spleen, both kidneys,
stomach and aorta can be segmented.

Writes to FOLDER:
  model/                    a complete model folder, as for -m of duplus predict
  images/CASE_0000.nii.gz   ct, mr and pet
  labels/CASE.nii.gz        the true labels
  contexts.json             the context of each case, as for --context of duplus predict

The model shows how prompts work. It knows generated bodies only, and is of no use for images of patients.
"""
_EPILOG = """\
example:
  duplus example -o example
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the parser of `duplus`."""
    parser = subparsers.add_parser(
        "example",
        help="write a small trained model and three images, to predict within seconds",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-o", "--output", metavar="FOLDER", type=Path, required=True, help="new or empty folder, or an earlier example")
    add("--overwrite", action="store_true", help="replace files of the same names in a folder that has other files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the example, and print the next two commands."""
    from duplus_nnunet.example.folder import write_example

    write_example(args.output, args.overwrite)
    folder = shlex.quote(str(args.output))
    out = shlex.quote(str(args.output / "predicted"))
    print(f"Wrote a model and images of CT, MR and PET to {args.output}. Next:")
    print(
        f"  duplus predict -m {folder}/model -i {folder}/images -o {out} --context {folder}/contexts.json "
        "--targets liver --preview"
    )
    print(f"  duplus evaluate -p {out} -r {folder}/labels -m {folder}/model")
    return 0
