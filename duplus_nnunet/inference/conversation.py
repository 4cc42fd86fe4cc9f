"""Questions about one opened image, typed line by line: the words of `duplus ask`."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError, PromptError, describe_unknown
from duplus_nnunet.files import open_new_file
from duplus_nnunet.inference.prediction import Prediction
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.inference.scan import Scan
from duplus_nnunet.outputs.answer import TargetAnswer
from duplus_nnunet.outputs.naming import name_files
from duplus_nnunet.text_table import format_table

HELP = """\
NAME                  segment a target, such as: left kidney
text SENTENCE         segment a structure by any other text; or put the text into quotation marks
targets               list the targets of the context
volumes               list what was asked so far
show [NAME]           write a picture of the last answer, or of a target, into the output folder
save [NAME|all]       write the mask of the last answer, of a target, or of all that was asked, as NIfTI
context [NAME]        list the contexts, or look at the image again in another one
help                  show this list
quit                  end; so does the end of the input
"""
_QUOTED = re.compile(r"""^(["'])(.+)\1$""")


@dataclass(frozen=True)
class AskSettings:
    """How an image is opened.

    Attributes:
        context: Name of the first context; None: the only one, or that of the DICOM headers.
        output: Folder of masks and pictures.
        mirror: Whether mirror images are predicted, too.
        memory: For what is kept; see `DuPLUSPredictor.open`.
        series: Which DICOM series.
        progress: Called while the network looks at the image.
    """

    context: str | None = None
    output: Path = Path()
    mirror: bool = False
    memory: str = "2GB"
    series: str | None = None
    progress: Callable[[int, int], object] | None = None


class Conversation:
    """An opened image, and what was asked about it.

    Args:
        predictor: The model.
        image: A file, a list of one per channel, or a folder or zip file of a DICOM series.
        settings: How it is opened.

    Attributes:
        is_over: Whether the user asked to end.

    Raises:
        DataError: The image cannot be read.
        PromptError: The model does not know the context, or has several and none was named.
    """

    def __init__(self, predictor: DuPLUSPredictor, image: Any, settings: AskSettings) -> None:
        self._predictor, self._image, self._settings = predictor, image, settings
        self._asked: dict[str, tuple[str | None, str | None]] = {}
        self.is_over = False
        self._scan = self._open(settings.context)
        self._commands: dict[str, Callable[[str], str]] = {
            "text": lambda words: self._ask(None, _unquote(words)),
            "targets": self._list_targets,
            "volumes": self._list_volumes,
            "show": self._show,
            "save": self._save,
            "context": self._change_context,
            "help": lambda _: HELP.rstrip(),
            "quit": self._end,
            "exit": self._end,
        }

    @property
    def scan(self) -> Scan:
        """The opened image."""
        return self._scan

    def reply(self, line: str) -> str:
        """Answer one line; an empty one is answered by nothing.

        Raises:
            DuplusError: The line cannot be answered; the conversation goes on.
        """
        line = line.strip()
        if not line:
            return ""
        if _QUOTED.match(line):
            return self._ask(None, _unquote(line))
        word, _, rest = line.partition(" ")
        # A target whose name begins with a command's word is asked for all the same.
        if word.lower() in self._commands and line not in self._scan.targets:
            return self._commands[word.lower()](rest.strip())
        return self._ask(line, None)

    def complete(self, typed: str) -> list[str]:
        """List what a line that was begun may become."""
        words = [*self._scan.targets, *self._commands]
        contexts = [f"context {name}" for name in self._predictor.contexts]
        named = [f"{command} {name}" for command in ("show", "save") for name in self._asked]
        return sorted(word for word in [*words, *contexts, *named] if word.lower().startswith(typed.lower()))

    def describe(self) -> str:
        """Say what was opened."""
        targets = len(self._scan.targets)
        return f"context {self._scan.context}: {targets} target{'' if targets == 1 else 's'}"

    def close(self) -> None:
        """Close the image."""
        self._scan.close()

    def _open(self, context: str | None) -> Scan:
        own = self._settings
        return self._predictor.open(
            self._image, context, memory=own.memory, mirror=own.mirror, series=own.series, progress=own.progress
        )

    def _ask(self, target: str | None, prompt: str | None) -> str:
        started = time.perf_counter()
        try:
            answer = self._scan.ask(target, prompt)
        except PromptError as error:
            if target is None or any(target in names for names in self._predictor.contexts.values()):
                raise
            known = describe_unknown("target", target, self._scan.targets)
            raise PromptError(f"{known} For a structure that is none of these, type: text {target}") from error
        seconds = time.perf_counter() - started
        (found,) = answer.answer.targets
        self._asked.pop(found.name, None)
        self._asked[found.name] = (target, prompt)
        return f"{_describe(found, answer)}, {seconds:.2f} s"

    def _list_targets(self, _: str) -> str:
        return "\n".join(self._scan.targets)

    def _list_volumes(self, _: str) -> str:
        rows = []
        for name, question in self._asked.items():
            answer = self._scan.ask(*question)
            presence = answer.presence[name]
            rows.append([name, f"{answer.volumes[name]:.2f}", "" if presence is None else f"{presence:.0%}"])
        if not rows:
            return "Nothing was asked yet."
        return "\n".join(format_table([("target", "volume (ml)", "present"), *rows], align="<>>"))

    def _show(self, words: str) -> str:
        (question,) = self._choose(words)
        picture = self._scan.preview(question[0], prompt=question[1])
        (name,) = name_files([next(reversed(self._asked))])
        return str(picture.save(self._settings.output / f"{name}.png"))

    def _save(self, words: str) -> str:
        questions = list(self._asked.values()) if words.lower() == "all" and self._asked else self._choose(words)
        answers = [self._scan.ask(*question) for question in questions]
        found = [(answer, target) for answer in answers for target in answer.answer.targets]
        names = name_files([target.file_title for _, target in found])
        return "\n".join(
            str(write_mask(answer, target.name, self._settings.output / f"{name}.nii.gz"))
            for (answer, target), name in zip(found, names, strict=True)
        )

    def _choose(self, words: str) -> list[tuple[str | None, str | None]]:
        """Return the question that some words name; without words, the last one.

        Raises:
            DataError: Nothing was asked yet.
        """
        if words:
            if words not in self._asked:
                self._ask(None, _unquote(words)) if _QUOTED.match(words) else self._ask(words, None)
            else:
                self._asked[words] = self._asked.pop(words)
        elif not self._asked:
            raise DataError("Nothing was asked yet. Type the name of a target first.")
        return [self._asked[next(reversed(self._asked))]]

    def _change_context(self, words: str) -> str:
        contexts = self._predictor.contexts
        if not words:
            return "\n".join(f"{'*' if name == self._scan.context else ' '} {name}" for name in contexts)
        if words not in contexts:
            raise PromptError(describe_unknown("context", words, contexts))
        if words != self._scan.context:
            opened = self._open(words)
            self._scan.close()
            self._scan = opened
            self._asked.clear()
        return self.describe()

    def _end(self, _: str) -> str:
        self.is_over = True
        return ""


def list_image_files(given: Sequence[str]) -> Any:
    """Return the images of a command line as `DuPLUSPredictor.open` takes them."""
    return given[0] if len(given) == 1 else list(given)


def _unquote(words: str) -> str:
    match = _QUOTED.match(words)
    text = match[2] if match else words
    if not text.strip():
        raise PromptError("A text is missing, such as: text A computed tomography of the renal pelvis")
    return text


def _describe(target: TargetAnswer, answer: Prediction) -> str:
    parts = list(_list_parts(target, answer))
    return f"{target.name}: {', '.join(parts)}"


def _list_parts(target: TargetAnswer, answer: Prediction) -> Iterator[str]:
    volume = answer.volumes[target.name]
    yield f"{volume:.2f} ml" if target.mask.any() else "not found"
    if target.presence is not None:
        yield f"present {target.presence:.0%}"
    if not target.seen:
        yield "not seen in training"


def write_mask(answer: Prediction, name: str, file: Path) -> Path:
    """Write the mask of a target as NIfTI, on the image's grid, and return the file's path."""
    import SimpleITK

    file.parent.mkdir(parents=True, exist_ok=True)
    with open_new_file(file) as new:
        SimpleITK.WriteImage(answer.to_sitk(name), os.fspath(new))
    return file
