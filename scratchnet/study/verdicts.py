"""What a diagnosis is: a verdict of findings, each with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scratchnet.study.subjects import Terms


def digits_apart(found: float, expected: float) -> int:
    """Six digits, or as many more as it takes to tell one number from the other."""
    return next((d for d in range(6, 17) if f"{found:.{d}g}" != f"{expected:.{d}g}"), 17)


def apart(found: float, expected: float) -> tuple[str, str]:
    """Two numbers, in so many digits."""
    digits = digits_apart(found, expected)
    return f"{found:.{digits}g}", f"{expected:.{digits}g}"


class Ledger(NamedTuple):
    """How one entry comes about.

    entry: such as "grad_weight[1, 2]".
    instance: on which instance.
    terms: the terms of the sum that it is, each with its name.
    expected, found: the truth, and the learner's value.
    difference: the loss's central difference, where the entry is a gradient.
    """

    entry: str
    instance: str
    terms: Terms
    expected: float
    found: float
    difference: float | None

    def __str__(self) -> str:
        """A line for each number, in digits that tell the learner's from the truth."""
        rows = [*self.terms, ("the truth", self.expected), ("yours", self.found)]
        if self.difference is not None:
            rows.append(("by nudging: the loss's central difference", self.difference))
        width = max(len(text) for text, _ in rows)
        digits = digits_apart(self.found, self.expected)
        lines = [f"  {text:{width}}  {value: .{digits}g}" for text, value in rows]
        return "\n".join([f"{self.entry} on '{self.instance}':", *lines])


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        result: the array that shows it; "" if it is the whole function.
        kind: "exception", "results", "second call", "inputs changed", "mistake", "shape", "nan",
            "integers", "precision", "scale", "where" or "unknown"; an exercise's check has others.
        message: what is wrong, in a sentence or two.
        names: the mistakes of the library that explain it; several if they can't be told apart.
        where: "step", the array that goes wrong, which may be one that is not returned; "entries",
            what its wrong entries have in common; "line", of the learner's code, if it is known.
        evidence: "instance", and of the worst entry there "index", "found" and "expected";
            "wrong" and "entries", counts; "ratio", if it is one for all; "ledger", a Ledger.
        hint: where to look, without the answer.
    """

    result: str
    kind: str
    message: str
    names: tuple[str, ...] = ()
    where: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    hint: str = ""

    @property
    def name(self) -> str:
        """The mistake's, or else the kind."""
        return self.names[0] if self.names else self.kind


@dataclass(frozen=True)
class Verdict:
    """What is wrong, the most upstream first. name, message and the like are the first finding's.

    Attributes:
        subject: what was judged.
        instances: the names of the instances on which it was.
        findings: empty if all is right.
        right: the arrays that are right, given the learner's own upstream arrays.
    """

    subject: str
    instances: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    right: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def name(self) -> str:
        """The mistake of the library, or the kind; "" if all is right."""
        return self.findings[0].name if self.findings else ""

    @property
    def names(self) -> tuple[str, ...]:
        """All mistakes that explain the first finding equally well."""
        return self.findings[0].names if self.findings else ()

    @property
    def message(self) -> str:
        """What is wrong, or that nothing is."""
        if self.findings:
            return self.findings[0].message
        return f"{self.subject} is right on {len(self.instances)} instances"

    @property
    def evidence(self) -> dict[str, Any]:
        """The numbers."""
        return self.findings[0].evidence if self.findings else {}

    @property
    def where(self) -> dict[str, Any]:
        """The place."""
        return self.findings[0].where if self.findings else {}

    @property
    def hint(self) -> str:
        """Where to look."""
        return self.findings[0].hint if self.findings else ""

    def __str__(self) -> str:
        """Every message, and the first ledger."""
        messages = [finding.message for finding in self.findings] or [self.message]
        ledgers = [str(f.evidence["ledger"]) for f in self.findings if "ledger" in f.evidence]
        return "\n".join([*messages, *ledgers[:1]])
