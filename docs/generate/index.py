"""Writes the lists of pages on the start page. The site's navigation follows them, see conf.py."""

from pathlib import Path

# Pages in the order of the navigation, each with what it answers. A page that is not listed here comes last in the part
# of its folder.
PARTS = {
    "Get started": {
        "get-started/install": "install the package, and check that nnU-Net finds it",
        "get-started/first-model": "a first model on a public dataset, from download to scores",
        "get-started/predict": "predict chosen structures with a trained model",
        "get-started/hardware": "GPU memory, time and disk that a training and a prediction need",
    },
    "How to": {
        "how-to/own-dataset": "bring your own data, plan and train",
        "how-to/convert": "make a raw dataset from the download of a public one",
        "how-to/prompts": "write, check and compare the prompts of a dataset",
        "how-to/several-datasets": "compose several datasets into one, and train one model on it",
        "how-to/choose-targets": "predict selected structures, or one that is described in words",
        "how-to/ask": "open one image, and ask for one target after another within moments",
        "how-to/napari": "ask about an image in napari, and see each answer as a layer",
        "how-to/many-images": "predict folders and tables of images, and continue after an interruption",
        "how-to/dicom": "predict DICOM series, in the right context and unit, without names of patients",
        "how-to/unannotated-targets": "find a structure in a modality in which it was never annotated",
        "how-to/adapt": "add a dataset to a trained model without changing its old predictions",
        "how-to/published-weights": "start from the weights of a published nnU-Net",
        "how-to/evaluate": "score predictions, with confidence intervals",
        "how-to/cohort": "volumes, intensities and implausible segmentations of many images, in one table",
        "how-to/report": "show a model, its scores and its predictions as one page",
        "how-to/prognosis-records": "prognosis from clinical tables",
        "how-to/prognosis-images": "prognosis from images and clinical tables",
        "how-to/prognosis-predict": "predict the risk of new patients",
        "how-to/prognosis-validate": "save a model of clinical records, validate it elsewhere, and recalibrate it",
        "how-to/cluster": "several GPUs and nodes, SLURM, Ray, object storage, and what it costs",
        "how-to/docker": "run in a container",
        "how-to/monitoring": "watch a training in TensorBoard or Weights & Biases",
        "how-to/dicom-out": "write DICOM segmentations and structure sets, and train on clinical contours",
        "how-to/viewers": "open results in 3D Slicer, ITK-SNAP and napari",
        "how-to/notebooks": "three notebooks that run on a laptop",
        "how-to/completion": "completion of commands in the shell",
    },
    "Concepts": {
        "concepts/two-prompts": "what the context prompt and the target prompt do in the network",
        "concepts/annotated": "why a structure that was not annotated is not background",
        "concepts/left-right": "how left and right are kept apart",
        "concepts/training": "optimizer, loss, seeds and sampling",
        "concepts/cost": "what conditioning costs, in time and memory",
        "concepts/plugin": "how the package hooks into nnU-Net, and how to switch that off",
        "architecture": "modules of the package, and the direction of their imports",
    },
    "Reference": {
        "reference/commands": "every command and option",
        "reference/settings": "every setting of a run, with its default",
        "reference/registry": "the form of prompt registry files and of other files that you write",
        "reference/outputs": "every file that is written, and the columns of tables",
        "reference/errors": "messages, their reasons, and what to do",
        "reference/api": "classes and functions for your own programs",
    },
    "What was measured": {
        "measured": "all benchmarks, with the scripts that made them",
        "faq": "questions and troubleshooting",
    },
}
_FOLDERS = {"get-started": "Get started", "how-to": "How to", "concepts": "Concepts", "reference": "Reference"}
_LAST = "What was measured"


def list_pages(docs: Path) -> dict[str, dict[str, str]]:
    """List the pages that exist, by part: relative path without ending, and what it answers."""
    existing = sorted(
        str(file.relative_to(docs).with_suffix("")) for file in docs.rglob("*.md") if file.name != "index.md"
    )
    parts = {title: {page: text for page, text in pages.items() if page in existing} for title, pages in PARTS.items()}
    listed = {page for pages in parts.values() for page in pages}
    for page in existing:
        if page not in listed:
            parts[_FOLDERS.get(page.partition("/")[0], _LAST) if "/" in page else _LAST][page] = ""
    return parts


def write_index(docs: Path) -> str:
    """Write a heading and a list of links for each part."""
    blocks = []
    for title, pages in list_pages(docs).items():
        if pages:
            lines = (
                f"- [{_read_title(docs / f'{page}.md')}]({page}.md){': ' * bool(text)}{text}"
                for page, text in pages.items()
            )
            blocks += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(blocks)


def _read_title(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    title = next((line[2:].strip() for line in lines if line.startswith("# ")), None)
    if title is None:
        raise ValueError(f"{file} has no heading of the first level. Begin it with `# Title`.")
    return title
