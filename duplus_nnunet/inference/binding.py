"""A model and what is asked of it: the prompts, labels and context of each case."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference.cleaning import Cleaning, read_cleaning, warn_of_unasked
from duplus_nnunet.inference.contexts import ContextChoice, read_contexts
from duplus_nnunet.inference.free_text import Reading, read_texts
from duplus_nnunet.inference.jobs import read_jobs
from duplus_nnunet.inference.model import LoadedModel
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.names import needs_partner


@dataclass(frozen=True)
class Question:
    """What is asked of images of one context.

    Attributes:
        context: Name of the context.
        names: Known targets, in the order of dataset.json.
        prompts: What the network is bound to; free-text targets stand at the end.
        groups: The same prompts, those apart that cannot be asked for in a mirror image: they do not change how the
            others are predicted.
        reading: What the user's own texts stand for.
        rivals: Other targets of the context, in the order of dataset.json.
        rival_prompts: Their prompts; None if there are none.
    """

    context: str
    names: tuple[str, ...]
    prompts: Prompts
    groups: tuple[Prompts, ...]
    reading: Reading
    rivals: tuple[str, ...] = ()
    rival_prompts: Prompts | None = None

    def forget_sides(self) -> "Question":
        """Return the question without prompts for mirror images."""
        rivals = self.rival_prompts and replace(self.rival_prompts, mirrored=None)
        groups = tuple(replace(group, mirrored=None) for group in self.groups)
        return replace(self, prompts=replace(self.prompts, mirrored=None), groups=groups, rival_prompts=rivals)


@dataclass(frozen=True)
class BoundModel:
    """A model and what is asked of it, in each context.

    Attributes:
        model: The model.
        choice: Context of each case.
        questions: What is asked, by context; never empty.
        options: How to predict, and what to write beside the label map.
        cleaning: What is removed from masks before they are written.
    """

    model: LoadedModel
    choice: ContextChoice
    questions: Mapping[str, Question]
    options: Options
    cleaning: Cleaning = field(default_factory=Cleaning)

    @property
    def first(self) -> Question:
        """The question about the first context."""
        return next(iter(self.questions.values()))

    def question_of(self, properties: Mapping[str, Any]) -> Question:
        """Return the question about a preprocessed case.

        Its prompts have no mirrored ones where the left-right axis of the image is not the training images'.

        Raises:
            DataError: The case was preprocessed for a context that nothing is asked in.
        """
        case = properties.get(PLANS_KEY, {})
        context = case.get("context") or self.first.context
        if context not in self.questions:
            raise DataError(
                f"The image was preprocessed for the context {context!r}; the model is asked in "
                f"{', '.join(map(repr, self.questions))}. Preprocess it for one of these."
            )
        question = self.questions[context]
        return question if case.get("sides_known", True) else question.forget_sides()

    def find_rivals(self, question: Question) -> Prompts | None:
        """Return the prompts of the rivals that voxels are to be settled against; None if there are none."""
        exclusive = self.model.dataset_json.get("regions_class_order") is None
        return question.rival_prompts if exclusive and question.names and self.options.rivals == "all" else None

    def count_before(self, question: Question) -> list[int]:
        """Count for each rival the asked targets that stand before it in dataset.json."""
        order = {name: index for index, name in enumerate(self.model.bank.names)}
        return [sum(order[name] < order[rival] for name in question.names) for rival in question.rivals]

    def configure(self, question: Question) -> ConfigurationManager:
        """Return nnU-Net's configuration with the target spacing and normalisation of a question's context."""
        from duplus_nnunet.planners.context_plans import configure

        return configure(self.model.configuration, self.model.bank.form, question.context)

    def context_sentence(self, question: Question) -> str:
        """Return the context prompt of a question."""
        return self.model.bank.contexts[question.context].sentences[0]

    def list_asked(self, question: Question) -> list[tuple[str, str]]:
        """List name and target prompt of everything a question asks for, in the order of its prompts."""
        known = zip(question.names, self.model.bank.choose(question.context, question.names)[1], strict=True)
        new = [(target.text, target.sentence) for target in question.reading.new]
        return [*((name, sentence) for name, (sentence, _) in known), *new]

    def declare(self, questions: Sequence[Question]) -> dict[str, Any]:
        """Return the dataset.json of a prediction, with the legend of its label values."""
        from duplus_nnunet.planners.label_manager import select_labels

        bank, new = self.model.bank, questions[0].reading.new
        asked = {name for question in questions for name in question.names}
        labels = [label for name, label in zip(bank.names, bank.labels, strict=True) if name in asked]
        declared = select_labels(self.model.dataset_json, labels, {target.text: target.value for target in new})
        contexts = {question.context: self.context_sentence(question) for question in questions}
        targets = {target.name: target.label for target in bank.targets if target.name in asked}
        declared[PLANS_KEY] = {**describe_legend(declared, contexts, questions[0].reading), "targets": targets}
        return declared

    def declare_all(self) -> dict[str, Any]:
        """Return the dataset.json of a prediction in all contexts."""
        return self.declare(list(self.questions.values()))

    def check_cases(self, cases: Sequence[str]) -> None:
        """Compare the table of contexts, if one was given, with the cases.

        Raises:
            DataError: It lacks some of them.
        """
        warning = self.choice.check_cases(cases)
        if warning:
            sys.stderr.write(f"warning: {warning}\n")


def bind(model: LoadedModel, selection: Selection) -> BoundModel:
    """Bind a model to what was asked for.

    Raises:
        PromptError: An unknown target or context, none where there are several, or a text that stands for nothing.
        EncoderError: A new text cannot be encoded by the model's own text encoder.
    """
    choice = _choose_contexts(model.bank, selection)
    contexts = [context for context in dict.fromkeys([choice.default, *choice.by_case.values()]) if context is not None]
    questions = {context: ask(model, _narrow(model.bank, selection, context, len(contexts)), context)
                 for context in contexts}  # fmt: skip
    for question in questions.values():
        for warning in list_implausible(model.bank, question.context, question.names):
            sys.stderr.write(f"warning: {warning}\n")
    return BoundModel(model, choice, questions, selection.options, _read_cleaning(model, questions, selection))


def _read_cleaning(model: LoadedModel, questions: Mapping[str, Question], selection: Selection) -> Cleaning:
    """Read which masks are cleaned, and warn of those that are not predicted.

    Raises:
        PromptError: The model does not have a target.
    """
    options, asked = selection.options, questions.values()
    texts = [target.text for question in asked for target in question.reading.new]
    if options.jobs is not None and (options.keep_largest or options.remove_small):
        # A text of another group of jobs may be named, too.
        texts += [text for job in read_jobs(options.jobs, model.dataset_json["file_ending"]) for text in job.prompts]
    cleaning = read_cleaning(options.keep_largest, options.remove_small, model.bank, texts)
    if options.jobs is None:  # each job asks for targets of its own
        warn_of_unasked(cleaning, [*texts, *(name for question in asked for name in question.names)])
    return cleaning


def list_implausible(bank: PromptBank, context: str, names: Iterable[str]) -> list[str]:
    """Describe, in a sentence each, the targets among some that images of a context cannot show."""
    planned = bank.contexts[context]
    return [
        f"{name}: not expected in images of {planned.region or context!r} (context {context!r}); a mask of it is "
        "likely to be false"
        for name in names
        if name in planned.implausible
    ]


def ask(model: LoadedModel, selection: Selection, context: str) -> Question:
    """Find out what a selection means in a context.

    Raises:
        PromptError: An unknown target, one that this context has no prompt for, or a text that stands for nothing.
        EncoderError: A new text cannot be encoded by the model's own text encoder.
    """
    bank = model.bank
    asked = _find_targets(bank, selection)
    reading = read_texts(bank, model.dataset_json["labels"], context, selection.prompts, selection.encoder)
    asked.update(reading.known.values())
    names = [name for name in bank.names if name in asked] if asked or reading.new else bank.names_in(context)
    rivals = tuple(name for name in bank.names_in(context) if name not in names)
    rival_prompts = bank.draw(context, rivals) if rivals else None
    if not reading.new:
        prompts = bank.draw(context, names)
        return Question(context, tuple(names), prompts, (prompts,), reading, rivals, rival_prompts)
    sided = [target for target in reading.new if needs_partner(target.name)]
    others = [target for target in reading.new if not needs_partner(target.name)]
    reading = replace(reading, new=(*others, *sided))
    prompts, groups = _compose(bank, context, names, reading), []
    if names or others:
        groups.append(_compose(bank, context, names, replace(reading, new=tuple(others))))
    if sided:
        groups.append(_compose(bank, context, [], replace(reading, new=tuple(sided))))
    return Question(context, tuple(names), prompts, tuple(groups), reading, rivals, rival_prompts)


def _compose(bank: PromptBank, context: str, names: Sequence[str], reading: Reading) -> Prompts:
    """Put the prompts of known targets and of new texts together."""
    new = [(target.sentence, target.name) for target in reading.new]
    sentence, pairs = bank.choose(context, names)
    adapters = bank.find_adapters(context, names, len(new))
    prompts = replace(reading.bank.compose(sentence, [*pairs, *new]), adapters=adapters)
    swapped = None if any(needs_partner(name) for _, name in new) else bank.swap_sides_in(context, names)
    if swapped is None:
        return prompts
    # A text of neither side asks for the same in a mirror image, and leaves the mirroring of the others unchanged.
    mirrored = reading.bank.compose(sentence, [*bank.choose(context, swapped)[1], *new])
    adapters = bank.find_adapters(context, swapped, len(new))
    return replace(prompts, mirrored=replace(mirrored, adapters=adapters))


def _find_targets(bank: PromptBank, selection: Selection) -> set[str]:
    try:
        return set(bank.find_targets(selection.targets))
    except PromptError as error:
        raise PromptError(f"{error} A structure that is none of these is asked for by --prompt.") from error


def _narrow(bank: PromptBank, selection: Selection, context: str, contexts: int) -> Selection:
    """Of several contexts, ask each for those targets only that it has a prompt for."""
    if contexts == 1 or not selection.targets:
        return selection
    prompts = bank.contexts[context].target_prompts
    targets = [name for name in _find_targets(bank, selection) if name in prompts]
    if not targets and not selection.prompts:
        raise PromptError(
            f"In the context {context!r} the model has none of the targets that were asked for "
            f"({', '.join(selection.targets)}). Predict its cases in a call of their own."
        )
    return replace(selection, targets=tuple(targets))


def _choose_contexts(bank: PromptBank, selection: Selection) -> ContextChoice:
    if isinstance(selection.context, ContextChoice):
        return selection.context
    if selection.context is None:
        return ContextChoice(bank.require_context(None), {})
    return read_contexts(selection.context, list(bank.contexts))


def describe_legend(declared: dict[str, Any], contexts: Mapping[str, str], reading: Reading) -> dict[str, Any]:
    """Describe what the label values of a prediction mean, for the dataset.json beside it.

    Args:
        declared: The prediction's dataset.json.
        contexts: Context prompt by context.
        reading: What the user's own texts stand for.
    """
    from duplus_nnunet.planners.label_manager import DuPLUSLabelManager, list_targets

    labels = declared["labels"]
    values = DuPLUSLabelManager(labels, declared.get("regions_class_order")).regions_class_order
    single = len(contexts) == 1
    return {
        **({"context": next(iter(contexts)), "context_prompt": next(iter(contexts.values()))} if single else {}),
        "contexts": dict(contexts),
        "legend": {str(value): label for value, label in zip(values, list_targets(labels), strict=True)},
        "not_seen_in_training": {
            target.text: {
                "value": target.value,
                "sentence": target.sentence,
                "name": target.name,
                "nearest": {name: round(cosine, 4) for name, cosine in target.nearest},
            }
            for target in reading.new
        },
    }
