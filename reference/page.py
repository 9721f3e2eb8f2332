"""The comparison as JSON, and as one self-contained HTML page."""

from __future__ import annotations

import html
import io
import os
import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reference.compare import HEADINGS, Difference, Report
from reference.lockstep import STABLE, Drift

CHAOTIC = (
    "No verdict on the later steps: this recipe makes a new Adam at every step, so each number "
    "moves by about the learning rate times the sign of its gradient. Where a gradient is nearly "
    "0, a rounding error decides the sign, the next gradients differ by more, and the distance "
    "doubles every few steps in any two correct programs. The lock-step comparison, where both "
    "start each step from the same state, judges every step of it."
)
FLOAT32 = (
    "No verdict in float32: there two correct programs may drift apart as far as Adam's division "
    "by √v magnifies a rounding error where gradients are tiny. In float64 the run has a limit."
)
JUDGED = (
    "Each step starts all sides from the same state and the same batch, and the optimizers get the "
    "same gradient. A difference is judged by a bound on what the two sides may have rounded in "
    "this step, derived operation by operation and composed through the network; at 100 % of the "
    "bound rounding could no longer explain it. An engine shows no gradient: its loss, moments and "
    "parameters are those after a whole step of its own, and so is the bound."
)


def explain(drift: Drift) -> str:
    """What a free run came to, in words."""
    steps = len(drift.parameters)
    reached = f"{drift.dtype}: {np.max(drift.parameters):.1e} after {steps} steps"
    if not drift.judged:
        return f"{reached}. {FLOAT32}"
    judged = np.max(drift.parameters[: drift.judged])
    verdict = f"{'within' if drift.ok else 'BEYOND'} the limit of {STABLE:g}"
    if drift.judged == steps:
        return f"{reached}, {verdict}."
    return f"{reached}; {judged:.1e} after {drift.judged}, {verdict}. {CHAOTIC}"


def as_json(report: Report, drifts: list[Drift], configuration: dict[str, Any]) -> dict[str, Any]:
    """All differences, the drift, and what they were found with; nan and infinity as None."""
    return {
        "ok": report.ok and all(drift.ok for drift in drifts),
        "configuration": configuration,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": metadata.version("torch"),
        },
        "differences": [
            {name: _finite(value) for name, value in asdict(each).items()} | {"ok": each.ok}
            for each in report.differences
        ],
        "drift": [
            {name: _finite(value) for name, value in asdict(drift).items()} | {"ok": drift.ok}
            for drift in drifts
        ],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def as_html(report: Report, drifts: list[Drift], configuration: dict[str, Any]) -> str:
    """The page: verdict, summary table and two plots. It needs no other file and no network."""
    steps = len({each.place for each in report.differences})
    ok = report.ok and all(drift.ok for drift in drifts)
    verdict = "equal up to rounding" if ok else "NOT equal"
    first: dict[str, Difference] = {}
    for each in report.failures:
        first.setdefault(each.name, each)
    failures = "".join(f"<li>{html.escape(str(each))}</li>" for each in first.values())
    apart = "".join(f"<p>{html.escape(explain(drift))}</p>" for drift in drifts)
    settings = "".join(
        f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in configuration.items()
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>scratchnet beside PyTorch: {verdict}</title>
<style>{STYLE}</style>
<main>
<h1>scratchnet beside PyTorch: {verdict}</h1>
<dl>{settings}</dl>
<h2>In lock-step, {steps} step{"" if steps == 1 else "s"}</h2>
<p>{JUDGED}</p>
{f'<ul class="wrong">{failures}</ul>' if failures else ""}
<div class="wide">{_table(report)}</div>
<figure>{_shares(report)}
<figcaption>The largest share of its bound that any array of a kind has used, step by
step.</figcaption></figure>
<h2>Free run</h2>
<p>Both libraries train from the same start on the same batches, and nothing is exchanged after
that. The largest difference of any parameter:</p>
{apart}
<figure>{_drifts(drifts)}
<figcaption>How the difference grows over the steps.</figcaption></figure>
</main>
</html>
"""


def _table(report: Report) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f'<tr class="{cells[1].lower()}">{inside}</tr>'

    body = "".join(row(cells, "td") for cells in report.rows())
    return f"<table><thead>{row(HEADINGS, 'th')}</thead><tbody>{body}</tbody></table>"


def _shares(report: Report) -> str:
    kinds = {"forward": {}, "gradients": {}, "optimizer": {}}  # type: dict[str, dict[int, float]]
    for each in report.differences:
        name = each.name.rpartition(": ")[2]
        forward = name in ("lin1", "relu", "lin2", "loss")
        kind = "gradients" if name.startswith("grad") else "forward" if forward else "optimizer"
        step = int(each.place.split()[-1])
        kinds[kind][step] = max(kinds[kind].get(step, 0.0), each.share)
    figure, axes = _figure("share of the bound used")
    for (kind, values), color in zip(kinds.items(), COLORS, strict=True):
        shares = [100 * share for share in values.values()]
        axes.plot(list(values), shares, color, label=kind, marker="." if len(shares) < 30 else "")
    axes.axhline(100, color="#c33", linewidth=1, linestyle="--", label="the bound")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    return _svg(figure, axes)


def _drifts(drifts: list[Drift]) -> str:
    figure, axes = _figure("difference")
    for drift, style in zip(drifts, ("-", ":"), strict=False):
        for values, label, color in (
            (drift.parameters, "any parameter", COLORS[0]),
            (drift.losses, "the loss", COLORS[2]),
        ):
            shown = np.array(values)
            axes.plot(
                np.arange(1, len(shown) + 1),
                np.where(shown > 0, shown, np.nan),
                color,
                linestyle=style,
                linewidth=1,
                label=f"{label}, {drift.dtype}",
            )
    axes.axhline(STABLE, color="#c33", linewidth=1, linestyle="--", label="limit in float64")
    axes.set_yscale("log")
    return _svg(figure, axes)


COLORS = ("#1f77b4", "#e08214", "#7f7f7f")


def _figure(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5")
    return figure, axes


def _svg(figure: Figure, axes: Axes) -> str:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem 1rem; }
main { max-width: 60rem; margin: auto; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dt { opacity: .7; } dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid; }
.wrong { color: #c33; font-weight: 600; }
figure { margin: 1rem 0; } figcaption { opacity: .7; font-size: .9rem; }
svg { background: white; width: 100%; height: auto; border-radius: 6px; }
"""
