"""Options of a prediction: what to write beside the label map, memory, precision and adapters."""

import argparse
from dataclasses import dataclass

from duplus_nnunet.errors import PromptError, describe_unknown
from duplus_nnunet.inference.memory import read_memory

PRECISIONS = ("auto", "float32", "bfloat16")
RIVALS = ("all", "asked")
PRIORITIES = ("trained", "probability")

HELP = """\
  --split               Also write a binary mask for each target, as CASE/TARGET beside the label map.
  --probabilities       Also write each target's probabilities, float16, as CASE/TARGET.b2nd (blosc2);
                        duplus_nnunet.api.read_probabilities reads them. nnU-Net's --save_probabilities still
                        writes all of them as one .npz.
  --statistics          Also write statistics.csv and statistics.json: volume, intensities, position, connected
                        components, presence.
  --preview             Also write CASE_preview.png: three planes through each target.
  --jobs FILE           Predict the jobs of a table (.csv, or .json) instead of -i: its columns are case, image (several
                        channels separated by semicolons), context, targets (separated by semicolons), prompts.
  --verify              With --continue_prediction: compare files above 64 MiB by their hash too; smaller ones always
                        are. A file that is not what the manifest records is predicted again.
  --memory AMOUNT       Memory for the maps of a prediction, such as 8GB; targets are predicted in groups that fit.
                        Default: half of what is free.
  --precision auto|float32|bfloat16
                        Precision of convolutions on a CPU. Default: auto, bfloat16 where the processor has it.
  --rivals all|asked    Which targets a voxel is settled among where targets exclude one another. Default: all targets
                        of the context, so that the mask of a target does not depend on the selection; asked: only
                        the selected targets, which may then also get voxels of the others.
  --prompt-priority trained|probability
                        Which target owns a voxel that a trained target and a --prompt not seen in training both
                        claim. Default: trained, the prompt gets what the trained targets leave; probability, the
                        more probable one gets it (with regions, the prompt).
  --adapters FOLDER [FOLDER ...]
                        Use these adapters (folders with adapter.safetensors) with the model, which must be their
                        base; their contexts and targets can then be predicted like the model's own.
"""


@dataclass(frozen=True)
class Options:
    """What a user asks for beside targets and context.

    Attributes:
        split: A mask file a target.
        probabilities: A file of probabilities a target.
        statistics: Tables of measurements.
        preview: A picture a case.
        jobs: A table of jobs, or None.
        memory: As typed, or None for half of what is free.
        precision: One of PRECISIONS.
        adapters: Folders of adapters of the model.
        verify: Whether files of any size are hashed when a prediction is continued.
        rivals: Which targets exclusive ones are settled against, one of RIVALS.
        prompt_priority: Who owns a voxel that a trained target and an unseen text claim, one of PRIORITIES.

    Example:
        >>> Options(memory="8GB", rivals="asked").precision
        'auto'
        >>> Options(memory="much")
        Traceback (most recent call last):
        duplus_nnunet.errors.DataError: --memory is 'much'; expected an amount above 0 such as 8, 8GB or 500MB.
    """

    split: bool = False
    probabilities: bool = False
    statistics: bool = False
    preview: bool = False
    jobs: str | None = None
    memory: str | None = None
    precision: str = "auto"
    adapters: tuple[str, ...] = ()
    verify: bool = False
    rivals: str = "all"
    prompt_priority: str = "trained"

    def __post_init__(self) -> None:
        for kind, word, known in (
            ("choice of rivals", self.rivals, RIVALS),
            ("prompt priority", self.prompt_priority, PRIORITIES),
        ):
            if word not in known:
                raise PromptError(describe_unknown(kind, word, known))
        if self.memory is not None:
            read_memory(self.memory)

    @property
    def asks_for_more(self) -> bool:
        """Whether files are wanted beside the label map."""
        return self.split or self.probabilities or self.statistics or self.preview


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    for name in ("--split", "--probabilities", "--statistics", "--preview"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--jobs")
    parser.add_argument("--memory")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--adapters", nargs="+", default=())
    parser.add_argument("--rivals", choices=RIVALS, default="all")
    parser.add_argument("--prompt-priority", "--prompt_priority", choices=PRIORITIES, default="trained")


def read_options(parsed: argparse.Namespace) -> Options:
    """Collect the options from what was parsed."""
    names = (
        "split", "probabilities", "statistics", "preview", "jobs", "memory", "precision", "rivals", "prompt_priority",
        "verify",
    )  # fmt: skip
    return Options(**{name: getattr(parsed, name) for name in names}, adapters=tuple(parsed.adapters))
