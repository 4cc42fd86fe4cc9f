"""The options of the prediction commands: those of this package, in groups, and those of nnU-Net.

They are declared once, for parsing, help and completion; nothing heavy is imported for them.
"""

import argparse

from duplus_nnunet.inference.cluster_settings import LOCAL
from duplus_nnunet.inference.options import OUTPUT_FORMATS, PRECISIONS, PRIORITIES, RIVALS

Parser = argparse.ArgumentParser
DEVICES = ("cuda", "cpu", "mps")


def add_our_options(parser: Parser) -> None:
    """Add the options that nnU-Net's prediction commands do not have, in groups."""
    _add_selection(parser)
    _add_contexts(parser)
    _add_dicom(parser)
    _add_files(parser)
    _add_dicom_files(parser)
    _add_cleaning(parser)
    _add_many(parser)
    _add_cluster(parser)
    _add_costs(parser)
    _add_adapters(parser)


def _add_selection(parser: Parser) -> None:
    add = parser.add_argument_group("what to predict").add_argument
    add(
        "--targets", metavar="NAME", nargs="+",
        help="predict these targets only: names, labels or synonyms, in upper or lower case. Label values stay those "
        "of dataset.json, and neither the probability nor the mask of a target depends on the selection. Default: the "
        "variable DUPLUS_TARGETS (names separated by commas), else all; with --prompt, only what the prompts describe",
    )  # fmt: skip
    add(
        "--prompt", metavar="TEXT", nargs="+",
        help="also predict what these texts describe. A text that is a name, synonym or wording of a known target "
        "selects that target. Any other text is encoded by the model's own text encoder and reported as not seen in "
        "training, with the nearest known targets; its label value follows the largest one of dataset.json, in the "
        "order typed, and is declared in the dataset.json beside the predictions. A text without a modality is read as "
        "the name of a structure and put into the model's sentence. Default: the variable DUPLUS_PROMPT (texts "
        "separated by semicolons)",
    )  # fmt: skip
    add(
        "--encoder", metavar="FOLDER",
        help="folder of the model's own text encoder, if it has moved since planning; another encoder is refused. Only "
        "new texts need it. Default: the variable DUPLUS_ENCODER",
    )  # fmt: skip
    add("--list-targets", action="store_true", help="list the contexts and targets that the model was trained on, and "
        "exit; needs no -i and -o")  # fmt: skip
    add("--list_targets", action="store_true", dest="list_targets", help=argparse.SUPPRESS)
    add(
        "--rivals", choices=RIVALS, default="all",
        help="which targets a voxel is settled among where targets exclude one another: all targets of the context, so "
        "that the mask of a target does not depend on the selection, or only the selected ones, which may then also "
        "get voxels of the others. Default: %(default)s",
    )  # fmt: skip
    add(
        "--prompt-priority", choices=PRIORITIES, default="trained",
        help="which target owns a voxel that a trained target and a --prompt not seen in training both claim: the "
        "trained one, or the more probable one (with regions, the prompt). Default: %(default)s",
    )  # fmt: skip
    add("--prompt_priority", choices=PRIORITIES, default="trained", help=argparse.SUPPRESS)


def _add_contexts(parser: Parser) -> None:
    add = parser.add_argument_group("what the images are").add_argument
    add(
        "--context", metavar="NAME|FILE",
        help="context of the images (modality and region), or a table of contexts by case (.csv with the columns case "
        "and context, or .json). Required if the model has several contexts. Default: the variable DUPLUS_CONTEXT",
    )  # fmt: skip


def _add_dicom(parser: Parser) -> None:
    add = parser.add_argument_group("DICOM, where -i is a folder or a zip file of series").add_argument
    add(
        "--series", metavar="CHOICE",
        help="predict these series only: a number as `duplus dicom list` shows it, a modality (CT), or a pattern of "
        "the description ('*venous*'). Default: all series that can be read and are of a modality of the model",
    )  # fmt: skip
    add(
        "--keep-ids", action="store_true",
        help="name cases by the patient ID and a hash of the series UID. Default: by the hash alone, so that no file "
        "names a patient",
    )  # fmt: skip


def _add_files(parser: Parser) -> None:
    add = parser.add_argument_group("what to write beside the label map of each case").add_argument
    add("--split", action="store_true", help="a binary mask for each target, CASE/TARGET")
    add(
        "--probabilities", action="store_true",
        help="each target's probabilities, float16, CASE/TARGET.b2nd (blosc2); duplus_nnunet.api.read_probabilities "
        "reads them. nnU-Net's --save_probabilities still writes all of them as one .npz",
    )  # fmt: skip
    add("--statistics", action="store_true", help="statistics.csv and statistics.json: volume, intensities, position, "
        "connected components and presence of each target")  # fmt: skip
    add("--preview", action="store_true", help="a picture, CASE_preview.png: three planes through each target")


def _add_dicom_files(parser: Parser) -> None:
    add = parser.add_argument_group("what to write in DICOM beside the label map (extra dicom)").add_argument
    add(
        "--output-format", choices=OUTPUT_FORMATS, nargs="+", default=(),
        help="CASE_seg.dcm, a DICOM Segmentation with a bit for each target (dicom-seg); CASE_labelmap_seg.dcm, one in "
        "which a voxel belongs to one target, which not many viewers read yet (dicom-labelmap); CASE_rtstruct.dcm, the "
        "contours of each target as an RT Structure Set (rtstruct). They refer to the DICOM series of the image, and "
        "have its patient's name and identifiers. Targets that were not found are left out of them",
    )  # fmt: skip
    add(
        "--dicom-source", metavar="FOLDER",
        help="the DICOM series that the images were made from, if they are files of another format: in FOLDER/CASE, or "
        "for a single case in FOLDER",
    )  # fmt: skip


def _add_cleaning(parser: Parser) -> None:
    add = parser.add_argument_group("what to remove from masks before anything is written").add_argument
    add("--keep-largest", metavar="NAME", nargs="+", default=(), help="keep only the largest connected component of "
        "these targets. Components are joined by faces, edges and corners of voxels")  # fmt: skip
    add("--remove-small", metavar="[NAME=]ML", nargs="+", default=(), help="remove connected components below a volume "
        "in ml, of all targets (0.5) or of one (liver=5). The manifest says what was removed")  # fmt: skip


def _add_many(parser: Parser) -> None:
    add = parser.add_argument_group("many images").add_argument
    add(
        "--jobs", metavar="FILE",
        help="predict the jobs of a table (.csv, or .json) instead of -i: its columns are case, image (several "
        "channels separated by semicolons; paths or URLs), context, targets (separated by semicolons), prompts",
    )  # fmt: skip
    add(
        "--verify", action="store_true",
        help="with --continue_prediction: compare files above 64 MiB by their hash too; smaller ones always are. A "
        "file that is not what the manifest records is predicted again",
    )  # fmt: skip


def _add_cluster(parser: Parser) -> None:
    add = parser.add_argument_group("many images on several GPUs or machines, by Ray (extra ray)").add_argument
    add(
        "--ray", metavar="ADDRESS", nargs="?", const=LOCAL,
        help="share the cases among workers of a Ray cluster, such as auto or HOST:6379; without an address, of "
        "a Ray that is started on this machine and ended again. All machines have to see the same folders, or URLs",
    )  # fmt: skip
    add("--ray-workers", metavar="N", type=int, help="number of workers, each with a model in memory. Default: as many "
        "as GPUs allow; with -device cpu, one for each machine")  # fmt: skip
    add("--gpus-per-worker", metavar="SHARE", type=float, help="GPUs of a worker: with 0.5, two workers share one. "
        "Default: 1; with -device cpu, 0")  # fmt: skip
    add("--cpus-per-worker", metavar="N", type=int, help="processors of a worker. Default: its share of a machine's")


def _add_costs(parser: Parser) -> None:
    add = parser.add_argument_group("memory and time").add_argument
    add("--memory", metavar="AMOUNT", help="memory for the maps of a prediction, such as 8GB; targets are predicted in "
        "groups that fit. Default: half of what is free")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="auto", help="precision of convolutions on a CPU. Default: "
        "%(default)s, which is bfloat16 where the processor has it")  # fmt: skip


def _add_adapters(parser: Parser) -> None:
    add = parser.add_argument_group("adapters").add_argument
    add(
        "--adapters", metavar="FOLDER", nargs="+", default=(),
        help="use these adapters (folders with adapter.safetensors) with the model, which must be their base; their "
        "contexts and targets can then be predicted like the model's own",
    )  # fmt: skip


def add_refusal(parser: Parser) -> None:
    """Add the option by which nnU-Net's own commands refuse a model that is not a DuPLUS model."""
    parser.add_argument_group("models of stock nnU-Net").add_argument(
        "--refuse-stock", action="store_true",
        help="refuse a model that is not a DuPLUS model: nnU-Net loads its checkpoint without restrictions, so that "
        "the file can run any code. `duplus predict` does so unless --allow-stock is given",
    )  # fmt: skip


def add_host_options(parser: Parser) -> None:
    """Add nnU-Net's own options, for help and completion; nnU-Net parses them itself."""
    add = parser.add_argument_group("options of nnU-Net: images and model").add_argument
    add("-i", metavar="FOLDER", help="images, named as in imagesTs: CASE_0000.nii.gz; or a folder or zip file of DICOM "
        "series; or the URL of a folder of images, such as s3://bucket/images")  # fmt: skip
    add("-o", metavar="FOLDER", help="folder to write to, or its URL")
    add("-m", metavar="FOLDER", help="folder of the trained model, with fold_0 and so on; or -d, -c, -tr and -p")
    add("-d", metavar="DATASET", help="number or name of the dataset that the model was trained on")
    add("-c", metavar="NAME", help="configuration, such as 3d_fullres")
    add("-tr", metavar="TRAINER", help="class of the trainer, such as DuPLUSTrainer. Default: nnU-Net's own")
    add("-p", metavar="PLANS", help="name of the plans, such as DuPLUSPlans. Default: nnU-Net's own")
    add("-f", metavar="FOLD", nargs="+", help="folds to average. Default: 0 1 2 3 4")
    add("-chk", metavar="NAME", help="file name of the checkpoint. Default: checkpoint_final.pth")
    add("-prev_stage_predictions", metavar="FOLDER", help="predictions of the first stage of a cascade")
    add = parser.add_argument_group("options of nnU-Net: how to predict").add_argument
    add("-device", choices=DEVICES, help="default: cuda, or the CPU where there is no GPU")
    add("-step_size", metavar="SHARE", help="distance between windows as a share of their size. Default: 0.5")
    add("--disable_tta", action="store_true", help="no mirror images, even if the model was trained with them: faster")
    add("--not_on_device", action="store_true", help="keep results in main memory instead of the GPU's")
    add("--continue_prediction", "--c", action="store_true", help="predict only cases that are not complete")
    add("-num_parts", metavar="N", help="number of calls that share the cases, with -d. Default: 1")
    add("-part_id", metavar="N", help="which of them this call is, from 0, with -d. Default: 0")
    add("--save_probabilities", action="store_true", help="write all probabilities of a case as one .npz")
    add("-npp", metavar="N", help="processes that preprocess; a DuPLUS model needs none")
    add("-nps", metavar="N", help="processes that write; a DuPLUS model needs none")
    add("--disable_progress_bar", action="store_true", help="show no bar over windows")
    add("--verbose", action="store_true", help="print more")


def describe_our_options(example: str) -> str:
    """Write the help of our options for nnU-Net's prediction commands, which is shown before nnU-Net's own.

    Args:
        example: Lines to end with.
    """
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, add_help=False, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="DuPLUS options, for models trained by a DuPLUS trainer. nnU-Net's own options follow below.",
    )  # fmt: skip
    add_our_options(parser)
    add_refusal(parser)
    return parser.format_help()
