"""Adam (Kingma and Ba, 2015), as torch computes it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """`torch.optim.Adam` with its defaults, step for step.

    It is not that class because the class imports torch's compiler, which takes as long as a short run.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._state: dict[int, dict[str, Tensor]] = {}  # by the place of the parameter, once it has a gradient

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [place for place, parameter in enumerate(self._parameters) if parameter.grad is not None]
        for place in moved:
            if place not in self._state:
                zeros = torch.zeros_like(self._parameters[place])
                steps = torch.zeros((), device=zeros.device)
                self._state[place] = {"step": steps, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        states = [self._state[place] for place in moved]
        adam(
            [self._parameters[place] for place in moved],
            [gradient for parameter in self._parameters if (gradient := parameter.grad) is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The moments and step counts, named `<place of the parameter>.<name>`."""
        return {f"{place}.{name}": tensor for place, state in self._state.items() for name, tensor in state.items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state_dict` gave; a tensor of another shape is a `ValueError`."""
        self._state = {}
        for name, tensor in tensors.items():
            place, _, key = name.partition(".")
            if key != "step" and tensor.shape != self._parameters[int(place)].shape:
                raise ValueError(f"{name}: {tuple(tensor.shape)} is not the shape of the parameter")
            self._state.setdefault(int(place), {})[key] = tensor.to(self._parameters[int(place)].device, copy=True)
