"""The entry point of every Ray job: ``python -m workers.entry KEY``, with the key of the attempt's spec."""

from __future__ import annotations

import logging
import sys
import traceback

from pydantic import TypeAdapter

from ibllm_core.contract.run_spec import CompileSpec, EvaluateSpec, Outcome, RunSpec
from ibllm_core.contract.states import TerminationReason
from ibllm_core.errors import (
    CoreError,
    InvalidDataError,
    InvalidPromptError,
    InvalidSpecError,
    InvalidWeightsError,
    OutOfMemoryError,
)
from ibllm_core.open_store import open_store
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import Store
from workers.errors import chain_of
from workers.reporting import Reporter
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)
USER_ERRORS = (InvalidDataError, InvalidPromptError, InvalidSpecError, InvalidWeightsError)


def main(spec_key: str) -> int:
    """Run one attempt to its end, and say how it ended; the exit status is 0 on success only."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each heartbeat
    store = open_store(StorageSettings())
    spec: RunSpec = TypeAdapter(RunSpec).validate_json(store.get(spec_key))
    with Reporter(spec) as reporter:
        try:
            outcome = _run(spec, store, reporter)
        except Exception as error:
            log.error("%s", traceback.format_exc())
            outcome = outcome_of(error)
        reporter.outcome(outcome)
    log.info("ended: %s %s", outcome.reason, outcome.message)
    return 0 if outcome.reason.is_success else 1


def _run(spec: RunSpec, store: Store, reporter: Reporter) -> Outcome:
    settings = WorkerSettings()
    # Imported here: a compile run needs no DeepSpeed, a training run no Ray Data.
    if isinstance(spec, CompileSpec):
        from workers.compile import run as compile_run

        return compile_run.run(spec, store, settings, reporter)
    if isinstance(spec, EvaluateSpec):
        from workers.evaluate import run as evaluate_run

        return evaluate_run.run(spec, store, settings, reporter)
    from workers.train import driver

    return driver.run(spec, store, settings, reporter)


def outcome_of(error: BaseException) -> Outcome:
    """Name the reason of an exception; the chain of causes is searched, since Ray wraps what workers raise."""
    causes = chain_of(error)
    for cause in causes:
        if isinstance(cause, USER_ERRORS):
            return Outcome(reason=TerminationReason.USER_ERROR, message=cause.message)
        if isinstance(cause, OutOfMemoryError):
            return Outcome(reason=TerminationReason.OUT_OF_MEMORY, message=cause.message)
        if isinstance(cause, MemoryError) or type(cause).__name__ in ("OutOfMemoryError", "OutOfMemory"):
            return Outcome(
                reason=TerminationReason.OUT_OF_MEMORY,
                message=f"out of memory ({cause}): lower hyperparameters.row_tokens or rows_per_step",
            )
    root = causes[-1]
    message = root.message if isinstance(root, CoreError) else f"{type(root).__name__}: {root}"
    return Outcome(reason=TerminationReason.INFRASTRUCTURE, message=message[:2000])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
