"""Which rank writes which tensor, and a copy of the state in the host's memory.

A checkpoint holds whole tensors, while a rank may hold fragments of them. Each tensor has one writer; the others send
it their fragments, from the host copy and over a process group of its own, so that training goes on meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from workers.train.engine.base import Engine, Fragment
from workers.train.engine.optimizer import MOMENTS

BYTES_A_WRITER = 64 << 20  # less is not worth another file
KINDS = ("weight", *MOMENTS)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Elements ``[start, start + count)`` of a tensor, which ``owner`` has."""

    owner: int
    start: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """A trained parameter: its shape, its writer, the pieces it is put together from."""

    name: str
    shape: tuple[int, ...]
    writer: int
    pieces: tuple[Piece, ...]


def assign(fragments: list[dict[str, tuple[tuple[int, ...], int, int]]], most_writers: int) -> list[Part]:
    """The parts of a state, from each rank's fragments: name to shape, start and count. Pure.

    Replicated parameters are taken from their writers. Writers get about equal numbers of bytes.
    """
    shapes = {name: shape for mine in fragments for name, (shape, _, _) in mine.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    writers = min(most_writers, 1 + 4 * len(KINDS) * sum(sizes.values()) // BYTES_A_WRITER)
    load = [0] * writers
    parts = []
    for name in sorted(shapes, key=lambda name: (-sizes[name], name)):
        writer = load.index(min(load))
        load[writer] += sizes[name]
        owners = {rank: mine[name] for rank, mine in enumerate(fragments) if name in mine}
        whole = [rank for rank, (_, _, count) in owners.items() if count == sizes[name]]
        if whole:
            owners = {rank: owners[rank] for rank in ([writer] if writer in whole else whole[:1])}
        pieces = tuple(Piece(owner=rank, start=start, count=count) for rank, (_, start, count) in owners.items())
        parts.append(Part(name=name, shape=shapes[name], writer=writer, pieces=pieces))
    return parts


class HostCopy:
    """Buffers in the host's memory for what this rank gives to a checkpoint; used again each time."""

    def __init__(
        self,
        engine: Engine,
        group: dist.ProcessGroup,
        *,
        kinds: tuple[str, ...] = KINDS,
        most_writers: int | None = None,
    ) -> None:
        self._engine, self._group, self._kinds = engine, group, kinds
        mine = {f.name: (f.shape, f.start, f.weight.numel()) for f in engine.fragments()}
        everyone: list[dict[str, tuple[tuple[int, ...], int, int]]] = [{} for _ in range(engine.world_size)]
        dist.all_gather_object(everyone, mine, group=group)
        self.parts = assign(everyone, most_writers or engine.world_size)
        given = {part.name for part in self.parts if any(piece.owner == engine.rank for piece in part.pieces)}
        self._buffers = {
            (f.name, kind): torch.empty(tensor.shape, dtype=torch.float32, pin_memory=tensor.is_cuda)
            for f in engine.fragments()
            if f.name in given
            for kind, tensor in tensors_of(f).items()
            if kind in kinds
        }

    def take(self) -> torch.cuda.Event | None:
        """Copy the state; on a GPU the copy has ended when the returned event has, and the next step waits for it."""
        is_on_gpu = False
        for fragment in self._engine.fragments():
            for kind, tensor in tensors_of(fragment).items():
                buffer = self._buffers.get((fragment.name, kind))
                if buffer is not None:
                    buffer.copy_(tensor, non_blocking=True)
                    is_on_gpu |= tensor.is_cuda
        if not is_on_gpu:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

    def whole(self) -> dict[tuple[str, str], Tensor]:
        """The tensors that this rank writes, by name and kind; all ranks must call it."""
        found: dict[tuple[str, str], Tensor] = {}
        for part in self.parts:
            for kind in self._kinds:
                tensor = self._collect(part, kind)
                if tensor is not None:
                    found[part.name, kind] = tensor.view(part.shape)
        return found

    def _collect(self, part: Part, kind: str) -> Tensor | None:
        """One tensor at its writer. All ranks go through all pieces in one order: no two wait for each other."""
        rank = self._engine.rank
        mine = self._buffers.get((part.name, kind))
        if part.writer == rank and len(part.pieces) == 1 and part.pieces[0].owner == rank:
            return mine
        target = torch.empty(math.prod(part.shape)) if part.writer == rank else None
        for piece in part.pieces:
            if piece.owner == rank:
                assert mine is not None
                if target is None:
                    dist.send(mine, part.writer, group=self._group)
                else:
                    target[piece.start : piece.start + piece.count] = mine
            elif target is not None:
                dist.recv(target[piece.start : piece.start + piece.count], piece.owner, group=self._group)
        return target


def gather_weights(engine: Engine, group: dist.ProcessGroup) -> dict[str, Tensor]:
    """All trained weights, whole and in float32, on the first rank; all ranks must call it."""
    copy = HostCopy(engine, group, kinds=("weight",), most_writers=1)
    copied = copy.take()
    if copied is not None:
        copied.synchronize()
    return {name: tensor for (name, _), tensor in copy.whole().items()}


def tensors_of(fragment: Fragment) -> dict[str, Tensor]:
    """A fragment's tensors by their kind: the weight and both moments."""
    return {"weight": fragment.weight, **fragment.moments}
