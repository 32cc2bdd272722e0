import pickle
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError, StorageError
from ibllm_core.formats.addresses import is_public
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.sample import Media
from ibllm_core.formats.sources import LocalSource
from tests.ibllm_core.formats.object_store import PEOPLE, RunningStore, running_store
from tests.ibllm_core.formats.web_server import PICTURE, WebServer, running_server

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "2001:db8::1",
]


@pytest.fixture
def server() -> Iterator[WebServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        running.put("pictures/a.png", PICTURE)
        running.put("files/file-1/content", b"of somebody else", bucket=running.settings.bucket)
        yield running


@pytest.fixture
def source(tmp_path: Path) -> LocalSource:
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "empty.png").touch()
    return LocalSource(root=tmp_path)


@pytest.fixture
def fetcher(source: LocalSource) -> Fetcher:
    """One that may reach the loopback address."""
    return Fetcher(source, allow_private=True, max_bytes=100_000, timeout=20)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that a connection is tried to; none is made but to the loopback address."""
    tried: list[Any] = []
    connect = socket.socket.connect

    def noting(self: socket.socket, address: Any) -> None:
        tried.append(address)
        assert address[0] == "127.0.0.1", f"a test must not leave this machine: {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noting)
    return tried


def picture(where: str) -> Media:
    return Media(modality=Modality.IMAGE, where=where)


def answer_names_with(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """A name service that gives one answer after the other, and the last for ever; returns what it was asked."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def answering(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host[0].isdigit():
            return resolve(host, port, *rest, **options)
        asked.append(host)
        return resolve(answers[min(len(asked), len(answers)) - 1], port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answering)
    return asked


def test_media_come_from_rows_folders_buckets_and_the_web(
    fetcher: Fetcher, server: WebServer, store: RunningStore
) -> None:
    assert fetcher.fetch(Media(modality=Modality.AUDIO, content=b"sound")) == b"sound"
    assert fetcher.fetch(picture("a.png")) == PICTURE
    assert fetcher.fetch(picture(server.url("/picture?size=large"))) == PICTURE
    with_store = Fetcher(fetcher.source, settings=store.settings)
    assert with_store.fetch(picture(f"s3://{PEOPLE}/pictures/a.png")) == PICTURE


def test_a_fetcher_pickles_after_use(source: LocalSource, store: RunningStore) -> None:
    fetcher = Fetcher(source, settings=store.settings)
    fetcher.fetch(picture(f"s3://{PEOPLE}/pictures/a.png"))
    again = pickle.loads(pickle.dumps(fetcher))
    assert again.fetch(picture(f"s3://{PEOPLE}/pictures/a.png")) == PICTURE
    assert store.settings.secret_key not in repr(fetcher)


@pytest.mark.parametrize("where", ["../a.png", "/etc/passwd", "images/../../a.png", "a\0.png", "none.png", "empty.png"])
def test_paths_that_climb_out_are_missing_or_empty_are_refused(fetcher: Fetcher, where: str) -> None:
    for use in (fetcher.fetch, fetcher.check):
        with pytest.raises(InvalidDataError, match=r"not a path below|cannot be read|is empty"):
            use(picture(where))


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://h/x", "gopher://h/", "data:image/x"]
)
def test_other_schemes_are_refused(fetcher: Fetcher, where: str) -> None:
    for use in (fetcher.fetch, fetcher.check):
        with pytest.raises(InvalidDataError, match=r"cannot be read: write a path below .* s3://, http:// or https://"):
            use(picture(where))


def test_a_medium_of_nothing_is_refused(fetcher: Fetcher) -> None:
    for media in (Media(modality=Modality.IMAGE), Media(modality=Modality.IMAGE, content=b"")):
        for use in (fetcher.fetch, fetcher.check):
            with pytest.raises(InvalidDataError, match="the image in its row is empty"):
                use(media)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("s3://ibllm/files/file-1/content", "own bucket"),
        ("s3://people/../ibllm/files/file-1/content", "without '.' and '..'"),
        ("s3:///x", "not a bucket's name"),
        (f"s3://{PEOPLE}/none.png", "there is no"),
        ("s3://no-bucket/none.png", "there is no"),
    ],
)
def test_objects_that_may_not_be_read_are_refused(
    source: LocalSource, store: RunningStore, where: str, reason: str
) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        Fetcher(source, settings=store.settings).fetch(picture(where))


def test_objects_obey_the_limit(source: LocalSource, store: RunningStore) -> None:
    with pytest.raises(InvalidDataError, match="at most 99 bytes"):
        Fetcher(source, settings=store.settings, max_bytes=99).fetch(picture(f"s3://{PEOPLE}/pictures/a.png"))


def test_a_store_that_refuses_us_is_no_fault_of_the_row(source: LocalSource, store: RunningStore) -> None:
    settings = store.settings.model_copy(update={"access_key": "nobody"})
    with pytest.raises(StorageError, match="refused"):
        Fetcher(source, settings=settings).fetch(picture(f"s3://{PEOPLE}/pictures/a.png"))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_urls_into_private_networks_are_refused_without_traffic(
    source: LocalSource, network: list[Any], address: str
) -> None:
    url = f"http://[{address.replace('%', '%25')}]/x.png" if ":" in address else f"http://{address}/x.png"
    for use in (Fetcher(source).fetch, Fetcher(source).check):
        with pytest.raises(InvalidDataError, match="is not a public address: put the media into the dataset"):
            use(picture(url))
    assert not network


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1"])
def test_loopback_is_refused_however_it_is_spelled(source: LocalSource, network: list[Any], host: str) -> None:
    with pytest.raises(InvalidDataError, match="not a public address"):
        Fetcher(source).fetch(picture(f"http://{host}/x.png"))
    assert not network


def test_names_of_private_addresses_are_refused_without_traffic(
    source: LocalSource, network: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_names_with(monkeypatch, "169.254.169.254")
    with pytest.raises(InvalidDataError, match=r"metadata\.example is 169\.254\.169\.254"):
        Fetcher(source).fetch(picture("http://metadata.example/latest"))
    assert not network


def test_the_connection_goes_to_the_address_that_was_judged(
    fetcher: Fetcher, server: WebServer, network: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer_names_with(monkeypatch, "127.0.0.1", "10.0.0.1")
    assert fetcher.fetch(picture(server.url("/tired", host="pictures.example"))) == PICTURE
    assert asked == ["pictures.example"]
    assert set(network) == {("127.0.0.1", server.port)}
    assert server.headers["Host"] == f"pictures.example:{server.port}"


@pytest.mark.parametrize(
    "inside", ["http://169.254.169.254/latest", "http://[::1]/", "http://db.example/", "//10.0.0.1/"]
)
def test_redirects_into_private_networks_are_refused(
    fetcher: Fetcher, server: WebServer, network: list[Any], monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    """The server stands for a public one: its address alone, and its port, are taken for public."""
    answer_names_with(monkeypatch, "10.0.0.1")
    monkeypatch.setattr("ibllm_core.formats.addresses.is_public", lambda a: a == "127.0.0.1" or is_public(a))
    monkeypatch.setattr("ibllm_core.formats.web.PORTS", {"http": server.port, "https": 443})
    guarded = Fetcher(fetcher.source)
    assert guarded.fetch(picture(server.url("/picture"))) == PICTURE
    with pytest.raises(InvalidDataError, match="not a public address"):
        guarded.fetch(picture(server.url(f"/redirect?{inside}")))
    assert set(network) == {("127.0.0.1", server.port)}


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "s3://ibllm/x"])
def test_redirects_to_other_schemes_are_refused(fetcher: Fetcher, server: WebServer, target: str) -> None:
    with pytest.raises(InvalidDataError, match="only http:// and https:// addresses can"):
        fetcher.fetch(picture(server.url(f"/redirect?{target}")))


def test_three_redirects_are_followed_and_no_more(fetcher: Fetcher, server: WebServer) -> None:
    assert fetcher.fetch(picture(server.url("/hops?2"))) == PICTURE
    with pytest.raises(InvalidDataError, match="more than 3 redirects: write the final address"):
        fetcher.fetch(picture(server.url("/hops?3")))


def test_other_ports_are_refused(source: LocalSource, network: list[Any]) -> None:
    for use in (Fetcher(source).fetch, Fetcher(source).check):
        with pytest.raises(InvalidDataError, match="is at port 6379: only ports 80 and 443"):
            use(picture("http://93.184.216.34:6379/"))
    assert not network


def test_names_and_passwords_in_addresses_are_refused_and_not_repeated(source: LocalSource) -> None:
    with pytest.raises(InvalidDataError, match="holds a user's name") as caught:
        Fetcher(source).check(picture("http://me:hunter2@pictures.example/"))
    assert "hunter2" not in caught.value.message


def test_nothing_of_the_environment_is_sent(
    fetcher: Fetcher, server: WebServer, network: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetcher.fetch(picture(server.url("/picture"))) == PICTURE
    assert network == [("127.0.0.1", server.port)]
    assert set(server.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}


@pytest.mark.parametrize("path", ["/unsized?100001", "/chunked?101000", "/torn"])
def test_the_limit_holds_whatever_the_server_says(source: LocalSource, server: WebServer, path: str) -> None:
    limit = 999 if path == "/torn" else 100_000
    fetcher = Fetcher(source, allow_private=True, max_bytes=limit)
    with pytest.raises(InvalidDataError, match=f"at most {limit:,} bytes are read: shrink the file"):
        fetcher.fetch(picture(server.url(path)))


@pytest.mark.parametrize("path", ["/unsized?100000", "/chunked?100000"])
def test_bodies_up_to_the_limit_pass(fetcher: Fetcher, server: WebServer, path: str) -> None:
    assert len(fetcher.fetch(picture(server.url(path)))) == 100_000


@pytest.mark.parametrize("path", ["/silent", "/dripping?headers", "/dripping?sized", "/dripping?unsized"])
def test_slow_servers_cost_the_timeout_and_no_more(source: LocalSource, server: WebServer, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidDataError, match=r"took longer than 0\.3 seconds: leave the row out"):
        Fetcher(source, allow_private=True, timeout=0.3).fetch(picture(server.url(path)))
    assert time.monotonic() - started < 2


def test_a_server_that_is_tired_is_asked_three_times(fetcher: Fetcher, server: WebServer) -> None:
    assert fetcher.fetch(picture(server.url("/tired"))) == PICTURE
    for path, reason in (("/status?500", "status 500"), ("/torn", "cannot be fetched")):
        with pytest.raises(InvalidDataError, match=reason):
            fetcher.fetch(picture(server.url(path)))
    assert server.requests == {"/tired": 3, "/status": 3, "/torn": 3}


@pytest.mark.parametrize("status", [204, 206, 304, 401, 403, 404, 410])
def test_other_statuses_are_the_reason(fetcher: Fetcher, server: WebServer, status: int) -> None:
    with pytest.raises(InvalidDataError, match=f"/status' answers with status {status}: check the address"):
        fetcher.fetch(picture(server.url(f"/status?{status}")))
    assert server.requests["/status"] == 1


def test_a_compressed_body_is_refused(fetcher: Fetcher, server: WebServer) -> None:
    with pytest.raises(InvalidDataError, match="is sent as gzip"):
        fetcher.fetch(picture(server.url("/zipped")))


def test_a_server_that_is_not_there_is_the_rows_fault(fetcher: Fetcher) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with pytest.raises(InvalidDataError, match="cannot be fetched"):
            fetcher.fetch(picture(f"http://127.0.0.1:{taken.getsockname()[1]}/x.png"))


@pytest.mark.parametrize(
    "url", ["http://", "http:///x", "http://[::1/x", "http://a b/", "http://h:99999/", "https://:80/"]
)
def test_broken_addresses_are_refused(fetcher: Fetcher, network: list[Any], url: str) -> None:
    with pytest.raises(InvalidDataError):
        fetcher.fetch(picture(url))
    assert not network


def test_signatures_do_not_reach_messages(fetcher: Fetcher, server: WebServer) -> None:
    with pytest.raises(InvalidDataError) as caught:
        fetcher.fetch(picture(server.url("/status?404&signature=hunter2")))
    assert "hunter2" not in caught.value.message


def test_certificates_are_checked_against_the_name(
    fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_names_with(monkeypatch, "127.0.0.1")
    certificate = tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    names = "subjectAltName=DNS:pictures.example"
    subprocess.run(
        [*make.split(), "-addext", names, "-keyout", tmp_path / "key.pem", "-out", certificate],
        check=True,
        capture_output=True,
    )
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "key.pem").read_bytes() + certificate.read_bytes())
    with running_server(both) as server:
        url = server.url("/picture", host="pictures.example", scheme="https")
        with pytest.raises(InvalidDataError, match="CERTIFICATE_VERIFY_FAILED"):
            fetcher.fetch(picture(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetcher.fetch(picture(url)) == PICTURE
        with pytest.raises(InvalidDataError, match="CERTIFICATE_VERIFY_FAILED"):
            fetcher.fetch(picture(url.replace("pictures", "others")))
