"""The states of jobs and runs, and why an attempt ended. Retry is a function of the reason."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """What a client of the OpenAI SDK sees."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


FINAL_STATUSES = tuple(status for status in JobStatus if status.is_final)


class RunKind(StrEnum):
    """The steps of a job, in their order."""

    COMPILE = "compile"
    STAGE1 = "stage1"
    STAGE2 = "stage2"
    EVALUATE = "evaluate"


class RunState(StrEnum):
    """A run's way through the scheduler; ``done`` carries a reason."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"


class TerminationReason(StrEnum):
    """Why an attempt ended: one enum for every end there is."""

    SUCCEEDED = "succeeded"
    USER_ERROR = "user_error"
    OUT_OF_MEMORY = "out_of_memory"
    INFRASTRUCTURE = "infrastructure"
    START_TIMEOUT = "start_timeout"
    HEARTBEAT_LOST = "heartbeat_lost"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    PAUSED = "paused"
    PARENT_FAILED = "parent_failed"

    @property
    def is_retried(self) -> bool:
        """Whether another attempt may end differently without the user changing anything."""
        return self in (
            TerminationReason.INFRASTRUCTURE,
            TerminationReason.START_TIMEOUT,
            TerminationReason.HEARTBEAT_LOST,
            TerminationReason.PREEMPTED,
            TerminationReason.PAUSED,
        )

    @property
    def is_free(self) -> bool:
        """Whether the attempt was ended for somebody else's sake, and does not count as a try."""
        return self in (TerminationReason.PREEMPTED, TerminationReason.PAUSED)

    @property
    def is_success(self) -> bool:
        """Whether the attempt did what it was for."""
        return self is TerminationReason.SUCCEEDED


class WaitCode(StrEnum):
    """Why a pending run is not running yet."""

    PARENT_NOT_DONE = "parent_not_done"
    BEHIND_EARLIER_JOBS = "behind_earlier_jobs"
    CLUSTER_TOO_SMALL = "cluster_too_small"
    CLUSTER_BUSY = "cluster_busy"
    CLUSTER_UNREACHABLE = "cluster_unreachable"
    RETRY_BACKOFF = "retry_backoff"
    PAUSED = "paused"
    QUOTA = "quota"
