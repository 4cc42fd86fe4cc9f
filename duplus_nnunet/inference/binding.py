"""A loaded predictor bound to what was asked for, and to each case's own context from the moment the case is there."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from duplus_nnunet.errors import PromptError
from duplus_nnunet.inference.contexts import ContextChoice, read_contexts
from duplus_nnunet.inference.free_text import Reading, read_texts
from duplus_nnunet.inference.legend import describe_legend
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.names import needs_partner
from duplus_nnunet.settings import PLANS_KEY


@dataclass(frozen=True)
class Question:
    """What is asked of images of one context.

    Attributes:
        context: The context.
        names: Known targets, in the order of dataset.json.
        prompts: What the network is bound to; those of the user's own texts stand at the end.
        reading: What the user's own texts stand for.
    """

    context: str
    names: tuple[str, ...]
    prompts: Prompts
    reading: Reading


def ask(plans: Mapping[str, Any], labels: Mapping[str, Any], selection: Selection, context: str) -> Question:
    """Find out what a selection means in a context.

    Raises:
        PromptError: An unknown target, one that this context has no prompt for, or a text that stands for nothing.
        EncoderError: A new text cannot be encoded by the model's own text encoder.
    """
    bank = PromptBank(plans)
    asked = _find_targets(bank, selection)
    reading = read_texts(plans, labels, context, selection.prompts, selection.encoder)
    asked.update(reading.known.values())
    names = [name for name in bank.names if name in asked] if asked or reading.new else bank.names_in(context)
    if not reading.new:
        return Question(context, tuple(names), bank.draw(context, names), reading)
    new = [(target.sentence, target.name) for target in reading.new]
    wider = PromptBank(reading.plans)
    t1, pairs = bank.choose(context, names)
    adapters = bank.find_adapters(context, names, len(new))
    prompts = replace(wider.compose(t1, [*pairs, *new]), adapters=adapters)
    swapped = None if any(needs_partner(name) for _, name in new) else bank.swap_sides(names)
    if swapped is not None and set(swapped) <= bank.contexts[context]["target_prompts"].keys():
        # A text of neither side asks for the same in a mirror image, and leaves the others' mirroring as it is.
        mirrored = wider.compose(t1, [*bank.choose(context, swapped)[1], *new])
        adapters = bank.find_adapters(context, swapped, len(new))
        prompts = replace(prompts, mirrored=replace(mirrored, adapters=adapters))
    return Question(context, tuple(names), prompts, reading)


def _find_targets(bank: PromptBank, selection: Selection) -> set[str]:
    try:
        return set(bank.find_targets(selection.targets))
    except PromptError as error:
        raise PromptError(f"{error} What is none of these is asked for by --prompt.") from error


class Binding:
    """Binds a predictor to one context after another.

    Args:
        predictor: nnU-Net's predictor with a loaded DuPLUS model; it is given a copy of the plans that says which
            case is of which context, for the workers that preprocess.
        selection: What the user asked for.

    Raises:
        PromptError: No context was named and there are several, or what `ask` raises.
    """

    def __init__(self, predictor: Any, selection: Selection) -> None:
        plans = predictor.plans_manager.plans
        self.bank = PromptBank(plans)
        self.choice = _choose(self.bank, selection)
        used = [self.choice.default, *self.choice.by_case.values()]
        self._dataset_json = predictor.dataset_json
        self._configuration = predictor.configuration_manager
        self.questions = {
            context: ask(plans, self._dataset_json["labels"], self._narrow(selection, context, len(set(used))), context)
            for context in dict.fromkeys(used)
            if context is not None
        }
        self._current = ""
        choice = {"default": self.choice.default, "by_case": dict(self.choice.by_case)}
        section = {**plans[PLANS_KEY], "context_choice": choice}
        predictor.plans_manager = type(predictor.plans_manager)({**plans, PLANS_KEY: section})

    def _narrow(self, selection: Selection, context: str, contexts: int) -> Selection:
        """Of several contexts, ask each for those targets only that it has a prompt for."""
        if contexts == 1 or not selection.targets:
            return selection
        there = self.bank.contexts[context]["target_prompts"]
        found = [name for name in _find_targets(self.bank, selection) if name in there]
        if not found and not selection.prompts:
            raise PromptError(
                f"In the context {context!r} the model has none of the targets that were asked for "
                f"({', '.join(selection.targets)}). Predict its cases in a call of their own."
            )
        return replace(selection, targets=tuple(found))

    @property
    def configuration(self) -> Any:
        """nnU-Net's configuration manager as it was loaded, of no context."""
        return self._configuration

    def release(self, predictor: Any) -> None:
        """Give a predictor back what it was loaded with, so that another binding can be made."""
        predictor.dataset_json, predictor.configuration_manager = self._dataset_json, self._configuration

    @property
    def current(self) -> Question:
        """The question that the predictor is bound to."""
        return self.questions[self._current] if self._current else self.first

    def context_sentence(self, question: Question) -> str:
        """Return the sentence (T1) of a question's context."""
        sentence: str = self.bank.contexts[question.context]["sentences"][0]
        return sentence

    def list_asked(self, question: Question) -> list[tuple[str, str]]:
        """List name and sentence (T2) of everything a question asks for, in the order of its prompts."""
        known = zip(question.names, self.bank.choose(question.context, question.names)[1], strict=True)
        new = [(target.text, target.sentence) for target in question.reading.new]
        return [*((name, sentence) for name, (sentence, _) in known), *new]

    @property
    def first(self) -> Question:
        """The question about the first context."""
        return next(iter(self.questions.values()))

    def check_cases(self, images: list[str], names: list[str] | None = None) -> None:
        """Compare the table of contexts, if one was given, with the cases.

        Args:
            images: Their first channels.
            names: Their names; None are those of the images.

        Raises:
            DataError: It lacks some of them.
        """
        from duplus_nnunet.planners.preprocessor import read_identifier

        ending = self._dataset_json["file_ending"]
        warning = self.choice.check_cases(names or [read_identifier(image, ending) for image in images])
        if warning:
            sys.stderr.write(f"warning: {warning}\n")

    def bind(self, predictor: Any, context: str | None = None, mirror_sides: bool = True) -> None:
        """Bind a predictor to a context: its prompts, target spacing, labels and normalisation.

        Args:
            predictor: nnU-Net's predictor.
            context: None is the first one.
            mirror_sides: Whether images may be mirrored from left to right.
        """
        from duplus_nnunet.planners.context_plans import configure

        question = self.questions[context] if context else self.first
        prompts = question.prompts if mirror_sides else replace(question.prompts, mirrored=None)
        getattr(predictor.network, "_orig_mod", predictor.network).bind(prompts)
        if question.context == self._current:
            return
        self._current = question.context
        plans = predictor.plans_manager.plans
        predictor.configuration_manager = configure(self._configuration, plans, question.context)
        predictor.dataset_json = self.declare([question])
        predictor.label_manager = predictor.plans_manager.get_label_manager(predictor.dataset_json)

    def bind_all(self, predictor: Any) -> None:
        """Bind a predictor to its first context, and its dataset.json to what any of them is asked for."""
        self.bind(predictor)
        predictor.dataset_json = self.declare(list(self.questions.values()))
        self._current = ""

    def declare(self, questions: list[Question]) -> dict[str, Any]:
        """Return the dataset.json of a prediction, with the legend of its label values."""
        from duplus_nnunet.planners.label_manager import select_labels

        asked = {name for question in questions for name in question.names}
        labels = [label for name, label in zip(self.bank.names, self.bank.labels, strict=True) if name in asked]
        declared = select_labels(
            self._dataset_json, labels, {target.text: target.value for target in questions[0].reading.new}
        )
        contexts = {question.context: self.bank.contexts[question.context]["sentences"][0] for question in questions}
        meant = {target["name"]: target["label"] for target in self.bank.targets if target["name"] in asked}
        declared[PLANS_KEY] = {**describe_legend(declared, contexts, questions[0].reading), "targets": meant}
        return declared

    def bind_case(self, predictor: Any, properties: Mapping[str, Any]) -> None:
        """Bind a predictor to the context of a preprocessed case."""
        found = properties.get(PLANS_KEY, {})
        self.bind(predictor, found.get("context"), found.get("sides_known", True))


def _choose(bank: PromptBank, selection: Selection) -> ContextChoice:
    if isinstance(selection.context, ContextChoice):
        return selection.context
    if selection.context is None:
        return ContextChoice(bank.require_context(None), {})
    return read_contexts(selection.context, list(bank.contexts))


def apply_selection(predictor: Any, selection: Selection) -> Reading:
    """Bind a loaded predictor to what was asked for; everything it allots is sized by that.

    Returns:
        What the user's own texts stand for.

    Raises:
        PromptError: An unknown target or context, none where there are several, or a text that stands for nothing.
        EncoderError: A new text cannot be encoded by the model's own text encoder.
    """
    binding = Binding(predictor, selection)
    predictor.duplus_binding = binding
    binding.bind_all(predictor)
    return binding.first.reading
