"""A model as it was before an example: what a pass may do to a module, and how it is put back.

Gradients of single examples protect one only as long as nothing of it reaches the next (`sample_level.py`). What is kept are the
attributes of modules with the dictionaries, lists and sets among them, and of every tensor its place in memory, graph, hooks and whether it
is trained; of buffers and trained values the content too. That is enough for layers that do what layers do; a forward that branches on
its input and does one of these moves other examples, or raises where it is drawn:

* it writes to a frozen value, to an object that is no dictionary, list or set of its module (one inside another included), or to a slot;
* it changes a subclass of `dict` whose `clear`, `update` or comparison is its own (a `Counter` adds), or a set to an equal one;
* it registers a hook that runs after a gradient is accumulated, or any hook on a tensor that has had one, or sets attributes of a tensor,
  or a gradient of a buffer;
* it writes a graph into a buffer that is a view and also stands in a list, or was registered before its base; it resizes storage.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import nn

from rbla_secure.errors import PrivacyError


@final
class KeptModel:
    """A model as a step began with it: modules' attributes, and buffers and trained values with what a pass may do to them, as said above.

    Raises:
        PrivacyError: There is no putting back: a module keeps its tensors elsewhere than in Python (a scripted one), or a buffer is
            computed from trained values, whose graph could not be kept.
    """

    def __init__(self, model: nn.Module, values: Sequence[nn.Parameter]) -> None:
        modules = list(model.modules())
        self._classes = [(module, type(module)) for module in modules]
        self._containers = [
            (container, container.copy()) for module in modules for container in _containers(module)
        ]
        tensors = {id(value): value for value in (*values, *model.parameters(), *model.buffers())}
        copied = {id(value) for value in (*values, *model.buffers())}
        self._tensors = [_KeptTensor(tensor, copied=key in copied) for key, tensor in tensors.items()]

    def put_back(self) -> None:
        """Whatever a forward or backward pass has changed: which tensors there are, what they hold, and what they remember of it."""
        for module, kind in self._classes:
            if type(module) is not kind:
                module.__class__ = kind
        for container, content in self._containers:
            _restore(container, content)
        for kept in self._tensors:
            if (other := kept.put_back()) is not None:
                for container, _ in self._containers:
                    _replace(container, kept.tensor, other)


@final
class _KeptTensor:
    """A tensor of a model: its place in memory, its content unless it is frozen, its hooks, and whether it is trained."""

    def __init__(self, tensor: torch.Tensor, *, copied: bool) -> None:
        if tensor.grad_fn is not None:
            raise PrivacyError(
                "a buffer of the model is computed from trained values: compute it in forward, where each example has its own graph"
            )
        self.tensor = tensor
        self._place = tensor.data
        self._content = tensor.detach().clone() if copied else None
        self._trained = tensor.requires_grad
        self._hooks = _hooks(tensor)

    def put_back(self) -> torch.Tensor | None:
        """None, or what has to take its place: a view that has become part of a graph cannot leave it."""
        tensor = self.tensor
        if self._content is not None:
            if self._place.shape != self._content.shape:
                self._place = self._content.clone()
            self._place.copy_(self._content)
        if tensor.grad_fn is not None:
            try:
                tensor.detach_()
            except RuntimeError:
                return self._place.detach()
        tensor.data = self._place
        tensor.requires_grad_(self._trained)
        if _hooks(tensor) != self._hooks:
            tensor._backward_hooks = self._hooks and self._hooks.copy()  # noqa: SLF001
        return None


def _containers(module: nn.Module) -> list[dict[str, Any] | list[Any] | set[Any]]:
    """A module's attributes and the dictionaries, lists and sets among them: parameters, buffers, children and hooks are such."""
    if not all(isinstance(each, dict) for each in (module._parameters, module._buffers, module._modules)):  # noqa: SLF001
        raise PrivacyError(
            f"{type(module).__name__} keeps its tensors elsewhere than in Python, so what an example does to them could not be put "
            "back: use the module that it was compiled from"
        )
    attributes = vars(module)
    return [attributes, *(each for each in attributes.values() if isinstance(each, (dict, list, set)))]


def _hooks(tensor: torch.Tensor) -> dict[int, Any] | None:
    hooks: dict[int, Any] | None = tensor._backward_hooks  # noqa: SLF001
    return hooks and hooks.copy()


def _restore(container: Any, content: Any) -> None:
    """The same entries in the same order, and no other ones; nothing is written where nothing has changed."""
    if isinstance(container, dict):
        if list(container) != list(content):
            container.clear()
        elif all(container[name] is value for name, value in content.items()):
            return
        container.update(content)
    elif isinstance(container, set):
        if container != content:
            container.clear()
            container |= content
    elif len(container) != len(content) or any(
        now is not then for now, then in zip(container, content, strict=True)
    ):
        container[:] = content


def _replace(container: Any, tensor: torch.Tensor, other: torch.Tensor) -> None:
    if isinstance(container, dict):
        for name, value in container.items():
            if value is tensor:
                container[name] = other
