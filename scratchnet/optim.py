"""Optimizers: from gradients to new parameters. And the schedule of their learning rate.

A model's parameters lie in one flat buffer, and so do their gradients and the optimizer's moments.
An update is then a handful of operations on a few long vectors, whatever the layers are. Formulas,
order of operations, names and defaults are torch.optim's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from scratchnet import backend
from scratchnet.backend import Array, ieee
from scratchnet.nn import Parameter, adjoin, check_one_kind


class Optimizer:
    """What all optimizers share: parameters, step counts, flat state, and checkpoints of them.

    A subclass names its state vectors in `state_names` and writes `update`.

    Attributes:
        lr: the learning rate of the next step; a schedule, or the user, may change it.
        steps: how many steps each parameter has made.
        vectors: the state by name, each a flat array for all parameters.
    """

    state_names: tuple[str, ...] = ()
    option_names: tuple[str, ...] = ("lr", "weight_decay", "maximize")

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, weight_decay: float, maximize: bool
    ) -> None:
        self.parameters = list(parameters)
        _check_parameters(self.parameters)
        self.lr = lr
        self.weight_decay = _not_negative("weight_decay", weight_decay)
        self.maximize = maximize
        self.steps = [0] * len(self.parameters)
        self._starts = np.cumsum([0] + [p.size for p in self.parameters]).tolist()
        first = self.parameters[0].data
        zeros = backend.get_array_module(first).zeros
        self.vectors = {
            name: zeros(self._starts[-1], dtype=first.dtype) for name in self.state_names
        }

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        # A float of Python's: one of numpy.float64 would turn float32 arrays into float64.
        self._lr = float(_not_negative("lr", value))

    def zero_grad(self) -> None:
        """Forget the gradients: every `grad` is None until the next backward."""
        for parameter in self.parameters:
            parameter.grad = None

    @ieee
    def step(self) -> None:
        """Update, in place, every parameter that has a gradient; the others are passed over."""
        for first, last in self._stretches():
            self.steps[first:last] = [self.steps[first] + 1] * (last - first)
            start, stop = self.parameters[first].start, self.parameters[last - 1].stop
            buffer = self.parameters[first].buffer
            own = slice(self._starts[first], self._starts[last])
            state = [vector[own] for vector in self.vectors.values()]
            grad = -buffer.grad[start:stop] if self.maximize else buffer.grad[start:stop]
            self.update(buffer.data[start:stop], grad, self.steps[first], *state)

    def update(self, p: Array, g: Array, step: int, *state: Array) -> None:
        """Change p and the state vectors in place. g is the gradient; step counts from 1."""
        raise NotImplementedError

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Runs (first, last) of parameters that can be updated as one vector.

        They have gradients and one step count, and are neighbours in one buffer. As a rule that is
        the whole model; where a parameter in its middle has no gradient, it is two runs.
        """
        first = 0
        while first < len(self.parameters):
            last = first + 1
            if self.parameters[first].grad is not None:
                while last < len(self.parameters) and self._joins(last):
                    last += 1
                yield first, last
            first = last

    def _joins(self, i: int) -> bool:
        before, parameter = self.parameters[i - 1], self.parameters[i]
        return (
            parameter.grad is not None
            and adjoin(before, parameter)
            and self.steps[i] == self.steps[i - 1]
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, laid out as torch.optim's state_dict is, with arrays for tensors.

        {"state": {i: {"step": int, name: array, ...}}, "param_groups": [{"lr": ..., "params":
        [0, 1, ...]}]}, where i is the parameter's position; one that never had a gradient has no
        entry.
        """
        state = {
            i: {"step": self.steps[i]}
            | {name: self._state_of(i, name).copy() for name in self.state_names}
            for i in range(len(self.parameters))
            if self.steps[i]
        }
        group: dict[str, Any] = {name: getattr(self, name) for name in self.option_names}
        return {"state": state, "param_groups": [group | {"params": [*range(len(self.steps))]}]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state: this class's, or torch.optim's of the same name, on either device.

        Raises:
            ValueError: it is of other parameters, has several parameter groups, or another amsgrad.
            KeyError: an option or a state vector is missing. In both cases nothing is changed.
        """
        groups = state_dict["param_groups"]
        if len(groups) != 1 or len(groups[0]["params"]) != len(self.parameters):
            raise ValueError(
                f"state has parameter groups of {[len(g['params']) for g in groups]} parameters; "
                f"expected one group of {len(self.parameters)}"
            )
        options = {name: groups[0][name] for name in self.option_names}
        if options.get("amsgrad", False) != getattr(self, "amsgrad", False):
            raise ValueError(
                f"state has amsgrad={options['amsgrad']}; expected that of this optimizer: "
                "make it with the same"
            )
        device = backend.device_of(self.parameters[0].data)
        steps = [0] * len(self.parameters)
        values: dict[tuple[int, str], Array] = {}
        for i, entry in state_dict["state"].items():
            if i not in range(len(self.parameters)):
                raise ValueError(
                    f"state has a parameter {i!r}; expected 0 to {len(self.parameters) - 1}"
                )
            given = {name: entry[name] for name in self.state_names}
            if any(value is None for value in given.values()):
                continue  # as torch's SGD leaves it without momentum: the same as no state
            steps[i] = int(entry.get("step", 1))  # which torch's SGD does not count
            for name in given:
                value = values[i, name] = backend.asarray(given[name], device)
                if value.shape != self.parameters[i].shape:
                    raise ValueError(
                        f"{name} of parameter {i} has shape {value.shape}; "
                        f"expected {self.parameters[i].shape}"
                    )
        for name, option in options.items():
            setattr(self, name, option)
        self.steps = steps
        for i in range(len(self.parameters)):
            for name in self.state_names:
                self._state_of(i, name)[...] = values.get((i, name), 0)

    def _state_of(self, i: int, name: str) -> Array:
        own = slice(self._starts[i], self._starts[i + 1])
        return self.vectors[name][own].reshape(self.parameters[i].shape)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted.

        g ← g + weight_decay · p
        b ← momentum · b + (1 - dampening) · g       (b ← g at the first step)
        p ← p - lr · b                               (nesterov: p - lr · (g + momentum · b))

    Args:
        parameters: model.parameters().
        lr: learning rate; default 1e-3.
        momentum: share of the last direction that is kept; default 0, then b is g.
        dampening: default 0.
        weight_decay: the factor of p that is added to g; default 0.
        nesterov: whether to look one step ahead; default False.
        maximize: climb instead of descending; default False.

    Raises:
        ValueError: lr, momentum or weight_decay is negative, or nesterov lacks momentum or has
            dampening.

    Source: torch.optim.SGD.
    """

    state_names = ("momentum_buffer",)
    option_names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay, maximize)
        self.momentum = _not_negative("momentum", momentum)
        self.dampening = dampening
        self.nesterov = nesterov
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"nesterov with momentum {momentum} and dampening {dampening}; "
                "expected momentum above 0 and dampening 0"
            )

    def update(self, p: Array, g: Array, step: int, *state: Array) -> None:
        """One step of p along the buffer b."""
        (b,) = state
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            b *= self.momentum if step > 1 else 0
            b += (1 - self.dampening) * g if step > 1 else g
            g = g + self.momentum * b if self.nesterov else b
        p -= self.lr * g


class Adam(Optimizer):
    """Adam: each number has a step size of its own, from running means of its gradient.

        g ← g + weight_decay · p
        m ← β₁ m + (1 - β₁) g                        mean of g
        v ← β₂ v + (1 - β₂) g²                       mean of g²
        p ← p - lr/(1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)         (amsgrad: v's maximum so far)

    m and v start at 0 and are too small at first; dividing by 1 - βᵗ, where t counts the steps from
    1, corrects exactly that. weight_decay is the gradient of (weight_decay / 2) Σ p²: the
    L2-regularised cost of the tutorial, added here to g rather than to the loss.

    Args:
        parameters: model.parameters().
        lr: learning rate; default 1e-3.
        betas: (β₁, β₂), each in [0, 1); default (0.9, 0.999).
        eps: added to the root, keeps the step finite; default 1e-8.
        weight_decay: default 0.
        amsgrad: divide by the largest v so far instead of v; default False.
        maximize: climb instead of descending; default False.

    Raises:
        ValueError: an option is out of its range.

    Source: Kingma and Ba 2015, algorithm 1; torch.optim.Adam.
    """

    state_names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    option_names = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"betas[{i}] is {beta}; expected a number in [0, 1)")
        self.betas = betas
        self.eps = _not_negative("eps", eps)
        self.amsgrad = amsgrad
        if amsgrad:
            self.state_names = (*self.state_names, "max_exp_avg_sq")
        super().__init__(parameters, lr, weight_decay, maximize)

    def update(self, p: Array, g: Array, step: int, *state: Array) -> None:
        """One step of p along m, measured in √v."""
        xp = backend.get_array_module(p)
        m, v, *max_v = state
        beta1, beta2 = self.betas
        g = self.decay(p, g)
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g  # from the left: g * g overflows earlier
        if max_v:
            v = xp.maximum(max_v[0], v, out=max_v[0])
        denominator = xp.sqrt(v)
        denominator /= math.sqrt(1 - beta2**step)
        denominator += self.eps
        p -= self.lr / (1 - beta1**step) * (m / denominator)

    def forget_faded(self) -> None:
        """Every 64th step, set moments that have all but faded away to 0; for loops, between steps.

        Without a gradient m and v shrink by β in each step, down to where numbers are subnormal,
        with which some processors are many times slower. Of MNIST's 39,760 m, whose pixels are
        mostly blank, 1,600 are subnormal after 20 epochs. What is forgotten, m below 1e-30 and v
        below 1e-36, moves a parameter by less than lr/(1 - β₁ᵗ) · 1e-30 / eps, which is 1e-21 lr,
        and changes √v + eps by less than 1e-18, a part in 10⁸ of eps at most.
        """
        if self.steps[0] % 64:
            return
        m, v = (self.vectors[name] for name in ("exp_avg", "exp_avg_sq"))
        xp = backend.get_array_module(m)
        xp.copyto(m, 0, where=abs(m) < 1e-30)  # m[mask] = 0 would wait for a GPU to count the mask
        xp.copyto(v, 0, where=v < 1e-36)

    def decay(self, p: Array, g: Array) -> Array:
        """The gradient with the L2 cost's own: g + weight_decay · p."""
        return g + self.weight_decay * p if self.weight_decay else g


class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by itself, and g is left alone.

        p ← (1 - lr · weight_decay) p,   then Adam's step without weight_decay.

    So the decay is not divided by √v: numbers with large gradients shrink like the others. The
    arguments are Adam's; weight_decay defaults to 0.01.

    Source: Loshchilov and Hutter 2019, algorithm 2; torch.optim.AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def decay(self, p: Array, g: Array) -> Array:
        """Shrink p in place; g stays as it is."""
        p *= 1 - self.lr * self.weight_decay
        return g


class OneCycleLR:
    """The 1cycle schedule: the learning rate climbs to a peak and then falls to almost nothing.

    From max_lr / div_factor to max_lr in the first pct_start of the steps, then down to
    max_lr / (div_factor · final_div_factor), both along half a cosine. The momentum (Adam's β₁)
    goes the opposite way, from max_momentum to base_momentum and back, if cycle_momentum. With
    three_phase the fall first mirrors the climb, and then goes on from the first rate to the last.

    Args:
        optimizer: whose lr, and β₁ or momentum, is set: at once, and by each `step`.
        max_lr: the peak.
        total_steps: number of updates; or give epochs and steps_per_epoch.
        pct_start: share of the steps that climb, in [0, 1]; default 0.3.
        anneal_strategy: "cos" (default) or "linear".
        cycle_momentum: default True, as in PyTorch.
        base_momentum, max_momentum: its limits; default 0.85 and 0.95.
        div_factor, final_div_factor: default 25 and 1e4.
        three_phase: default False.

    Attributes:
        last_epoch: how many times `step` was called. (PyTorch's name; here it counts updates.)

    Raises:
        ValueError: an option is out of its range.

    Source: Smith and Topin 2018; torch.optim.lr_scheduler.OneCycleLR.
    """

    def __init__(
        self,
        optimizer: SGD | Adam,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("expected total_steps, or epochs and steps_per_epoch; got neither")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1:
            raise ValueError(f"total_steps is {total_steps}; expected at least 1")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start is {pct_start}; expected a number in [0, 1]")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy is {anneal_strategy!r}; expected 'cos' or 'linear'")
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        first_lr = max_lr / div_factor
        last_lr = first_lr / final_div_factor
        climb = pct_start * total_steps
        # Where each phase ends, and the learning rate and momentum that it has reached by then.
        self.start = (first_lr, max_momentum)
        self.phases = [(climb - 1, (max_lr, base_momentum))]
        if three_phase:
            self.phases.append((2 * climb - 2, self.start))
        self.phases.append((total_steps - 1.0, (last_lr, max_momentum)))
        self.last_epoch = 0
        self._set()

    def at(self, step: int) -> tuple[float, float]:
        """The learning rate and the momentum of an update, counted from 0.

        The last step() of a loop leads to update total_steps, which is never made. It keeps the
        last values, where PyTorch would run on along the curve, and even below 0.

        Raises:
            ValueError: the schedule is over.
        """
        if step > self.total_steps:
            raise ValueError(
                f"step {step} of OneCycleLR; expected at most total_steps = {self.total_steps}"
            )
        begin, start = 0.0, self.start
        for end, goal in self.phases:
            if step <= end or end == self.phases[-1][0]:
                break
            begin, start = end, goal
        share = min((step - begin) / (end - begin), 1.0) if end > begin else 1.0
        return self._anneal(start[0], goal[0], share), self._anneal(start[1], goal[1], share)

    def step(self) -> None:
        """Go on by one update: call it after each optimizer.step()."""
        self.at(self.last_epoch + 1)
        self.last_epoch += 1
        self._set()

    def get_last_lr(self) -> list[float]:
        """The learning rate in force, in a list of one, as PyTorch has it."""
        return [self.optimizer.lr]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a `state_dict`; the optimizer's own carries its learning rate.

        Raises:
            KeyError: a name is missing or unknown; nothing is changed.
        """
        if state_dict.keys() != self.state_dict().keys():
            raise KeyError(f"state has {sorted(state_dict)}; expected {sorted(self.state_dict())}")
        vars(self).update(state_dict)

    def _anneal(self, start: float, goal: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (goal - start) * share + start
        return goal + (start - goal) / 2 * (math.cos(math.pi * share) + 1)

    def _set(self) -> None:
        self.optimizer.lr, momentum = self.at(self.last_epoch)
        if not self.cycle_momentum:
            return
        if isinstance(self.optimizer, SGD):
            self.optimizer.momentum = momentum
        else:
            self.optimizer.betas = (momentum, self.optimizer.betas[1])


def _check_parameters(parameters: list[Parameter]) -> None:
    if not parameters:
        raise ValueError("the optimizer got no parameters; expected model.parameters()")
    for parameter in parameters:
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"the optimizer got a {type(parameter).__name__}; expected model.parameters()"
            )
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise ValueError("a parameter is there twice and would be updated twice; expected it once")
    check_one_kind(parameters)


def _not_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} is {value}; expected a number >= 0")
    return value
