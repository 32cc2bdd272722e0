"""The Ray Data pipeline of a compile run: rows are read and prepared on CPUs, media encoded by a pool of actors.

Rows stay in their order from end to end, and everything that flows is a pickled chunk or bundle of bounded size, so
that memory does not depend on how long a dataset is.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.data
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ibllm_core.contract.media import Modality
from workers.compile.encode import encode_bundle
from workers.compile.ledger import Ledger
from workers.compile.plan import Plan, fetch_weights, open_encoder, preparers
from workers.compile.rows import Bundle, Chunk, chunks

# Shares of a core beside the encoders' half. Unlike each other and that, since Ray Data runs steps of like needs in one
# task: a file that can only be read from its beginning would be prepared by one core, and pictures by the encoder's.
READ_CPUS, PREPARE_CPUS = 0.2, 0.4
BLOCK_BYTES = 1 << 18  # what travels together: a few chunks of text, or one bundle of pictures


class SharedLedger:
    """The run's ledger, as every process of the cluster reaches it."""

    def __init__(self) -> None:
        # On the driver's node: the run cannot outlive that one anyway.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor = _LedgerActor.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]

    def claim(self, keys: Sequence[str], claimer: str) -> list[bool]:
        """See ``Ledger``; so for the others."""
        return ray.get(self._actor.call.remote("claim", keys, claimer))  # type: ignore[no-any-return]

    def store(self, part: str, keys: Sequence[str]) -> None:
        """Media lie in a part."""
        ray.get(self._actor.call.remote("store", part, keys))

    def refuse(self, reasons: Sequence[tuple[str, str]]) -> None:
        """Media cannot be used."""
        ray.get(self._actor.call.remote("refuse", reasons))

    def are_settled(self, keys: Sequence[str]) -> bool:
        """Whether media are stored or refused."""
        return ray.get(self._actor.call.remote("are_settled", keys))  # type: ignore[no-any-return]

    def release(self) -> int:
        """Forget claims that came to nothing."""
        return ray.get(self._actor.call.remote("release"))  # type: ignore[no-any-return]

    def reasons(self, keys: Sequence[str]) -> dict[str, str]:
        """Why media cannot be used."""
        return ray.get(self._actor.call.remote("reasons", keys))  # type: ignore[no-any-return]

    def places(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Where media are stored."""
        return ray.get(self._actor.call.remote("places", keys))  # type: ignore[no-any-return]


@ray.remote
class _LedgerActor:
    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._ledger = Ledger(Path(self._folder.name) / "ledger.sqlite")

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._ledger, method)(*arguments)


def bundles(plan: Plan, resume: Mapping[tuple[int, int], tuple[int, bool]], ledger: SharedLedger) -> Iterator[Bundle]:
    """Every bundle of the plan's inputs in the order of their rows, encoded; finished pieces and rows are left out.

    ``resume`` has for (input, piece) the row to go on from, and whether the piece is finished.
    """
    work = [
        {"input": number, "piece": piece, "skip": resume.get((number, piece), (0, False))[0]}
        for number, item in enumerate(plan.inputs)
        for piece in range(len(item.pieces))
        if not resume.get((number, piece), (0, False))[1]
    ]
    if not work:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK_BYTES
    context.raise_original_map_exception = True  # else whose fault it was is lost in Ray Data's own exception
    blob = ray.put(pickle.dumps(plan))
    encoder = plan.encoder
    pipeline = (
        ray.data.from_items(work, override_num_blocks=len(work))
        .map_batches(_read, batch_size=1, num_cpus=READ_CPUS, fn_kwargs={"blob": blob})
        .map_batches(_prepare, batch_size=1, num_cpus=PREPARE_CPUS, fn_kwargs={"blob": blob, "ledger": ledger})
        .map_batches(
            _EncoderActor,
            fn_constructor_kwargs={"blob": blob},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=encoder.actors),
            num_cpus=encoder.cpus,
            num_gpus=encoder.gpus or None,
        )
    )
    for row in pipeline.iter_rows():
        yield pickle.loads(row["bundle"])  # noqa: S301 (made by this run's tasks)


def _read(batch: dict[str, Any], *, blob: Any) -> Iterator[dict[str, list[bytes]]]:
    plan: Plan = pickle.loads(_value(blob))  # noqa: S301
    number, piece = int(batch["input"][0]), int(batch["piece"][0])
    item = plan.inputs[number]
    for chunk in chunks(
        item.dataset.read(item.pieces[piece]),
        input_number=number,
        piece=piece,
        views=plan.views,
        size=plan.encoder.chunk_rows,
        skip=int(batch["skip"][0]),
    ):
        yield {"chunk": [pickle.dumps(chunk)]}


def _prepare(batch: dict[str, Any], *, blob: Any, ledger: SharedLedger) -> dict[str, list[bytes]]:
    torch.set_num_threads(1)  # as many of these run side by side as there are cores
    chunk: Chunk = pickle.loads(batch["chunk"][0])  # noqa: S301
    bundle = preparers(_value(blob), ledger.claim)[chunk.input].bundle(chunk)
    return {"bundle": [pickle.dumps(bundle)]}


class _EncoderActor:
    """Holds the encoder's weights, of each modality from the first time that it is asked for."""

    def __init__(self, *, blob: Any) -> None:
        self._plan: Plan = pickle.loads(_value(blob))  # noqa: S301
        torch.set_num_threads(max(1, round(self._plan.encoder.cpus)))
        self._encoder = open_encoder(self._plan.encoder, device=self._plan.encoder.device)
        self._fetched: set[Modality] = set()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        bundle: Bundle = pickle.loads(batch["bundle"][0])  # noqa: S301
        for modality in bundle.to_encode.keys() - self._fetched:
            fetch_weights(self._plan.encoder, self._encoder, modality)
            self._fetched.add(modality)
        return {"bundle": [pickle.dumps(encode_bundle(bundle, self._encoder, self._plan.views))]}


def _value(reference: Any) -> bytes:
    """What a task was given: Ray resolves references in some places and leaves them in others."""
    found: bytes = ray.get(reference) if isinstance(reference, ray.ObjectRef) else reference
    return found
