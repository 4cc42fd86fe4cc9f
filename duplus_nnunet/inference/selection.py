"""What to predict: in come options and variables, out comes one selection that the predictor reads.

The options come before nnU-Net's parser, which is left untouched: it would refuse them, and it abbreviates.
"""

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.adaptation.files import read_card
from duplus_nnunet.adaptation.joining import join_plans
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.inference import options as wanted
from duplus_nnunet.inference.memory import return_freed_memory
from duplus_nnunet.outputs.files import require_writable
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.settings import PLANS_KEY

if TYPE_CHECKING:
    from duplus_nnunet.inference.contexts import ContextChoice

_HELP = """
DuPLUS options (for models trained by a DuPLUS trainer):
  --targets NAME [NAME ...]
                        Predict these targets only; name, label or synonym, in any case. Only their heads are
                        computed. Label values stay those of dataset.json. A target's probability does not depend on
                        the others asked for; but where targets exclude one another, a voxel goes to the most
                        probable of those asked for, so that it may change its owner with the selection.
                        Default: the variable DUPLUS_TARGETS (names separated by commas), else all; with --prompt,
                        none but those prompted for.
  --prompt TEXT [TEXT ...]
                        Predict what these texts describe, beside --targets. A text by which a known target goes is
                        that target. Any other is encoded by the model's own text encoder and reported as not seen in
                        training, with the nearest known targets; its label value is the next one after the largest
                        of dataset.json, in the order typed, and stands in the dataset.json beside the predictions.
                        A text without a modality is taken for a structure's name and put into the model's sentence;
                        from a sentence worded like the model's, the name is read. Default: the variable
                        DUPLUS_PROMPT (texts separated by semicolons).
  --encoder FOLDER      Where the model's own text encoder is, if not where it was at planning; another one is
                        refused. Only new texts need it. Default: DUPLUS_ENCODER.
  --context NAME        Context prompt (T1) of the images. Default: DUPLUS_CONTEXT, else the model's own.
  --list-targets        Show what the model was trained on, and end; -i and -o are not needed.
{options}
example:
  nnUNetv2_predict -i IN -o OUT -d 4 -c 3d_fullres -f 0 -tr DuPLUSTrainer -p DuPLUSPlans --targets "left kidney"
  nnUNetv2_predict -i IN -o OUT -d 4 -c 3d_fullres -f 0 -tr DuPLUSTrainer -p DuPLUSPlans \\
      --prompt "A computed tomography of the renal pelvis"
  nnUNetv2_predict -i IN -o OUT -d 4 -c 3d_fullres -f 0 -tr DuPLUSTrainer -p DuPLUSPlans --statistics --preview
""".replace("{options}", wanted.HELP)


@dataclass(frozen=True)
class Selection:
    """What a user asked for.

    Attributes:
        targets: Names as typed; empty is all.
        context: Context as typed, or one a case; None is the model's default.
        prompts: Free texts as typed.
        encoder: Where the model's own text encoder is now; None is where it was at planning.
        options: How to predict, and what to write beside the label map.
        masks: Whether the model is to segment; False: nothing but its features is looked at.
    """

    targets: tuple[str, ...] = ()
    context: "str | ContextChoice | None" = None
    prompts: tuple[str, ...] = ()
    encoder: str | None = None
    options: wanted.Options = field(default_factory=wanted.Options)
    masks: bool = True

    def __bool__(self) -> bool:
        return bool(self.targets or self.prompts) or self.context is not None


_asked = Selection()


def get_selection() -> Selection:
    """Return what the prediction command at work was asked for; nothing outside of one."""
    return _asked


@contextlib.contextmanager
def use_selection(selection: Selection) -> Iterator[None]:
    """Let models that are loaded in this block predict a selection."""
    global _asked
    before, _asked = _asked, selection
    try:
        yield
    finally:
        _asked = before


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--context")
    parser.add_argument("--prompt", nargs="+")
    parser.add_argument("--encoder")
    wanted.add_options(parser)
    parser.add_argument("--list-targets", "--list_targets", action="store_true", dest="list_targets")
    return parser


def read_selection(options: argparse.Namespace) -> Selection:
    """Join options and variables; an option wins over its variable."""
    return Selection(
        targets=_choose(options.targets, "DUPLUS_TARGETS", ","),
        context=options.context or os.environ.get("DUPLUS_CONTEXT") or None,
        prompts=_choose(options.prompt, "DUPLUS_PROMPT", ";"),
        encoder=options.encoder or os.environ.get("DUPLUS_ENCODER") or None,
        options=wanted.read_options(options),
    )


def _choose(typed: Sequence[str] | None, variable: str, separator: str) -> tuple[str, ...]:
    if typed is not None:
        return tuple(typed)
    parts = (part.strip() for part in os.environ.get(variable, "").split(separator))
    return tuple(part for part in parts if part)


def _find_value(arguments: Sequence[str], option: str, default: str | None = None) -> str | None:
    """Return the word after an option. argparse would not do: to a parser of `-d` alone, `-device` is `-d evice`."""
    words = list(arguments)
    return words[words.index(option) + 1] if option in words[:-1] else default


def _find_model_folder(arguments: Sequence[str]) -> Path:
    """Find the model folder that nnU-Net's options name."""
    folder = _find_value(arguments, "-m")
    if folder is not None:
        return Path(folder)
    dataset, configuration = _find_value(arguments, "-d"), _find_value(arguments, "-c")
    if dataset is None or configuration is None:
        raise ModelError("--list-targets needs to know the model: give -m FOLDER, or -d, -c, -tr and -p.")
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    trainer, plans = _find_value(arguments, "-tr", "nnUNetTrainer"), _find_value(arguments, "-p", "nnUNetPlans")
    return Path(get_output_folder(dataset, trainer, plans, configuration))


def read_model_plans(folder: str | os.PathLike[str], adapters: Sequence[str] = ()) -> dict[str, Any]:
    """Read plans.json of a model folder; of a base and adapters, one that knows the prompts of all.

    Args:
        folder: The model's.
        adapters: Folders of adapters that stand beside it.

    Raises:
        ModelError: It is missing or damaged, or one of the adapters is.
        PlansError: Adapters contradict each other or the base.
    """
    plans = read_own_plans(folder)
    if PLANS_KEY not in plans:
        return plans
    return join_plans(plans, [read_card(place).member for place in adapters])


def read_own_plans(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read plans.json of a model folder as it stands there.

    Raises:
        ModelError: It is missing or damaged.
    """
    import json

    file = Path(folder) / "plans.json"
    try:
        plans: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is not a model folder: it has no plans.json. Check -d, -c, -tr, -p (or -m)."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Export the model again.") from error
    return plans


def describe_targets(folder: str | os.PathLike[str], adapters: Sequence[str] = ()) -> str:
    """List what a model was trained on, by context: T1, and each target with what else it goes by."""
    bank = PromptBank(read_model_plans(folder, adapters))
    lines = [
        f"{len(bank.contexts)} context(s) for --context, {len(bank.targets)} target(s) for --targets, in any case."
    ]
    width = max(len(name) for name in bank.names)
    for name, context in bank.contexts.items():
        default = " (default)" if name == bank.default_context else ""
        targets = [target for target in bank.targets if target["name"] in context["target_prompts"]]
        lines += ["", f"context {name}{default}", f"  T1: {context['sentences'][0]}", f"  {len(targets)} target(s):"]
        lines += [f"    {target['name']:<{width}}  {_say_also(target)}".rstrip() for target in targets]
    return "\n".join(lines)


def _say_also(target: Mapping[str, Any]) -> str:
    """List a target's synonyms, and its label where that is another word."""
    words = [*target.get("synonyms", ()), target["label"]]
    also = dict.fromkeys(word for word in words if normalise(word) != normalise(target["name"]))
    return f"also: {', '.join(also)}" if also else ""


def _check_output(arguments: Sequence[str]) -> None:
    """Stop before anything is loaded if the output folder is the images', or cannot be written."""
    folder, images = _find_value(arguments, "-o"), _find_value(arguments, "-i")
    if folder is None:
        return
    if images is not None and Path(images).resolve() == Path(folder).resolve():
        raise DataError(f"The output folder is the input folder, {folder}. Choose another one with -o.")
    require_writable(Path(folder), "Choose another output folder with -o.")
    Path(folder).mkdir(parents=True, exist_ok=True)


def _ask(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take our options out of a command line; the rest is nnU-Net's."""
    return _make_parser().parse_known_args(list(arguments))


def wrap_entry_point(original: Callable[[], object], kind: str) -> Callable[[], object]:
    """Give one of nnU-Net's prediction commands our options.

    Args:
        original: The command.
        kind: "trained" (by dataset, trainer and plans) or "folder" (by -m).
    """

    @functools.wraps(original)
    def run() -> object:
        options, rest = _ask(sys.argv[1:])
        if options.list_targets:
            sys.stdout.write(describe_targets(_find_model_folder(rest), options.adapters) + "\n")
            return None
        if {"-h", "--help"} & set(rest):
            try:
                original()
            finally:
                sys.stdout.write(_HELP)
            return None
        before = sys.argv
        _check_output(rest)
        if options.jobs is not None and "-i" not in rest:
            rest = [*rest, "-i", os.path.dirname(os.path.abspath(options.jobs))]  # nnU-Net insists on one
        sys.argv = [before[0], *rest]
        return_freed_memory()
        try:
            with use_selection(read_selection(options)):
                return original()
        finally:
            sys.argv = before

    return run
