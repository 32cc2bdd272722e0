from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.contract.states import WaitCode
from orchestrator.scheduler.policy import ActiveRun, Gang, Node, PendingRun, Quota, fits, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node(cpus: float, gpus: float = 0) -> Node:
    return Node(node_id="n", cpus=cpus, gpus=gpus)


def gang(workers: int, cpus: float = 1, gpus: float = 0) -> Gang:
    return Gang(workers=workers, cpus=cpus, gpus=gpus)


def active(needs: Gang, project_id: str = "ours") -> ActiveRun:
    return ActiveRun(project_id=project_id, gang=needs)


def pending(name: str, needs: Gang, age: int = 0, **changes: object) -> PendingRun:
    order = (NOW - timedelta(seconds=age), name)
    values = {"run_id": name, "project_id": "ours", "job_order": order, "gang": needs, "parents_done": True, **changes}
    return PendingRun(**values)  # type: ignore[arg-type]


def test_the_older_job_goes_first_and_the_younger_waits_behind_it() -> None:
    made = plan([pending("young", gang(1)), pending("old", gang(2), age=9)], [active(gang(1))], [node(2)], NOW)
    assert made.admitted == ()
    assert made.waiting["old"].code is WaitCode.CLUSTER_BUSY
    assert made.waiting["young"].code is WaitCode.BEHIND_EARLIER_JOBS


def test_what_can_never_fit_says_so_and_holds_up_nobody() -> None:
    made = plan([pending("huge", gang(64), age=9), pending("small", gang(2))], [], [node(2)], NOW)
    assert made.admitted == ("small",)
    assert made.waiting["huge"].code is WaitCode.CLUSTER_TOO_SMALL
    assert "needs 64 workers of 1 CPU, but the cluster's 1 node(s) have 2 CPU" in made.waiting["huge"].message


def test_parents_backoff_and_an_unreachable_cluster_are_reasons() -> None:
    runs = [
        pending("child", gang(1), parents_done=False, parent_name="stage1"),
        pending("again", gang(1), not_before=NOW + timedelta(seconds=7)),
        pending("ready", gang(1)),
    ]
    made = plan(runs, [], None, NOW)
    assert made.waiting["child"].message == "waits for stage1 of the same job"
    assert made.waiting["again"].message == "is tried again in 7 s"
    assert made.waiting["ready"].code is WaitCode.CLUSTER_UNREACHABLE


def test_a_gang_may_span_nodes_but_a_bundle_may_not() -> None:
    assert fits([gang(2, cpus=2)], [node(2), node(2)])
    assert not fits([gang(1, cpus=4)], [node(2), node(2)])
    assert not fits([gang(2, gpus=1)], [node(8, gpus=1)])


gangs = st.builds(gang, st.integers(1, 4), st.sampled_from([0.5, 1, 2]), st.sampled_from([0, 1]))
nodes = st.lists(st.builds(node, st.integers(0, 8), st.integers(0, 2)), max_size=4)


@given(st.lists(gangs, max_size=8), nodes)
def test_never_over_capacity_and_every_run_is_admitted_or_told_why(wanted: list[Gang], offered: list[Node]) -> None:
    runs = [pending(str(index), needs, age=len(wanted) - index) for index, needs in enumerate(wanted)]
    made = plan(runs, [], offered, NOW)
    assert set(made.admitted) | set(made.waiting) == {run.run_id for run in runs}
    assert not set(made.admitted) & set(made.waiting)
    assert fits([run.gang for run in runs if run.run_id in made.admitted], offered)


@given(st.lists(gangs, min_size=1, max_size=8), nodes)
def test_the_oldest_run_that_fits_an_empty_cluster_is_admitted(wanted: list[Gang], offered: list[Node]) -> None:
    runs = [pending(str(index), needs, age=len(wanted) - index) for index, needs in enumerate(wanted)]
    first = next((run.run_id for run in runs if fits([run.gang], offered)), None)
    assert first is None or first in plan(runs, [], offered, NOW).admitted


def test_the_higher_class_goes_first_whatever_its_age() -> None:
    runs = [
        pending("old", gang(2), age=9),
        pending("urgent", gang(2), rank=1),
        pending("idle", gang(2), age=99, rank=-1),
    ]
    made = plan(runs, [], [node(2)], NOW)
    assert made.admitted == ("urgent",)
    assert (
        "of a higher class"
        in plan([*runs, pending("next", gang(2), rank=1)], [], [node(2)], NOW).waiting["idle"].message
    )


def test_a_project_holds_no_more_gpus_than_its_quota_and_holds_up_nobody() -> None:
    mine, theirs = pending("mine", gang(2, gpus=1), age=9), pending("theirs", gang(2, gpus=1), project_id="theirs")
    held = [active(gang(1, gpus=1))]
    made = plan([mine, theirs], held, [node(8, gpus=4)], NOW, {"ours": Quota(max_gpus=2)})
    assert made.admitted == ("theirs",)
    assert made.waiting["mine"].code is WaitCode.QUOTA
    assert "holds 1 of its 2 GPUs, and this run needs 2 more" in made.waiting["mine"].message


def test_a_project_that_has_used_its_month_waits_but_for_runs_without_gpus() -> None:
    spent = {"ours": Quota(gpu_hours_per_month=10, gpu_hours_used=10.2)}
    made = plan([pending("gpu", gang(1, gpus=1), age=9), pending("cpu", gang(1))], [], [node(2, gpus=1)], NOW, spent)
    assert made.admitted == ("cpu",)
    assert "has used 10.2 of its 10 GPU-hours of this month" in made.waiting["gpu"].message


@given(st.lists(gangs, max_size=8), nodes, st.integers(0, 4))
def test_never_over_quota(wanted: list[Gang], offered: list[Node], most: int) -> None:
    runs = [pending(str(index), needs, age=len(wanted) - index) for index, needs in enumerate(wanted)]
    made = plan(runs, [], offered, NOW, {"ours": Quota(max_gpus=most)})
    assert sum(run.gang.all_gpus for run in runs if run.run_id in made.admitted) <= most
