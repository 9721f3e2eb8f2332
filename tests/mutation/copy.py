"""The copy of scratchnet that mutmut changes."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutation"
FILES = ("functional.py", "optim.py", "nn.py", "training.py", "mnist.py")
COPIED = ("scratchnet", "reference", "tests", "pyproject.toml")


def make() -> None:
    """Copy what the tests need, and write the files to be changed without decorators."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, WORK / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, WORK / name)
    for file in FILES:
        path = WORK / "scratchnet" / file
        path.write_text(undecorated(path.read_text()))


def undecorated(source: str) -> str:
    """The same module, with f = g(f) behind each function f for @g: mutmut passes over an @."""
    lines = source.splitlines()
    module = ast.parse(source)
    scopes = [module.body, *(node.body for node in module.body if isinstance(node, ast.ClassDef))]
    functions = [node for body in scopes for node in body if isinstance(node, ast.FunctionDef)]
    for function in sorted(functions, key=lambda function: -function.lineno):
        if function.decorator_list:
            _undecorate(lines, function)
    return "\n".join(lines) + "\n"


def _undecorate(lines: list[str], function: ast.FunctionDef) -> None:
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    if decorators == ["classmethod"]:
        return  # which mutmut takes as it is
    name = function.name
    own = f"{name}_setter" if decorators == [f"{name}.setter"] else name
    decorated = own
    for decorator in reversed(decorators):
        decorated = f"{decorator}({decorated})"
    lines.insert(function.end_lineno or 0, f"{' ' * function.col_offset}{name} = {decorated}")
    line = function.lineno - 1
    lines[line] = lines[line].replace(f"def {name}(", f"def {own}(")
    del lines[function.decorator_list[0].lineno - 1 : line]
