"""Bugs to plant in native.c, of the kinds that only a sanitizer or the driver's checks can see."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Plant:
    """A bug.

    Attributes:
        name: what is wrong.
        function: where in native.c.
        old, new: the text that is replaced, which occurs once in that function, however its lines
            are broken.
        words: what the report must say, as a regular expression.
        sanitizer: who reports it, a name in programs.SANITIZERS.
    """

    name: str
    function: str
    old: str
    new: str
    words: str
    sanitizer: str

    def plant(self, source: str) -> str:
        """The source with the bug in it.

        Raises:
            ValueError: the function or the old text is not there exactly once.
        """
        head = rf"^\w[^\n;]*\b{self.function}\([^;{{]*\{{.*?^\}}$"
        bodies = re.findall(head, source, re.MULTILINE | re.DOTALL)
        if len(bodies) != 1:
            raise ValueError(f"{self.name}: {len(bodies)} functions {self.function}; expected 1")
        (body,) = bodies
        old = r"\s+".join(map(re.escape, self.old.split()))
        planted, count = re.subn(old, lambda _: self.new, body)
        if count != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {count} times")
        return source.replace(body, planted)

    def is_told_by(self, report: str) -> bool:
        """Whether a report says what it must."""
        return re.search(self.words, report) is not None


POISON, HEAP, RACE = "use-after-poison", "heap-buffer-overflow", "data race"


def _overrun(name: str, function: str, old: str, new: str, words: str = POISON) -> Plant:
    return Plant(name, function, old, new, words, "address")


def _race(name: str, function: str, old: str, new: str, words: str = RACE) -> Plant:
    return Plant(name, function, old, new, words, "thread")


def _wrong(name: str, function: str, old: str, new: str, words: str) -> Plant:
    return Plant(name, function, old, new, words, "none")


LAST_ROW = ("row < self->last;", "row <= self->last;")
ACQUIRE, RELAXED = "memory_order_acquire", "memory_order_relaxed"
RELEASE = "memory_order_release"

PLANTS = (
    _overrun("a pixel too many", "gather", "d < run->inputs; d++", "d <= run->inputs; d++", HEAP),
    _overrun("prefetch past the end of the order", "work", "rest < n ? rest : n", "n", HEAP),
    _overrun("a tile of hidden units too many, forward", "linear_relu_forward", *LAST_ROW),
    _overrun("a tile of hidden units too many, backward", "linear_backward_1", *LAST_ROW),
    _overrun(
        "a tile of classes too many",
        "linear_forward",
        "row < team->classes",
        "row <= team->classes",
    ),
    _overrun("a tile of samples too many", "linear_relu_backward", "b < n;", "b <= n;"),
    _overrun("a tile of pixels too many", "linear_backward_1", "d < team->wide", "d <= team->wide"),
    _overrun(
        "a tile of w2 too many", "linear_backward_2", "unit < team->tall", "unit <= team->tall"
    ),
    _overrun("a number too many in Adam", "adam", "i < count;", "i <= count;"),
    _overrun(
        "a class too many",
        "cross_entropy",
        "loss -= z[run->labels[order[b]]",
        "loss -= z[(run->labels[order[b]] + 1)",
    ),
    _overrun(
        "labels of samples that are padding",
        "cross_entropy",
        "b < n; b++) loss -=",
        "b < CHUNK; b++) loss -=",
        HEAP,
    ),
    _overrun(
        "rows of w1 without padding",
        "lay_out",
        "round_up(run->inputs + 1, WIDE * LANES)",
        "run->inputs + 1",
        f"misaligned|{POISON}",
    ),
    _overrun(
        "no room for the bias in h",
        "lay_out",
        "round_up(team->high + 1, UNIT)",
        "round_up(team->high, UNIT)",
    ),
    _overrun("classes without padding", "lay_out", "round_up(run->classes, ROWS)", "run->classes"),
    _overrun(
        "the second layer copied from too far",
        "copy",
        "rows * (columns + 1)",
        "rows * (columns + 2)",
        HEAP,
    ),
    _overrun(
        "seconds that nobody asked for",
        "note",
        "!self->team->run->seconds || ",
        "",
        "null pointer",
    ),
    _overrun("a shift by all bits", "round_up", "/ unit * unit", ">> unit", "shift exponent"),
    _overrun(
        "more steps than integers",
        "rates_of",
        "run->t + step + 1",
        "run->t + step + INT64_MAX",
        "signed integer overflow",
    ),
    _overrun(
        "more seconds than integers",
        "note",
        "1e-9 * (",
        "(int)(1e30 * now.tv_sec) * (",
        "outside the range",
    ),
    _race("nobody waits", "work", "wait_for_all(team);", ""),
    _race("h has one buffer", "work", "chunks++ % 2", "0 * chunks++"),
    _race(
        "the last to arrive publishes nothing",
        "wait_for_all",
        f"turn + 1, {RELEASE}",
        f"turn + 1, {RELAXED}",
    ),
    _race(
        "who waits takes nothing over", "wait_for_all", f"{ACQUIRE}) == turn", f"{RELAXED}) == turn"
    ),
    _race(
        "who arrives publishes nothing", "wait_for_all", "1, memory_order_acq_rel", f"1, {RELAXED}"
    ),
    _race("the layout is not published", "train", f"1, {RELEASE}", f"1, {RELAXED}"),
    _race("the layout is not taken over", "start", ACQUIRE, RELAXED),
    # It may also work on where its parent's variables no longer are, before a race is seen.
    _race(
        "nobody is joined",
        "train",
        "pthread_join(workers[i].thread, NULL)",
        "(void)i",
        f"{RACE}|SEGV",
    ),
    _race("two threads own a tile", "lay_out", "team->high / ROWS * i / threads * ROWS", "0"),
    _race(
        "every thread notes the loss", "work", "if (self->index == 0) run->losses", "run->losses"
    ),
    _race("every thread notes its time", "note", " || self->index", ""),
    _wrong(
        "samples that are padding count",
        "cross_entropy",
        "b < n ? 1 / (sum[b] * batch) : 0",
        "1 / (sum[b] * batch)",
        "other",
    ),
    _wrong(
        "a loss for each thread", "work", "loss / batch", "loss / team->threads", "other losses"
    ),
    _wrong("no eps in Adam", "adam", "sqrt(v[i]) + by.eps", "sqrt(v[i])", "padding of the first"),
    _wrong(
        "gradients of classes that are padding",
        "linear_backward_2",
        "*to + grad[r][c] : grad[r][c]",
        "*to + grad[r][c] : grad[r][c] + 1",
        "padding of the second",
    ),
)
