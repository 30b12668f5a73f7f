"""State that a pass may change in ways beyond those of `test_state_between_examples.py`, put back directly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from rbla_secure.privacy.kept_model import KeptModel


class Holder(nn.Module):
    """Two buffers over one memory that another library owns, the shorter one visited last or first."""

    def __init__(self, *, short_first: bool) -> None:
        super().__init__()
        memory = np.arange(6, dtype=np.float32)
        short, long = torch.from_numpy(memory[:2]), torch.from_numpy(memory)
        for name in ("short", "long") if short_first else ("long", "short"):
            self.register_buffer(name, {"short": short, "long": long}[name])


@pytest.mark.parametrize("short_first", [True, False])
def test_the_longer_of_two_memories_at_one_address_is_put_back(*, short_first: bool) -> None:
    """Whichever of them is seen last."""
    model = Holder(short_first=short_first)
    kept = KeptModel(model, [])

    model.long.add_(1)
    assert model.long.tolist() == [1, 2, 3, 4, 5, 6]
    kept.put_back()

    assert model.long.tolist() == [0, 1, 2, 3, 4, 5]


def doubled(layer: nn.Linear) -> None:
    layer.double()
    layer(torch.ones(1, 2, dtype=torch.float64)).sum().backward()


def shrunk(layer: nn.Linear) -> None:
    assert layer.weight.grad is not None
    layer.weight.grad.resize_(1)


@pytest.mark.parametrize("act", [doubled, shrunk])
def test_a_gradient_from_before_the_step_is_put_back_whatever_becomes_of_its_type_or_shape(
    act: Callable[[nn.Linear], None],
) -> None:
    """Otherwise a branch that depends on an example could end training."""
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    kept = KeptModel(layer, list(layer.parameters()))

    act(layer)
    kept.put_back()

    assert [value.dtype for value in layer.parameters()] == [torch.float32] * 2
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]
    assert all(value.requires_grad for value in layer.parameters())


def test_a_buffer_of_integers_that_a_pass_trains_is_one_again() -> None:
    """Type, content, and that it is not trained."""
    model = nn.Module()
    model.register_buffer("count", torch.tensor([3]))
    kept = KeptModel(model, [])

    model.count.data = model.count.data.float()
    model.count.requires_grad_()
    kept.put_back()

    assert (model.count.dtype, model.count.tolist(), model.count.requires_grad) == (torch.int64, [3], False)
