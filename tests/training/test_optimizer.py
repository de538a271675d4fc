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


def test_a_joined_optimizer_is_each_of_its_own(seed: int) -> None:
    """Parameters, and what the others say of their state: those of optimisers that went on alone, after two steps."""
    alone, together = ([parameters_of(number) for number in range(3)] for _ in range(2))
    optimizers = {id(parameters): Adam(parameters, 0.01) for parameters in (*alone, *together)}
    for parameters in (*alone, *together):
        take_steps(optimizers[id(parameters)], parameters, range(2))
    stacked = [
        torch.nn.Parameter(torch.stack([part.detach() for part in parts])) for parts in zip(*together, strict=True)
    ]
    members = [optimizers[id(parameters)] for parameters in together]
    joined = Adam.joined(members, stacked)
    for step in range(2, 4):
        for place, parameter in enumerate(stacked):
            gradient = torch.randn(parameter[0].shape, generator=torch.Generator().manual_seed(10 * step + place))
            parameter.grad = gradient.expand_as(parameter).contiguous() if place < 2 else None
        joined.step()
    for number, parameters in enumerate(alone):
        take_steps(optimizers[id(parameters)], parameters, range(2, 4))
        own, state = optimizers[id(parameters)].state_dict(), members[number].state_dict()
        # Torch multiplies and adds in one step or two, by where a number stands in memory.
        for expected, actual in zip(parameters, stacked, strict=True):
            torch.testing.assert_close(actual[number], expected, rtol=1e-6, atol=1e-7)
        for name, value in own.items():
            torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-9)


def test_a_state_of_another_model_is_refused() -> None:
    state = Adam(parameters_of(0), 0.01).state_dict() | {"0.exp_avg": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"0\.exp_avg: \(3,\) is not the shape"):
        Adam(parameters_of(0), 0.01).load_state_dict(state)
