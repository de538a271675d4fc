"""Adam (Kingma and Ba, 2015), as torch computes it."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """`torch.optim.Adam` with its defaults, step for step.

    It is not that class because the class imports torch's compiler, which takes as long as a short run.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._learning_rate = learning_rate
        self._state = [
            {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            for parameter in self._parameters
        ]

    @classmethod
    def joined(cls, optimizers: Sequence["Adam"], parameters: Iterable[nn.Parameter]) -> "Adam":
        """One optimiser for `parameters` that stack those of several, which have taken equally many steps.

        It goes on from their moments, and they see its moments as theirs from then on.
        """
        joint = cls(parameters, optimizers[0]._learning_rate)
        for place, state in enumerate(joint._state):
            own = [optimizer._state[place] for optimizer in optimizers]
            state["step"].copy_(own[0]["step"])
            for name in ("exp_avg", "exp_avg_sq"):
                torch.stack([each[name] for each in own], out=state[name])
            for number, each in enumerate(own):
                each |= {"step": state["step"], **{name: state[name][number] for name in ("exp_avg", "exp_avg_sq")}}
        return joint

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [place for place, parameter in enumerate(self._parameters) if parameter.grad is not None]
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
        return {f"{place}.{name}": value for place, state in enumerate(self._state) for name, value in state.items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `state_dict` gave; a missing tensor is a `KeyError`, one of another shape a `ValueError`."""
        for place, state in enumerate(self._state):
            for name, value in state.items():
                tensor = tensors[f"{place}.{name}"]
                if tensor.shape != value.shape:
                    raise ValueError(f"{place}.{name}: {tuple(tensor.shape)} is not the shape of the parameter")
                value.copy_(tensor)
