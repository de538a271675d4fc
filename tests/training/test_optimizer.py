import pytest
import torch

from skimrnn.training.optimizer import Adam


def take_steps(optimizer, parameters, steps: range) -> None:
    for step in steps:
        for place, parameter in enumerate(parameters):
            # The second one has no gradient at first, the third one never.
            has_gradient = place == 0 or (place == 1 and step >= 2)
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 * step + place))
            parameter.grad = gradient if has_gradient else None
        optimizer.step()
        optimizer.zero_grad()


def parameters_of(seed: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,), (2,))]


def test_steps_are_those_of_torchs_adam(seed: int) -> None:
    ours, theirs = parameters_of(seed), parameters_of(seed)
    take_steps(Adam(ours, 0.01), ours, range(6))
    take_steps(torch.optim.Adam(theirs, lr=0.01, fused=True), theirs, range(6))
    assert all(torch.equal(our, their) for our, their in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[1], parameters_of(seed)[1])


def test_an_optimizer_goes_on_where_another_stopped(seed: int) -> None:
    whole, resumed = parameters_of(seed), parameters_of(seed)
    take_steps(Adam(whole, 0.01), whole, range(6))
    first = Adam(resumed, 0.01)
    take_steps(first, resumed, range(3))
    second = Adam(resumed, 0.01)
    second.load_state_dict(first.state_dict())
    take_steps(second, resumed, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.exp_avg: \(3,\) is not the shape"):
        Adam(parameters_of(0), 0.01).load_state_dict({"0.exp_avg": torch.zeros(3)})
