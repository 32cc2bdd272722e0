"""Weights are brought in by a process of the workers', whose own words the command line shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ibllm_core.contract import layout
from ibllm_core.encoders.imagebind.weights import split
from ibllm_core.storage import ObjectStore
from orchestrator.cli.main import app
from orchestrator.local.errors import StackError
from orchestrator.local.weights import import_base, import_encoder
from tests.ibllm_core.encoders.imagebind.models import SMALL, write_pth
from tests.ibllm_core.formats.object_store import running_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield ObjectStore(running.settings)


@pytest.fixture
def environment(store: ObjectStore) -> dict[str, str]:
    return {
        "IBLLM_S3_ENDPOINT": store.settings.endpoint,
        "IBLLM_S3_BUCKET": store.settings.bucket,
        "IBLLM_S3_ACCESS_KEY": store.settings.access_key,
        "IBLLM_S3_SECRET_KEY": store.settings.secret_key,
    }


def test_an_encoder_is_brought_in(store: ObjectStore, environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "towers"
    split(write_pth(tmp_path / "all.pth"), folder, SMALL)
    assert import_encoder("imagebind", folder, environment).startswith("encoder imagebind: 8 files")
    assert store.exists(layout.manifest(layout.encoder("imagebind")))


def test_a_refusal_is_one_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(StackError) as refused:
        import_encoder("efficientnet-lite0", tmp_path, environment)
    assert str(refused.value) == (
        "the encoder efficientnet-lite0 could not be brought in: encoder efficientnet-lite0 brings its weights along: "
        "jobs can name it as it is"
    )


@pytest.mark.parametrize("bring_in", [import_base, import_encoder])
def test_a_source_that_is_not_there_is_refused_with_what_to_give(
    bring_in: Callable[[str, Path, dict[str, str]], str], tmp_path: Path
) -> None:
    with pytest.raises(StackError, match=r"none does not exist: give .*folder"):
        bring_in("any", tmp_path / "none", {})


@pytest.mark.parametrize("command", ["import-base", "import-encoder"])
def test_the_commands_ask_for_a_stack(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, "any", str(tmp_path), "--home", str(tmp_path / "home")])
    assert isinstance(result.exception, StackError)
    assert "start it with `ibllm up`" in str(result.exception)
