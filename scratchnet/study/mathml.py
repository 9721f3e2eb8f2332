"""Formulas as they stand in a line of text, made into MathML.

    dW1[j,d] = Σ_n dz1[n,j] x[n,d]

Single letters n, j, d, c, k, N, D, H, C are indices and sizes, and slanted; all other names are
upright, as in code. A name may have [indices] and ᵀ, a sum its index after Σ_, and {above}/{below}
is a fraction.
"""

from __future__ import annotations

import re
from html import escape

INDICES = "njdckNDHC"
TOKEN = re.compile(
    r"""\s*(?:
        Σ_(?P<sum>\w)
      | (?P<name>[^\W\d_ᵀ][^\Wᵀ]*)
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<fraction>\{)
      | (?P<sign>\S)
    )""",
    re.VERBOSE,
)


def block(formula: str) -> str:
    """A formula on a line of its own."""
    return f'<math display="block">{_row(formula)}</math>'


def inline(formula: str) -> str:
    """A formula within a sentence."""
    return f"<math>{_row(formula)}</math>"


def _row(formula: str) -> str:
    parts, position, thin = [], 0, '<mspace width="0.17em"/>'
    while position < len(formula.rstrip()):
        token = TOKEN.match(formula, position)
        assert token is not None  # any sign is a token
        position = token.end()
        if token["fraction"]:
            above, position = _between("{}", formula, token.start("fraction"))
            below, position = _between("{}", formula, position + 1)  # after the slash
            parts.append(f"<mfrac>{_row(above)}{_row(below)}</mfrac>")
        elif token["name"]:
            part, position = _name(token["name"], formula, position)
            parts += [thin, part] if parts and parts[-1].startswith(("<mi", "<ms")) else [part]
        else:
            parts.append(_sign(token))
    return f"<mrow>{''.join(parts)}</mrow>"


def _sign(token: re.Match[str]) -> str:
    if token["sum"]:
        return f'<munder><mo movablelimits="false">∑</mo><mi>{token["sum"]}</mi></munder>'
    if token["number"]:
        return f"<mn>{token['number']}</mn>"
    return f"<mo>{escape(token['sign'])}</mo>"


def _name(name: str, formula: str, position: int) -> tuple[str, int]:
    """A name, with the indices and the ᵀ that may follow it, and where that ends."""
    upright = "" if name in INDICES else ' mathvariant="normal"'
    part = f"<mi{upright}>{name}</mi>"
    if formula.startswith("[", position):
        at, position = _between("[]", formula, position)
        part = f"<msub>{part}{_row(at)}</msub>"
    if formula.startswith("ᵀ", position):
        return f"<msup>{part}<mi>T</mi></msup>", position + 1
    return part, position


def _between(pair: str, formula: str, start: int) -> tuple[str, int]:
    """What stands between the bracket at start and its partner, and where it ends."""
    depth = 0
    for position in range(start, len(formula)):
        depth += {pair[0]: 1, pair[1]: -1}.get(formula[position], 0)
        if depth == 0:
            return formula[start + 1 : position], position + 1
    raise ValueError(f"{formula!r} has no {pair[1]} for the {pair[0]} at {start}; expected one")
