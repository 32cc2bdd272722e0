from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.orchestrator.api.service import API_KEY, Live
from tests.orchestrator.cli.conftest import Ibllm, in_process


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config/ibllm/config.json"


def test_a_login_is_tried_and_remembered_for_its_owner_alone(live: Live, ibllm: Ibllm, file: Path) -> None:
    ended = ibllm("login", "--url", live.base_url, "--key", API_KEY)
    assert ended.code == 0 and "operator is logged in" in ended.err and ended.out == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert ibllm("ls").code == 0
    assert "from profile default" in ibllm("me").out
    assert ibllm("me", "--json").json["user"]["name"] == "operator"


def test_what_is_left_out_is_asked_for_and_the_key_is_not_shown(live: Live, file: Path) -> None:
    ended = in_process("login", given=f"{live.base_url}\n{API_KEY}\n")
    assert ended.code == 0, ended.err
    assert API_KEY not in ended.out + ended.err
    assert json.loads(file.read_text())["profiles"]["default"]["key"] == API_KEY
    nothing = in_process("login", given="")
    assert nothing.code == 1 and "nothing was entered" in nothing.err and "Traceback" not in nothing.err


def test_a_key_that_does_not_work_is_not_remembered(live: Live, ibllm: Ibllm, file: Path) -> None:
    ended = ibllm("login", "--url", live.base_url, "--key", "wrong")
    assert ended.code == 4 and "the API key is wrong" in ended.err
    assert not file.exists()


def test_profiles_have_names_and_are_forgotten_by_them(live: Live, ibllm: Ibllm) -> None:
    for name in ("one", "two"):
        assert ibllm("login", "--url", live.base_url, "--key", API_KEY, "--profile", name).code == 0
    assert "profile two" in ibllm("me").out
    assert "profile one" in ibllm("me", "--profile", "one").out
    assert ibllm("logout").code == 0
    assert ibllm("me").code == 3
    assert ibllm("me", "--profile", "two").code == 1
    assert ibllm("logout", "--profile", "one").code == 0
    assert "no login" in ibllm("logout").err


def test_a_file_of_profiles_that_is_broken_is_named_with_the_remedy(ibllm: Ibllm, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("{")
    ended = ibllm("ls")
    assert ended.code == 1 and str(file) in ended.err and "remove it" in ended.err
