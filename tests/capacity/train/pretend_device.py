"""A device that is none: tensors that say they are elsewhere, computed on the CPU.

It refuses what a real one refuses, tensors of two devices in one operation, and counts what it
would have to wait for: values read by the host, copies that block, results whose size depends on
values.
"""

from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from promptlimits.capacity.train import engine
from promptlimits.nets import device as module
from promptlimits.nets.protocol import PackedPairs

PRETENDED = torch.device("lazy")  # a name that torch knows, and asks no library about
CPU = torch.device("cpu")
aten = torch.ops.aten
WAITED_FOR = {
    aten._local_scalar_dense.default,
    aten.bincount.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
}


class OnDevice(torch.Tensor):
    """A tensor of the pretended device."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=PRETENDED,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"OnDevice({self.inner})"

    def tolist(self):
        """Wait for the values."""
        return self.cpu().tolist()

    def untyped_storage(self):
        """Where its numbers are."""
        return self.inner.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of the pretended device")


class PretendDevice(TorchDispatchMode):
    """The device; `waits` counts how often the host waited for it, `calls` its operations."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.waits = 0
        self.calls = 0
        self.calls_at_wait = []
        monkeypatch.setattr(module, "queue_mark", lambda _device: self._wait)
        for one in (module, engine):
            monkeypatch.setattr(one, "has_queue", lambda device: device == PRETENDED)
        # A tensor that wraps another knows no inference mode. It calls the same operations.
        monkeypatch.setattr(
            torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext()
        )

    def _wait(self):
        self.waits += 1
        self.calls_at_wait.append(self.calls)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = {id(one.inner): one for one in given if isinstance(one, OnDevice)}
        there = [one for one in given if not isinstance(one, OnDevice) and one.dim()]
        target = kwargs.get("device")
        goes = PRETENDED if here else CPU
        if target is not None:
            goes = torch.device(target)
            kwargs = kwargs | {"device": CPU}
        copies = func in {aten._to_copy.default, aten.copy_.default}
        if here and there and not copies:
            raise RuntimeError(f"{func} of tensors on two devices")
        if here or goes.type == PRETENDED.type:
            self.calls += 1
            crosses = copies and (there or goes.type == "cpu") and given
            blocks = crosses and not (kwargs.get("non_blocking") or args[2:3] == (True,))
            if blocks or func in WAITED_FOR or _by_mask(func, args):
                self._wait()
        args, kwargs = tree_map(_inner, (args, kwargs))
        found = func(*args, **kwargs)
        if copies and given:
            found = tree_map(lambda one: one.clone() if id(one) not in here else one, found)
        if goes.type == "cpu":
            return found
        # What is changed in place is the tensor that it was.
        return tree_map(lambda one: here.get(id(one)) if id(one) in here else _outer(one), found)


def _outer(one):
    return OnDevice(one) if isinstance(one, torch.Tensor) else one


def _inner(one):
    return one.inner if isinstance(one, OnDevice) else one


def _by_mask(func, args):
    """Whether rows are picked by a mask, so that their number depends on values."""
    picks = func in {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
    return picks and any(one is not None and one.dtype == torch.bool for one in args[1])


def moved(value):
    """A value with every tensor inside it on the device."""
    if isinstance(value, torch.Tensor):
        return OnDevice(value)
    if isinstance(value, PackedPairs):
        return value.to(PRETENDED)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{one.name: moved(getattr(value, one.name)) for one in fields(value)}
        )
    if isinstance(value, (tuple, list)):
        return type(value)(moved(one) for one in value)
    return value


class MovedModel:
    """A model whose decoder is on the device."""

    def __init__(self, model):
        own = model._decoder
        angles = {
            name: lambda count, of=of: tuple(OnDevice(one) for one in of(count))
            for name, of in own.angles.items()
        }
        self._decoder = replace(
            moved(replace(own, angles={})),
            embed=lambda ids: OnDevice(own.embed(ids.inner)),
            angles=angles,
        )
        self.card, self.device, self.dtype = model.card, PRETENDED, model.dtype
        self.head = self._decoder.head
        self.logit_deviation = model.logit_deviation

    def prepare(self, parts, *, kind):
        return self._decoder.prepare(parts, kind)

    def step_bytes(self, part, *, kind):
        return self._decoder.step_bytes(part, kind)
