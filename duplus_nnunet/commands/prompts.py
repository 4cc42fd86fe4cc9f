"""`duplus prompts`: draft, check, list, show, compare and embed the prompts of datasets, and score their wordings."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.command_map import CommandMap, Group
from duplus_nnunet.commands.prompt_listing import (
    describe_codes,
    describe_entry,
    describe_occurrence,
    describe_others,
    summarise_codes,
    summarise_files,
)

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.entries import Entry

_WIDEST_TABLE = 30
_CHECK_RULE = """\
Of a raw dataset, dataset.json, the list of files and their headers are checked too; no voxel is read.
exit code: 1 with problems; 0 without, even if there are warnings (texts that say nothing, `# review` marks left)"""
_DATASET = "raw dataset: its folder, or its name or number in nnUNet_raw"


GROUPS = (
    Group(
        "Write and check",
        {
            "draft": "write a commented prompts.yaml from a dataset's dataset.json",
            "check": "check the prompts of a dataset, one file or the whole registry, and report all problems at once",
            "where": "show which file the prompts of a dataset come from, or where files are looked for",
        },
    ),
    Group(
        "Look up",
        {
            "list": "list the datasets, contexts and targets of the registry",
            "show": "show the prompts of a dataset, or the datasets in which a target occurs",
        },
    ),
    Group(
        "Compare and embed",
        {
            "similar": "compare the target prompts of a dataset, and list pairs that are too similar",
            "sensitivity": "score every wording of a trained model's prompts on labelled cases",
            "embed": "embed texts and store the embeddings, so that planning needs no encoder for them",
        },
    ),
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "prompts",
        description="The prompt registry: the context prompts and target prompts of datasets.",
        epilog="example:\n  duplus prompts draft 501        write a prompts.yaml for Dataset501, to be reviewed",
    )
    from duplus_nnunet.commands.prompts_sensitivity import add_sensitivity

    commands = CommandMap(parser, GROUPS)
    adders = (_add_draft, _add_check, _add_list, _add_show, _add_similar, _add_embed, _add_where, add_sensitivity)
    for add in adders:
        add(commands)


def run_draft(args: argparse.Namespace) -> int:
    """Write a commented prompts.yaml from a dataset's dataset.json."""
    from duplus_nnunet.errors import RegistryError
    from duplus_nnunet.prompt_registry import find_entry
    from duplus_nnunet.prompt_registry.draft_file import write_draft
    from duplus_nnunet.prompt_registry.finding import FILE_NAME
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

    dataset = open_raw_dataset(args.dataset)
    text = write_draft(find_entry(dataset.name, dataset.dataset_json))
    if args.stdout:
        print(text, end="")
        return 0
    path = Path(args.output) if args.output else dataset.folder / FILE_NAME
    if path.exists() and not args.force:
        message = f"{path} exists already. Edit it, choose another file with --output, or replace it with --force."
        raise RegistryError(message)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}). Choose another file with --output."
        raise RegistryError(message) from error
    print(f"Wrote {path}. To review:")
    lines = enumerate(text.splitlines(), 1)
    _print_lines(f"{path}:{number}: {line.strip()}" for number, line in lines if "# review" in line)
    print(f"Then run: duplus prompts check {args.dataset}")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Check the prompts of a dataset, one file or the whole registry, and report all problems at once."""
    from dataclasses import replace

    from duplus_nnunet.commands.raw_files import check_training_files, count_things
    from duplus_nnunet.prompt_registry.checking import check_files, check_raw_dataset
    from duplus_nnunet.prompt_registry.finding import SHIPPED_FOLDER, registry_folders
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

    if args.what is None:
        checked = check_files(sorted(SHIPPED_FOLDER.glob("*.yaml")), registry_folders())
    elif args.what.endswith((".yaml", ".yml")):
        checked = check_files([Path(args.what)])
    else:
        raw = open_raw_dataset(args.what)
        checked = check_raw_dataset(raw)
        problems, notes = check_training_files(raw)
        checked = replace(checked, problems=(*checked.problems, *problems), notes=(*checked.notes, *notes))
    _print_lines(checked.problems or checked.notes)
    _print_lines(f"warning: {text}" for text in checked.warnings)
    subject = checked.files[0] if len(checked.files) == 1 else f"{len(checked.files)} files"
    warned = f", {count_things(len(checked.warnings), 'warning')}" if checked.warnings else ""
    print(f"{subject}: {count_things(len(checked.problems), 'problem')}{warned}.")
    return 1 if checked.problems else 0


def run_list(args: argparse.Namespace) -> int:
    """List the datasets, contexts and targets of the registry."""
    from duplus_nnunet.prompt_registry.finding import shipped_files, users_registry

    files = (*users_registry(), *shipped_files())
    if args.codes:
        codes = (
            [json.dumps(summarise_codes(files), indent=2, ensure_ascii=False)] if args.json else describe_codes(files)
        )
        _print_lines(codes)
        return 0
    summary = summarise_files(files)
    if args.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return 0
    for dataset in summary["datasets"]:
        print(f"{dataset['dataset']:<24}{len(dataset['targets']):>4} targets   {', '.join(dataset['contexts'])}")
    counts = summary["counts"]
    print(
        f"{counts['datasets']} datasets, {counts['contexts']} contexts, {counts['distinct_targets']} distinct targets"
    )
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show the prompts of a dataset, or the datasets in which a target occurs."""
    from duplus_nnunet.prompt_registry.finding import find_targets

    entry = _find_entry(args.name)
    if entry is not None:
        _print_lines(describe_entry(entry, args.paraphrases))
        _print_lines(describe_others(args.name, entry))
        return 0
    for file, target in find_targets(args.name):
        _print_lines(describe_occurrence(file, target))
    return 0


def run_similar(args: argparse.Namespace) -> int:
    """Compare the target prompts of a dataset: print a table, draw a PNG, and list pairs that are too similar."""
    from duplus_nnunet.prompt_registry.similarity import (
        TOO_SIMILAR,
        compare_targets,
        describe_similarity,
        draw_similarity,
    )

    entry = _require_entry(args.name)
    similarity = compare_targets(entry, args.encoder, args.pooling)
    if len(similarity.names) <= _WIDEST_TABLE:
        _print_lines(describe_similarity(similarity))
    else:
        print(f"{len(similarity.names)} targets: the table is too wide to print, see the picture.")
    path = Path(args.png or f"similar_{entry.dataset.replace(' ', '_')}.png")
    draw_similarity(similarity, path)
    print(f"Wrote {path}.")
    threshold = TOO_SIMILAR if args.threshold is None else args.threshold
    pairs = similarity.too_similar(threshold)
    _print_lines(f"too similar: {first!r} and {second!r} ({cosine:.3f})" for cosine, first, second in pairs)
    print(f"{len(pairs) or 'No'} pair{'' if len(pairs) == 1 else 's'} at or above {threshold}.")
    return 0


def run_embed(args: argparse.Namespace) -> int:
    """Embed texts and store the embeddings, so that planning needs no encoder for them."""
    from duplus_nnunet.errors import EncoderError
    from duplus_nnunet.progress import follow
    from duplus_nnunet.prompt_registry import entry_texts
    from duplus_nnunet.prompt_registry.embedding import fill_store
    from duplus_nnunet.prompt_registry.encoder import TextEncoder
    from duplus_nnunet.prompt_registry.finding import users_registry
    from duplus_nnunet.prompt_registry.registry_file import file_entry
    from duplus_nnunet.prompt_registry.shipped_texts import shipped_texts
    from duplus_nnunet.prompt_registry.store import user_folder

    texts = [text for name in args.names for text in entry_texts(_require_entry(name))]
    if not args.names:
        texts = [*shipped_texts(), *(text for file in users_registry() for text in entry_texts(file_entry(file)))]
    if args.trust_remote_code not in (None, args.encoder):
        message = f"--trust-remote-code names {args.trust_remote_code!r}, but the encoder is {args.encoder!r}."
        raise EncoderError(f"{message} Give the same name to both options.")
    model = TextEncoder(args.encoder, args.pooling, trusted=args.trust_remote_code is not None)
    folder = Path(args.output) if args.output else user_folder()
    with follow(len(set(texts)), "embedding", "text") as count:
        stored = fill_store(texts, model, folder, args.overwrite, count)
    identity = stored.identity
    print(f"{stored.path}: {stored.added} texts added to {stored.known} stored before.")
    print(f"encoder {identity.name}, pooling {identity.pooling}, dimension {identity.dimension}")
    print(f"weights {identity.sha256}")
    return 0


def run_where(args: argparse.Namespace) -> int:
    """Show which file the prompts of a dataset come from, or where files are looked for."""
    from duplus_nnunet.prompt_registry import search_entry
    from duplus_nnunet.prompt_registry.finding import FILE_NAME, FOLDERS_VARIABLE, SHIPPED_FOLDER, registry_folders
    from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

    if args.dataset is None:
        folders = ", ".join(str(folder) for folder in registry_folders())
        print(f"1. {FILE_NAME} beside the raw dataset's dataset.json")
        print(f"2. folders of {FOLDERS_VARIABLE}: {folders or 'not set'}")
        print(f"3. shipped files: {SHIPPED_FOLDER}")
        print("4. a draft from dataset.json if no file is found")
        return 0
    dataset = open_raw_dataset(args.dataset)
    search = search_entry(dataset.name, dataset.dataset_json, dataset.folder)
    _print_lines(search.explanations)
    print(f"{dataset.name}: {len(search.entry.targets)} targets, {search.entry.origin}")
    return 0


def _find_entry(name: str) -> "Entry | None":
    """Find the entry in use: of a file, of a raw dataset as planning finds it, or of a dataset in the registry."""
    from duplus_nnunet.prompt_registry import find_entry
    from duplus_nnunet.prompt_registry.finding import find_by_name
    from duplus_nnunet.prompt_registry.raw_dataset import has_raw_dataset, open_raw_dataset
    from duplus_nnunet.prompt_registry.registry_file import file_entry, load_registry_file

    if name.endswith((".yaml", ".yml")):
        return file_entry(load_registry_file(name))
    if has_raw_dataset(name):
        dataset = open_raw_dataset(name)
        return find_entry(dataset.name, dataset.dataset_json, dataset.folder)
    file = find_by_name(name)
    return None if file is None else file_entry(file)


def _require_entry(name: str) -> "Entry":
    from duplus_nnunet.errors import PromptError, describe_unknown
    from duplus_nnunet.prompt_registry.finding import shipped_files, users_registry

    entry = _find_entry(name)
    if entry is None:
        known = [file.form.dataset for file in (*users_registry(), *shipped_files())]
        raise PromptError(describe_unknown("dataset", name, known))
    return entry


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _add(
    commands: CommandMap,
    name: str,
    run: Callable[[argparse.Namespace], int],
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add(name, f"  duplus prompts {example}")
    parser.set_defaults(run=run)
    return parser


def _add_draft(commands: CommandMap) -> None:
    parser = _add(commands, "draft", run_draft, "draft 501")
    parser.add_argument("dataset", metavar="DATASET", help=_DATASET)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="file to write (default: prompts.yaml beside dataset.json)"
    )
    parser.add_argument("--stdout", action="store_true", help="print the draft instead of writing a file")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def _add_check(commands: CommandMap) -> None:
    parser = _add(commands, "check", run_check, f"check 501\n\n{_CHECK_RULE}")
    parser.add_argument(
        "what", nargs="?", metavar="DATASET|FILE", help=f"a YAML file, or a {_DATASET} (default: the whole registry)"
    )


def _add_list(commands: CommandMap) -> None:
    parser = _add(commands, "list", run_list, "list --json")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--codes", action="store_true", help="list the targets with their codes of SNOMED CT")


def _add_show(commands: CommandMap) -> None:
    parser = _add(commands, "show", run_show, "show BTCV --paraphrases")
    parser.add_argument(
        "name", metavar="NAME", help="a dataset of the registry, a raw dataset, a YAML file or a target"
    )
    parser.add_argument("--paraphrases", action="store_true", help="show every wording")


def _add_similar(commands: CommandMap) -> None:
    parser = _add(commands, "similar", run_similar, "similar BTCV --png btcv.png")
    parser.add_argument("name", metavar="NAME", help="a dataset of the registry, a raw dataset or a YAML file")
    parser.add_argument("--png", metavar="FILE", help="picture to write (default: similar_NAME.png)")
    parser.add_argument(
        "--threshold", type=float, help="cosine, -1 to 1, from which on a pair is listed (default: 0.97)"
    )
    _add_encoder(parser)


def _add_embed(commands: CommandMap) -> None:
    parser = _add(commands, "embed", run_embed, "embed --encoder ./my_encoder --pooling cls 501")
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets or YAML files (default: the whole registry)")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="store folder (default: DUPLUS_EMBEDDINGS or the cache)"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="embed all texts again, and delete stores of other weights under that name",
    )
    parser.add_argument(
        "--trust-remote-code",
        metavar="NAME",
        help="run the Python code that comes with this encoder; NAME as for --encoder (default: never; the variable "
        "DUPLUS_TRUST_REMOTE_CODE, with names separated by commas, allows it in all commands)",
    )
    _add_encoder(parser)


def _add_where(commands: CommandMap) -> None:
    parser = _add(commands, "where", run_where, "where 501")
    parser.add_argument(
        "dataset", nargs="?", metavar="DATASET", help=f"{_DATASET} (default: where files are looked for)"
    )


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", metavar="NAME|FOLDER", help="text encoder: hub name or folder (default: all-MiniLM-L6-v2)"
    )
    parser.add_argument("--pooling", choices=("mean", "cls", "eos"), help="pooling (default: the encoder's own)")
