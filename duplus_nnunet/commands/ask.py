"""`duplus ask`: opens an image and answers questions about it, from a terminal or a pipe."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duplus_nnunet.inference.conversation import Conversation

_DESCRIPTION = """\
Open an image once, and ask for one target after another: each answer costs the target's head alone, not another pass of
the network. Type `help` for the words that are understood. Questions may also come from a pipe, one a line; then the
exit code is 1 if one of them could not be answered.

Without mirror images, which nnUNetv2_predict adds for a model that was trained with them, unless --disable_tta is
given; see --mirror.
"""
_EPILOG = """\
examples, with the model and the images of `duplus example -o example`:
  duplus ask -m example/model -i example/images/ct_0000.nii.gz --context phantom_ct
  printf 'liver\\nsave\\nleft kidney\\nvolumes\\n' | \\
      duplus ask -m example/model -i example/images/ct_0000.nii.gz --context phantom_ct -o answers
"""
_PROMPT = "> "


def add_parser(subparsers: Any) -> None:
    """Register the sub-command."""
    parser = subparsers.add_parser(
        "ask", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("-m", "--model", metavar="FOLDER", required=True, help="model folder, with fold_0 and so on")
    add(
        "-i", "--image", metavar="FILE", nargs="+", required=True,
        help="image, one file a channel; or a folder or zip file of a DICOM series",
    )  # fmt: skip
    add("-o", "--output", metavar="FOLDER", default=".", help="where `save` and `show` write (default: here)")
    add("-f", "--folds", metavar="FOLD", nargs="+", help="folds to average (default: all trained folds)")
    add("--context", metavar="NAME", help="context of the image; not needed if the model has only one")
    add("--series", metavar="WHICH", help="of several DICOM series, which one; see `duplus dicom list`")
    add("--adapters", metavar="FOLDER", nargs="+", default=[], help="adapters of the model")
    mirror_help = "predict mirror images, too, if the model was trained with them: up to eight times as long, once"
    add("--mirror", action="store_true", help=mirror_help)
    add(
        "--memory", metavar="AMOUNT", default="2GB",
        help="for what is kept of the image; beyond it, a temporary file is used (default: %(default)s)",
    )  # fmt: skip
    add("-device", choices=("cpu", "cuda", "mps"), help="device (default: cuda if available, else cpu)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the image and answer lines until they end."""
    from duplus_nnunet.inference.conversation import AskSettings, Conversation, list_image_files
    from duplus_nnunet.inference.options import Options
    from duplus_nnunet.inference.predictor import DuPLUSPredictor

    options = Options(adapters=tuple(args.adapters))
    # nnU-Net's predictor prints a remark on every CPU; the standard output is for answers.
    with redirect_stdout(sys.stderr):
        predictor = DuPLUSPredictor.from_folder(args.model, args.folds, device=args.device, options=options)
    with _show_progress() as progress:
        settings = AskSettings(args.context, Path(args.output), args.mirror, args.memory, args.series, progress)
        conversation = Conversation(predictor, list_image_files(args.image), settings)
    try:
        return _talk(conversation)
    finally:
        conversation.close()


def _talk(conversation: "Conversation") -> int:
    from duplus_nnunet.errors import DuplusError

    is_terminal = sys.stdin.isatty()
    if is_terminal:
        _complete_lines(conversation)
        sys.stdout.write(f"{conversation.describe()}. Type a target, or help.\n")
    failed = False
    for line in _read_lines(is_terminal):
        try:
            reply = conversation.reply(line)
        except DuplusError as error:
            failed = True
            sys.stderr.write(f"{error}\n")
            continue
        if reply:
            sys.stdout.write(f"{reply}\n")
            sys.stdout.flush()
        if conversation.is_over:
            break
    return int(failed and not is_terminal)


def _read_lines(is_terminal: bool) -> Iterator[str]:
    if not is_terminal:
        yield from sys.stdin
        return
    # The end of the input ends the conversation, too.
    with suppress(EOFError):
        while True:
            yield input(_PROMPT)


def _complete_lines(conversation: "Conversation") -> None:
    """Let the tab key complete lines, where Python was built with readline."""
    try:
        import readline
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        found = conversation.complete(text)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims("\n")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")


@contextmanager
def _show_progress() -> Iterator[Callable[[int, int], object]]:
    """Yield a function that shows how far the network is, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    from tqdm import tqdm

    with tqdm(desc="looking at the image", unit="window", file=sys.stderr) as bar:

        def show(done: int, windows: int) -> None:
            bar.total = windows
            bar.n = done + 1
            bar.refresh()

        yield show
