"""The help of `duplus` and of its groups of sub-commands: each in one group, with a summary, an example and options."""

import argparse
import re
import shlex
from collections import Counter

import pytest

from duplus_nnunet import cli
from duplus_nnunet.command_map import CommandMap, Group, describe_groups, list_commands
from duplus_nnunet.commands import adapt, prompts, submit
from duplus_nnunet.demo.workspace import Workspace
from duplus_nnunet.survival.command import main as survival

MAPS = {
    "": cli.GROUPS,
    "prompts": prompts.GROUPS,
    "adapt": adapt.GROUPS,
    "submit": submit.GROUPS,
    "survival": survival.GROUPS,
}
# Words of sub-commands: ("prompts",), ("prompts", "draft") and so on.
WORDS = [
    (name, *rest) for name in cli.COMMANDS for rest in [(), *((sub,) for sub in list_commands(MAPS.get(name, ())))]
]
# Words that mean the prompts, but MR weightings to a radiologist.
WEIGHTINGS = re.compile(r"\bT[12]\b")


def find_parser(words):
    """Return the parser of a sub-command."""
    parser = cli.build_parser(words[0])
    for word in words:
        (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        parser = subparsers.choices[word]
    return parser


def list_examples(text):
    """List the command lines of `duplus` in a help text, each as its words; remarks stand behind several spaces."""
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    lines = [re.split(r" {3,}| [|>] ", line)[0] for line in lines]
    return [shlex.split(line) for line in lines if line.startswith("duplus ")]


@pytest.mark.parametrize("name", MAPS)
def test_a_sub_command_is_in_one_group_and_is_built(name):
    groups = MAPS[name]
    counts = Counter(command for group in groups for command in group.commands)
    assert set(counts.values()) == {1}
    parser = find_parser((name,)) if name else cli.build_parser("")
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert set(subparsers.choices) == set(counts)


@pytest.mark.parametrize("name", MAPS)
def test_help_is_a_map_with_one_line_for_each_sub_command(name):
    shown = (find_parser((name,)) if name else cli.build_parser("")).format_help().splitlines()
    for group in MAPS[name]:
        assert group.title in shown
        for command, summary in group.commands.items():
            assert sum(line.split() == [command, *summary.split()] for line in shown) == 1
        assert {f"  {words}" for words in group.host} <= set(shown)
    assert max(map(len, shown)) <= 120


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_help_of_a_sub_command_has_an_example_that_its_parser_takes(words):
    text = find_parser(words).format_help()
    found = list_examples(text.partition("\nexample")[2])
    assert ["duplus", *words] in [line[: len(words) + 1] for line in found]
    for _, *line in found:
        parser = cli.build_parser(line[0])
        assert callable(cli.read_arguments(parser, line).run)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_help_of_a_sub_command_explains_every_option(words):
    unexplained = [action.dest for action in find_parser(words)._actions if not action.help]
    assert not unexplained


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_help_speaks_of_prompts_without_the_names_of_mr_weightings(words):
    assert not WEIGHTINGS.findall(find_parser(words).format_help())


def test_an_option_that_no_command_knows_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--jason"])
    assert ended.value.code == 2
    assert "--jason" in capsys.readouterr().err


def test_predict_hands_its_words_on_unchanged():
    words = ["predict", "-i", "images", "-unknown", "3", "--targets", "liver", "spleen"]
    args = cli.read_arguments(cli.build_parser("predict"), words)
    assert args.words == words[1:]
    assert args.hands_on


def test_example_of_predict_names_the_folders_that_the_demonstration_keeps(tmp_path):
    work = Workspace(tmp_path / "demo")
    text = find_parser(("predict",)).format_help()
    paths = [str(path.relative_to(tmp_path)) for path in (work.model, work.images, work.contexts)]
    assert [path in text for path in paths] == [True] * 3


def test_groups_show_commands_of_nnunet_as_they_are_typed():
    groups = [Group("First", {"a": "does this", "long": "does that"}), Group("Other", host={"nnUNet -x": "does more"})]
    assert describe_groups(groups).splitlines() == [
        "First", "  a     does this", "  long  does that", "", "Other", "  nnUNet -x", "        does more",
    ]  # fmt: skip


def test_a_sub_command_without_a_group_cannot_be_added():
    commands = CommandMap(argparse.ArgumentParser(prog="tool"), [Group("All", {"known": "does this"})])
    with pytest.raises(KeyError):
        commands.add("other", "  tool other")
