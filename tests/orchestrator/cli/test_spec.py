import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.spec import Flags, SpecError, checked, read_spec, with_flags, with_uploads

SPEC: dict[str, Any] = {"model": "m", "training_file": "file-1", "metadata": {"a": "1"}, "resources": {"workers": 4}}


def test_yaml_and_json_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: m\nresources: {workers: 2}\nlearning: [5e-4, 1e3, -2E+1, 0.5]\n")
    (tmp_path / "a.json").write_text('{"model": "m", "resources": {"workers": 2}, "learning": [5e-4, 1e3, -2E+1, 0.5]}')
    assert read_spec(tmp_path / "a.yaml") == read_spec(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1", "is neither YAML nor JSON: .* line 1"),
        ("- a\n- b", "must hold the fields of a job.* but holds list"),
        ("", "must hold the fields of a job.* but holds NoneType"),
        ("a: !!python/object/apply:os.system [ls]", "is neither YAML nor JSON"),
        ("a: \x00", "is neither YAML nor JSON"),
    ],
)
def test_a_file_that_is_no_spec_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match=f"job.yaml {words}"):
        read_spec(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml cannot be read: No such file"):
        read_spec(tmp_path / "none.yaml")


def test_flags_go_before_the_file_and_leave_the_rest_of_it() -> None:
    flags = Flags(model="other", n_epochs=3, gpus=0.5, budget=2.0, priority="high", metadata={"b": "2"})
    body = with_flags(SPEC, flags)
    assert body == {
        "model": "other",
        "training_file": "file-1",
        "metadata": {"a": "1", "b": "2"},
        "resources": {"workers": 4, "gpus_per_worker": 0.5},
        "method": {"supervised": {"hyperparameters": {"n_epochs": 3}}},
        "budget": {"gpu_hours": 2.0},
        "priority": "high",
    }
    assert checked(body, "flags") == body
    assert SPEC["metadata"] == {"a": "1"}


def test_a_flag_does_not_replace_what_is_no_field() -> None:
    with pytest.raises(SpecError, match="resources must hold fields, but is 3"):
        with_flags({"resources": 3}, Flags(workers=1))


def test_all_problems_are_told_at_once_each_with_its_path() -> None:
    body = {**SPEC, "seed": -1, "colour": "red", "resources": {"workers": "two"}}
    with pytest.raises(SpecError) as refused:
        checked(body, "job.yaml")
    lines = str(refused.value).splitlines()
    assert {line.split(": ")[1] for line in lines} == {"seed", "colour", "resources.workers"}
    assert all(line.startswith("job.yaml: ") for line in lines)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(SpecError):
        checked(
            {
                **SPEC,
                "budget": {"gpu_hours": 1.0},
                "retry": {"backoff_seconds": 1},
                "adapter": {},
                "data": {"max_bad_share": value},
            },
            "job.yaml",
        )


def test_files_of_this_machine_are_uploaded_wherever_they_stand(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        (tmp_path / name).write_text(name)
    stages: list[dict[str, Any]] = [
        {"stage": "stage1", "training_file": "a.jsonl", "validation_file": str(tmp_path / "b.jsonl")},
        {"stage": "stage2", "training_file": "file-0a", "mix": [{"file": "c.jsonl"}, {"file": "s3://x/c.jsonl"}]},
    ]
    uploaded = with_uploads({"model": "m", "stages": stages}, tmp_path, lambda path: f"id of {path.name}")
    assert json.loads(json.dumps(uploaded["stages"])) == [
        {"stage": "stage1", "training_file": "id of a.jsonl", "validation_file": "id of b.jsonl"},
        {"stage": "stage2", "training_file": "file-0a", "mix": [{"file": "id of c.jsonl"}, {"file": "s3://x/c.jsonl"}]},
    ]
    assert stages[0]["training_file"] == "a.jsonl"


@pytest.mark.parametrize("location", ["none.jsonl", "file-0a", "s3://a/b", "", "x" * 5000, "folder"])
def test_what_is_no_file_here_goes_as_it_is(tmp_path: Path, location: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file-0a").write_text("an id is an id, whatever lies here")
    body = {"model": "m", "training_file": location}
    assert with_uploads(body, tmp_path, lambda path: f"id of {path.name}") == body
