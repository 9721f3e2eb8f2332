"""The parts of the study page that need no script: the bugs and their runs, and two tables."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from scratchnet.study.page_facts import BUGS, Bug, Comparison, Facts, Training

WIDTH, HEIGHT = 300, 92
HIGHEST = 3.0  # of the losses that are drawn; a network that guesses has log 10 = 2.3


def variants(facts: Facts) -> str:
    """A switch for the true gradients, for the reader's own, and for each bug."""
    switches = [_switch("", "No bug: the true gradients", _curve(facts.right, facts.right), True)]
    if facts.mine and facts.mine.gradients.found:
        names = [name for name, wrong in facts.mine.gradients.wrong.items() if wrong.any()]
        about = f"Wrong on this batch: {', '.join(names) or 'nothing'}."
        switches.append(_switch("mine", "Your own gradients", f"<p>{about}</p>"))
    switches += [_bug(bug, facts.right) for bug in facts.bugs]
    return "".join(switches)


def _switch(value: str, title: str, inside: str, checked: bool = False) -> str:
    return (
        f'<label class="bug"><input type="radio" name="variant" value="{value}"'
        f"{' checked' if checked else ''}><strong>{html.escape(title)}</strong>{inside}</label>"
    )


def _bug(bug: Bug, right: Training) -> str:
    told = zip(("right", "bug"), BUGS[bug.mistake.name], strict=True)
    lines = (f"<span>{which}</span><code>{html.escape(line)}</code>" for which, line in told)
    inside = (
        f'<div class="formulas">{"".join(lines)}</div>'
        f"<p>{html.escape(bug.verdict)}</p>"
        f"{_curve(bug.training, right)}"
    )
    return _switch(bug.mistake.name, f"“{bug.mistake.belief}”", inside)


def _curve(training: Training, right: Training) -> str:
    """A run's losses, beside those of the run without a bug."""
    lines = [f'<path class="true" d="{_path(right.losses)}"/>'] if training is not right else []
    last = float(np.mean(training.losses[-20:]))
    lines.append(f'<path class="curve" d="{_path(training.losses)}"/>')
    told = f"loss of the last 20 updates {last:.2f}, then {training.accuracy:.1%} right"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT - 1}" y2="{HEIGHT - 1}"/>'
        f"{''.join(lines)}</svg><p><b>{training.accuracy:.1%}</b> right; loss "
        f"{training.losses[0]:.2f} → {last:.2f}</p>"
    )


def _path(losses: list[float]) -> str:
    """A line through the losses, each a mean of five."""
    smooth = np.convolve(losses, np.ones(5) / 5, mode="valid")
    xs = np.linspace(0, WIDTH, len(smooth))
    ys = HEIGHT - 1 - (HEIGHT - 6) * np.minimum(smooth, HIGHEST) / HIGHEST
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))


def mine(facts: Facts) -> str:
    """What the reader's own function has made, and what is wrong with it."""
    if facts.mine is None:
        return ""
    file, gradients, ruling, output = facts.mine
    said = [ruling.message, *ruling.further, ruling.hint and f"Hint: {ruling.hint}."]
    details = [ruling.ledger, ruling.traceback, output and f"It has printed:\n{output}"]
    verdict = "".join(f'<p class="verdict">{html.escape(text)}</p>' for text in said if text)
    verdict += "".join(f"<pre>{html.escape(text)}</pre>" for text in details if text)
    rows = [
        (
            name,
            f"{int(wrong.sum()):,} of {wrong.size:,}",
            f"{abs(gradients.found[name] - facts.truths[name].value).max():.3g}",
        )
        for name, wrong in gradients.wrong.items()
    ]
    table = _table(("your array", "wrong entries", "largest difference"), rows) if rows else ""
    return (
        f'<section id="mine"><h2>Your own gradients</h2><p><code>{html.escape(str(file))}</code>, '
        "judged as exercise 9 is, on small random networks, and beside the truth on this batch.</p>"
        f"{verdict}{table}</section>"
    )


def pytorch(found: dict[str, Comparison] | None) -> str:
    """How far PyTorch's arrays are from ours."""
    if found is None:
        return (
            "<p>PyTorch is not installed here: where it is, its values stand beside these. "
            "<code>pip install torch</code>, and make the page again.</p>"
        )
    rows = [
        (
            name,
            f"{int((each.difference == 0).sum()):,} of {each.difference.size:,}",
            f"{abs(each.difference).max():.1e}" if each.difference.any() else "0",
            f"{100 * each.share:.1g} %",
        )
        for name, each in found.items()
    ]
    heads = ("array", "equal to the last bit", "largest difference", "of what rounding allows")
    return (
        "<p>The same batch through the same network by autograd, in float64. The two add up in "
        "another order, and so round differently; what that allows is derived from the number of "
        "terms and their sizes. Each entry above has PyTorch’s value beside it.</p>"
        f"{_table(heads, rows)}"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    return (
        f'<div class="wide"><table class="report"><thead>{line(heads, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
