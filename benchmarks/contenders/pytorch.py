"""What all contenders in PyTorch share: settings, and the data on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.task import Outcome, Task
from reference import mnist_nn


def settings(threads: int) -> None:
    """Threads, full float32 in matrix products, and subnormal numbers as 0.

    Adam's moments fade into subnormal numbers, with which some processors are slow; PyTorch
    has a switch for it, which its users may use, and so it is on for all of its contenders.
    """
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
    torch.set_flush_denormal(True)


def about(task: Task) -> str:
    """Version, device and what affects the arithmetic."""
    text = f"PyTorch {torch.__version__}"
    if task.device == "cuda":
        tf32 = torch.backends.cuda.matmul.allow_tf32
        text += f", {torch.cuda.get_device_name()}, TF32 {'ON' if tf32 else 'off'}"
    return text


class Data:
    """A task's arrays as tensors on its device."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.images, self.labels, self.order = (
            torch.from_numpy(array).to(task.device)
            for array in (task.images, task.labels, task.order)
        )

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, 784) and labels (N,) of samples (N,): few passes, in place where possible."""
        # index_select takes half the time of images[chosen], since it need not work out shapes.
        x = torch.index_select(self.images, 0, chosen).to(torch.float32).div_(255)
        if self.task.normalized:
            x.sub_(self.task.normalization.mean).div_(self.task.normalization.std)
        return x, torch.index_select(self.labels, 0, chosen)


def initial(task: Task) -> dict[str, Tensor]:
    """Copies of the initial parameters, on the task's device."""
    return {
        name: torch.from_numpy(value.copy()).to(task.device) for name, value in task.initial.items()
    }


def outcome(losses: Tensor, state: dict[str, Tensor]) -> Outcome:
    """Losses (steps,) and copies of the parameters, on the host; waits for the device."""
    return Outcome(losses.detach().cpu().double().numpy(), mnist_nn.to_scratchnet(state))
