"""A model as it was before an example: what a pass may do to a module, and how it is put back.

Gradients of single examples protect one only as long as nothing of it reaches the next (`sample_level.py`). Kept is whatever can be
reached from the model through attributes, slots, dictionaries, lists, sets, deques and tuples, one inside another:

* of modules and containers their class, attributes, slots and entries: the same objects in the same order;
* of tensors the class, attributes, shape, type, memory and its size, graph, hooks, gradient and whether they are trained;
* the content of that memory, unless it belongs to frozen values alone.

A forward that branches on its input and does one of these still moves other examples:

* it writes to a frozen value: base weights are not copied;
* it changes an object of another kind (a NumPy array, an instance of a class of its own) or something outside the model (a global);
* it writes in place to an attribute, no buffer, that was part of a graph when the step began.

It raises where the example is drawn if a key's hash has changed, or if a view that was written to with a graph is still referenced
by torch or weakly.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from functools import cache
from operator import is_
from types import MemberDescriptorType
from typing import Any, Protocol, final

import torch
from torch import nn

from rbla_secure.errors import PrivacyError

# The first that a container is an instance of has the methods that change it: a subclass may have its own, which do something else.
_CONTAINERS: tuple[type[Any], ...] = (OrderedDict, dict, list, set, deque)
_REACHED: tuple[type[Any], ...] = (nn.Module, torch.Tensor, *_CONTAINERS, tuple, frozenset)
# These have neither attributes nor slots, and no other class can be given to them.
_PLAIN = frozenset({*_CONTAINERS, tuple, frozenset})
_UNSET = object()


@final
class KeptModel:
    """The state of a model at the beginning of a step.

    Raises:
        PrivacyError: There is no putting back: a module keeps its tensors elsewhere than in Python (a scripted one), or a buffer is
            computed from trained values, whose graph could not be kept.
    """

    def __init__(self, model: nn.Module, values: Sequence[nn.Parameter]) -> None:
        reached = _reached_from(model)
        tensors = [each for each in reached if isinstance(each, torch.Tensor)]
        buffers = {id(buffer) for buffer in model.buffers()}
        trained = {id(value) for value in values}
        frozen = [each for each in tensors if isinstance(each, nn.Parameter) and id(each) not in trained]
        self._objects = [_KeptObject(each) for each in reached if type(each) not in _PLAIN]
        self._containers = [_KeptContainer(each) for each in reached if isinstance(each, _CONTAINERS)]
        self._memories = _kept_memories(tensors, frozen)
        self._tensors = [_KeptTensor(each, is_buffer=id(each) in buffers) for each in tensors]

    def put_back(self) -> None:
        """Undo whatever a forward or backward pass has changed of what is kept."""
        # Containers first: what an example has put there may hold the last reference to its graph.
        kept: Sequence[_Kept] = (*self._objects, *self._containers, *self._memories, *self._tensors)
        for each in kept:
            each.put_back()
        # A gradient has to fit its value, and is a tensor that is put back too: when all values are what they were.
        for tensor in self._tensors:
            tensor.give_gradient()


class _Kept(Protocol):
    """One object that is put back."""

    def put_back(self) -> None: ...


@final
class _KeptObject:
    """An object's class, slots, and which dictionary has its attributes."""

    def __init__(self, each: Any) -> None:
        self._each = each
        kind: Any = type(each)
        self._class = kind
        self._attributes = getattr(each, "__dict__", None)
        self._slots = [(slot, _slot(slot, each)) for slot in _slots(kind)]

    def put_back(self) -> None:
        if type(self._each) is not self._class:
            self._each.__class__ = self._class
        if self._attributes is not None and self._each.__dict__ is not self._attributes:
            self._each.__dict__ = self._attributes
        for slot, content in self._slots:
            if _slot(slot, self._each) is not content:
                if content is _UNSET:
                    slot.__delete__(self._each)
                else:
                    slot.__set__(self._each, content)


@final
class _KeptContainer:
    """The entries of a dictionary, list, set or deque, in their order."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._kind = _kind(container)
        self._content = _content(container, self._kind)
        if self._kind is set:
            # The order of a set depends on its history: from here on it has the one that `put_back` gives it.
            self._fill()

    def put_back(self) -> None:
        if self._kind is set:
            self._fill()
            return
        now = _content(self._container, self._kind)
        if len(now) != len(self._content) or not all(map(is_, now, self._content)):
            self._fill()

    def _fill(self) -> None:
        container, kind = self._container, self._kind
        kind.clear(container)
        if kind is set:
            # `pop` continues where the last one stopped, even in a set that was cleared.
            set.add(container, 0)
            set.pop(container)
            set.clear(container)
            set.update(container, self._content)
        elif issubclass(kind, dict):
            for key, value in zip(self._content[::2], self._content[1::2], strict=True):
                kind.__setitem__(container, key, value)
        else:
            kind.extend(container, self._content)


@final
class _KeptMemory:
    """The size of a tensor's memory, and its bytes unless frozen values alone lie there."""

    def __init__(self, storage: torch.UntypedStorage, *, copied: bool) -> None:
        self._storage = storage
        self._size = storage.nbytes()
        self._content = _bytes(storage).clone() if copied else None

    def put_back(self) -> None:
        if self._storage.nbytes() != self._size:
            self._storage.resize_(self._size)
        if self._content is not None and not torch.equal(now := _bytes(self._storage), self._content):
            now.copy_(self._content)


@final
class _KeptTensor:
    """A tensor's place in memory, graph, hooks, gradient and whether it is trained."""

    def __init__(self, tensor: torch.Tensor, *, is_buffer: bool) -> None:
        self._in_graph = _in_graph(tensor)
        if self._in_graph and is_buffer:
            raise PrivacyError(
                "a buffer of the model is computed from trained values: compute it in forward, where each example has its own graph"
            )
        self._tensor = tensor
        self._object = _KeptObject(tensor)
        self._place = tensor.data
        self._trained = tensor.requires_grad
        self._gradient = None if self._in_graph else tensor.grad
        self._hooks = tensor._backward_hooks  # noqa: SLF001
        self._late_hooks: Any = tensor._post_accumulate_grad_hooks  # noqa: SLF001

    def put_back(self) -> None:
        tensor = self._tensor
        if not self._in_graph:
            self._leave_graph()
            # Values that are no floating point can be given to untrained tensors alone.
            tensor.requires_grad_(False)
            tensor.grad = None
        tensor.data = self._place
        if tensor._backward_hooks is not self._hooks:  # noqa: SLF001
            tensor._backward_hooks = self._hooks  # noqa: SLF001
        late: Any = tensor._post_accumulate_grad_hooks  # noqa: SLF001
        if self._late_hooks is None and late is not None:
            # torch goes on calling the ones in a dictionary that was taken away.
            late.clear()
        if not self._in_graph:
            tensor.requires_grad_(self._trained)

    def give_gradient(self) -> None:
        """Give the tensor the gradient that it had."""
        if not self._in_graph:
            self._tensor.grad = self._gradient

    def _leave_graph(self) -> None:
        if _in_graph(self._tensor):
            try:
                self._tensor.detach_()
            except RuntimeError:
                # A view cannot leave a graph: another tensor of the same memory takes its place under all of its names.
                torch.utils.swap_tensors(self._tensor, self._place.detach())  # type: ignore[no-untyped-call]  # torch declares no types here
                self._object.put_back()


def _reached_from(model: nn.Module) -> list[Any]:
    """List every kept object once."""
    reached: dict[int, Any] = {}
    waiting: list[Any] = [model]
    while waiting:
        each = waiting.pop()
        if isinstance(each, _REACHED) and id(each) not in reached:
            reached[id(each)] = each
            waiting.extend(_parts(each))
    return list(reached.values())


def _parts(each: Any) -> Iterator[Any]:
    """Yield what an object refers to; a module's attributes include parameters, buffers, children and hooks."""
    if isinstance(each, nn.Module):
        _check_kept_in_python(each)
    yield getattr(each, "__dict__", None)
    kind: Any = type(each)
    yield from (_slot(slot, each) for slot in _slots(kind))
    if isinstance(each, torch.Tensor):
        yield each._backward_hooks  # noqa: SLF001
        yield each._post_accumulate_grad_hooks  # noqa: SLF001
        yield None if _in_graph(each) else each.grad
    elif isinstance(each, (tuple, frozenset)):
        yield from each
    elif isinstance(each, _CONTAINERS):
        yield from _content(each, _kind(each))


def _check_kept_in_python(module: nn.Module) -> None:
    if not all(isinstance(each, dict) for each in (module._parameters, module._buffers, module._modules)):  # noqa: SLF001
        raise PrivacyError(
            f"{type(module).__name__} keeps its tensors elsewhere than in Python, so what an example does to them could not be put "
            "back: use the module that it was compiled from"
        )


def _kept_memories(tensors: Sequence[torch.Tensor], frozen: Sequence[torch.Tensor]) -> list[_KeptMemory]:
    not_copied = {id(tensor) for tensor in frozen}
    storages: dict[int, torch.UntypedStorage] = {}
    copied: set[int] = set()
    for tensor in tensors:
        for storage in _storages(tensor):
            key = storage.data_ptr() or id(storage)
            # Of two that begin at one address, as arrays of another library can, the longer one holds both.
            if key not in storages or storages[key].nbytes() < storage.nbytes():
                storages[key] = storage
            if id(tensor) not in not_copied:
                copied.add(key)
    return [_KeptMemory(storage, copied=key in copied) for key, storage in storages.items()]


def _storages(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices().untyped_storage(), tensor._values().untyped_storage()]  # noqa: SLF001
    return [tensor.untyped_storage()]


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    """The memory itself, shape (bytes,): no copy."""
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _in_graph(tensor: torch.Tensor) -> bool:
    try:
        return tensor.grad_fn is not None
    except RuntimeError:
        # A view made without gradients whose base has become part of a graph.
        return True


def _kind(container: Any) -> type[Any]:
    return next(kind for kind in _CONTAINERS if isinstance(container, kind))


def _content(container: Any, kind: type[Any]) -> list[Any]:
    """The entries; of a dictionary each key and then its value."""
    # Most dictionaries of a module are empty, and each is looked at after every example.
    if not kind.__len__(container):
        return []
    if issubclass(kind, dict):
        return [part for item in kind.items(container) for part in item]
    return list(kind.__iter__(container))


@cache
def _slots(kind: type[Any]) -> list[Any]:
    """Descriptors of a class's slots, those that it inherits included."""
    return [
        each
        for base in kind.__mro__
        for each in vars(base).values()
        if isinstance(each, MemberDescriptorType)
    ]


def _slot(slot: Any, each: Any) -> Any:
    try:
        return slot.__get__(each)
    except AttributeError:
        return _UNSET
