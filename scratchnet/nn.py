"""Layers: the pairs of `functional`, with the parameters and with what backward has to remember.

There is no tape. A layer's `forward` keeps its input; its `backward` takes ∂L/∂output, adds to the
gradients of its parameters, and returns ∂L/∂input. A network's backward is its layers' backward in
reverse order. One backward belongs to one forward, the last. The input is kept, not copied: change
neither it nor the parameters in between.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from scratchnet import backend, functional
from scratchnet.backend import Array
from scratchnet.functional import Reduction


class Buffer:
    """Two 1-D arrays of one length: values, and the gradients beside them."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self.grad = backend.get_array_module(data).zeros_like(data)


class Parameter:
    """An array that is trained: a stretch of a flat buffer, seen in its shape.

    Attributes:
        data: the values, a view; assigning to it copies into the buffer. Ask for it anew after
            `Module.parameters` or `Module.to`, which may move it.
        grad: ∂L/∂data of the same shape, a view; None until a backward has added to it.
        shape: its shape. Values and gradients of another raise ValueError; nothing is broadcast.
            What is no array raises TypeError.
    """

    def __init__(self, data: Array) -> None:
        """Make a parameter of its own buffer, a copy of `data` (float32 or float64)."""
        if data.dtype not in (np.float32, np.float64):
            raise TypeError(f"parameter has dtype {data.dtype}; expected float32 or float64")
        self.shape = data.shape
        self.buffer = Buffer(data.flatten())
        self.start = 0
        self._has_grad = False

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """Where it ends in its buffer, and a neighbour may start."""
        return self.start + self.size

    @property
    def data(self) -> Array:
        """The values, a view of the buffer."""
        return self._view(self.buffer.data)

    @data.setter
    def data(self, value: Array) -> None:
        self._set(self.buffer.data, value)

    @property
    def grad(self) -> Array | None:
        """The gradient, a view of the buffer; None if nothing has come since the last zero_grad."""
        return self._view(self.buffer.grad) if self._has_grad else None

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if value is not None:
            self._set(self.buffer.grad, value)
        self._has_grad = value is not None

    def add_grad(self, grad: Array) -> None:
        """Add to the gradient: a second use of a parameter, or a second batch, adds its terms."""
        self.grad = grad if self.grad is None else self.grad + grad

    def move(self, buffer: Buffer, start: int) -> None:
        """Copy values and gradient into another buffer, and live there from now on."""
        data, grad = self.data, self._view(self.buffer.grad)
        self.buffer, self.start = buffer, start
        self._set(buffer.data, data)
        self._set(buffer.grad, grad)

    def _view(self, flat: Array) -> Array:
        return flat[self.start : self.stop].reshape(self.shape)

    def _set(self, flat: Array, value: Array) -> None:
        backend.get_array_module(value)
        if value.shape != self.shape:
            raise ValueError(f"a value has shape {value.shape}; expected {self.shape}")
        self._view(flat)[...] = value


def adjoin(first: Parameter, second: Parameter) -> bool:
    """Whether the second parameter begins where the first ends, in the same buffer."""
    return first.buffer is second.buffer and first.stop == second.start


def check_one_kind(parameters: list[Parameter]) -> None:
    """Raise ValueError unless the parameters are of one dtype on one device."""
    kinds = {(str(p.data.dtype), backend.device_of(p.data)) for p in parameters}
    if len(kinds) > 1:
        raise ValueError(f"parameters are of {sorted(kinds)}; expected one dtype and one device")


def flatten(parameters: list[Parameter]) -> None:
    """Move the parameters into one new buffer, one behind the other, unless they are so already.

    Raises:
        ValueError: they are not of one dtype on one device.
    """
    if all(itertools.starmap(adjoin, itertools.pairwise(parameters))):
        return
    first = parameters[0].data
    check_one_kind(parameters)
    size = sum(parameter.size for parameter in parameters)
    buffer = Buffer(backend.get_array_module(first).empty(size, dtype=first.dtype))
    start = 0
    for parameter in parameters:
        parameter.move(buffer, start)
        start = parameter.stop


class Module:
    """A differentiable function with parameters. Subclasses write `forward` and `backward`.

    Parameters and submodules are found among the attributes, in the order of their assignment, and
    named after them, as in PyTorch: `lin1.weight`. For a list of layers use `Sequential`.
    """

    _saved: Any = None  # from forward, for backward

    def __call__(self, x: Array) -> Array:
        """The same as `forward`."""
        return self.forward(x)

    def forward(self, x: Array) -> Array:
        """The output for a batch x, (N, ...)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: Array) -> Array:
        """Add the parameters' gradients, and return ∂L/∂x, from grad_output = ∂L/∂output.

        It belongs to the last `forward`, and adds to `grad` as PyTorch's does: call `zero_grad`
        between two updates.

        Raises:
            RuntimeError: there was no forward, or its backward has been taken already.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Each parameter with its name, in the order of the flat buffer."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")

    def parameters(self) -> list[Parameter]:
        """All parameters, which from now on lie one behind the other in one flat buffer.

        Views of their `data` that were taken before do not follow.
        """
        parameters = list({id(p): p for _, p in self.named_parameters()}.values())
        flatten(parameters)
        return parameters

    def zero_grad(self) -> None:
        """Forget the gradients: every `grad` is None until the next backward."""
        for _, parameter in self.named_parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter by its name: PyTorch's keys, shapes and order."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy values into the parameters, all of them or, on an error, none.

        Args:
            state: an array of the parameter's shape and dtype for each name; it may live on either
                device, or be a PyTorch tensor on the CPU.

        Raises:
            KeyError: a name is missing or unknown.
            ValueError: a shape differs.
            TypeError: a dtype differs.
        """
        parameters = dict(self.named_parameters())
        missing, unknown = parameters.keys() - state.keys(), state.keys() - parameters.keys()
        if missing or unknown:
            raise KeyError(
                f"state has not the names of this model: missing {sorted(missing)}, "
                f"unknown {sorted(unknown)}; expected {list(parameters)}"
            )
        values = {}
        for name, parameter in parameters.items():
            own = parameter.data
            value = backend.asarray(state[name], backend.device_of(own))
            if value.shape != own.shape:
                raise ValueError(f"{name} has shape {value.shape}; this model's is {own.shape}")
            if value.dtype != own.dtype:
                raise TypeError(f"{name} has dtype {value.dtype}; this model's is {own.dtype}")
            values[name] = value
        for name, parameter in parameters.items():
            parameter.data = values[name]

    def to(self, device: str) -> Self:
        """Move the parameters to "cpu" or "cuda", and return self. Make the optimizer afterwards.

        Raises:
            InputError: there is no such device here.
        """
        device = backend.resolve(device)
        for buffer in {id(p.buffer): p.buffer for p in self.parameters()}.values():
            buffer.data = backend.asarray(buffer.data, device)
            buffer.grad = backend.asarray(buffer.grad, device)
        return self


class Linear(Module):
    """y = x Wᵀ + b.

    Args:
        in_features: D, the length of a sample.
        out_features: H, the number of outputs.
        bias: whether there is a b; default True.
        device: "auto" (the GPU where there is one; default), "cpu" or "cuda".
        dtype: float32 (default) or float64.
        generator: where the initial values come from, a numpy.random.Generator or a seed; default a
            new one.

    Attributes:
        weight: (H, D); bias: (H,) or None. Both are U(-1/√D, 1/√D) at first, as in torch.nn.Linear.
        needs_grad_x: whether backward returns ∂L/∂x; default True. Of a first layer, whose x is
            data, nobody needs it: if False, backward returns None and saves a third of its work.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: str = "auto",
        dtype: npt.DTypeLike = np.float32,
        generator: np.random.Generator | int | None = None,
    ) -> None:
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"Linear({in_features}, {out_features}): both sizes must be at least 1"
            )
        generator = np.random.default_rng(generator)
        bound = 1 / math.sqrt(in_features)

        def initial(*shape: int) -> Parameter:
            values = generator.uniform(-bound, bound, shape).astype(dtype)
            return Parameter(backend.asarray(values, backend.resolve(device)))

        self.weight = initial(out_features, in_features)
        self.bias = initial(out_features) if bias else None
        self.needs_grad_x = True

    def forward(self, x: Array) -> Array:
        """(N, D) -> (N, H)."""
        self._saved = x
        bias = None if self.bias is None else self.bias.data
        return functional.linear_forward(x, self.weight.data, bias)

    def backward(self, grad_output: Array) -> Array:
        """(N, H) -> (N, D)."""
        with _recalled(self) as x:
            grad_x, grad_weight, grad_bias = functional.linear_backward(
                grad_output, x, self.weight.data, needs_grad_x=self.needs_grad_x
            )
        self.weight.add_grad(grad_weight)
        if self.bias is not None:
            self.bias.add_grad(grad_bias)
        return grad_x


class ReLU(Module):
    """y = max(x, 0), elementwise."""

    def forward(self, x: Array) -> Array:
        """Any shape, kept."""
        self._saved = x
        return functional.relu_forward(x)

    def backward(self, grad_output: Array) -> Array:
        """x's shape, kept."""
        with _recalled(self) as x:
            return functional.relu_backward(grad_output, x)


class Sigmoid(Module):
    """y = 1 / (1 + exp(-x)), elementwise."""

    def forward(self, x: Array) -> Array:
        """Any shape, kept."""
        self._saved = x
        return functional.sigmoid_forward(x)

    def backward(self, grad_output: Array) -> Array:
        """x's shape, kept."""
        with _recalled(self) as x:
            return functional.sigmoid_backward(grad_output, x)


class Softmax(Module):
    """Softmax over the last axis. Before CrossEntropyLoss leave it out: that has its own."""

    def forward(self, x: Array) -> Array:
        """(..., C), kept."""
        self._saved = x
        return functional.softmax_forward(x)

    def backward(self, grad_output: Array) -> Array:
        """(..., C), kept."""
        with _recalled(self) as x:
            return functional.softmax_backward(grad_output, x)


class Sequential(Module):
    """Layers one behind the other, of any number: Sequential(Linear(4, 3), ReLU(), Linear(3, 2)).

    Raises:
        ValueError: a layer stands in it twice; it remembers one input, and backward needs two.
    """

    def __init__(self, *layers: Module) -> None:
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("a layer stands twice in Sequential; make a new one for each place")
        self.layers = layers

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Named by position, as in PyTorch: `0.weight`, `0.bias`, `2.weight`, ..."""
        for position, layer in enumerate(self.layers):
            yield from layer.named_parameters(f"{prefix}{position}.")
        yield from super().named_parameters(prefix)

    def forward(self, x: Array) -> Array:
        """The layers' forward in order."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad_output: Array) -> Array:
        """The layers' backward in reverse."""
        for layer in reversed(self.layers):
            grad_output = layer.backward(grad_output)
        return grad_output


class Mnist_NN(Module):
    """The tutorial's network: 784 pixels, 50 hidden units with ReLU, 10 logits.

    Args:
        in_features: D, default 784 = 28 · 28.
        hidden: H, default 50.
        classes: C, default 10.
        device, dtype, generator: as for `Linear`.
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: int = 50,
        classes: int = 10,
        *,
        device: str = "auto",
        dtype: npt.DTypeLike = np.float32,
        generator: np.random.Generator | int | None = None,
    ) -> None:
        generator = np.random.default_rng(generator)
        self.lin1 = Linear(in_features, hidden, device=device, dtype=dtype, generator=generator)
        self.relu = ReLU()
        self.lin2 = Linear(hidden, classes, device=device, dtype=dtype, generator=generator)

    def forward(self, x: Array) -> Array:
        """(N, D) -> logits (N, C)."""
        x = self.lin1(x)
        x = self.relu(x)
        return self.lin2(x)

    def backward(self, grad_output: Array) -> Array:
        """∂L/∂logits (N, C) -> ∂L/∂x (N, D)."""
        grad = self.lin2.backward(grad_output)
        grad = self.relu.backward(grad)
        return self.lin1.backward(grad)


class CrossEntropyLoss:
    """The loss at the end of the chain, with torch.nn.CrossEntropyLoss' arguments.

    loss_func(logits, target) is the loss, and loss_func.backward() is ∂L/∂logits for those logits:
    what the model's backward starts from.

    Args:
        weight: (C,) weight of each class; None for 1.
        ignore_index: samples with this label are left out; default -100.
        reduction: "mean" (default), "sum" or "none".
        label_smoothing: in [0, 1]; default 0.
    """

    _saved: Any = None

    def __init__(
        self,
        weight: Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.options: dict[str, Any] = {
            "weight": weight,
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
        }

    def __call__(self, logits: Array, target: Array) -> Array:
        """The same as `forward`."""
        return self.forward(logits, target)

    def forward(self, logits: Array, target: Array) -> Array:
        """(N, C) and (N,) -> the loss, a scalar; (N,) for reduction "none"."""
        self._saved = logits, target
        return functional.cross_entropy_forward(logits, target, **self.options)

    def backward(self, grad_output: Array | float = 1.0) -> Array:
        """∂L/∂logits, (N, C), of the last forward; grad_output is ∂L/∂loss, default 1."""
        with _recalled(self) as (logits, target):
            return functional.cross_entropy_backward(
                logits, target, **self.options, grad_output=grad_output
            )


@contextlib.contextmanager
def _recalled(layer: Module | CrossEntropyLoss) -> Iterator[Any]:
    """What the layer's last forward saved. It serves one backward that succeeds."""
    if layer._saved is None:
        raise RuntimeError(
            f"{type(layer).__name__}.backward has no forward to go back over; expected one forward "
            "before each backward, and a layer of its own for each place in the network"
        )
    yield layer._saved
    layer._saved = None
