"""ZeRO 1, 2 and 3 by DeepSpeed: optimizer state, gradients, and weights too are spread over the ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ibllm_core.contract.job_spec import Offload
from ibllm_core.model.batch import Batch
from ibllm_core.model.stages import trained_parameters
from workers.train.engine.base import Counting, Fragment
from workers.train.engine.optimizer import MOMENTS, GuardedAdamW

BUCKET_ELEMENTS = 1 << 25  # 128 MiB of gradients; DeepSpeed's own half a billion would be 2 GiB for nothing here


class Zero(Counting):
    """An ``Engine`` around DeepSpeed's.

    At stages 1 and 2 a step asks the device nothing: DeepSpeed's own norm and overflow check, which wait for it, are
    off, and ``GuardedAdamW`` clips and skips. Stage 3, offload and fp16 keep DeepSpeed's, which wait once a step.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        *,
        stage: int,
        offload: Offload,
        dtype: torch.dtype,
        clip: float,
    ) -> None:
        import deepspeed

        # DeepSpeed would compile an operation for inference on CPUs, under a lock that is a file: a rank that is killed
        # meanwhile leaves it behind, and all ranks of the node wait for ever after.
        deepspeed.ops.__compatible_ops__ = {}
        self.rank, self.world_size, self.zero_stage = dist.get_rank(), dist.get_world_size(), stage
        self._clip = clip
        self._guards = stage < 3 and offload == "none" and dtype != torch.float16
        super().__init__(GuardedAdamW(groups), torch.device(deepspeed.get_accelerator().current_device_name()))
        self._names = dict(trained_parameters(model))
        config = deepspeed_config(stage=stage, offload=offload, dtype=dtype, clip=clip, guards=self._guards)
        if stage == 3:
            # Partitioned parameter by parameter from the host's memory, where a base is mapped and not loaded: no GPU
            # ever holds more of it than its part and one parameter.
            deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=dtype)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=self._optimizer, config=config)
        self._zero = self._engine.optimizer
        if stage == 3:
            self._optimizer.make_state(self._zero.fp32_partitioned_groups_flat)
        else:
            self._optimizer.make_state(self._zero.single_partition_of_fp32_groups)
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def forward(self, batch: Batch) -> Tensor:
        """As ``Engine``."""
        losses_N: Tensor = self._engine(batch)
        return losses_N

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """As ``Engine``. DeepSpeed averages over the ranks, whose shares are to be summed."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(share * self.world_size)

    def step(self, rate_share: float) -> None:
        """As ``Engine``."""
        self._set_rates(rate_share)
        if self._guards:
            norm = self._norm()
            skipped = self._optimizer.guard(norm, self._clip)
            self._engine.step()
        else:
            self._engine.step()
            overflowed = bool(self._zero.overflow)
            norm = torch.as_tensor(float("inf") if overflowed else self._zero._global_grad_norm).float()
            skipped = torch.tensor(float(overflowed))
        self._note(skipped, norm)

    def fragments(self) -> Iterator[Fragment]:
        """As ``Engine``."""
        for name, parameter in self._names.items():
            found = self._partitioned(parameter) if self.zero_stage == 3 else self._linked(parameter)
            if found is not None:
                shape, start, weight, moments = found
                yield Fragment(name=name, shape=shape, start=start, weight=weight, moments=moments)

    def gathered(self, parameters: Sequence[nn.Parameter | None]) -> AbstractContextManager[None]:
        """As ``Engine``; stage 3 brings them together."""
        import deepspeed

        if self.zero_stage < 3:
            return nullcontext()
        present = [parameter for parameter in parameters if parameter is not None]
        return deepspeed.zero.GatheredParameters(present)  # type: ignore[no-any-return]

    @torch.no_grad()
    def refresh(self) -> None:
        """As ``Engine``."""
        if self.zero_stage < 3:
            self._zero.update_lp_params()
            return
        for group in range(len(self._zero.fp16_groups)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)
        self._zero.invalidate_secondary_tensor()

    @property
    def loss_scale(self) -> float:
        """As ``Engine``."""
        return float(self._zero.loss_scale)

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        if self._zero.dynamic_loss_scale:
            self._zero.loss_scaler.cur_scale = scale

    def _norm(self) -> Tensor:
        """Norm of the reduced gradients, each element of which one rank holds."""
        parts = [part for parts in self._zero.averaged_gradients.values() for part in parts or ()]
        squares = torch.stack(torch._foreach_norm(parts)).float().square().sum()
        dist.all_reduce(squares)
        return squares.sqrt()

    def _linked(self, parameter: nn.Parameter) -> tuple[tuple[int, ...], int, Tensor, dict[str, Tensor]] | None:
        """This rank's part of a parameter at stages 1 and 2; None where other ranks have all of it."""
        mapping: Any = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return None
        moments = {moment: mapping.get_optim_state_fragment(moment) for moment in MOMENTS}
        return tuple(parameter.shape), mapping.lp_fragment_address.start, mapping.get_hp_fragment().detach(), moments

    def _partitioned(self, parameter: Any) -> tuple[tuple[int, ...], int, Tensor, dict[str, Tensor]] | None:
        """This rank's part of a parameter at stage 3, without the padding of the last partition."""
        keys = (None, *MOMENTS)
        parts = [self._zero._get_fp32_opt_state_partition(parameter, False, key)[0].detach() for key in keys]
        start = parts[0].numel() * self.rank
        length = min(parts[0].numel(), parameter.ds_numel - start)
        if length <= 0:
            return None
        weight, *moments = (part[:length] for part in parts)
        return tuple(parameter.ds_shape), start, weight, dict(zip(MOMENTS, moments, strict=True))


def deepspeed_config(*, stage: int, offload: Offload, dtype: torch.dtype, clip: float, guards: bool) -> dict[str, Any]:
    """DeepSpeed's configuration; accumulation is ours, so that a step may have any number of micro-batches."""
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        # Small parameters are partitioned like the others: those that persist would not follow a restored state.
        "stage3_param_persistence_threshold": 0,
        "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
    }
    if guards:
        zero["compute_grad_norm"] = False
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0 if guards else clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == torch.bfloat16, "check_grad_overflow": not guards},
        "fp16": {"enabled": dtype == torch.float16},
        # DeepSpeed has another optimizer for stage 1 in bf16 with sums in fp32, which waits for its norm: sums of
        # micro-batches are in bf16 there. Stage 2 keeps them in fp32.
        "data_types": {"grad_accum_dtype": "bf16" if stage == 1 and dtype == torch.bfloat16 else "fp32"},
        "communication_data_type": "fp32",
        "steps_per_print": None,
    }
