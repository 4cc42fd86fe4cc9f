"""Options of the prediction commands beside nnU-Net's own: what to segment, in which context, and what to write.

They are parsed before nnU-Net's parser, which is left unchanged: it would refuse them, and it abbreviates.
"""

import argparse
import functools
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from duplus_nnunet.errors import DataError, HostError, ModelError
from duplus_nnunet.files import require_writable
from duplus_nnunet.inference.cluster_settings import read_cluster
from duplus_nnunet.inference.command_options import add_our_options, add_refusal, describe_our_options
from duplus_nnunet.inference.dicom_input import open_dicom
from duplus_nnunet.inference.memory import return_freed_memory
from duplus_nnunet.inference.model_folder import describe_targets
from duplus_nnunet.inference.options import read_options
from duplus_nnunet.inference.output_lock import hold_output
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.remote_files import hide_credentials, is_url, require_storage

# nnU-Net's name for the class that its prediction commands make.
_PREDICTOR = "nnUNetPredictor"
_EXAMPLE = """\
examples, with dataset 4 of nnU-Net's documentation:
  nnUNetv2_predict -i nnUNet_raw/Dataset004_Hippocampus/imagesTs -o predicted -d 4 -c 3d_fullres -f 0 \\
      -tr DuPLUSTrainer -p DuPLUSPlans --targets "anterior hippocampus" --statistics --preview
  nnUNetv2_predict -d 4 -c 3d_fullres -tr DuPLUSTrainer -p DuPLUSPlans --list-targets

nnU-Net's own help:
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser that takes our options out of a command line of nnU-Net."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_our_options(parser)
    add_refusal(parser)
    return parser


def read_selection(options: argparse.Namespace) -> Selection:
    """Read the selection from options and environment variables; an option takes precedence over its variable."""
    return Selection(
        targets=_choose(options.targets, "DUPLUS_TARGETS", ","),
        context=options.context or os.environ.get("DUPLUS_CONTEXT") or None,
        prompts=_choose(options.prompt, "DUPLUS_PROMPT", ";"),
        encoder=options.encoder or os.environ.get("DUPLUS_ENCODER") or None,
        options=read_options(options),
        cluster=read_cluster(options),
    )


def _choose(typed: Sequence[str] | None, variable: str, separator: str) -> tuple[str, ...]:
    if typed is not None:
        return tuple(typed)
    parts = (part.strip() for part in os.environ.get(variable, "").split(separator))
    return tuple(part for part in parts if part)


def _find_value(arguments: Sequence[str], option: str, default: str | None = None) -> str | None:
    """Return the word after an option. argparse with `-d` alone would read `-device` as `-d evice`."""
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


def _check_output(arguments: Sequence[str]) -> None:
    """Stop before anything is loaded if the output folder is the images', in use, or cannot be written."""
    folder, images = _find_value(arguments, "-o"), _find_value(arguments, "-i")
    for url in filter(is_url, (folder, images)):
        require_storage(str(url))
    if folder is None:
        return
    if is_url(folder):
        if images is not None and images.rstrip("/") == folder.rstrip("/"):
            raise DataError(f"The output folder is the input folder, {hide_credentials(folder)}. Choose another one.")
        return
    if images is not None and Path(images).resolve() == Path(folder).resolve():
        raise DataError(f"The output folder is the input folder, {folder}. Choose another one with -o.")
    require_writable(Path(folder), "Choose another output folder with -o.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    numbers = _find_value(arguments, "-part_id", "0"), _find_value(arguments, "-num_parts", "1")
    if all(number is not None and number.isdecimal() for number in numbers):  # nnU-Net refuses others
        with hold_output(Path(folder), (int(numbers[0] or 0), int(numbers[1] or 1))):
            pass


def _take_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take our options out of a command line; the rest is nnU-Net's."""
    return make_parser().parse_known_args(list(arguments))


def wrap_entry_point(original: Callable[[], object]) -> Callable[[], object]:
    """Give one of nnU-Net's prediction commands our options."""

    @functools.wraps(original)
    def run() -> object:
        options, rest = _take_options(sys.argv[1:])
        if options.list_targets:
            sys.stdout.write(describe_targets(_find_model_folder(rest), options.adapters) + "\n")
            return None
        if {"-h", "--help"} & set(rest):
            sys.stdout.write(describe_our_options(_EXAMPLE))
            return original()
        before = sys.argv
        _check_output(rest)
        if options.jobs is not None and "-i" not in rest:
            rest = [*rest, "-i", os.path.dirname(os.path.abspath(options.jobs))]  # nnU-Net requires one
        selection = _open_source(read_selection(options), _find_value(rest, "-i"))
        return_freed_memory()
        with _stand_in(rest) as (words, urls):
            sys.argv = [before[0], *words]
            try:
                return _call_with_predictor(original, replace(selection, urls=urls), not options.refuse_stock)
            finally:
                sys.argv = before

    return run


@contextmanager
def _stand_in(arguments: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield a command line for nnU-Net with folders in the place of URLs, and the URL of each: it would create them."""
    words, urls = list(arguments), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="duplus_urls_") as folder:
        for option in ("-i", "-o"):
            value = _find_value(words, option)
            if is_url(value):
                words[words.index(option) + 1] = stand_in = os.path.join(folder, option.removeprefix("-"))
                urls[stand_in] = str(value)
        yield words, urls


def _open_source(selection: Selection, images: str | None) -> Selection:
    """Find the DICOM series among the images of a command, before a model is loaded."""
    if images is None or is_url(images) or selection.options.jobs is not None:
        return selection
    dicom = open_dicom(images, selection.options.series, selection.options.keep_ids)
    if dicom is None and (selection.options.series is not None or selection.options.keep_ids):
        raise DataError(f"--series and --keep-ids are of DICOM, and {images} holds none. Leave them out.")
    return replace(selection, dicom=dicom)


def _call_with_predictor(command: Callable[[], object], selection: Selection, takes_stock: bool) -> object:
    """Run one of nnU-Net's prediction commands with a predictor class that knows what was asked for.

    The command looks its predictor class up by name. A copy of it is run whose name for the class means one that holds
    the selection, so that neither nnU-Net's module nor another thread sees a change.

    Raises:
        HostError: The command did not use the class.
    """
    from duplus_nnunet.inference.host import make_predictor_class

    predictor = make_predictor_class(selection, takes_stock)
    names = {**command.__globals__, _PREDICTOR: predictor}
    copy = types.FunctionType(command.__code__, names, command.__name__)
    result = copy()
    if not predictor.was_used:
        raise HostError(f"nnU-Net's {command.__name__} made no {_PREDICTOR}, so that the selection was not used.")
    return result
