import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.planning.activations import MicroBatch, Training
from ibllm_core.planning.memory import STATE_BYTES, Spread, checkpoint_bytes, worker_memory
from ibllm_core.planning.parameters import trained_parameters
from tests.ibllm_core.planning.models import paper, size_of

BATCH = MicroBatch(tokens=512, samples=8, labels=512)
TRAINED = 608_190_496


@st.composite
def trainings(draw: st.DrawFn) -> Training:
    heads = draw(st.integers(1, 8))
    base = size_of(
        {
            "hidden_size": heads * 16,
            "intermediate_size": draw(st.integers(16, 4096)),
            "num_hidden_layers": draw(st.integers(1, 40)),
            "num_attention_heads": heads,
            "vocab_size": draw(st.integers(16, 100_000)),
        }
    )
    return Training(
        base=base,
        adapter=paper().adapter,
        stage=draw(st.sampled_from(["stage1", "stage2"])),
        feature_dim=draw(st.integers(1, 2048)),
        element_bytes=draw(st.sampled_from([2, 4])),
        is_on_gpu=draw(st.booleans()),
    )


@given(trainings(), st.integers(1, 64), st.integers(1, 64), st.sampled_from([0, 1, 2, 3]))
def test_more_workers_never_take_more_of_each(training: Training, workers: int, more: int, stage: int) -> None:
    few = worker_memory(training, Spread(workers=workers, zero_stage=stage), BATCH)
    many = worker_memory(training, Spread(workers=workers + more, zero_stage=stage), BATCH)
    assert many.device <= few.device


@given(trainings(), st.integers(2, 64), st.sampled_from([0, 1, 2]))
def test_a_higher_stage_never_holds_more_state(training: Training, workers: int, stage: int) -> None:
    lower = worker_memory(training, Spread(workers=workers, zero_stage=stage), BATCH)
    higher = worker_memory(training, Spread(workers=workers, zero_stage=stage + 1), BATCH)
    assert higher.state <= lower.state


@given(trainings(), st.integers(1, 8))
def test_more_rows_take_more(training: Training, rows: int) -> None:
    spread = Spread(workers=2, zero_stage=1)
    one, more = (
        worker_memory(training, spread, MicroBatch(tokens=64 * n, samples=n, labels=64 * n)) for n in (rows, rows + 1)
    )
    assert one.activations < more.activations and one.logits <= more.logits
    assert one.state == more.state


def test_replicated_state_is_eighteen_bytes_a_parameter() -> None:
    memory = worker_memory(paper(), Spread(workers=8, zero_stage=0), BATCH)
    largest = 2 * 4 * 4096**2
    assert memory.trained + memory.optimizer + memory.gradients == 18 * TRAINED + largest
    assert memory.frozen == pytest.approx(13.48e9, rel=1e-3)


def test_partitions_divide_what_their_stage_says() -> None:
    one, two, three = (worker_memory(paper(), Spread(workers=4, zero_stage=stage), BATCH) for stage in (1, 2, 3))
    assert one.optimizer == two.optimizer == three.optimizer == STATE_BYTES * TRAINED / 4
    assert one.gradients == 4 * TRAINED and two.gradients < one.gradients / 4 + 2 * 4 * 4096**2 + 1
    assert three.frozen * 4 == two.frozen and three.trained * 4 == two.trained


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_offloading_moves_state_to_the_host(stage: TrainingStage) -> None:
    training = paper(stage)
    trained = trained_parameters(training.base, training.adapter, stage, training.feature_dim)
    kept, optimizer, parameters = (
        worker_memory(training, Spread(workers=2, zero_stage=3, offload=offload), BATCH)
        for offload in ("none", "optimizer", "parameters")
    )
    assert kept.host == checkpoint_bytes(trained)
    assert optimizer.optimizer == 0 and optimizer.host == kept.host + 16 * trained / 2
    assert parameters.frozen == parameters.trained == 0
    assert parameters.host == optimizer.host + optimizer.frozen + optimizer.trained


def test_on_a_cpu_checkpoint_copies_share_the_memory() -> None:
    on_cpu = worker_memory(paper(is_on_gpu=False), Spread(workers=2, zero_stage=0), BATCH)
    assert on_cpu.host == 0 and on_cpu.buffers == checkpoint_bytes(TRAINED)
