from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.planning.advice import out_of_memory_advice
from ibllm_core.planning.choice import HEADROOM, MICRO_BATCH_TOKENS, Plan, Room, Wishes, choose, smaller
from tests.ibllm_core.planning.models import paper


def gpu(gigabytes: float, host: float = 500) -> Room:
    return Room(device=int(gigabytes * 1e9), host=int(host * 1e9), is_gpu=True)


def wishes(workers: int = 4, **changes: Any) -> Wishes:
    return Wishes(**{"workers": workers, "row_tokens": 2048, "rows_per_step": 64, **changes})


def chosen(gigabytes: float, workers: int = 4, stage: Any = "stage1", **changes: Any) -> Plan:
    return choose(paper(stage), wishes(workers, **changes), gpu(gigabytes))


def test_one_worker_has_nothing_to_partition() -> None:
    assert chosen(80, workers=1).zero_stage == 0


def test_several_workers_partition_a_large_optimizer_state_and_replicate_a_small_one() -> None:
    assert chosen(80, stage="stage1").zero_stage == 2
    assert chosen(80, stage="stage2").zero_stage == 0


def test_less_memory_takes_a_higher_stage_and_then_the_hosts_memory() -> None:
    ways = [(plan.zero_stage, plan.offload) for plan in (chosen(gb, workers=8) for gb in (48, 24, 15, 13))]
    assert ways == [(2, "none"), (3, "none"), (3, "optimizer"), (3, "parameters")]


def test_the_reason_has_the_numbers() -> None:
    assert chosen(80, rows_per_step=16).why == (
        "ZeRO 2 on 4 workers: 13.5 GB frozen + 1.2 GB trained + 1.8 GB optimizer + 742 MB gradients + 201 MB buffers + "
        "31.4 GB activations + 723 MB logits = 49.6 GB of 80.0 GB a worker at 8,192 tokens a micro batch; "
        "ZeRO 0 would need 56.7 GB"
    )


def test_rows_are_spread_evenly_over_the_micro_batches() -> None:
    plan = chosen(80, rows_per_step=9 * 4)
    assert plan.rows == 5  # and 4 in the second, instead of 8 and 1


def test_no_micro_batch_is_larger_than_helps() -> None:
    plan = chosen(100_000, rows_per_step=10_000)
    assert plan.micro_batch_tokens <= MICRO_BATCH_TOKENS


def test_given_settings_are_kept() -> None:
    plan = chosen(80, zero_stage=3, offload="optimizer", micro_batch_tokens=5000)
    assert (plan.zero_stage, plan.offload, plan.rows) == (3, "optimizer", 2)
    assert chosen(80, zero_stage=0).zero_stage == 0
    assert not chosen(30, zero_stage=0, offload="none").fits


def test_a_given_offload_takes_the_lowest_stage_that_can() -> None:
    assert chosen(80, offload="optimizer").zero_stage == 1
    assert chosen(80, offload="parameters").zero_stage == 3


def test_nothing_is_offloaded_without_a_gpu() -> None:
    room = Room(device=int(20e9), host=0, is_gpu=False)
    plan = choose(paper(is_on_gpu=False), wishes(4), room)
    assert plan.offload == "none" and not plan.fits


def test_the_hosts_memory_counts_too() -> None:
    assert chosen(15).fits
    assert not choose(paper(), wishes(), gpu(15, host=5)).fits


@given(st.floats(1, 200), st.integers(1, 64), st.integers(1, 512), st.sampled_from(["stage1", "stage2"]))
def test_what_fits_leaves_headroom_and_one_row_at_least(gigabytes: float, workers: int, rows: int, stage: Any) -> None:
    plan = chosen(gigabytes, workers, stage, rows_per_step=rows)
    assert 1 <= plan.rows <= -(-rows // workers)
    assert plan.fits == (plan.memory.device <= HEADROOM * plan.room.device)


@given(st.floats(10, 200), st.floats(0, 200), st.integers(1, 64))
def test_more_memory_never_means_a_higher_stage(gigabytes: float, more: float, workers: int) -> None:
    small, large = chosen(gigabytes, workers), chosen(gigabytes + more, workers)
    if small.fits:
        assert large.fits and large.zero_stage <= small.zero_stage


def test_out_of_memory_halves_the_rows_down_to_one() -> None:
    plan: Plan | None = chosen(80, rows_per_step=6 * 4)
    rows = []
    while plan:
        rows.append(plan.rows)
        plan = smaller(plan)
    assert rows == [6, 3, 1]


def test_a_smaller_plan_says_what_happened() -> None:
    plan = chosen(80, rows_per_step=16)
    halved = smaller(plan)
    assert halved is not None and halved.why == (
        "a worker ran out of memory at 8,192 tokens a micro batch, for which 49.6 GB of 80.0 GB had been estimated: "
        "going on with 4,096"
    )
    assert halved.memory.device < plan.memory.device


def test_advice_names_settings_in_order_and_what_they_bring() -> None:
    advice = out_of_memory_advice(chosen(30, zero_stage=1, offload="none"))
    settings = [
        "row_tokens to 1024",
        "zero_stage to auto",
        "and resources.offload",
        "activation_checkpointing",
        "give each",
    ]
    places = [advice.index(setting) for setting in settings]
    assert places == sorted(places)
    assert "row_tokens to 1024, if no sample is longer (then 23.4 GB, which fits)" in advice


def test_only_remedies_that_lower_the_need_are_named() -> None:
    advice = out_of_memory_advice(chosen(8, workers=1, zero_stage=0, offload="none"))
    assert "set resources.zero_stage and resources.offload to auto" in advice
    assert "set resources.zero_stage to auto" not in advice  # a single worker has nothing to partition
    assert "workers to 2" not in advice  # ZeRO 0 replicates
