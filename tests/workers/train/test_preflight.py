import re
from pathlib import Path
from typing import Any

import pytest

from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import InvalidSpecError
from ibllm_core.planning.choice import Plan, Room
from tests.workers.train.world import DATA, HELD_OUT, PARENT, FurnishedStore, header, spec
from workers.train.facts import read_facts
from workers.train.preflight import find_problems, most_steps, preflight

CPU = Room(device=10**9, host=0, is_gpu=False)
GPU = Room(device=10**9, host=10**9, is_gpu=True)


@pytest.fixture
def store(tmp_path: Path) -> FurnishedStore:
    store = FurnishedStore(tmp_path)
    store.add_base()
    store.add_dataset(DATA)
    store.add_dataset(HELD_OUT)
    store.add_parent()
    return store


def problems(store: FurnishedStore, run: TrainSpec, room: Room = CPU, element_bytes: int = 4) -> list[str]:
    return [str(problem) for problem in find_problems(run, read_facts(run, store), room, element_bytes)]


def only_problem(store: FurnishedStore, run: TrainSpec, room: Room = CPU) -> str:
    (problem,) = problems(store, run, room)
    return problem


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_run_that_can_work_has_a_plan(store: FurnishedStore, stage: str) -> None:
    plan = preflight(spec(stage), store, CPU, 4)
    assert isinstance(plan, Plan) and plan.fits
    assert (plan.zero_stage, plan.rows) == (0, 2)


def test_all_problems_come_at_once_each_with_its_path_and_remedy(store: FurnishedStore) -> None:
    run = spec(
        "stage2",
        base="none",
        template="short",
        parent_adapter=None,
        datasets=[{"dataset": "ds-none", "weight": 1.0}],
        resources={"workers": 8, "precision": "fp16", "micro_batch_tokens": 32},
    )
    with pytest.raises(InvalidSpecError) as caught:
        preflight(run, store, CPU, 4)
    assert caught.value.message.startswith("stage2 cannot be trained as it is asked for; problems: 7\n- ")
    found = caught.value.fields["problems"]
    assert [problem["path"] for problem in found] == [
        "datasets.0",
        "base",
        "hyperparameters.rows_per_step",
        "resources.micro_batch_tokens",
        "resources.precision",
        "parent_adapter",
        "validation_dataset",
    ]
    assert all(problem["what"] and problem["remedy"] for problem in found)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"resources": {"workers": 6}}, r"rows_per_step: it is 4, so that 2 of 6 workers would idle: raise it to 6"),
        ({"resources": {"micro_batch_tokens": 32}}, r"micro_batch_tokens: 32 tokens hold no row of 64: raise it to 64"),
        ({"resources": {"precision": "fp16"}}, r"precision: fp16 needs a GPU"),
        ({"resources": {"offload": "optimizer"}}, r"offload: the workers have no GPU.*: set it to none"),
        ({"hyperparameters": {"warmup_epochs": 1.5}}, r"warmup_epochs: .* 1.5 epochs of 1: lower it"),
        ({"hyperparameters": {"max_steps": 5, "warmup_steps": 6}}, r"warmup_steps: .* 6 steps of at most 5"),
        ({"hyperparameters": {"row_tokens": 32}}, r"row_tokens: rows of 32 .* datasets.0, .* up to 64: raise it to 64"),
        ({"template": "short"}, r"datasets.0: it was compiled with template 'alpaca', the run's is 'short'"),
        ({"encoder": "other"}, r"datasets.0: its features are those of encoder 'imagebind', the run's is 'other'"),
        ({"adapter": {"preset": "released"}}, r"datasets.0: its 10 samples of text lack the grey picture"),
        ({"adapter": {"fusion": {"kind": "adapter_prefix", "layers": [0, 2]}}}, r"fusion.layers: .* layers 0 to 1"),
        ({"datasets": [{"dataset": DATA, "weight": 0.001}]}, r"datasets.0: a weight of 0.001 takes none of its 100"),
    ],
)
def test_settings_that_cannot_work_are_named(store: FurnishedStore, changes: dict[str, Any], expected: str) -> None:
    run = spec(validation_dataset=None, **changes)
    assert_matches(only_problem(store, run), expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"samples": 0}, r"datasets.0: ds-train has no samples"),
        ({"tokenizer_sha256": "other"}, r"datasets.0: .* another tokenizer or configuration than the base's"),
        ({"feature_dim": 7}, r"validation_dataset: its features have 12 numbers, those of datasets.0 7"),
        ({"encoder_sha256": "f"}, r"validation_dataset: .* other weights or another precision of imagebind"),
        ({"media_tokens": 1, "row_tokens": 65}, r"row_tokens: .* up to 65"),
    ],
)
def test_data_that_does_not_fit_is_named(store: FurnishedStore, changes: dict[str, Any], expected: str) -> None:
    store.add_dataset(DATA, **changes)
    assert_matches(only_problem(store, spec()), expected)


def test_samples_longer_than_the_bases_context_are_named(store: FurnishedStore) -> None:
    store.add_base(max_position_embeddings=48)
    assert_matches(
        problems(store, spec())[0], r"datasets.0: its samples have up to 64 tokens, the base's context only 48"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"stage": "stage2", "config": {"lora": {"rank": 4}}},
            r"parent_adapter: it has lora .*rank=4.*, the run .*rank=16.*: set adapter.lora to the adapter's",
        ),
        (
            {"base_sha256": "d" * 64},
            r"parent_adapter: it was trained on base tiny with weights d{64}, but tiny has b{64}",
        ),
        ({"encoder": "other"}, r"parent_adapter: .* encoder 'other', the run's is 'imagebind'"),
        ({"feature_dim": 7}, r"parent_adapter: it takes features of 7 numbers, but the data's have \[12\]"),
        ({"config": {"fusion": "value_gate"}}, r"parent_adapter: it has fusion .*value_gate.*: set adapter.fusion"),
        ({"config": {"bind_norm": "layer"}}, r"parent_adapter: it has bind_norm 'layer', the run 'rms'"),
    ],
)
def test_a_parent_that_does_not_fit_is_named(store: FurnishedStore, changes: dict[str, Any], expected: str) -> None:
    store.add_parent(**changes)
    assert_matches(only_problem(store, spec("stage2")), expected)


def test_a_parent_whose_base_is_not_known_is_taken(store: FurnishedStore) -> None:
    store.add_parent(base_sha256=None)
    assert problems(store, spec("stage2")) == []


@pytest.mark.parametrize(("stage", "parents"), [("stage1", "stage1"), ("stage2", "stage1"), ("stage2", "stage2")])
def test_a_stage_goes_on_from_its_own_kind_and_stage2_begins_from_stage1(
    store: FurnishedStore, stage: str, parents: str
) -> None:
    store.add_parent(stage=parents)
    assert problems(store, spec(stage, parent_adapter=PARENT)) == []


def test_a_checkpoint_is_a_parent_and_says_what_it_is(store: FurnishedStore) -> None:
    prefix = store.add_checkpoint(header(stage="stage2", config={"lora": {"rank": 4}}, parent=PARENT))
    assert_matches(only_problem(store, spec("stage2", parent_adapter=prefix)), r"parent_adapter: it has lora")
    older = store.add_checkpoint(None)
    assert_matches(only_problem(store, spec("stage2", parent_adapter=older)), r"parent_adapter: .* older version")


def test_the_best_checkpoint_as_result_needs_validation_data_and_has_to_be_kept(store: FurnishedStore) -> None:
    best = {"result": "best"}
    assert problems(store, spec(checkpoints=best)) == []
    assert_matches(
        only_problem(store, spec(checkpoints=best, validation_dataset=None)),
        r"checkpoints.result: .* no validation data: give a validation file, or set it to last",
    )
    assert_matches(
        only_problem(store, spec(checkpoints={**best, "keep_best": 0})),
        r"checkpoints.keep_best: it is 0, .*: raise it to 1, or set checkpoints.result to last",
    )


def test_stage1_does_not_begin_from_a_stage2(store: FurnishedStore) -> None:
    store.add_parent(stage="stage2")
    run = spec(parent_adapter=PARENT)
    assert_matches(only_problem(store, run), r"parent_adapter: stage1 begins from a stage1, but this is a stage2")


@pytest.mark.parametrize(("offload", "stage", "needed"), [("optimizer", 0, 1), ("parameters", 2, 3)])
def test_offload_needs_a_zero_stage(store: FurnishedStore, offload: str, stage: int, needed: int) -> None:
    run = spec(resources={"offload": offload, "zero_stage": stage})
    expected = rf"offload: {offload} can be offloaded from ZeRO {needed} on, but resources.zero_stage is {stage}"
    assert_matches(only_problem(store, run, GPU), expected)


@pytest.mark.parametrize(
    ("missing", "path"), [("bases/tiny", "base"), (f"datasets/{DATA}", "datasets.0"), (PARENT, "parent_adapter")]
)
def test_what_is_not_there_is_named(store: FurnishedStore, missing: str, path: str) -> None:
    (store.root / missing / "MANIFEST.json").unlink()
    assert_matches(only_problem(store, spec("stage2")), rf"{path}: the object store has no {missing}")


def test_an_adapter_without_a_header_and_a_base_without_a_hash_are_named(store: FurnishedStore) -> None:
    store.put_json(f"{PARENT}/MANIFEST.json", {"files": {}})
    store.put_json("bases/tiny/MANIFEST.json", {"files": {}})
    base, parent = sorted(problems(store, spec("stage2")))
    assert_matches(base, r"base: base tiny was brought in by an older version.*bring it in again")
    assert_matches(parent, r"parent_adapter: .* has no adapter's header")


def test_a_base_too_large_for_the_memory_is_named_with_numbers_and_settings(store: FurnishedStore) -> None:
    store.add_base(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    problem = only_problem(store, spec())
    assert_matches(problem, r"base: a worker would need more than the 900 MB .* ZeRO 3 on 2 workers: 10.9 GB frozen")
    assert "hyperparameters.row_tokens" in problem and "resources.precision to bf16" in problem


def test_a_micro_batch_too_large_for_the_memory_is_named_with_settings(store: FurnishedStore) -> None:
    run = spec(resources={"micro_batch_tokens": 128})
    (problem,) = problems(store, run, Room(device=1_500_000, host=0, is_gpu=False))
    assert_matches(problem, r"resources.micro_batch_tokens: a worker would need more than")
    assert "set resources.micro_batch_tokens to 64" in problem
    assert "lower hyperparameters.row_tokens to 32" in problem
    assert "set resources.activation_checkpointing to true" in problem


def test_as_few_workers_as_are_allowed_have_to_fit_too(store: FurnishedStore) -> None:
    needed = preflight(spec(resources={"workers": 4, "zero_stage": 1}), store, CPU, 4).memory.device
    room = Room(device=int(needed / 0.9) + 1, host=0, is_gpu=False)
    run = spec(resources={"workers": 4, "min_workers": 1, "zero_stage": 1, "micro_batch_tokens": 64})
    assert_matches(only_problem(store, run, room), r"resources.min_workers: with as few as 1 workers")


def test_steps_are_bounded_by_the_data(store: FurnishedStore) -> None:
    run = spec(hyperparameters={"n_epochs": 2})  # 2,000 tokens fill 32 to 64 rows of 64, four a step
    assert most_steps(run, read_facts(run, store)) == 2 * 16
    limited = spec(hyperparameters={"n_epochs": 2, "max_steps": 3})
    assert most_steps(limited, read_facts(limited, store)) == 3


def assert_matches(problem: str, pattern: str) -> None:
    assert re.search(pattern, problem), problem
