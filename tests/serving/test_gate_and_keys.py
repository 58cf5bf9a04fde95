"""Who may ask: keys, rates, names of hosts, addresses to listen on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from unmask.errors import ContractError, InputError
from unmask.serving.gate import Gate, Places
from unmask.serving.keys import Keys, RateLimiter, add_key, hash_key, load_keys
from unmask.serving.public import allowed_hosts, check_exposure, is_loopback
from unmask.serving.telemetry import Telemetry


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_the_file_holds_only_the_hash(key_file: Path) -> None:
    key = add_key(key_file, "lab", None)
    text = key_file.read_text()
    assert key not in text
    assert hash_key(key) in text
    assert key_file.stat().st_mode & 0o077 == 0
    keys = load_keys(key_file)
    found = keys.find(key)
    assert found is not None
    assert found.name == "lab"
    assert keys.find(key + "x") is None
    with pytest.raises(InputError, match="already"):
        add_key(key_file, "lab", None)


def test_a_file_without_keys_is_no_protection(key_file: Path) -> None:
    with pytest.raises(ContractError):
        load_keys(key_file)
    key_file.write_text('{"keys": []}')
    with pytest.raises(InputError, match="no key"):
        load_keys(key_file)


def test_a_rate_allows_a_minutes_worth_and_then_the_steady_rate() -> None:
    now = 0.0
    limiter = RateLimiter(3, lambda: now)
    assert [limiter.wait_s("a") for _ in range(4)] == [0, 0, 0, 20]
    assert limiter.wait_s("b") == 0  # another key has its own
    now = 19.0
    assert limiter.wait_s("a") > 0
    now = 41.0
    assert [limiter.wait_s("a") for _ in range(3)] == [0, 0, 20]
    assert limiter.wait_s("fast", 60) == 0


@pytest.mark.parametrize(
    ("host", "mine"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "192.168.0.4", "example.org", "localhost.example.org", "")],
)
def test_public_addresses_need_keys(host: str, mine: bool, key_file: Path) -> None:
    assert is_loopback(host) == mine
    if mine:
        check_exposure(host, Keys([]), False)
        assert "localhost" in allowed_hosts(host, ())
        return
    with pytest.raises(InputError, match="without API keys"):
        check_exposure(host, Keys([]), False)
    check_exposure(host, Keys([]), True)
    add_key(key_file, "lab", None)
    check_exposure(host, load_keys(key_file), False)


class Client:
    """Asks a gate directly."""

    def __init__(
        self, keys: Keys | None = None, rate: float = 100, places: int = 2, hosts: tuple[str, ...] = ()
    ) -> None:
        self.places = Places(places)
        self.reached = 0
        self.gate = Gate(self.app, keys or Keys([]), RateLimiter(rate), self.places, Telemetry(), 1000, hosts)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached += 1
        self.taken = self.places.taken
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        named = {"host": "localhost:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }
        asyncio.run(self.gate(scope, receive, send))
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], answered, json.loads(sent[1]["body"])


def test_with_keys_only_the_page_and_health_are_open(key_file: Path) -> None:
    key = add_key(key_file, "lab", None)
    client = Client(load_keys(key_file))
    for path in ("/", "/page/app.js", "/health", "/ready", "/v2/health/live", "/openapi.json"):
        assert client.ask("GET", path)[0] == 200, path
    for path in ("/v1/model", "/metrics", "/v1/monitoring", "/v1/jobs/x", "/v2/models/unmask-detector", "/page/../v1"):
        status, headers, body = client.ask("GET", path)
        assert (status, headers["www-authenticate"], body["code"]) == (401, "Bearer", "no_key"), path
        assert client.ask("GET", path, authorization=f"Bearer {key}")[0] == 200
        assert client.ask("GET", path, x_api_key=key)[0] == 200
        assert client.ask("GET", path, authorization="Bearer no")[0] == 401


def test_each_key_has_its_rate(key_file: Path) -> None:
    slow, fast = add_key(key_file, "slow", 1), add_key(key_file, "fast", None)
    client = Client(load_keys(key_file))
    assert client.ask("GET", "/v1/model", x_api_key=slow)[0] == 200
    status, headers, _ = client.ask("GET", "/v1/model", x_api_key=slow)
    assert status == 429
    assert 0 < int(headers["retry-after"]) <= 60
    assert client.ask("GET", "/v1/model", x_api_key=fast)[0] == 200


def test_a_place_is_taken_for_costly_requests_only_and_given_back() -> None:
    client = Client(places=1)
    assert client.ask("POST", "/v1/analyze")[0] == 200
    assert (client.taken, client.places.taken) == (1, 0)
    client.places.enter()
    status, headers, body = client.ask("POST", "/v1/analyze")
    assert (status, body["code"]) == (503, "busy")
    assert int(headers["retry-after"]) > 0
    assert client.ask("GET", "/health")[0] == 200
    assert client.ask("GET", "/v1/analyses/x/faces/1/heatmap")[0] == 503
    assert client.places.taken == 1


def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    client = Client()
    assert client.ask("POST", "/v1/analyze", content_length="1001")[0] == 413
    assert client.reached == 0
    assert client.ask("POST", "/v1/feedback", content_length="1048577")[0] == 413


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("LOCALHOST", 200), ("[::1]:8000", 200), ("evil.example", 421), ("", 421)],
)
def test_other_names_are_not_answered(host: str, status: int) -> None:
    client = Client(hosts=allowed_hosts("127.0.0.1", ()))
    assert client.ask("GET", "/v1/model", host=host)[0] == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:8000", 200), ("null", 403), ("http://evil.example", 403), ("http://localhost:9", 403)],
)
def test_pages_elsewhere_cannot_send(origin: str, status: int) -> None:
    assert Client().ask("POST", "/v1/feedback", origin=origin)[0] == status
