"""Whether a device computes what it should, at a tiny size: differences beside the most that rounding explains.

Shape suffixes: T tokens, H heads, G key-value heads, D head dimension.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.data.collate import collate
from ibllm_core.local_store import LocalStore
from ibllm_core.model.attention import within_samples
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.layers import checkpoint_activations, compile_layers
from tests.benchmarks.gpu_scale import SMALL, random_llama, samples, trainer
from tests.benchmarks.shapes import captions
from tests.benchmarks.training_ladder import Ours, in_dtype
from workers.train.checkpoint.listing import Checkpoints
from workers.train.checkpoint.resume import resume
from workers.train.checkpoint.saver import Saver
from workers.train.checkpoint.state import CheckpointState

STEPS = 4
ROUNDING = {torch.bfloat16: 0.02, torch.float32: 1e-4}  # of losses near 6, relative
HEADS, GROUPS, HEAD_DIM = 8, 2, 64
PADDING = 11  # tokens


@dataclass(frozen=True)
class Check:
    """A difference, relative to the size of what is compared, and its limit."""

    what: str
    difference: float
    limit: float

    @property
    def is_passed(self) -> bool:
        return self.difference <= self.limit  # false for NaN


def checks(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """All but ZeRO 3's; an error of one is its difference."""
    llama = random_llama(SMALL.config, dtype, device)
    limit = ROUNDING[dtype]
    yield from _done(
        ("attention within samples = each sample alone in float32", limit, lambda: attention(device, dtype)),
        ("losses, packed = each sample alone", limit, lambda: packed_and_alone(llama, device)),
        ("losses, here = in float32 on the CPU", limit, lambda: here_and_on_cpu(llama, device)),
        ("losses and gradients, compiled = plain", limit, lambda: changed(llama, device, compile_layers)),
        ("losses and gradients, checkpointed = plain", limit, lambda: changed(llama, device, checkpoint_activations)),
        (f"{STEPS} steps, ZeRO 1 = ZeRO 0", limit, lambda: engines(llama, device, 1)),
        (f"{STEPS} steps, ZeRO 2 = ZeRO 0", limit, lambda: engines(llama, device, 2)),
        ("checkpoint, read = written, ZeRO 0", 0.0, lambda: round_trip(llama, device, 0)),
        ("checkpoint, read = written, ZeRO 2", 0.0, lambda: round_trip(llama, device, 2)),
    )


def zero_3_checks(device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """To be run last: DeepSpeed then leaves a linear of its own in torch's place, and takes the base apart."""
    llama = random_llama(SMALL.config, dtype, device)
    yield from _done((f"{STEPS} steps, ZeRO 3 = ZeRO 0", ROUNDING[dtype], lambda: engines(llama, device, 3)))


def _done(*planned: tuple[str, float, Callable[[], float]]) -> Iterator[Check]:
    for what, limit, measure in planned:
        try:
            yield Check(what, measure(), limit)
        except Exception as error:  # the others are to be heard too
            yield Check(f"{what}: {error!r:.300}", float("nan"), limit)


def attention(device: torch.device, dtype: torch.dtype) -> float:
    """Outputs and gradients of packed samples of up to 300 tokens."""
    data = captions(9, (1, 300), 0)
    lengths = data.lengths().tolist()
    total = sum(lengths) + PADDING
    batch = collate(data, [range(len(lengths))], row_tokens=total, pad_token=0).to(device)
    shapes = [(total, HEADS, HEAD_DIM), (total, GROUPS, HEAD_DIM), (total, GROUPS, HEAD_DIM)]
    torch.manual_seed(0)
    states = [torch.randn(shape).to(device, dtype).requires_grad_() for shape in shapes]
    queries_THD, keys_TGD, values_TGD = states
    output_THD = within_samples(queries_THD, keys_TGD, values_TGD, batch.blocks, HEAD_DIM**-0.5)
    weights_THD = torch.randn(output_THD.shape).to(device, dtype)
    ours = [output_THD, *torch.autograd.grad(output_THD, states, weights_THD)]
    precise = [state.detach().float().requires_grad_() for state in states]
    parts = zip(*(torch.split(state[: sum(lengths)], lengths) for state in precise), strict=True)
    alone_THD = torch.cat([_alone(*part) for part in parts])
    truth = [alone_THD, *torch.autograd.grad(alone_THD, precise, weights_THD[: sum(lengths)].float())]
    return max(_relative(mine[: sum(lengths)], true[: sum(lengths)]) for mine, true in zip(ours, truth, strict=True))


def packed_and_alone(llama: LlamaForCausalLM, device: torch.device) -> float:
    ours, batch, singles = _a_row(llama, device)
    return _relative(torch.cat([ours.model(single) for single in singles]), ours.model(batch))


def here_and_on_cpu(llama: LlamaForCausalLM, device: torch.device) -> float:
    ours, batch, _ = _a_row(llama, device)
    host = torch.device("cpu")
    precise = trainer(in_dtype(llama, torch.float32).to(host), SMALL, host).model
    _open(precise)
    precise.load_state_dict(ours.model.state_dict(), strict=False)
    return _relative(ours.model(batch).cpu(), precise(batch.to(host)))


def changed(llama: LlamaForCausalLM, device: torch.device, change: Callable[[ImageBindLLM], None]) -> float:
    ours, batch, _ = _a_row(llama, device)
    plain = _loss_and_gradient(ours.model, batch)
    change(ours.model)
    return max(map(_relative, _loss_and_gradient(ours.model, batch), plain))


def engines(llama: LlamaForCausalLM, device: torch.device, zero_stage: int) -> float:
    """Losses of some steps."""
    losses = []
    for stage in (0, zero_stage):
        ours = trainer(llama, SMALL, device, zero_stage=stage)
        losses.append(torch.stack([ours.step(step) for step in ours.steps(STEPS)]))
    return _relative(losses[1], losses[0])


def round_trip(llama: LlamaForCausalLM, device: torch.device, zero_stage: int) -> float:
    """The state read back, and the loss of the step that follows."""
    first, second = (trainer(llama, SMALL, device, zero_stage=zero_stage) for _ in range(2))
    *before, after = first.steps(3)
    for step in before:
        first.step(step)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(LocalStore(Path(folder)), "bench", "stage1")
        saver = Saver(first.engine, checkpoints, CheckpointPolicy(), Path(folder) / "scratch")
        saver.save(_state(first), b"")
        saver.wait()
        resume(second.engine, checkpoints, Path(folder) / "cache", recipe="", base_sha256="")
    pairs = zip(first.engine.fragments(), second.engine.fragments(), strict=True)
    states = max(float((a.weight - b.weight).abs().max()) for a, b in pairs)
    return max(states, abs(first.step(after).item() - second.step(after).item()))


def _a_row(llama: LlamaForCausalLM, device: torch.device) -> tuple[Ours, Batch, list[Batch]]:
    """A trainer with open gates, a global batch of it, and its samples one by one."""
    ours = trainer(llama, SMALL, device, micro_tokens=SMALL.tokens)
    _open(ours.model)
    (step,) = ours.steps(1)
    singles = [
        collate(samples(SMALL), [(i,)], row_tokens=SMALL.row_tokens, pad_token=0) for row in step.rows for i in row
    ]
    return ours, step.micro_batches[0].to(device), [single.to(device) for single in singles]


def _open(model: ImageBindLLM) -> None:
    """Closed gates would hide the media."""
    assert model.fusion.gates is not None
    model.fusion.gates.data.fill_(0.3)


def _loss_and_gradient(model: ImageBindLLM, batch: Batch) -> list[Tensor]:
    loss, gates = model(batch).sum(), model.fusion.gates
    assert gates is not None
    return [loss.detach(), *torch.autograd.grad(loss, [model.bind_network.project.weight, gates])]


def _alone(queries_THD: Tensor, keys_TGD: Tensor, values_TGD: Tensor) -> Tensor:
    queries, keys, values = (state.transpose(0, 1)[None] for state in (queries_THD, keys_TGD, values_TGD))
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


def _relative(found: Tensor, expected: Tensor) -> float:
    difference = torch.linalg.vector_norm(found.detach().float() - expected.detach().float())
    return float(difference / torch.linalg.vector_norm(expected.detach().float()))


def _state(ours: Ours) -> CheckpointState:
    return CheckpointState(
        step=2,
        updates=ours.engine.updates,
        tokens=0,
        loss_scale=ours.engine.loss_scale,
        recipe="",
        base_sha256="",
        world_size=1,
        zero_stage=ours.engine.zero_stage,
    )
