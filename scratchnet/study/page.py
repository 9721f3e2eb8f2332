"""`scratchnet study page`: one HTML file with a batch through the network, number by number.

`page_facts` computes, what is in page/ shows it, and here all becomes one file. It asks the network
for nothing, and its policy would not let it.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import inspect
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import scratchnet
from scratchnet import functional
from scratchnet.backend import Array
from scratchnet.study import mathml, page_sections
from scratchnet.study.page_facts import BUG_STEPS, SAMPLES, STEPS, UNSURE, Facts
from scratchnet.study.subjects import PARAMETERS, SHOWN

PARTS = Path(__file__).parent / "page"
SCRIPTS = ("numbers", "terms", "grids", "entries", "stages", "nudge", "start")
DIRECTIVE = re.compile(r"\{\{(\w+)(?: ([^\n]*?))?\}\}(?!\})")  # a formula may end with a brace


def render(facts: Facts, seed: int) -> str:
    """The whole page.

    Args:
        facts: what is on it.
        seed: with which they were made, to be stated.
    """
    style = _read("page.css")
    script = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    numbers, places = _pack(dict(_arrays(facts)))
    fills = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "facts": json.dumps(_in_words(facts, places)),
        "numbers": numbers,
        "samples": str(SAMPLES),
        "sizes": "-".join(str(size) for size in _sizes(facts)[1:]),
        "unsure": str(UNSURE),
        "normalization": facts.normalization,
        "network": html.escape(facts.network),
        "steps": str(BUG_STEPS),
        "seed": str(seed),
        "accuracy": f"{facts.right.accuracy:.1%}",
        "variants": page_sections.variants(facts),
        "mine": page_sections.mine(facts),
        "pytorch": page_sections.pytorch(facts.torch),
        "version": scratchnet.__version__,
        "numpy": np.__version__,
    }
    return _fill(_read("page.html"), fills)


def _read(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _fill(template: str, fills: dict[str, str]) -> str:
    """Replace {{name}}, {{math formula}} and {{line stage function: code}}."""

    def fill(found: re.Match[str]) -> str:
        if found[1] == "math":
            return mathml.block(found[2])
        return _line(*found[2].split(" ", 2)) if found[1] == "line" else fills[found[1]]

    return DIRECTIVE.sub(fill, template)


# ------------------------------------------------------------------------------------ lines of code


def line_number(function: str, code: str) -> int:
    """Where a line of a function of scratchnet.functional stands now.

    Raises:
        LookupError: the function has no such line, or several.
    """
    lines, first = inspect.getsourcelines(inspect.unwrap(getattr(functional, function)))
    found = [first + offset for offset, line in enumerate(lines) if line.strip() == code]
    if len(found) != 1:
        raise LookupError(f"{function} has {len(found)} lines {code!r}; page.html expects one")
    return found[0]


def _line(stage: str, function: str, code: str) -> str:
    function = function.removesuffix(":")
    tree = ast.parse(f"def {function}():\n {code}")
    words = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    names = STEPS[stage].names
    here = ", ".join(f"{word} = {names[word]}" for word in words if word in names)
    note = f'<span class="with">here {here}</span>' if here else ""
    return (
        f'<div class="line"><span class="source">functional.py:{line_number(function, code)}</span>'
        f"<code>{html.escape(code)}</code>{note}</div>"
    )


# -------------------------------------------------------------------------------------- the numbers


def _arrays(facts: Facts) -> Iterator[tuple[str, Array]]:
    """All arrays by the names that the script knows them by.

    Parameters are float32 by their making. What a bug or the reader has made needs no more digits
    than are shown, and the differences from PyTorch are a few units in the last place.
    """
    yield "x", facts.inputs["x"]
    for name in PARAMETERS:
        yield name, facts.inputs[name].astype(np.float32)
    for name, truth in facts.truths.items():
        yield name, truth.value
    for name, comparison in (facts.torch or {}).items():
        yield f"torch.{name}", comparison.difference.astype(np.float32)
    gradients = {bug.mistake.name: bug.gradients for bug in facts.bugs}
    if facts.mine:
        gradients["mine"] = facts.mine.gradients
    for variant, each in gradients.items():
        for name, wrong in each.wrong.items():
            if variant == "mine" or wrong.any():
                yield f"{variant}.{name}", each.found[name].astype(np.float32)
                yield f"{variant}.{name}.wrong", wrong.astype(np.uint8)


def _pack(arrays: dict[str, Array]) -> tuple[str, list[Any]]:
    """The arrays in base64, and the name, dtype, shape and place of each."""
    places, content = [], bytearray()
    for name, array in arrays.items():
        content += bytes(-len(content) % 8)
        places.append([name, array.dtype.name, array.shape, len(content)])
        content += np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(bytes(content), 9)).decode(), places


def _sizes(facts: Facts) -> tuple[int, int, int, int]:
    samples, features = facts.inputs["x"].shape
    return samples, features, len(facts.inputs["W1"]), len(facts.inputs["W2"])


def _in_words(facts: Facts, places: list[Any]) -> dict[str, Any]:
    axes = dict(SHOWN.inputs) | {step.name: step.axes for step in SHOWN.steps}
    axes |= {f"d{name}": axes[name] for name in PARAMETERS}
    return {
        "sizes": dict(zip("NDHC", _sizes(facts), strict=True)),
        "labels": facts.inputs["target"].tolist(),
        "predicted": facts.predicted.tolist(),
        "stages": ["x", *STEPS],
        "axes": axes,
        "arrays": places,
    }


def _policy(style: str, script: str) -> str:
    """What the page may do: nothing but its own style and its own script, known by their hashes."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
