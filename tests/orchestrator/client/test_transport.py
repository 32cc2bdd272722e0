"""Requests on bad days: refusals, broken connections, servers that are something else."""

from __future__ import annotations

import pickle
import socket
import time

import pytest

from ibllm_core.contract.api.tenants import ProjectCreate
from orchestrator.client import (
    AuthenticationError,
    Client,
    ClientError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    NotReachableError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    ServiceError,
    UnexpectedAnswerError,
)
from tests.orchestrator.client.scripted import Answer, ScriptedServer, as_json, refusal

NOTHING = {"object": "list", "data": [], "has_more": False}
AT_ONCE = {"retry-after-ms": "0"}
BROKEN = Answer(status=0)


def client_of(server: ScriptedServer, max_retries: int = 2) -> Client:
    return Client(server.url, "a-key", project="proj-1", max_retries=max_retries)


def test_a_request_carries_the_key_the_project_and_v1(scripted: ScriptedServer) -> None:
    scripted.will_answer(as_json(NOTHING))
    with client_of(scripted) as client:
        assert client.models.list().data == []
    sent = scripted.requests[0]
    assert (sent.method, sent.path) == ("GET", "/v1/models")
    assert (sent.headers["authorization"], sent.headers["openai-project"]) == ("Bearer a-key", "proj-1")


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_as_people_write_it(scripted: ScriptedServer, ending: str) -> None:
    scripted.will_answer(as_json(NOTHING))
    Client(scripted.url + ending, "k").models.list()
    assert scripted.requests[0].path == "/v1/models"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (413, InvalidRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
    ],
)
def test_a_refusal_is_raised_as_what_it_is_and_never_tried_again(
    scripted: ScriptedServer, status: int, kind: type[ServiceError]
) -> None:
    scripted.will_answer(refusal(status, "change the model"))
    with pytest.raises(kind, match="change the model") as refused:
        client_of(scripted).models.list()
    error = refused.value
    assert (error.status, error.code, error.param, error.request_id) == (status, "a_code", "model", "req-1")
    assert len(scripted.requests) == 1
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, vars(again)) == (kind, error.message, vars(error))


def test_trouble_that_passes_is_not_noticed(scripted: ScriptedServer) -> None:
    scripted.will_answer(refusal(503, **AT_ONCE), BROKEN, as_json(NOTHING))
    assert client_of(scripted).models.list().data == []
    assert len(scripted.requests) == 3


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (500, ServerError)])
def test_trouble_that_stays_is_raised_after_the_last_try(
    scripted: ScriptedServer, status: int, kind: type[ServiceError]
) -> None:
    scripted.will_answer(refusal(status, **AT_ONCE))
    with pytest.raises(kind):
        client_of(scripted).models.list()
    assert len(scripted.requests) == 3


def test_a_used_up_quota_is_not_asked_for_again(scripted: ScriptedServer) -> None:
    scripted.will_answer(refusal(429, **{"x-should-retry": "false"}))
    with pytest.raises(RateLimitError):
        client_of(scripted).models.list()
    assert len(scripted.requests) == 1


def test_what_would_be_made_twice_is_not_sent_again_when_its_answer_is_lost(scripted: ScriptedServer) -> None:
    scripted.will_answer(BROKEN)
    with pytest.raises(NotReachableError, match="broke the connection off"):
        client_of(scripted).projects.create(ProjectCreate(name="one", data_prefixes=[]))
    assert len(scripted.requests) == 1


def test_a_job_is_sent_again_under_its_key(scripted: ScriptedServer) -> None:
    scripted.will_answer(BROKEN, refusal(500, **AT_ONCE), refusal(409))
    with pytest.raises(ConflictError):
        client_of(scripted).jobs.submit({"model": "m"})
    keys = {request.headers["idempotency-key"] for request in scripted.requests}
    assert len(scripted.requests) == 3 and len(keys) == 1
    with pytest.raises(ConflictError):
        client_of(scripted).jobs.submit({"model": "m"})
    assert scripted.requests[-1].headers["idempotency-key"] not in keys


def test_where_nothing_listens_the_sentence_says_so_with_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NotReachableError, match=f"nothing answers at {url}/v1 .*whether the service is up"):
            Client(url, "k", max_retries=0).me()


def test_a_server_that_does_not_answer_in_time_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", "k", timeout=0.05, max_retries=0)
        with pytest.raises(NotReachableError, match="took too long to answer"):
            client.me()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(body=b"<html>"), UnexpectedAnswerError, "is .* the address of an ibllm service"),
        (Answer(body=b"[]"), UnexpectedAnswerError, "cannot read"),
        (Answer(status=404, body=b"<h1>Not  here</h1>"), NotFoundError, "answered 404, .*<h1>Not here</h1>"),
        (Answer(status=400, body=b'{"error": "odd"}'), InvalidRequestError, "answered 400"),
        (Answer(status=308, headers={"location": "https://x/"}), InvalidRequestError, "has moved to https://x/"),
    ],
)
def test_a_server_that_is_something_else_is_named(
    scripted: ScriptedServer, answer: Answer, kind: type[ClientError], words: str
) -> None:
    scripted.will_answer(answer)
    with pytest.raises(kind, match=words):
        client_of(scripted, max_retries=0).models.list()


@pytest.mark.parametrize("url", ["", "host", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="is no address"):
        Client(url, "k")


@pytest.mark.parametrize("key", ["", " ", "ключ", "a\nb"])
def test_a_key_that_is_none_is_refused_at_once(key: str) -> None:
    with pytest.raises(ClientError, match="copy it again"):
        Client("http://host", key)


@pytest.mark.parametrize("job_id", ["", ".", ".."])
def test_an_id_that_would_be_another_path_is_none(scripted: ScriptedServer, job_id: str) -> None:
    with pytest.raises(ClientError, match="is no id"):
        client_of(scripted).jobs.retrieve(job_id)
    assert not scripted.requests


def test_an_id_is_one_piece_of_the_path_whatever_it_holds(scripted: ScriptedServer) -> None:
    scripted.will_answer(refusal(404))
    with pytest.raises(NotFoundError):
        client_of(scripted).jobs.cancel("../files?x#y")
    assert scripted.requests[0].path == "/v1/fine_tuning/jobs/..%2Ffiles%3Fx%23y/cancel"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), time])
def test_what_is_not_json_is_not_sent(scripted: ScriptedServer, value: object) -> None:
    with pytest.raises(ClientError, match="cannot be written as JSON"):
        client_of(scripted).jobs.submit({"seed": value})
    assert not scripted.requests


def test_pages_are_fetched_as_they_are_asked_for(scripted: ScriptedServer) -> None:
    project = {"id": "p1", "name": "n", "created_at": 1, "archived_at": None, "status": "active", "data_prefixes": []}
    page = {"object": "list", "data": [project], "first_id": "p1", "last_id": "p1"}
    scripted.will_answer(as_json({**page, "has_more": True}), as_json({**page, "has_more": False}))
    projects = client_of(scripted).projects.list()
    assert next(projects).id == "p1" and len(scripted.requests) == 1
    assert len(list(projects)) == 1
    assert "after=p1" in scripted.requests[1].path and "limit=100" in scripted.requests[1].path
    scripted.will_answer(as_json({**page, "has_more": True}))
    assert len(list(client_of(scripted).projects.list(limit=3))) == 3
    assert "limit=3" in scripted.requests[2].path
