"""Writes the public Python interface as Markdown, from signatures in the source and docstrings."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType

from generate.docstrings import read_docstring, write_docstring, write_text

_WIDTH = 88
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def write_interface(module: ModuleType) -> str:
    """Write every name that a module exports."""
    blocks = []
    for name in module.__all__:
        exported = getattr(module, name)
        blocks += list(_write_class(exported) if inspect.isclass(exported) else _write_function(name, exported, 2))
    return "\n\n".join(blocks)


def write_errors(module: ModuleType, base: type) -> str:
    """Write the classes of errors of a module as a list."""
    classes = [each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, base)]
    return "\n".join(f"- `{each.__name__}`: {write_text(inspect.getdoc(each) or '')}" for each in classes)


def _write_class(documented: type) -> Iterator[str]:
    yield f"## `{documented.__name__}`"
    tree = _parse(documented)
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    if fields:
        code = "\n".join(f"    {_unparse(node)}" for node in fields)
        yield f"```python\nclass {documented.__name__}:\n{code}\n```"
    elif "Args" in read_docstring(documented).named:
        arguments = next(node.args for node in tree.body if isinstance(node, _Definition) and node.name == "__init__")
        shown = [argument for argument in _list_arguments(arguments) if argument != "self"]
        yield f"```python\n{documented.__name__}({', '.join(shown)})\n```"
    yield write_docstring(documented)
    for node in tree.body:
        if isinstance(node, _Definition) and not node.name.startswith("_"):
            member = inspect.getattr_static(documented, node.name)
            title = f"{documented.__name__}.{node.name}"
            yield from _write_function(title, _unwrap(member), 3, node)


def _unwrap(member: object) -> object:
    for name in ("fget", "func", "__func__"):
        member = getattr(member, name, member)
    return member


def _write_function(title: str, documented: object, level: int, node: ast.AST | None = None) -> Iterator[str]:
    definition = node or _parse(documented)
    yield f"{'#' * level} `{title}`"
    yield f"```python\n{_describe_signature(definition)}\n```"
    yield write_docstring(documented)


def _describe_signature(node: ast.AST) -> str:
    """Write a signature as in the source, one argument a line if it is long."""
    if not isinstance(node, _Definition):
        raise TypeError(f"expected a function, found {type(node).__name__}")
    kinds = [_unparse(decorator) for decorator in node.decorator_list]
    shown = [
        f"@{kind.removeprefix('cached_')}" for kind in kinds if kind in ("property", "cached_property", "classmethod")
    ]
    returned = f" -> {_unparse(node.returns)}" if node.returns else ""
    arguments, returned = list(_list_arguments(node.args)), returned.replace('"', "")
    line = f"def {node.name}({', '.join(arguments)}){returned}"
    if len(line) > _WIDTH:
        split = ",\n    ".join(arguments)
        line = f"def {node.name}(\n    {split},\n){returned}"
    return "\n".join((*shown, line))


def _unparse(node: ast.AST) -> str:
    """Write code as the formatter of the repository does, which also looks into the pages."""
    text = ast.unparse(node)
    return text if '"' in text else text.replace("'", '"')


def _list_arguments(arguments: ast.arguments) -> Iterator[str]:
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    yield from (_show(one, default) for one, default in zip(plain, defaults, strict=True))
    if arguments.kwonlyargs:
        yield "*"
    yield from (_show(one, default) for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))


def _show(argument: ast.arg, default: ast.expr | None) -> str:
    return _unparse(argument) if default is None else f"{_unparse(argument)} = {_unparse(default)}"


def _parse(documented: object) -> ast.ClassDef | ast.FunctionDef:
    source = textwrap.dedent(inspect.getsource(documented))
    node = ast.parse(source).body[0]
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        raise TypeError(f"{documented!r} is no class or function")
    return node
