"""A wrong array is traced to its cause, and a right one, in whatever style, is left in peace."""

from __future__ import annotations

import inspect
import itertools
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scratchnet import functional, optim
from scratchnet.backend import Array
from scratchnet.study import diagnose, mistakes
from scratchnet.study.answers import Answer
from scratchnet.study.diagnose import SUBJECTS
from scratchnet.study.explanations import in_words_of
from scratchnet.study.mistakes import BY_NAME, RIGHT
from scratchnet.study.subjects import Draw, Instance, Setting, Step, Subject
from scratchnet.study.truth import Chain, is_right
from tests.planted.catalogue import BUGS, Bug
from tests.test_exercises import network_with

Function = Callable[..., Any]

# ------------------------------------------------------- the planted bugs, pasted as answers

# Of the bugs in functions called X_backward, those that no formula of their arguments can say.
WITHOUT_FORMULA = {"relu_backward_takes_any_upstream": "a check is missing, and no value is wrong"}
BACKWARD = [
    bug for bug in BUGS if bug.file == "functional.py" and bug.function.endswith("_backward")
]
TRACEABLE = [bug for bug in BACKWARD if bug.name not in WITHOUT_FORMULA]
# The planted adam_moments_made_anew never stores its moments; a function returns what it has.
ADAM = [
    bug
    for bug in BUGS
    if bug.function == "Adam.update" and bug.name in BY_NAME.keys() - {"adam_moments_made_anew"}
]


def planted(bug: Bug, file: str) -> dict[str, Any]:
    """The names of a module of scratchnet in whose source a bug has been planted."""
    source = bug.plant(Path(file).read_text())
    names: dict[str, Any] = {"__name__": "planted"}
    exec(compile(source, "<planted>", "exec"), names)
    return names


def test_every_planted_backward_bug_is_in_the_library_but_what_no_formula_can_say() -> None:
    outside = {bug.name for bug in BACKWARD} - BY_NAME.keys()
    assert outside == WITHOUT_FORMULA.keys()


@pytest.mark.parametrize("bug", TRACEABLE, ids=lambda bug: bug.name)
def test_a_planted_backward_bug_yields_its_own_name_on_50_random_instances(bug: Bug) -> None:
    """Each draw has all settings, and is strict, since some bugs matter for inf and nan only."""
    mine = planted(bug, functional.__file__)[bug.function]
    for seed in range(50):
        verdict = diagnose.function(bug.function, mine, seed=seed, strict=True)
        assert verdict.names == (bug.name,), f"seed {seed}: {verdict}"


@pytest.mark.parametrize("bug", TRACEABLE, ids=lambda bug: bug.name)
def test_a_planted_backward_bug_is_in_the_answer_on_each_of_50_single_instances(bug: Bug) -> None:
    """Of one instance, of random sizes, only arrays are known; among those that fit is the bug."""
    subject, mine = SUBJECTS[bug.function], planted(bug, functional.__file__)[bug.function]
    rng, effects = np.random.default_rng(0), 0
    for sizes in rng.integers(3, 14, (50, 4)):
        n, d, h, c = [sizes[0]] * 4 if bug.square else sizes
        values, _ = subject.draw(Draw(Setting("random", n, d, h, c), rng))
        made = mine(**{name: value.copy() for name, value in values.items()})
        made = made if isinstance(made, tuple) else (made,)
        verdict = diagnose.arrays(
            bug.function, dict(zip(subject.results, made, strict=True)), values
        )
        effects += not verdict.ok
        is_possible = BY_NAME[bug.name].mend[1:] in verdict.message
        assert verdict.ok or bug.name in verdict.names or is_possible, str(verdict)
    assert effects in (0, 50)  # 0 where it takes an exact 0, an inf or an option


@pytest.mark.parametrize("bug", ADAM, ids=lambda bug: bug.name)
def test_a_planted_bug_of_adam_yields_its_own_name(bug: Bug) -> None:
    module = planted(bug, optim.__file__)

    def mine(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
        adam = module["Adam"].__new__(module["Adam"])
        vars(adam).update(_lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
        adam.update(p := p.copy(), g, t, m := m.copy(), v := v.copy())
        return p, m, v

    for seed in range(10):
        verdict = diagnose.function("adam", mine, seed=seed)
        assert {finding.names for finding in verdict.findings} == {(bug.name,)}, str(verdict)


@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS if bug.name in BY_NAME], ids=lambda bug: bug.name
)
def test_a_belief_is_written_in_one_place(bug: Bug) -> None:
    assert bug.sentence is not None
    assert bug.sentence == BY_NAME[bug.name].belief


# ---------------------------------------------------------------------------- the library itself


def wrong_formulas(subject: Subject) -> list[tuple[Step, str, Function]]:
    """Every wrong formula of every step, but for those that go with another one."""
    return [
        (step, mistake.name, formula)
        for step in subject.steps
        for mistake, formula in diagnose._mistakes(subject, step)
        if len(mistake.wrong) == 1
    ]


def mistaken(subject: Subject, wrong: dict[str, Function]) -> Function:
    """A learner's function that does some steps by wrong formulas, and returns every array."""
    takes = inspect.signature(getattr(functional, subject.name, lambda: None))

    def mine(*arguments: Any, **options: Any) -> dict[str, Array]:
        inputs = dict(zip(subject.inputs, arguments, strict=True))
        chain = Chain(subject, Answer(Instance("", inputs, options)))
        values = chain.follow(wrong, subject.steps[-1])
        for name in chain.changed(values):
            inputs[name][...] = values[name]
        return {step.name: values[step.name] for step in subject.steps}

    mine.__signature__ = takes  # type: ignore[attr-defined]
    return mine


SINGLE = [
    subject for subject in SUBJECTS.values() if not subject.given and "network" not in subject.name
]
SINGLE_FORMULAS = [
    pytest.param(subject, step, name, formula, id=f"{subject.name}-{step.name}-{name}")
    for subject in SINGLE
    for step, name, formula in wrong_formulas(subject)
]


@pytest.mark.parametrize(("subject", "step", "name", "formula"), SINGLE_FORMULAS)
def test_each_mistake_is_told_from_all_others(
    subject: Subject, step: Step, name: str, formula: Function
) -> None:
    mine = mistaken(subject, {step.name: formula})
    for seed in range(3):
        verdict = diagnose.function(subject.name, mine, seed=seed, strict=True)
        assert verdict.names == (name,), str(verdict)


def relu_backward_returns_within_the_loop(grad_output: Array, x: Array) -> Array:
    grad_x = np.zeros_like(x)
    for n in range(len(x)):
        grad_x[n] = np.where(x[n] <= 0, 0, grad_output[n])
        return grad_x
    raise AssertionError("there is a sample")


def cross_entropy_backward_returns_within_the_loop(logits: Array, target: Array) -> Array:
    p, grad = softmax(logits), np.zeros_like(logits)
    for n, label in enumerate(target):
        grad[n] = p[n] / len(p)
        grad[n, label] -= 1 / len(p)
        return grad
    raise AssertionError("there is a sample")


def grad_x_starts_at_0_within_the_loop(grad_output: Array, weight: Array) -> Array:
    grad_x = np.zeros((len(grad_output), weight.shape[1]))
    for n, d in np.ndindex(*grad_x.shape):
        for h in range(len(weight)):
            total = 0
            total += grad_output[n, h] * weight[h, d]
        grad_x[n, d] = total
    return grad_x


def grad_bias_starts_at_0_within_the_loop(grad_output: Array) -> list[float]:
    sums: list[float] = []
    for column in grad_output.T:
        for g in column:
            total = 0.0
            total += g
        sums.append(total)
    return sums


def network_that_updates_too_early(lr: float) -> Function:
    def mine(
        x: Array, target: Array, W1: Array, b1: Array, W2: Array, b2: Array
    ) -> dict[str, Array]:
        arrays = network_by_matrices(x, target, W1, b1, W2, b2)
        dh = arrays["dz2"] @ (W2 - lr * arrays["dW2"])
        dz1 = dh * (arrays["z1"] > 0)
        return arrays | {"dh": dh, "dz1": dz1, "dW1": dz1.T @ x, "db1": dz1.sum(axis=0)}

    return mine


def plain(lr: float, m: Array, v: Array) -> Array:
    """Adam's step, of moments that are corrected."""
    return lr * m / (np.sqrt(v) + 1e-8)


def adam_with(step: Function, square: Function = lambda g: g**2) -> Function:
    """Adam, but for a step that is made of p, m, v, and t, and for the square."""

    def mine(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * square(g)
        return step(p, m, v, t), m, v

    return mine


ADAMS = {
    "m_corrected_by_product": lambda p, m, v, t: (
        p - plain(1e-3, m / (1 - 0.9 * t), v / (1 - 0.999**t))
    ),
    "corrected_by_products": lambda p, m, v, t: (
        p - plain(1e-3, m / (1 - 0.9 * t), v / (1 - 0.999 * t))
    ),
    "m_multiplied_by_its_correction": lambda p, m, v, t: (
        p - plain(1e-3, m * (1 - 0.9**t), v / (1 - 0.999**t))
    ),
    "v_multiplied_by_its_correction": lambda p, m, v, t: (
        p - plain(1e-3, m / (1 - 0.9**t), v * (1 - 0.999**t))
    ),
    "multiplied_by_the_corrections": lambda p, m, v, t: (
        p - plain(1e-3, m * (1 - 0.9**t), v * (1 - 0.999**t))
    ),
    "m_corrected_with_beta2": lambda p, m, v, t: (
        p - plain(1e-3, m / (1 - 0.999**t), v / (1 - 0.999**t))
    ),
    "v_corrected_with_beta1": lambda p, m, v, t: (
        p - plain(1e-3, m / (1 - 0.9**t), v / (1 - 0.9**t))
    ),
    "eps_added_to_the_quotient": lambda p, m, v, t: (
        p - 1e-3 * (m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    ),
    "eps_added_to_p": lambda p, m, v, t: (
        p - 1e-3 * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t)) + 1e-8
    ),
}


def adam_returns(*names: str) -> Function:
    """Adam, but for the names of what it returns."""

    def mine(p: Array, g: Array, m: Array, v: Array, t: int) -> list[Array]:
        new = adam_as_in_the_paper(p, g, m, v, t)
        made = {"m": m, "v": v} | dict(zip(("new_p", "new_m", "new_v"), new, strict=True))
        return [made[name] for name in names]

    return mine


def slope_without_a_copy(loss: Function, weight: Array, index: tuple[int, int], h: float) -> float:
    up = down = weight.copy()
    up[index] += h
    down[index] -= h
    return (loss(up) - loss(down)) / (2 * h)


def slope_of_the_nudge_itself(
    loss: Function, weight: Array, index: tuple[int, int], h: float
) -> float:
    weight = weight.copy()
    weight[index] = h
    above = loss(weight)
    weight[index] = -h
    return (above - loss(weight)) / (2 * h)


def of_two_losses(formula: Callable[[float, float, float], float]) -> Function:
    """The losses of both nudges, and h, put together in one way or another."""

    def mine(loss: Function, weight: Array, index: tuple[int, int], h: float) -> float:
        nudge = np.zeros_like(weight)
        nudge[index] = h
        return formula(loss(weight + nudge), loss(weight - nudge), h)

    return mine


central_difference = of_two_losses(lambda up, down, h: (up - down) / (2 * h))


# As people write them, each with the function that it stands for.
EVERYDAY: dict[str, tuple[str, Function]] = {
    "relu_forward_mask": ("relu_forward", lambda x: (x > 0).astype(float)),
    "relu_forward_largest_of_the_column": ("relu_forward", lambda x: np.max(x, 0)),
    "relu_backward_mask_inverted_but_at_0": (
        "relu_backward",
        lambda g, x: np.where(x < 0, g, 0),
    ),
    "relu_backward_times_x_without_mask": ("relu_backward", lambda g, x: g * x),
    "relu_backward_first_sample_only": ("relu_backward", relu_backward_returns_within_the_loop),
    "softmax_forward_one_maximum_and_sum_for_all": (
        "softmax_forward",
        lambda x: np.exp(x - np.max(x)) / np.sum(np.exp(x - np.max(x))),
    ),
    "softmax_forward_one_maximum_not_normalized": (
        "softmax_forward",
        lambda x: np.exp(x - np.max(x)),
    ),
    "softmax_forward_shifted_above_only": (
        "softmax_forward",
        lambda x: np.exp(x - x.max(1)[:, None]) / np.exp(x).sum(1)[:, None],
    ),
    "softmax_forward_maximum_of_the_column": (
        "softmax_forward",
        lambda x: (e := np.exp(x - x.max(axis=0))) / e.sum(axis=1, keepdims=True),
    ),
    "softmax_forward_divided_by_maximum": (
        "softmax_forward",
        lambda x: (e := np.exp(x / x.max(axis=1, keepdims=True))) / e.sum(axis=1, keepdims=True),
    ),
    "softmax_forward_logarithm": (
        "softmax_forward",
        lambda x: x - np.logaddexp.reduce(x, axis=1, keepdims=True),
    ),
    "softmax_forward_logarithm_of_p": ("softmax_forward", lambda x: np.log(softmax(x))),
    "linear_backward_grad_x_first_sample_only": (
        "linear_backward.grad_x",
        lambda g, weight: np.vstack([g[:1] @ weight, np.zeros((len(g) - 1, weight.shape[1]))]),
    ),
    "linear_backward_grad_x_first_output_only": (
        "linear_backward.grad_x",
        lambda g, weight: g[:, :1] * weight[0],
    ),
    "linear_backward_grad_x_last_output_only": (
        "linear_backward.grad_x",
        grad_x_starts_at_0_within_the_loop,
    ),
    "linear_backward_grad_weight_first_output_only": (
        "linear_backward.grad_weight",
        lambda g, x: (g * (np.arange(g.shape[1]) == 0)).T @ x,
    ),
    "linear_backward_grad_bias_first_sample_only": (
        "linear_backward.grad_bias",
        lambda g: np.zeros(g.shape[1]) + g[0],
    ),
    "linear_backward_grad_bias_first_output_only": (
        "linear_backward.grad_bias",
        lambda g: [g[:, 0].sum(), *np.zeros(g.shape[1] - 1)],
    ),
    "linear_backward_grad_bias_last_sample_only": (
        "linear_backward.grad_bias",
        grad_bias_starts_at_0_within_the_loop,
    ),
    "cross_entropy_backward_averaged_over_classes_only": (
        "cross_entropy_backward",
        lambda logits, target: (
            (softmax(logits) - one_hot(target, logits.shape[1])) / logits.shape[1]
        ),
    ),
    "cross_entropy_backward_first_sample_only": (
        "cross_entropy_backward",
        cross_entropy_backward_returns_within_the_loop,
    ),
    **{f"adam_{name}": ("adam", adam_with(step)) for name, step in ADAMS.items()},
    "adam_v_of_twice_g": (
        "adam",
        adam_with(
            lambda p, m, v, t: p - plain(1e-3, m / (1 - 0.9**t), v / (1 - 0.999**t)),
            square=lambda g: g * 2,
        ),
    ),
    "adam_old_m_returned": ("adam", adam_returns("new_p", "m", "new_v")),
    "adam_old_v_returned": ("adam", adam_returns("new_p", "new_m", "v")),
    "finite_difference_divided_by_2": (
        "finite_difference",
        of_two_losses(lambda up, down, h: 0.5 * (up - down)),
    ),
    "finite_difference_times_h": (
        "finite_difference",
        of_two_losses(lambda up, down, h: (up - down) / 2 * h),
    ),
    "finite_difference_second_loss_divided": (
        "finite_difference",
        of_two_losses(lambda up, down, h: up - down / (2 * h)),
    ),
    "finite_difference_rounded_down": (
        "finite_difference",
        of_two_losses(lambda up, down, h: (up - down) // (2 * h)),
    ),
    "finite_difference_at_the_same_weights": ("finite_difference", slope_without_a_copy),
    "finite_difference_put_in_the_place": ("finite_difference", slope_of_the_nudge_itself),
    "finite_difference_own_h": (
        "finite_difference",
        lambda loss, weight, index, h: central_difference(loss, weight, index, 1e-5),
    ),
    **{
        f"network_weight_updated_too_early{by}": (
            "network_backward",
            network_that_updates_too_early(lr),
        )
        for by, lr in {
            "_by_all_of_its_gradient": 1.0,
            "": 0.1,
            "_by_a_hundredth": 0.01,
            "_by_a_thousandth": 0.001,
        }.items()
    },
}


@pytest.mark.parametrize("name", EVERYDAY)
def test_an_everyday_mistake_is_known_however_it_is_written(name: str) -> None:
    subject, mine = EVERYDAY[name]
    for seed in range(10):
        verdict = diagnose.function(subject, mine, seed=seed, strict=True)
        assert verdict.names == (name,), str(verdict)
        assert len(verdict.findings) == 1


@pytest.mark.parametrize("own", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
def test_a_central_difference_of_another_h_is_wrong(own: float) -> None:
    assert diagnose.function("finite_difference", central_difference).ok
    for seed in range(10):
        verdict = diagnose.function(
            "finite_difference",
            lambda loss, weight, index, h: central_difference(loss, weight, index, own),
            seed=seed,
        )
        assert not verdict.ok
        assert verdict.names in ((), ("finite_difference_own_h",)), str(verdict)


# Mistakes that spoil several results at once, and what each is if only one of them is spoilt.
AT_ONCE = {
    "linear_backward_results_swapped": {
        "linear_backward_grad_x_is_grad_weight",
        "linear_backward_grad_weight_is_grad_x",
    },
    "adam_betas_swapped": {
        "adam_m_with_beta2",
        "adam_v_with_beta1",
        "adam_corrections_exchanged",
    },
    "adam_moments_made_anew": {"adam_m_made_anew", "adam_v_made_anew"},
    "adam_m_and_v_exchanged": {"adam_m_is_v", "adam_v_is_m", "adam_step_along_v"},
}


def test_all_mistakes_of_several_results_are_known_here() -> None:
    assert AT_ONCE.keys() == {name for name, entry in BY_NAME.items() if len(entry.wrong) > 1}


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_mistake_of_several_results_is_named_only_where_all_of_them_are_spoilt(name: str) -> None:
    wrong = BY_NAME[name].wrong
    subject = SUBJECTS[next(iter(wrong)).split(".")[0]]
    steps = {s.name: wrong[s.operation.name] for s in subject.steps if s.operation.name in wrong}
    for seed in range(3):
        verdict = diagnose.function(subject.name, mistaken(subject, steps), seed=seed)
        assert {finding.names for finding in verdict.findings} == {(name,)}, str(verdict)
        alone: set[str] = set()
        for step, formula in steps.items():
            verdict = diagnose.function(subject.name, mistaken(subject, {step: formula}), seed=seed)
            assert verdict.where["step"] == step
            alone.update(verdict.names)
        assert alone == AT_ONCE[name]


NETWORK = SUBJECTS["network_backward"]
# In a network ReLU's input is what the ReLU in place has changed, and dh what its backward has.
IN_PLACE = {"relu_forward_in_place", "relu_backward_in_place"}
NO_WAY_ON = {"relu_forward_largest_of_the_column"}  # the next layer takes a row for each sample
# The mask keeps rows apart: whether dh or dz1 has lost its rows can't be seen in the gradients.
OF_DH_AS_WELL = "relu_backward_first_sample_only"


@pytest.mark.parametrize("returned", ["everything", "gradients"])
def test_in_a_network_the_right_step_is_named_if_it_is_returned_and_no_wrong_one_else(
    returned: str,
) -> None:
    """Each mistake in each step; some have no effect in a network, and the verdict may be ok."""
    named = 0
    for step, name, formula in wrong_formulas(NETWORK):
        if name in IN_PLACE | NO_WAY_ON:
            continue
        everything = mistaken(NETWORK, {step.name: formula})

        def mine(*arguments: Any, everything: Function = everything) -> dict[str, Array]:
            arrays = everything(*arguments)
            names = arrays if returned == "everything" else NETWORK.results
            return {name: arrays[name] for name in names}

        verdict = diagnose.function("network_backward", mine)
        if not verdict.ok:
            named += 1
            assert name in verdict.names, f"{step.name}, {name}: {verdict}"
            assert len(verdict.findings) == 1
            blamed = verdict.where["step"]
            assert blamed == step.name or (blamed, name) == ("dh", OF_DH_AS_WELL)
    assert named >= {"everything": 110, "gradients": 80}[returned]


@pytest.mark.parametrize("operation", RIGHT)
def test_the_right_formula_beside_the_wrong_ones_is_right(operation: str) -> None:
    family, _, own = operation.rpartition(".")
    name = "network_backward" if family == "network" else family
    name = "network_update" if family == "sgd" else name
    subject = SUBJECTS[name]
    step = next(
        step for step in subject.steps if operation in (step.operation.name, f"network.{step.name}")
    )
    assert own
    for instance in subject.instances(seed=0, strict=True):
        chain = Chain(subject, Answer(instance))
        with np.errstate(all="ignore"):
            found = np.asarray(eval(RIGHT[operation], {"np": np}, chain.upstream(step)))
            assert is_right(found, chain.truth(step))


def test_beliefs_and_remedies_are_sentences_and_formulas_can_be_shown() -> None:
    for mistake in BY_NAME.values():
        for sentence in (mistake.belief, mistake.mend):
            assert re.fullmatch(r"[^\s].*[.)]", sentence), sentence
        for formula in mistake.wrong.values():
            assert mistakes.text(formula)
    leaky = BY_NAME["relu_backward_leaky"].wrong["relu_backward.grad_x"]
    assert mistakes.text(leaky) == "np.where(x <= 0, 0.01 * grad_output, grad_output)"
    with pytest.raises(ValueError, match="no formula of this library"):
        mistakes.text(test_beliefs_and_remedies_are_sentences_and_formulas_can_be_shown)


# ----------------------------------------------------------------- right answers in many styles


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def one_hot(target: Array, classes: int) -> Array:
    return np.eye(classes)[target]


def jacobians(p: Array) -> Array:
    """∂p[n, k]/∂x[n, c] for each n, (N, C, C)."""
    return np.einsum("nk,kc->nkc", p, np.eye(p.shape[1])) - np.einsum("nk,nc->nkc", p, p)


def linear_by_loops(x: Array, weight: Array, bias: Array) -> list[list[float]]:
    return [[sum(a * b for a, b in zip(row, w, strict=True)) + c for w, c in zip(weight, bias, strict=True)] for row in x]  # fmt: skip  # noqa: E501


def linear_backward_by_loops(grad_output: Array, x: Array, weight: Array) -> list[Array]:
    grad_x, grad_weight = np.zeros(x.shape), np.zeros(weight.shape)
    grad_bias = np.zeros(len(weight))
    for n, h in np.ndindex(grad_output.shape):
        grad_x[n] += grad_output[n, h] * weight[h]
        grad_weight[h] += grad_output[n, h] * x[n]
        grad_bias[h] += grad_output[n, h]
    return [grad_x, grad_weight, grad_bias]


def relu_backward_by_loops(grad_output: Array, x: Array) -> Array:
    grad_x = grad_output.copy()
    for at in np.ndindex(x.shape):
        if x[at] <= 0:
            grad_x[at] = 0
    return grad_x


def softmax_by_rows(x: Array) -> Array:
    return np.array([np.exp(row - row.max()) / sum(np.exp(row - row.max())) for row in x])


def softmax_backward_by_loops(grad_output: Array, x: Array) -> Array:
    p, grad_x = softmax(x), np.zeros_like(x)
    for n, k, c in np.ndindex(*x.shape, x.shape[1]):
        grad_x[n, c] += grad_output[n, k] * p[n, k] * ((k == c) - p[n, c])
    return grad_x


def cross_entropy_of_softmax(logits: Array, target: Array) -> Any:
    return -np.log(softmax(logits)[np.arange(len(target)), target]).mean()


def cross_entropy_by_loops(logits: Array, target: Array) -> float:
    total = 0.0
    for row, label in zip(logits, target, strict=True):
        top = max(row)
        total += top - row[label] + np.log(sum(np.exp(row - top)))
    return total / len(target)


def cross_entropy_backward_in_place(logits: Array, target: Array) -> Array:
    p = softmax(logits)
    p[np.arange(len(p)), target] -= 1
    p /= len(p)
    return p


def cross_entropy_backward_by_jacobians(logits: Array, target: Array) -> Array:
    """The long way: -1/p at the label, through the softmax."""
    p = softmax(logits)
    grad_p = -one_hot(target, p.shape[1]) / p / len(p)
    return np.einsum("nk,nkc->nc", grad_p, jacobians(p))


def network_by_matrices(
    x: Array, target: Array, W1: Array, b1: Array, W2: Array, b2: Array
) -> dict[str, Array]:
    z1 = x @ W1.T + b1
    h = np.maximum(z1, 0)
    z2 = h @ W2.T + b2
    dz2 = (softmax(z2) - one_hot(target, len(W2))) / len(x)
    dh = dz2 @ W2
    dz1 = dh * (z1 > 0)
    gradients = {"dW2": dz2.T @ h, "db2": dz2.sum(0), "dW1": dz1.T @ x, "db1": dz1.sum(0)}
    return {"z1": z1, "h": h, "z2": z2, "dz2": dz2, "dh": dh, "dz1": dz1} | gradients


def network_by_einsum(
    x: Array, target: Array, W1: Array, b1: Array, W2: Array, b2: Array
) -> tuple[Array, ...]:
    z1 = np.einsum("nd,hd->nh", x, W1) + b1
    h = np.where(z1 > 0, z1, 0)
    p = softmax_by_rows(np.einsum("nh,ch->nc", h, W2) + b2)
    dz2 = p / len(p) - one_hot(target, len(b2)) / len(p)
    dz1 = np.einsum("nc,ch->nh", dz2, W2)
    dz1[z1 <= 0] = 0
    dW1, dW2 = np.einsum("nh,nd->hd", dz1, x), np.einsum("nc,nh->ch", dz2, h)
    return dW1, np.ones(len(x)) @ dz1, dW2, np.ones(len(x)) @ dz2


def network_by_samples(
    x: Array, target: Array, W1: Array, b1: Array, W2: Array, b2: Array
) -> dict[str, Array]:
    total: dict[str, Any] = {"dW1": 0, "db1": 0, "dW2": 0, "db2": 0}
    for row, label in zip(x, target, strict=True):
        one = network_by_matrices(row[None], label[None], W1, b1, W2, b2)
        total = {name: total[name] + one[name] / len(x) for name in total}
    return total


def updated(network: Function) -> Function:
    def update(
        x: Array, target: Array, W1: Array, b1: Array, W2: Array, b2: Array, lr: float
    ) -> list[Array]:
        made = network(x, target, W1, b1, W2, b2)
        grads = made if isinstance(made, tuple) else [made[k] for k in ("dW1", "db1", "dW2", "db2")]
        return [p - lr * g for p, g in zip((W1, b1, W2, b2), grads, strict=True)]

    return update


def adam_as_in_the_paper(
    p: Array, g: Array, m: Array, v: Array, t: int
) -> tuple[Array, Array, Array]:
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    return p - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def adam_in_place(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
    p, m, v = p.copy(), m.copy(), v.copy()
    m += (1 - 0.9) * (g - m)
    v += (1 - 0.999) * (g * g - v)
    p -= (
        1e-3
        * np.sqrt(1 - 0.999**t)
        / (1 - 0.9**t)
        * m
        / (np.sqrt(v) + 1e-8 * np.sqrt(1 - 0.999**t))
    )
    return p, m, v


def adam_by_loops(
    p: Array, g: Array, m: Array, v: Array, t: int
) -> tuple[list[float], list[float], list[float]]:
    powers = [1.0, 1.0]
    for _ in range(t):
        powers = [powers[0] * 0.9, powers[1] * 0.999]
    new_p, new_m, new_v = [], [], []
    for a, b, c, d in zip(p, g, m, v, strict=True):
        c = 0.9 * c + (1 - 0.9) * b
        d = 0.999 * d + (1 - 0.999) * b * b
        new_p.append(a - 1e-3 * c / (1 - powers[0]) / ((d / (1 - powers[1])) ** 0.5 + 1e-8))
        new_m.append(c)
        new_v.append(d)
    return new_p, new_m, new_v


def slope_put_back(loss: Function, weight: Array, index: tuple[int, int], h: float) -> float:
    kept = weight[index]
    weight[index] = kept + h
    above = loss(weight)
    weight[index] = kept - h
    below = loss(weight)
    weight[index] = kept
    return (above - below) / (2 * h)


def slope_of_copies(loss: Function, weight: Array, index: tuple[int, int], h: float) -> float:
    above, below = weight.copy(), weight.copy()
    above[index] += h
    below[index] -= h
    return loss(above) / (2 * h) - loss(below) / (2 * h)


def slope_of_a_nudge(loss: Function, weight: Array, index: tuple[int, int], h: float) -> float:
    nudge = np.zeros(weight.shape)
    nudge[index] = 1
    return 0.5 * (loss(weight + h * nudge) - loss(weight - h * nudge)) / h


STYLES: dict[str, tuple[Function, ...]] = {
    "linear_forward": (
        lambda x, weight, bias: x @ weight.T + bias,
        lambda x, weight, bias: np.einsum("nd,hd->nh", x, weight) + bias,
        lambda x, weight, bias: (weight @ x.T + bias[:, None]).T,
        linear_by_loops,
    ),
    "linear_backward": (
        lambda g, x, weight: (g @ weight, g.T @ x, g.sum(axis=0)),
        lambda g, x, weight: (
            np.einsum("nh,hd->nd", g, weight),
            np.einsum("nh,nd->hd", g, x),
            np.einsum("nh->h", g),
        ),
        lambda g, x, weight: {
            "grad_x": (weight.T @ g.T).T,
            "grad_weight": (x.T @ g).T,
            "grad_bias": np.ones(len(g)) @ g,
        },
        linear_backward_by_loops,
    ),
    "linear_backward.grad_x": (
        lambda g, weight: g @ weight,
        lambda g, weight: np.einsum("nh,hd->nd", g, weight),
        lambda g, weight: sum(np.outer(g[:, h], weight[h]) for h in range(len(weight))),
    ),
    "linear_backward.grad_weight": (
        lambda g, x: g.T @ x,
        lambda g, x: sum(np.outer(a, b) for a, b in zip(g, x, strict=True)),
        lambda g, x: np.tensordot(g, x, axes=(0, 0)),
    ),
    "linear_backward.grad_bias": (
        lambda g: g.sum(axis=0),
        lambda g: [sum(column) for column in g.T],
        lambda g: g[::-1].cumsum(axis=0)[-1],
    ),
    "relu_forward": (
        lambda x: np.maximum(x, 0),
        lambda x: x * (x > 0),
        lambda x: (x + abs(x)) / 2,
        lambda x: np.where(x > 0, x, 0),
    ),
    "relu_backward": (
        lambda g, x: np.where(x > 0, g, 0),
        lambda g, x: g * (x > 0),
        lambda g, x: g * np.heaviside(x, 0),
        relu_backward_by_loops,
    ),
    "sigmoid_backward": (
        lambda g, x: g / (1 + np.exp(-x)) / (1 + np.exp(x)),
        lambda g, x: g * np.exp(-abs(x)) / (1 + np.exp(-abs(x))) ** 2,
        lambda g, x: g / (2 + np.exp(x) + np.exp(-x)),
    ),
    "softmax_forward": (
        softmax,
        softmax_by_rows,
        lambda x: np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True)),
        lambda x: 1 / np.exp(x[:, None, :] - x[:, :, None]).sum(axis=2),
    ),
    "softmax_backward": (
        lambda g, x: (p := softmax(x)) * (g - (g * p).sum(axis=1, keepdims=True)),
        lambda g, x: np.einsum("nk,nkc->nc", g, jacobians(softmax(x))),
        lambda g, x: (p := softmax(x)) * g - p * np.einsum("nk,nk->n", p, g)[:, None],
        softmax_backward_by_loops,
    ),
    "log_softmax_forward": (
        lambda x: x - np.logaddexp.reduce(x, axis=1, keepdims=True),
        lambda x: np.log(softmax(x)),
        lambda x: (z := x - x.max(axis=1)[:, None]) - np.log(np.exp(z).sum(axis=1))[:, None],
    ),
    "log_softmax_backward": (
        lambda g, x: g - softmax(x) * g.sum(axis=1, keepdims=True),
        lambda g, x: softmax_backward_by_loops(g / softmax(x), x),
        lambda g, x: np.einsum("nk,nkc->nc", g, np.eye(x.shape[1]) - softmax(x)[:, None, :]),
    ),
    "cross_entropy_forward": (
        cross_entropy_of_softmax,
        lambda logits, target: (
            -(one_hot(target, logits.shape[1]) * np.log(softmax(logits))).sum() / len(logits)
        ),
        cross_entropy_by_loops,
        functional.cross_entropy_forward,
    ),
    "cross_entropy_backward": (
        lambda logits, target: (softmax(logits) - one_hot(target, logits.shape[1])) / len(logits),
        cross_entropy_backward_in_place,
        cross_entropy_backward_by_jacobians,
        functional.cross_entropy_backward,
    ),
    "network_backward": (network_by_matrices, network_by_einsum, network_by_samples),
    "network_update": (
        *map(updated, (network_by_matrices, network_by_einsum, network_by_samples)),
    ),
    "adam": (adam_as_in_the_paper, adam_in_place, adam_by_loops),
    "finite_difference": (slope_put_back, slope_of_copies, slope_of_a_nudge),
}


def test_there_are_three_styles_of_every_subject() -> None:
    assert STYLES.keys() == SUBJECTS.keys()
    assert all(len(styles) >= 3 for styles in STYLES.values())


@pytest.mark.parametrize("name", STYLES)
def test_a_right_answer_is_right_in_every_style_in_200_runs(name: str) -> None:
    for seed, mine in zip(range(200), itertools.cycle(STYLES[name]), strict=False):
        verdict = diagnose.function(name, mine, seed=seed)
        assert verdict.ok, f"style {STYLES[name].index(mine)}, seed {seed}: {verdict}"


@pytest.mark.parametrize("name", [name for name in SUBJECTS if hasattr(functional, name)])
def test_functional_itself_is_right_in_every_respect(name: str) -> None:
    for seed in range(20):
        verdict = diagnose.function(name, getattr(functional, name), seed=seed, strict=True)
        assert verdict.ok, str(verdict)


# ------------------------------------------------------------- bugs that are not in the library


def one_class_has_the_wrong_sign(logits: Array, target: Array) -> Array:
    grad = functional.cross_entropy_backward(logits, target)
    grad[:, 1] *= -1
    return grad


def two_rows_are_swapped(grad_output: Array, x: Array) -> Array:
    grad = functional.softmax_backward(grad_output, x)
    if len(grad) > 1:
        grad[[0, 1]] = grad[[1, 0]]
    return grad


def the_mask_of_the_next_unit(grad_output: Array, x: Array) -> Array:
    return grad_output * (np.roll(x, 1, axis=1) > 0)


def the_last_feature_is_forgotten(grad_output: Array, x: Array) -> Array:
    grad = grad_output.T @ x
    grad[:, -1] = 0
    return grad


def the_first_sample_is_closed(grad_output: Array, x: Array) -> Array:
    grad = functional.relu_backward(grad_output, x)
    grad[0] = 0
    return grad


def the_next_sample(*arguments: Array) -> dict[str, Array]:
    arrays = network_by_matrices(*arguments)
    return arrays | {"dW1": arrays["dz1"].T @ np.roll(arguments[0], 1, axis=0)}


# Each with its subject, and with what may be said of it: that it is unknown, or where it is.
OUTSIDE: dict[str, tuple[str, Function, str]] = {
    "indices off by one": ("linear_backward.grad_weight", lambda g, x: g[:-1].T @ x[1:], "unknown"),
    "one sample forgotten": (
        "linear_backward.grad_bias",
        lambda g: g.sum(axis=0) - g[len(g) // 2],
        "unknown",
    ),
    "one class has the wrong sign": (
        "cross_entropy_backward",
        one_class_has_the_wrong_sign,
        "all wrong entries are in class 1",
    ),
    "clipped": (
        "cross_entropy_backward",
        lambda logits, target: functional.cross_entropy_backward(logits, target).clip(-0.1, 0.05),
        "unknown",
    ),
    "noise": (
        "softmax_forward",
        lambda x: functional.softmax_forward(x) + 1e-9 * np.sin(1e3 * x),
        "unknown",
    ),
    "the next unit's mask": ("relu_backward", the_mask_of_the_next_unit, "unknown"),
    "two rows swapped": (
        "softmax_backward",
        two_rows_are_swapped,
        "all wrong entries are in samples 0 and 1",
    ),
    "half as large again": ("linear_backward.grad_x", lambda g, w: 1.5 * (g @ w), "unknown"),
    "three times, which is H on one instance only": (
        "linear_backward.grad_weight",
        lambda g, x: 3 * g.T @ x,
        "unknown",
    ),
    "divided by N - 1": (
        "cross_entropy_backward",
        lambda logits, target: (
            functional.cross_entropy_backward(logits, target, reduction="sum")
            / max(len(logits) - 1, 1)
        ),
        "unknown",
    ),
    "a temperature": (
        "cross_entropy_backward",
        lambda logits, target: functional.cross_entropy_backward(logits / 2, target),
        "unknown",
    ),
    "weight decay": (
        "linear_backward",
        lambda g, x, w: (g @ w, g.T @ x + 1e-3 * w, g.sum(axis=0)),
        "unknown",
    ),
    "the last feature forgotten": (
        "linear_backward.grad_weight",
        the_last_feature_is_forgotten,
        "all wrong entries are in the last feature",
    ),
    "the first sample closed": (
        "relu_backward",
        the_first_sample_is_closed,
        "all wrong entries are in the first sample",
    ),
    "p rounded to three digits": (
        "log_softmax_backward",
        lambda g, x: g - functional.softmax_forward(x).round(3) * g.sum(axis=1, keepdims=True),
        "unknown",
    ),
    "x of the next sample": ("network_backward", the_next_sample, "unknown"),
    "an epsilon of 1e-9": ("softmax_forward", lambda x: softmax(x) / (1 + 1e-9), "unknown"),
    "rounded to ten binary places, which is no float16": (
        "softmax_forward",
        lambda x: np.round(1024 * softmax(x)) / 1024,
        "unknown",
    ),
    "without its sign": (
        "finite_difference",
        lambda *arguments: abs(slope_of_copies(*arguments)),
        "unknown",
    ),
    "nearly a mistake of the library": (
        "linear_backward.grad_weight",
        lambda g, x: -1.0005 * g.T @ x,
        "unknown",
    ),
    "hardly wrong, and near to what is hardly wrong": (
        "log_softmax_forward",
        lambda x: (1 + 3e-12) * functional.log_softmax_forward(x),
        "unknown",
    ),
    "sum over the classes twice": (
        "softmax_backward",
        lambda g, x: softmax(x) * (g - 2 * (g * softmax(x)).sum(axis=1, keepdims=True)),
        "unknown",
    ),
    "lr is 1e-2": (
        "adam",
        lambda p, g, m, v, t: (
            (new := adam_as_in_the_paper(0 * p, g, m, v, t))[0] * 10 + p,
            *new[1:],
        ),
        "unknown",
    ),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_of_what_is_not_in_the_library_no_claim_is_false(what: str) -> None:
    name, mine, expected = OUTSIDE[what]
    for seed in range(50):
        verdict = diagnose.function(name, mine, seed=seed)
        (finding,) = verdict.findings
        assert finding.names == (), str(verdict)
        assert finding.kind == ("unknown" if expected == "unknown" else "where"), str(verdict)
        assert expected in finding.message
        assert expected == "unknown" or finding.where["entries"].startswith(expected)


def test_an_unknown_cause_comes_with_a_ledger_of_one_entry() -> None:
    verdict = diagnose.function("linear_backward.grad_weight", OUTSIDE["indices off by one"][1])
    ledger = verdict.evidence["ledger"]
    assert len(ledger.terms) == 5  # a term a sample
    assert sum(value for _, value in ledger.terms) == pytest.approx(ledger.expected, rel=1e-13)
    # A central difference of a function that is linear in the weight has rounding errors only:
    # L is a sum of 15 terms of about 1, so 15 · 2^-53 / 6e-6 is 3e-10.
    assert ledger.difference == pytest.approx(ledger.expected, abs=1e-8)
    assert ledger.found != pytest.approx(ledger.expected, rel=1e-3)
    text = str(verdict)
    for words in ("grad_output[4, ", "· x[4, ", "the truth", "yours", "central difference"):
        assert words in text


@pytest.mark.parametrize(
    "name", [name for name, subject in SUBJECTS.items() if "network" not in name]
)
def test_every_ledger_adds_up(name: str) -> None:
    """Whatever is asked, its terms make the truth, and the central difference is near it.

    The second derivatives of these losses are moderate, so with h = 6e-6 the error is below 1e-8
    times values of up to 10, and kinks are farther than h away or at 0 exactly, where a difference
    across the kink is half of what it is on one side: so the instance is the one without zeros.
    """
    subject = SUBJECTS[name]
    instance = subject.instances(seed=1)[0]
    chain = Chain(subject, Answer(instance))
    for step in subject.steps:
        truth = chain.truth(step).value
        verdict = diagnose.arrays(name, {step.name: truth + 1e-3}, instance.inputs)
        ledger = verdict.findings[0].evidence.get("ledger")
        assert ledger is not None
        if ledger.terms:
            total = sum(value for _, value in ledger.terms)
            assert total == pytest.approx(ledger.expected, rel=1e-12, abs=1e-14)
        if ledger.difference is not None:
            assert ledger.difference == pytest.approx(ledger.expected, abs=1e-7)


# --------------------------------------------------------------------- what needs no library


def test_an_exception_comes_with_its_line_and_the_letters_of_the_sizes() -> None:
    def mine(g: Array, x: Array, weight: Array) -> Array:
        a_line_above = g.sum()
        return a_line_above * (g @ x)

    verdict = diagnose.function("linear_backward", mine)
    assert verdict.name == "exception"
    line = mine.__code__.co_firstlineno + 2
    assert verdict.where == {"line": line}
    assert f"raises ValueError in line {line}: matmul" in verdict.message
    assert "5 is N" in verdict.message
    assert "3 is H" in verdict.message


def test_numbers_of_a_message_that_are_no_sizes_are_not_taken_for_them() -> None:
    """An index of 5 is no N, and axis 4 no C."""

    def index(g: Array, x: Array, weight: Array) -> Array:
        raise IndexError("index 5 is out of bounds for axis 3 with size 7")

    def value(g: Array, x: Array, weight: Array) -> Array:
        raise ValueError("5 of 7 are missing")

    first, second = (diagnose.function("linear_backward", mine) for mine in (index, value))
    assert re.findall(r"\d is [A-Z]", first.message) == ["7 is D"]
    assert re.findall(r"\d is [A-Z]", second.message) == []
    assert second.hint == ""


def test_an_error_of_scratchnet_that_is_called_is_in_the_line_of_the_call() -> None:
    def mine(g: Array, x: Array) -> Array:
        return functional.relu_backward(g.astype(int), x)

    verdict = diagnose.function("relu_backward", mine)
    assert verdict.where["line"] == mine.__code__.co_firstlineno + 1
    assert "TypeError" in verdict.message


def test_an_error_of_a_library_that_is_called_is_in_the_line_of_the_call() -> None:
    def mine(g: Array, x: Array) -> Array:
        return np.array(statistics.mean([]))

    verdict = diagnose.function("relu_backward", mine)
    assert verdict.where["line"] == mine.__code__.co_firstlineno + 1
    assert "StatisticsError" in verdict.message


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returns None; expected grad_x, grad_weight, grad_bias: is there a return?"),
        (np.zeros(3), "returns 1 value; expected grad_x, grad_weight, grad_bias"),
        ((1.0, 2.0), "returns 2 values; expected"),
        ({"grad_x": 1.0}, "returns a dict without grad_weight, grad_bias; expected"),
        ((1.0, "abc", 2.0), "returns grad_weight as str; expected an array"),
        ((1.0, [[1.0], [2.0, 3.0]], 2.0), "returns grad_weight as list; expected an array"),
        ((1.0, None, 2.0), "returns grad_weight as NoneType; expected an array"),
        ((1.0, np.array([1j]), 2.0), "as ndarray of complex128; expected an array of floats"),
        ((1.0, np.array([None]), 2.0), "as ndarray of object; expected an array of floats"),
    ],
)
def test_what_can_not_be_read_is_said(returned: Any, words: str) -> None:
    verdict = diagnose.function("linear_backward", lambda *_: returned)
    assert verdict.name == "results"
    assert words in verdict.message


def test_a_mistake_explains_why_the_function_raises_elsewhere() -> None:
    """On a rectangle a forgotten transpose raises; on a square it gives a wrong value."""
    verdict = diagnose.function("linear_backward.grad_weight", lambda g, x: g @ x)
    assert verdict.names == ("linear_backward_grad_weight_not_transposed",)
    assert len(verdict.findings) == 1
    assert "(Therefore ValueError on 'N=5, D=7, H=3, C=4'.)" in verdict.message


def test_where_nothing_explains_why_it_raises_that_comes_first() -> None:
    def mine(g: Array, x: Array) -> Array:
        if len(g) == 1:
            raise RuntimeError("just one?")
        return g.T @ x / len(g)

    verdict = diagnose.function("linear_backward.grad_weight", mine)
    assert [finding.name for finding in verdict.findings] == [
        "exception",
        "linear_backward_grad_weight_averaged",
    ]
    assert "raises RuntimeError in line" in verdict.message
    assert "just one?, on 'one sample'" in verdict.message


def test_a_division_by_0_of_pythons_is_explained_like_one_of_numpys() -> None:
    def mine(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m * (1 / (1 - 0.9 ** (t - 1))), v * (1 / (1 - 0.999 ** (t - 1)))
        return p - 1e-3 * m_hat / (np.sqrt(v_hat) + 1e-8), m, v

    verdict = diagnose.function("adam", mine)
    assert verdict.names == ("adam_t_starts_at_0",)
    assert len(verdict.findings) == 1
    assert "Therefore ZeroDivisionError on 'step 1'" in verdict.message


def test_a_shape_is_spelt_in_letters() -> None:
    verdict = diagnose.function(
        "linear_backward", lambda g, x, w: (g @ w, np.outer(x.sum(0), g.sum(0)), g.sum(0))
    )
    assert verdict.name == "shape"
    assert verdict.message.startswith(
        "grad_weight has shape (D, H) = (7, 3); expected (H, D) = (3, 7)"
    )
    assert verdict.right == ("grad_x", "grad_bias")
    flat = diagnose.function("relu_forward", lambda x: np.maximum(x, 0).ravel())
    assert flat.name == "shape"
    assert "the numbers are right, and only the axes are not" in flat.message
    turned = diagnose.function("softmax_forward", lambda x: softmax(x).T)
    assert "it is the transpose of the truth" in turned.message


UNSET: dict[str, Function] = {
    "linear_backward.grad_weight": lambda g, x: np.empty((g.shape[1], x.shape[1])),
    "linear_backward.grad_x": lambda g, weight: np.empty((len(g), weight.shape[1])),
    "relu_backward": lambda g, x: np.empty_like(x),
}


@pytest.mark.parametrize("name", UNSET)
def test_what_np_empty_finds_in_memory_is_not_taken_for_an_answer(name: str) -> None:
    """Without more ado it may be the truth, which was there just before."""
    for seed in range(5):
        verdict = diagnose.function(name, UNSET[name], seed=seed)
        assert "np.empty" in verdict.message
        assert "right on" not in verdict.message


def test_nan_on_some_instances_is_not_the_cause_where_numbers_are_wrong() -> None:
    """exp overflows for large logits only, and the mean instead of the sum is wrong for all."""

    def mine(x: Array) -> Array:
        e = np.exp(x)
        return e / e.mean(axis=1, keepdims=True) + 0.25

    verdict = diagnose.function("softmax_forward", mine)
    assert verdict.name == "unknown"
    assert np.isfinite(verdict.evidence["found"])


def test_what_pythons_own_max_says_of_an_array_is_translated() -> None:
    verdict = diagnose.function("relu_forward", lambda x: max(x, 0))
    assert "np.maximum" in verdict.hint


def test_nan_is_told_with_the_instance_that_shows_it() -> None:
    verdict = diagnose.function(
        "cross_entropy_forward",
        lambda x, y: np.log(np.exp(x).sum(1)).mean() - x[np.arange(len(y)), y].mean(),
    )
    assert verdict.name == "nan"
    assert "'logits in the thousands'" in verdict.message


@pytest.mark.parametrize("name", ["linear_backward.grad_x", "linear_backward.grad_bias"])
def test_a_shape_on_some_instances_is_not_the_cause_where_numbers_are_wrong(name: str) -> None:
    """Of one sample the first axis is gone, or the sum of none is 0."""
    wrong: dict[str, Function] = {
        "linear_backward.grad_x": lambda g, weight: np.squeeze(g @ weight / len(g)),
        "linear_backward.grad_bias": lambda g: sum(row for row in g[1:]),
    }
    verdict = diagnose.function(name, wrong[name])
    assert verdict.name == "unknown"
    assert "shape" not in verdict.message
    assert "axes" not in verdict.message


def test_what_is_changed_in_place_is_told_though_no_mistake_explains_it() -> None:
    """W1 and W2 have other shapes, and from many a mistake there is no way on to new_W1."""
    right = STYLES["network_update"][0]

    def mine(*arguments: Any) -> Any:
        results = right(*arguments)
        for name, result in zip(("W1", "b1", "W2", "b2"), results, strict=True):
            arguments[[*SUBJECTS["network_update"].inputs].index(name)][...] = result
        return results

    verdict = diagnose.function("network_update", mine)
    assert verdict.name == "inputs changed"
    assert "changes W1 and b1 and W2 and b2" in verdict.message


def test_what_may_not_be_read_is_no_array() -> None:
    verdict = diagnose.function("relu_forward", lambda x: torch.tensor(x, requires_grad=True))
    assert verdict.name == "results"
    assert "returns y as Tensor; expected an array of floats" in verdict.message


def test_several_results_may_be_stacked() -> None:
    stacked = diagnose.function("adam", lambda *given: np.stack(adam_as_in_the_paper(*given)))
    assert stacked.ok, str(stacked)


def test_of_a_step_that_one_result_is_made_from_the_use_may_be_wrong_as_well() -> None:
    """Whether dW2 is divided or the step that is made of it can't be seen in new_W2."""

    def mine(*arguments: Any) -> list[Array]:
        *given, lr = arguments
        names = ("W1", "b1", "W2", "b2")
        weights = dict(zip(names, given[2:], strict=True))
        gradients = network_by_matrices(*given)
        gradients["dW2"] /= len(given[0])
        return [weights[name] - lr * gradients[f"d{name}"] for name in names]

    (finding,) = diagnose.function("network_update", mine).findings
    assert finding.result == "new_W2"
    assert "it goes wrong in dW2, which is not returned, or in its use" in finding.message


def test_a_learning_rate_of_ones_own_is_wrong() -> None:
    right = STYLES["network_update"][0]
    verdict = diagnose.function("network_update", lambda *given: right(*given[:-1], 0.1))
    assert not verdict.ok


def test_integers_and_float32_are_recognized() -> None:
    whole = diagnose.function(
        "linear_backward.grad_bias", lambda g: (3 * g).sum(0).astype(int) // 3
    )
    assert whole.name in ("unknown", "where")
    cut = diagnose.function("linear_backward.grad_weight", lambda g, x: (g.T @ x).astype(int))
    assert cut.name == "integers"
    single = diagnose.function(
        "softmax_backward",
        lambda g, x: functional.softmax_backward(g.astype("f"), x.astype("f")).astype(g.dtype),
    )
    assert single.name == "precision"
    assert "float32" in single.message


def test_a_relu_in_place_is_known_by_what_it_changes() -> None:
    def mine(g: Array, x: Array) -> Array:
        g *= x > 0
        return g

    verdict = diagnose.function("relu_backward", mine)
    assert verdict.names == ("relu_backward_in_place",)
    assert verdict.findings[0].kind == "inputs changed"
    assert verdict.right == ("grad_x",)


def test_what_was_put_back_in_another_digit_is_told_so() -> None:
    def mine(loss: Function, weight: Array, index: tuple[int, int], h: float) -> float:
        weight[index] += h
        above = loss(weight)
        weight[index] -= 2 * h
        below = loss(weight)
        weight[index] += h
        return (above - below) / (2 * h)

    verdict = diagnose.function("finite_difference", mine)
    assert verdict.name == "inputs changed"
    assert "put back, but in another digit: a + h - h need not be a" in verdict.message


def test_changed_inputs_are_named() -> None:
    def mine(logits: Array, target: Array) -> Array:
        logits -= logits.max(axis=1, keepdims=True)
        return functional.cross_entropy_backward(logits, target)

    verdict = diagnose.function("cross_entropy_backward", mine)
    assert (verdict.name, verdict.names) == ("inputs changed", ())
    assert "changes logits" in verdict.message
    assert verdict.evidence["changed"] == ("logits",)
    assert verdict.right == ("grad_logits",)


def test_calls_that_add_up_and_random_ones_are_told() -> None:
    kept: dict[tuple[int, ...], Any] = {}

    def adds_up(g: Array) -> Array:
        kept[g.shape] = kept.get(g.shape, 0) + g.sum(axis=0)
        return kept[g.shape]

    verdict = diagnose.function("linear_backward.grad_bias", adds_up)
    assert verdict.name == "second call"
    assert "the calls add up" in verdict.message
    rng = np.random.default_rng(0)

    def dropout(g: Array, x: Array) -> Array:
        return np.where((x > 0) & (rng.random(x.shape) < 0.5), 2 * g, 0)

    verdict = diagnose.function("relu_backward", dropout)
    assert verdict.name == "second call"
    assert "or random" in verdict.message


def test_a_scale_is_claimed_where_a_size_explains_it_everywhere() -> None:
    def mine(g: Array, x: Array) -> Array:
        return g.T @ x * x.shape[1]

    verdict = diagnose.function("linear_backward.grad_weight", mine)
    assert verdict.name == "scale"
    assert "every entry is 7.000 times the truth, D = 7" in verdict.message
    assert verdict.evidence["ratio"] == pytest.approx(7, rel=1e-12)


def test_of_fewer_than_eight_entries_no_scale_is_claimed() -> None:
    rng = np.random.default_rng(0)
    g, x, weight = rng.normal(size=(5, 2)), rng.normal(size=(5, 3)), rng.normal(size=(2, 3))
    inputs = {"grad_output": g, "x": x, "weight": weight}
    assert (
        diagnose.arrays("linear_backward", {"grad_weight": 3 * g.T @ x}, inputs).name == "unknown"
    )
    wide = inputs | {"x": x.repeat(2, axis=1), "weight": weight.repeat(2, axis=1)}
    grad = {"grad_weight": 6 * g.T @ wide["x"]}
    assert diagnose.arrays("linear_backward", grad, wide).name == "scale"


def test_each_array_is_judged_given_the_learners_own_upstream() -> None:
    def mine(*arguments: Any) -> dict[str, Array]:
        """The 1/N is missing, and the mask is: two mistakes, which spoil all that comes after."""
        x, target, W1, b1, W2, b2 = arguments
        z1 = x @ W1.T + b1
        h = np.maximum(z1, 0)
        dz2 = softmax(h @ W2.T + b2) - one_hot(target, len(W2))
        dz1 = dz2 @ W2
        gradients = {"dW2": dz2.T @ h, "db2": dz2.sum(0), "dW1": dz1.T @ x, "db1": dz1.sum(0)}
        return {"dz2": dz2, "dz1": dz1} | gradients

    verdict = diagnose.function("network_backward", mine)
    assert [finding.name for finding in verdict.findings] == [
        "cross_entropy_backward_not_averaged",
        "relu_backward_without_mask",
    ]
    assert [finding.where["step"] for finding in verdict.findings] == ["dz2", "dz1"]
    assert verdict.message.startswith("dz2: every entry is 5.000 times the truth, N = 5: the 1/N")
    assert "dW2, db2, dW1 and db1 are right given your dz2." in verdict.message
    assert "dW1 and db1 are right given your dz1." in verdict.findings[1].message
    assert verdict.right == ("dW2", "db2", "dW1", "db1")
    assert verdict.hint == "look at how dz2 is made from z2 and target"


def test_a_cause_that_is_not_returned_is_found_all_the_same() -> None:
    def mine(*arguments: Any) -> dict[str, Array]:
        arrays = network_by_matrices(*arguments)
        return {name: len(arguments[0]) * arrays[name] for name in NETWORK.results}

    verdict = diagnose.function("network_backward", mine)
    assert verdict.names == ("cross_entropy_backward_not_averaged",)
    assert len(verdict.findings) == 1
    assert (verdict.findings[0].result, verdict.where["step"]) == ("dW2", "dz2")
    assert "it goes wrong in dz2, which is not returned" in verdict.message
    assert "A mistake in dz2 explains db2, dW1 and db1, too." in verdict.message


FACTORS: dict[str, Callable[[int, int], float]] = {
    "2": lambda N, C: 2,
    "N": lambda N, C: N,
    "1/N": lambda N, C: 1 / N,
    "1/C": lambda N, C: 1 / C,
    "-1": lambda N, C: -1,
}


def scaled(names: tuple[str, ...], factor: str, returned: tuple[str, ...]) -> Function:
    """The whole backward pass, in which some arrays have a factor that is carried on from them."""

    def mine(*arguments: Any) -> dict[str, Array]:
        x, W2 = arguments[0], arguments[4]
        k = {name: FACTORS[factor](len(x), len(W2)) if name in names else 1.0 for name in ALL_STEPS}
        arrays = network_by_matrices(*arguments)
        z1, h, dz2 = arrays["z1"], arrays["h"], k["dz2"] * arrays["dz2"]
        dh = k["dh"] * dz2 @ W2
        dz1 = k["dz1"] * np.where(z1 > 0, dh, 0)
        made = {"dz2": dz2, "dh": dh, "dz1": dz1}
        made |= {"dW2": k["dW2"] * dz2.T @ h, "db2": k["db2"] * dz2.sum(0)}
        made |= {"dW1": k["dW1"] * dz1.T @ x, "db1": k["db1"] * dz1.sum(0)}
        return {name: made[name] for name in returned}

    return mine


ALL_STEPS = ("dz2", "dW2", "db2", "dh", "dz1", "dW1", "db1")


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["dW1", "db1", "dW2", "db2"])
def test_a_step_before_is_not_blamed_if_another_array_made_from_it_is_right(
    name: str, factor: str
) -> None:
    """Of dW2 and db2 only one is wrong, so dz2, which is not returned, is right."""
    for seed in range(5):
        mine = scaled((name,), factor, NETWORK.results)
        verdict = diagnose.function("network_backward", mine, seed=seed)
        assert [(each.result, each.where["step"]) for each in verdict.findings] == [(name, name)]
        assert all(f"in {step}" not in str(verdict) for step in ("dz2", "dh", "dz1"))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["dz2", "dh", "dz1"])
def test_a_step_before_is_blamed_or_left_open_if_all_that_is_made_from_it_is_wrong(
    name: str, factor: str
) -> None:
    """What is said of dW1 and db1 is that dz1, dh or dz2 explains both, or that each is off."""
    after = NETWORK.results if name == "dz2" else ("dW1", "db1")
    for seed in range(5):
        mine = scaled((name,), factor, NETWORK.results)
        verdict = diagnose.function("network_backward", mine, seed=seed)
        for finding in verdict.findings:
            assert finding.result in after, str(verdict)
            step = finding.where["step"]
            assert step == finding.result or is_before(step, finding.result), str(verdict)


def is_before(step: str, result: str) -> bool:
    (of,) = [each for each in NETWORK.steps if each.name == result]
    return step in diagnose._before(NETWORK, of)


def test_where_each_array_has_a_mistake_of_its_own_that_explains_it_both_are_told() -> None:
    """Both gradients of layer 1 are negative: dz1 is, or each of them is."""
    verdict = diagnose.function("network_backward", scaled(("dh",), "-1", NETWORK.results))
    text = str(verdict)
    assert [finding.result for finding in verdict.findings] == ["dW1"], text
    assert "it goes wrong in" in text
    assert "Or: it goes wrong in dW1 itself" in text


def combined(**lines: Function) -> Function:
    """The backward pass with some lines changed, of which the four gradients are returned."""
    network = network_with(**lines)

    def mine(*arguments: Any) -> dict[str, Array]:
        values = network(*arguments)
        return {name: values[name] for name in NETWORK.results}

    return mine


def test_of_two_mistakes_one_above_the_other_both_are_told() -> None:
    """Three signs are explained by one mistake, or by three; the mean has another sum."""
    mine = combined(
        dz2=lambda z2, target, **_: -functional.cross_entropy_backward(z2, target),
        db2=lambda dz2, **_: dz2.mean(axis=0),
    )
    verdict = diagnose.function("network_backward", mine)
    assert [(each.result, each.where["step"]) for each in verdict.findings] == [
        ("dW2", "dz2"),
        ("db2", "db2"),
    ]
    assert verdict.names == ("cross_entropy_backward_sign",)
    assert "A mistake in dz2 explains dW1 and db1, too." in verdict.message
    assert verdict.findings[1].names == ("linear_backward_grad_bias_averaged",)


def test_the_same_mistake_in_one_layer_does_not_hide_another_one_in_the_other() -> None:
    mine = combined(
        dW2=lambda dz2, h, **_: dz2.T @ h / len(h), dh=lambda dz2, W2, **_: dz2 @ W2 / len(dz2)
    )
    second, first = diagnose.function("network_backward", mine).findings
    assert (second.result, second.where["step"]) == ("dW2", "dW2")
    assert (first.result, first.where["step"]) == ("dW1", "dh")
    assert "Or: it goes wrong in dW1 itself" in first.message


def test_where_it_raises_on_all_instances_but_one_a_formula_has_to_explain_that() -> None:
    """With N = H = 4 a mean over the samples is one over the units; the transposed W2 raises."""
    mine = combined(dh=lambda dz2, W2, **_: dz2 @ W2.T, dW2=lambda dz2, h, **_: dz2.T @ h / 4)
    findings = diagnose.function("network_backward", mine).findings
    kinds = {finding.result: (finding.kind, finding.names) for finding in findings}
    assert kinds == {
        "dW2": ("scale", ()),
        "dW1": ("mistake", ("linear_backward_grad_x_weight_transposed",)),
    }


@pytest.mark.parametrize("kind", [int, np.float32])
def test_of_another_shape_on_some_instances_neither_integers_nor_digits_are_told(
    kind: type,
) -> None:
    """Three sums there always are, and on other instances four units or sixteen."""
    verdict = diagnose.function(
        "linear_backward.grad_bias",
        lambda g: np.array([float(kind(sum(g[:, h]))) for h in range(3)]),
    )
    assert verdict.name in ("unknown", "shape")


@pytest.mark.parametrize("layer", [1, 2])
def test_a_remedy_has_the_names_axes_and_indices_of_the_layer(layer: int) -> None:
    def mine(*arguments: Any) -> dict[str, Array]:
        """The weight's gradient is transposed, and the bias's is a mean."""
        arrays = network_by_matrices(*arguments)
        weight, bias = f"dW{layer}", f"db{layer}"
        return arrays | {weight: arrays[weight].T, bias: arrays[bias] / len(arguments[0])}

    names = ("dz1ᵀ x, (H, D)", "dz1") if layer == 1 else ("dz2ᵀ h, (C, H)", "dz2")
    verdict = diagnose.function("network_backward", mine)
    assert f"so it is {names[0]}." in verdict.findings[0].message
    assert f"has put 1/N into {names[1]} already" in verdict.findings[1].message


def test_a_remedy_of_the_networks_own_stays_as_it_is() -> None:
    """h is the second layer's input in it, and no index."""
    (step,) = [each for each in NETWORK.steps if each.name == "dW2"]
    mistake = BY_NAME["network_dW2_of_z1"]
    mine = mistaken(NETWORK, {"dW2": mistake.wrong["network.dW2"]})
    verdict = diagnose.function("network_backward", mine)
    assert mistake.mend in verdict.message
    assert in_words_of(step, mistake.mend) == mistake.mend.replace("h ", "c ")


def test_what_follows_is_a_sentence_of_its_own() -> None:
    """Also behind a cause that has no full stop."""
    mine = scaled(("dz2",), "1/C", ALL_STEPS)
    (finding,) = diagnose.function("network_backward", mine).findings
    assert ". dW2, db2, dh, dz1, dW1 and db1 are right given your dz2." in finding.message
    assert ".." not in finding.message


@pytest.mark.parametrize(
    ("operation", "step", "said", "told"),
    [
        (
            "grad_weight_of_weight",
            "dW2",
            "the weight: the factor of weight[h, d] is x[n, d], so use x",
            "W2: the factor of W2[c, h] is h[n, h], so use h",
        ),
        (
            "grad_x_weight_transposed",
            "dh",
            "each output h hands weight[h] to the inputs, so multiply by the weight itself",
            "each output c hands W2[c] to the inputs, so multiply by W2 itself",
        ),
        (
            "grad_bias_over_the_wrong_axis",
            "db2",
            "a bias is shared by the samples",
            "a bias is shared by the samples",
        ),
    ],
)
def test_words_of_prose_stay_and_indices_change_at_once(
    operation: str, step: str, said: str, told: str
) -> None:
    """h is an index of the operation, and the input of the second layer."""
    mend = BY_NAME[f"linear_backward_{operation}"].mend
    (at,) = [each for each in NETWORK.steps if each.name == step]
    assert said in mend
    assert told in in_words_of(at, mend)


def test_an_array_that_is_right_is_never_blamed_for_those_that_it_could_be_made_from() -> None:
    def mine(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
        """The step is right; what is returned beside it are the corrected moments."""
        p, m, v = adam_as_in_the_paper(p, g, m, v, t)
        return p, m / (1 - 0.9**t), v / (1 - 0.999**t)

    verdict = diagnose.function("adam", mine)
    assert [finding.result for finding in verdict.findings] == ["new_m", "new_v"]
    assert verdict.right == ("new_p",)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))][1:])
def test_results_in_another_order_are_told_so(order: tuple[int, int, int]) -> None:
    """Also where v would be negative, and the truth made from it nan."""

    def mine(*arguments: Any) -> list[Array]:
        results = adam_as_in_the_paper(*arguments)
        return [results[i] for i in order]

    verdict = diagnose.function("adam", mine)
    names = ("new_p", "new_m", "new_v")
    assert "nan" not in str(verdict)
    if order == (0, 2, 1):  # which the library has: each is the other
        assert [finding.name for finding in verdict.findings] == ["adam_m_is_v", "adam_v_is_m"]
    else:
        assert verdict.name == "order"
        assert f"returns {', '.join(names[i] for i in order)}, each of them right" in str(verdict)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))][1:])
def test_results_under_other_names_are_told_so(order: tuple[int, int, int]) -> None:
    """A dict has no order; and a wrong dz2, which is no result, is told beside it."""

    def mine(*arguments: Any) -> dict[str, Array]:
        arrays = network_by_matrices(*arguments)
        right = [arrays[name] for name in ("dW1", "dW2", "db1")]
        names = [("dW1", "dW2", "db1")[i] for i in order]
        return dict(zip(names, right, strict=True)) | {"db2": arrays["db2"]}

    def both(*arguments: Any) -> dict[str, Array]:
        return mine(*arguments) | {"dz2": -network_by_matrices(*arguments)["dz2"]}

    verdict = diagnose.function("network_backward", mine)
    assert verdict.name == "order"
    for was, name in zip(order, range(3), strict=True):
        said = "{} is what {} should be".format(*(("dW1", "dW2", "db1")[i] for i in (was, name)))
        assert (said in verdict.message) == (was != name)
    assert "right arrays under other names" in verdict.message
    further = diagnose.function("network_backward", both).findings
    assert [each.result for each in further] == ["", "dz2"]
    assert "cross_entropy_backward_sign" in further[1].names


CLIPS = {
    "below": lambda p: np.clip(p, 1e-12, 1),
    "at both ends": lambda p: np.clip(p, 1e-7, 1 - 1e-7),
    "barely": lambda p: np.clip(p, 1e-15, 1 - 1e-15),
    "by an epsilon": lambda p: p + 1e-12,
}


@pytest.mark.parametrize("clip", CLIPS)
def test_a_mistake_that_gives_the_truth_explains_nothing(clip: str) -> None:
    """Without options a mistake about an option is none, and clipped p are nearly right."""

    def mine(logits: Array, target: Array) -> Array:
        p = CLIPS[clip](softmax(logits))
        return (p - one_hot(target, logits.shape[1])) / len(logits)

    for seed in range(20):
        verdict = diagnose.function("cross_entropy_backward", mine, seed=seed, strict=True)
        (finding,) = verdict.findings
        assert finding.names == (), str(verdict)
        assert finding.kind == "where" or "such as an eps, or a clip?" in finding.message
        yours, truth = (re.search(rf"{who} +(\S+)", str(verdict)) for who in ("yours", "the truth"))
        assert yours is not None
        assert truth is not None
        assert yours[1] != truth[1]


def test_wrong_entries_of_a_dead_unit_are_placed_there() -> None:
    def mine(*arguments: Any) -> dict[str, Array]:
        arrays = network_by_matrices(*arguments)
        dead = (arrays["z1"] <= 0).all(axis=0)
        dW1 = arrays["dW1"].copy()
        dW1[dead] = 0.01 * arguments[2][dead] + 1
        return arrays | {"dW1": dW1}

    verdict = diagnose.function("network_backward", mine)
    assert verdict.name == "where"
    assert "in units that are dead (z1 <= 0 for every sample)" in verdict.message


def test_one_instance_may_be_ambiguous_and_then_every_explanation_is_named() -> None:
    """With N = C a mean over the classes is a mean over the samples."""
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(4, 4)), rng.integers(0, 4, 4)
    grad = functional.cross_entropy_backward(logits, target) / 4
    inputs = {"logits": logits, "target": target}
    verdict = diagnose.arrays("cross_entropy_backward", grad, inputs)
    assert set(verdict.names) == {
        "cross_entropy_backward_averaged_over_classes",
        "cross_entropy_backward_averaged_twice",
    }
    assert " Or: " in verdict.message
    logits = rng.normal(size=(5, 4))
    target = rng.integers(0, 4, 5)
    inputs = {"logits": logits, "target": target}
    grad = functional.cross_entropy_backward(logits, target) / 4
    verdict = diagnose.arrays("cross_entropy_backward", grad, inputs)
    assert verdict.names == ("cross_entropy_backward_averaged_over_classes",)


def test_what_is_hardly_wrong_is_no_scale_of_1() -> None:
    x = np.random.default_rng(0).normal(size=(1, 9))
    assert diagnose.arrays("softmax_forward", softmax(x) / (1 + 5e-10), {"x": x}).name == "unknown"


def test_what_is_hardly_wrong_is_told_in_digits_that_show_it() -> None:
    hardly = diagnose.function("relu_forward", lambda x: np.where(x < 0, 0, x * (1 + 1e-9)))
    assert "every entry is 1.000000001 times the truth" in hardly.message
    shifted = diagnose.function("relu_forward", lambda x: np.where(x < 0, 0, x + 1e-9))
    found, expected = re.findall(r"is (\S+), expected (\S+):", shifted.message)[0]
    assert float(found) - float(expected) == pytest.approx(1e-9, rel=0.5)  # to its last digit


def test_of_few_numbers_on_one_instance_a_mistake_is_a_possibility_only() -> None:
    """With N = 2 to divide by N - 1 is not to divide."""
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(2, 5)), rng.integers(0, 5, 2)
    grad = functional.cross_entropy_backward(logits, target, reduction="sum")
    inputs = {"logits": logits, "target": target}
    verdict = diagnose.arrays("cross_entropy_backward", grad, inputs)
    assert verdict.names == ()
    assert verdict.name == "scale"
    assert "so few numbers don't tell, but it could be: the 1/N is missing" in verdict.message


def test_arrays_are_judged_by_the_values_they_were_made_from() -> None:
    (instance, *_) = NETWORK.instances(seed=3)
    arrays = network_by_matrices(**instance.inputs)
    forward = {name: arrays[name] for name in ("z1", "h", "z2")}
    right = forward | {name: arrays[name] for name in NETWORK.results}
    assert diagnose.arrays("network_backward", right, instance.inputs).ok
    wrong = forward | {"dW2": arrays["dz2"].T @ arrays["z1"]}
    verdict = diagnose.arrays("network_backward", wrong, instance.inputs)
    assert verdict.names == ("network_dW2_of_z1",)


def test_arrays_with_options_of_integers_and_in_lists() -> None:
    logits = [[1, 2, 3], [0, 1, 0]]
    target = np.array([0, 2])
    inputs = {"logits": logits, "target": target, "reduction": "sum"}
    grad = functional.cross_entropy_backward(np.array(logits, float), target, reduction="sum")
    assert diagnose.arrays("cross_entropy_backward", grad.tolist(), inputs).ok
    assert not diagnose.arrays("cross_entropy_backward", grad / 2, inputs).ok


@pytest.mark.parametrize(
    ("name", "found", "inputs", "words"),
    [
        ("tanh", {}, {}, "'tanh' can't be judged; expected one of linear_forward"),
        ("relu_backward", np.zeros(1), {"x": np.zeros(1)}, "needs grad_output; expected"),
        ("relu_forward", {"z": 1}, {"x": np.zeros(1)}, "has no z; expected some of y"),
    ],
)
def test_what_can_not_be_judged_is_refused(
    name: str, found: Any, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        diagnose.arrays(name, found, inputs)


def test_functions_without_a_signature_are_judged_too() -> None:
    verdict = diagnose.function("relu_forward", np.positive)
    assert "all wrong entries are where x <= 0" in verdict.message


def test_the_example_of_the_module_says_what_it_says() -> None:
    def my_linear_backward(grad_output: Array, x: Array, weight: Array) -> tuple[Array, ...]:
        return grad_output @ weight, grad_output.T @ x / len(x), grad_output.sum(axis=0)

    verdict = diagnose.function("linear_backward", my_linear_backward)
    assert verdict.name == "linear_backward_grad_weight_averaged"
    assert str(verdict) in " ".join((diagnose.__doc__ or "").split())
    right = diagnose.function("linear_backward", STYLES["linear_backward"][0])
    assert right.ok
    assert (right.name, right.names, right.hint) == ("", (), "")
    assert (right.evidence, right.where) == ({}, {})
    assert str(right) == "linear_backward is right on 5 instances"
