import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from orchestrator.cli.data import app
from orchestrator.cli.data_report import BAR_WIDTH, bar
from tests.conftest import word_tokenizer

GOOD = {"image": "images/a.png", "caption": "a cat on the mat ."}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack, no settings of an object store, and a terminal that is wide enough."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.delenv(f"IBLLM_S3_{name}", raising=False)
    monkeypatch.delenv("IBLLM_HOME", raising=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / ".ibllm/cache/bases/tiny"
    word_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
    return folder


def dataset(folder: Path, rows: list[dict[str, str] | str]) -> Path:
    """Captions of ``images/a.png``, a row a line."""
    (folder / "images").mkdir()
    (folder / "images/a.png").write_bytes(b"picture")
    file = folder / "captions.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, words)])


def test_clean_data_is_usable(tmp_path: Path) -> None:
    result = run(dataset(tmp_path, [GOOD] * 3))
    assert result.exit_code == 0, result.output
    for words in (
        "stage          1, since all samples are captions",
        "rows           3",
        "3 image",
        "characters     144",
        "duplicates     2 samples",
        "name a base with --base",
        "usable",
    ):
        assert words in result.stdout


def test_bad_rows_are_shown_with_reasons_and_the_status_is_1(tmp_path: Path) -> None:
    missing = {"image": "images/[bold]none.png", "caption": "a dog"}
    result = run(dataset(tmp_path, [GOOD, missing, {**GOOD, "image": "../secret.png"}, "{"]))
    assert result.exit_code == 1
    assert "75.00% of the rows are bad, a job refuses more than 1%" in result.stdout
    assert "images/[bold]none.png" in result.stdout
    assert "not a path below the dataset's folder" in result.stdout


def test_a_base_counts_tokens(tmp_path: Path, base: Path) -> None:
    file = dataset(tmp_path, [GOOD, {**GOOD, "caption": "cat " * 100}, {**GOOD, "caption": "dog " * 200}])
    for name in ("tiny", base):
        result = run(file, "--base", name, "--template", "short", "--row-tokens", "64")
        assert result.exit_code == 1
        shown = " ".join(result.stdout.split())
        assert "over row_tokens 64 2: quarantined, since nothing is cut" in shown
        assert "over the base's context 128 1: quarantined" in shown
        assert "█" in result.stdout


def test_the_report_is_json_for_programs(tmp_path: Path, base: Path) -> None:
    result = run(dataset(tmp_path, [GOOD] * 2), "--base", "tiny", "--json")
    report = json.loads(result.stdout)
    assert (report["rows"], report["media"], report["is_usable"]) == (2, {"image": 2}, True)
    assert report["tokens"]["longest_row"] == 1


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["none.jsonl"], "check the path"),
        (["s3://people/x"], "IBLLM_S3_ENDPOINT"),
        (["http://127.0.0.1/x.jsonl"], "upload it, or copy it to"),
        (["captions.jsonl", "--base", "none"], "has a tokenizer.json"),
        (["captions.jsonl", "--base", "tiny", "--template", "none"], "choose one of alpaca"),
        (["captions.jsonl", "--row-tokens", "0"], "row-tokens"),
    ],
)
def test_wrong_words_are_usage_errors(tmp_path: Path, base: Path, words: list[str], remedy: str) -> None:
    dataset(tmp_path, [GOOD])
    result = run(*words)
    assert result.exit_code == 2
    assert remedy in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("content", ["", "\n", "not a dataset"])
def test_files_without_rows_are_not_usable(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    result = run("x.jsonl")
    assert result.exit_code == 1, result.output


def test_words_of_a_dataset_do_not_command_the_terminal(tmp_path: Path) -> None:
    result = run(dataset(tmp_path, [GOOD, json.dumps({"image": "images/\u001b[2Jx.png", "caption": "a"})]))
    assert "\u001b" not in result.stdout


def test_the_command_needs_no_torch() -> None:
    code = "import sys, orchestrator.cli.data; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_bars_are_as_long_as_their_share() -> None:
    assert bar(100, 100) == "█" * BAR_WIDTH
    assert bar(50, 100) == "█" * (BAR_WIDTH // 2)
    assert bar(1, 10**6) == "▏"
    assert bar(0, 100) == ""
    assert Console().measure(bar(33, 100)).maximum <= BAR_WIDTH
