"""An API that is killed at the N-th moment of a request, and comes back as a supervisor would bring it back.

``python -m tests.orchestrator.api.killed_api`` reads a line for each life: N, the moment to die at. It answers
``killed`` or ``lived`` to the next line, which ends that life. Children are forked, since starting anew would take
seconds for each of many moments; they share a socket, at which clients may wait while nobody serves.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine, event
from starlette.types import Receive, Scope, Send

from orchestrator.api.app import create_app


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        print(listening.getsockname()[1], flush=True)
        while moment := sys.stdin.readline():
            _live(listening, int(moment))


def _live(listening: socket.socket, moment: int) -> None:
    """Serve, die at the moment, serve again; until the next line."""
    children = [_fork(listening, moment)]
    killed = threading.Event()

    def bring_back() -> None:
        os.waitpid(children[0], 0)
        if not over.is_set():
            killed.set()
            children.append(_fork(listening, None))

    over = threading.Event()
    watching = threading.Thread(target=bring_back)
    watching.start()
    sys.stdin.readline()
    over.set()
    if not killed.is_set():
        os.kill(children[0], signal.SIGKILL)
    watching.join()
    for child in children[1:]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print("killed" if killed.is_set() else "lived", flush=True)


def _fork(listening: socket.socket, moment: int | None) -> int:
    child = os.fork()
    if child == 0:
        app = create_app()
        served = app if moment is None else _Mortal(app, moment)
        uvicorn.Server(uvicorn.Config(served, log_level="error")).run(sockets=[listening])
        os._exit(0)
    return child


class _Mortal:
    """The application, which dies before a statement, or before or after a commit, of the first POST that it gets."""

    def __init__(self, app: FastAPI, moment: int) -> None:
        self._app = app
        self._left: int | None = None
        self._moment = moment
        self._watch(app.state.sessions.kw["bind"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self._left = self._moment
        await self._app(scope, receive, send)

    def _watch(self, engine: Engine) -> None:
        event.listen(engine, "before_cursor_execute", lambda *_: self._pass())
        commit = engine.dialect.do_commit

        def do_commit(connection: object) -> None:
            self._pass()
            commit(connection)  # type: ignore[arg-type]
            self._pass()

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign]

    def _pass(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
