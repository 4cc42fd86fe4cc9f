"""Reads a registry file, checks it as a whole, and reports every problem in it with its line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from duplus_nnunet.errors import RegistryError, list_nearest_first
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.names import find_partner, needs_partner, normalise, strip_dataset_number, swap_side
from duplus_nnunet.prompt_registry.schema import LONGEST_TEXT, FileForm, TargetForm, read_ids
from duplus_nnunet.prompt_registry.sentences import compose_prompt, fill_paraphrase
from duplus_nnunet.yaml_files import Keys, MarkedYaml, Problem, read_marked_yaml

NO_PARTNER = "none"


@dataclass(frozen=True)
class RegistryFile:
    """A registry file without problems.

    Attributes:
        path: Its path.
        form: Its content as in the file.
        marks: The lines of its parts.
        contexts: Contexts by name.
        default_context: Name of the default context.
        targets: Targets by name.
        labels: By the name of a target, the keys that it may have in the "labels" of dataset.json.
    """

    path: Path
    form: FileForm
    marks: MarkedYaml
    contexts: dict[str, Context]
    default_context: str
    targets: dict[str, Target]
    labels: dict[str, tuple[str, ...]]

    def serves(self, dataset_name: str) -> bool:
        """Whether the file declares a dataset of this name, ignoring the dataset's number."""
        names = (self.form.dataset, *self.form.datasets)
        return normalise(strip_dataset_number(dataset_name)) in {
            normalise(strip_dataset_number(name)) for name in names
        }

    def at(self, *keys: str | int) -> str:
        """Return `file:line` of a part of the file."""
        return f"{self.marks.file}:{self.marks.line_of(keys)}"


def load_registry_file(path: str | Path) -> RegistryFile:
    """Read a registry file.

    Raises:
        RegistryError: The file has problems; the message lists all of them, one on each line.
    """
    file, problems = check_registry_file(path)
    if file is None:
        raise RegistryError("\n".join(str(problem) for problem in problems))
    return file


def file_entry(file: RegistryFile) -> Entry:
    """Build the entry of a file for a dataset with all of its targets."""
    targets = tuple(file.targets.values())
    return Entry(file.form.dataset, file.contexts, file.default_context, targets, str(file.path), file.form.source)


def check_registry_file(path: str | Path) -> tuple[RegistryFile | None, tuple[Problem, ...]]:
    """Read a registry file and return all its problems; the file is None if there are any."""
    marks = read_marked_yaml(Path(path))
    problems = list(marks.problems)
    form = _read_form(marks, problems) if marks.lines or not problems else None
    if form is not None:
        problems += _check_names(form, marks)
        problems += _check_context_names(form, marks)
        problems += _check_paraphrases(form, marks)
        problems += _check_partners(form, marks)
        problems += _check_unannotated(form, marks)
        problems += _check_default(form, marks)
    if form is None or problems:
        return None, tuple(sorted(problems, key=lambda problem: problem.line))
    return _build(Path(path), form, marks), ()


def _read_form(marks: MarkedYaml, problems: list[Problem]) -> FileForm | None:
    if not isinstance(marks.data, dict):
        kind = "nothing" if marks.data is None else f"a {type(marks.data).__name__}"
        message = f"Expected a mapping with the keys dataset, contexts and targets, found {kind}."
        problems.append(Problem(marks.file, 1, f"{message} `duplus prompts draft` writes one."))
        return None
    try:
        return FileForm.model_validate(marks.data)
    except ValidationError as error:
        problems += [
            _translate(marks, tuple(item["loc"]), item["type"], item["msg"], item["input"]) for item in error.errors()
        ]
        return None


def _translate(marks: MarkedYaml, loc: Keys, kind: str, text: str, value: object) -> Problem:
    keys = tuple(str(key) if isinstance(key, bool) else key for key in loc if key != "[key]")
    path = " -> ".join(str(key) for key in keys) or "the file"
    if kind == "extra_forbidden":
        known = _known_keys(keys)
        listed = ", ".join(list_nearest_first(str(keys[-1]), known))
        message = f"Unknown key {str(keys[-1])!r}. Did you mean one of: {listed}?"
    elif kind == "missing":
        message = f"The key {str(keys[-1])!r} is missing. Add it."
    elif kind == "string_too_long":
        message = f"{path} has {len(str(value))} characters, longer than text encoders read. {text}; shorten it."
    elif kind == "string_type":
        message = (
            f"{path}: expected a text, found {value!r} ({type(value).__name__}). If it is a text, put it in quotes."
        )
    else:
        message = f"{path}: {text.removeprefix('Value error, ')}; found {value!r}."
    return Problem(marks.file, marks.line_of(keys), message)


def _known_keys(keys: Keys) -> tuple[str, ...]:
    if len(keys) == 1:
        return tuple(FileForm.model_fields)
    contexts = FileForm.model_fields["contexts"].annotation
    context_form = contexts.__args__[1] if contexts is not None and keys[0] == "contexts" else TargetForm
    return tuple(context_form.model_fields)


def _words_of(name: str, target: TargetForm | None) -> Iterator[tuple[str, Keys, bool]]:
    """Yield every name, synonym and label of a target, its keys in the file, and whether it is a label."""
    yield name, ("targets", name), False
    for index, word in enumerate(target.synonyms if target else ()):
        yield word, ("targets", name, "synonyms", index), False
    for index, word in enumerate(target.labels if target else ()):
        yield word, ("targets", name, "labels", index), True


def _check_names(form: FileForm, marks: MarkedYaml) -> list[Problem]:
    """Find names, synonyms and labels that two targets share, and synonyms that repeat a target's own name."""
    owners: dict[str, tuple[str, int]] = {}
    problems = []
    for name, target in form.targets.items():
        for word, keys, is_label in _words_of(name, target):
            line = marks.line_of(keys)
            if normalise(word) not in owners:
                owners[normalise(word)] = name, line
                continue
            owner, first = owners[normalise(word)]
            if owner != name or not is_label:
                message = f"{word!r} of {name!r} is already used by {owner!r} in line {first}."
                problems.append(Problem(marks.file, line, f"{message} Remove or rename one of the two."))
    return problems


def _check_context_names(form: FileForm, marks: MarkedYaml) -> list[Problem]:
    """Find contexts whose names are equal but for case and separators."""
    first: dict[str, str] = {}
    problems = []
    for name in form.contexts:
        other = first.setdefault(normalise(name), name)
        if other != name:
            line, before = marks.line_of(("contexts", name)), marks.line_of(("contexts", other))
            message = f"The context {name!r} differs from {other!r} in line {before} only in case or separators."
            problems.append(Problem(marks.file, line, f"{message} Remove or rename one of the two."))
    return problems


def _check_paraphrases(form: FileForm, marks: MarkedYaml) -> list[Problem]:
    """Find paraphrases that two targets share, and those too long with modality and region filled in."""
    owners: dict[str, tuple[str, int]] = {}
    problems = []
    for name, index, text in _list_paraphrases(form):
        line = marks.line_of(("targets", name, "paraphrases", index))
        owner, first = owners.setdefault(normalise(text), (name, line))
        if owner != name:
            message = f"The paraphrase {text!r} of {name!r} is also that of {owner!r} in line {first}."
            problems.append(Problem(marks.file, line, f"{message} Reword one of the two."))
        longest = max(len(fill_paraphrase(text, c.modality, c.region)) for c in form.contexts.values())
        if longest > LONGEST_TEXT:
            message = f"The paraphrase {text[:40]!r}... of {name!r} has {longest} characters with modality and region"
            problems.append(
                Problem(
                    marks.file, line, f"{message}, more than the {LONGEST_TEXT} that text encoders read. Shorten it."
                )
            )
    return problems


def _list_paraphrases(form: FileForm) -> Iterator[tuple[str, int, str]]:
    for name, target in form.targets.items():
        for index, text in enumerate(target.paraphrases if target else ()):
            yield name, index, text


def _check_partners(form: FileForm, marks: MarkedYaml) -> list[Problem]:
    problems = []
    for name, target in form.targets.items():
        partner = target.partner if target else None
        line = marks.line_of(("targets", name, "partner"))
        if _declares_none(target):
            continue
        if partner is None:
            if needs_partner(name) and find_partner(name, form.targets) is None:
                message = (
                    f"{name!r} has no {swap_side(name)!r}. Add that target, or write `partner: none` "
                    "if a mirror image keeps the name."
                )
                problems.append(Problem(marks.file, line, message))
        elif _find(partner, form) is None:
            listed = ", ".join(repr(other) for other in list_nearest_first(partner, form.targets))
            problems.append(
                Problem(marks.file, line, f"Partner {partner!r} of {name!r} is not a target. Targets: {listed}.")
            )
        elif _partner_of(str(_find(partner, form)), form) != name:
            message = (
                f"{name!r} names {partner!r} as its partner, but not the reverse. Give {partner!r} `partner: {name}`."
            )
            problems.append(Problem(marks.file, line, message))
    return problems


def _check_unannotated(form: FileForm, marks: MarkedYaml) -> list[Problem]:
    """Find names under `not_annotated` that are no targets."""
    problems = []
    for name, context in form.contexts.items():
        for index, target in enumerate(context.not_annotated):
            if _find(target, form) is None:
                listed = ", ".join(repr(other) for other in list_nearest_first(target, form.targets)[:5])
                message = f"{target!r} under not_annotated of {name!r} is not a target. Targets: {listed}."
                line = marks.line_of(("contexts", name, "not_annotated", index))
                problems.append(Problem(marks.file, line, message))
    return problems


def _match_all(names: list[str], form: FileForm) -> Iterator[str]:
    """Yield the targets of some names as the file spells them."""
    for name in names:
        yield _find(name, form) or name


def _check_default(form: FileForm, marks: MarkedYaml) -> list[Problem]:
    if form.default_context is None or form.default_context in form.contexts:
        return []
    listed = ", ".join(repr(name) for name in list_nearest_first(form.default_context, form.contexts))
    message = f"default_context {form.default_context!r} is not a context of this file. Contexts: {listed}."
    return [Problem(marks.file, marks.line_of(("default_context",)), message)]


def _declares_none(target: TargetForm | None) -> bool:
    if target is None or "partner" not in target.model_fields_set:
        return False
    return target.partner is None or normalise(target.partner) == NO_PARTNER


def _find(name: str, form: FileForm) -> str | None:
    return next((other for other in form.targets if normalise(other) == normalise(name)), None)


def _partner_of(name: str, form: FileForm) -> str | None:
    target = form.targets[name]
    if _declares_none(target):
        return None
    if target is not None and target.partner is not None:
        return _find(target.partner, form)
    return find_partner(name, form.targets)


def _build(path: Path, form: FileForm, marks: MarkedYaml) -> RegistryFile:
    contexts = {
        name: Context(
            name=name,
            modality=context.modality,
            region=context.region,
            prompt=context.prompt or compose_prompt(context.modality, context.region),
            paraphrases=tuple(context.paraphrases),
            channel=context.channel,
            cases=tuple(context.cases),
            ids=tuple(map(read_ids, context.ids)),
            not_annotated=tuple(_match_all(context.not_annotated, form)),
            regions=tuple(context.regions),
        )
        for name, context in form.contexts.items()
    }
    targets = {name: _build_target(name, form) for name in form.targets}
    labels = {name: (name, *(word for word, _, _ in _words_of(name, target))) for name, target in form.targets.items()}
    default = form.default_context or next(iter(contexts))
    return RegistryFile(path, form, marks, contexts, default, targets, labels)


def _build_target(name: str, form: FileForm) -> Target:
    target = form.targets[name] or TargetForm()
    return Target(
        label=target.labels[0] if target.labels else name,
        name=name,
        synonyms=tuple(target.synonyms),
        partner=_partner_of(name, form),
        missing=target.missing or form.missing,
        paraphrases=tuple(target.paraphrases),
        regions=tuple(target.regions),
        tolerance_mm=target.tolerance_mm,
    )
