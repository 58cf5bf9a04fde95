"""A server that speaks the v2beta1 REST API of Kubeflow Pipelines on loopback, as far as clients of unmask ask."""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str


@dataclass
class Trouble:
    """Answers of this status instead of the right ones: for matching requests, so many times."""

    method: str
    path: str
    status: int
    times: int = 1
    after: bool = False  # the request is carried out, and only its answer is lost


@dataclass
class KfpServer:
    """State, recorded requests, and faults to come."""

    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    most_active: int = 0
    proxied: int = 0
    token: str = ""
    address: str = ""

    def trouble(self, method: str, path: str) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.times and trouble.method == method and re.search(trouble.path, path):
                trouble.times -= 1
                return trouble
        return None

    def made(self, method: str = "POST") -> list[str]:
        return [request.path.removeprefix(API) for request in self.requests if request.method == method]

    def answer(self, request: Request) -> tuple[int, Any]:
        for method, pattern, handle in ROUTES:
            if method == request.method and (match := re.fullmatch(pattern, request.path)):
                return handle(self, request, *match.groups())
        return 404, {"error": "Not Found", "message": f"no route {request.path}"}

    def note_active(self) -> None:
        active = [entry["display_name"] for entry in self.recurring.values() if entry["mode"] == "ENABLE"]
        self.most_active = max([self.most_active, *(active.count(name) for name in active)])


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(server: KfpServer, request: Request, table: dict[str, Any], key: str, **only: str) -> tuple[int, Any]:
    rows = [row for row in table.values() if all(row.get(name) == value for name, value in only.items() if value)]
    if request.query.get("filter"):
        for predicate in json.loads(request.query["filter"])["predicates"]:
            assert predicate["operation"] in ("EQUALS", 1)
            rows = [row for row in rows if row[predicate["key"]] == predicate["stringValue"]]
    if request.query.get("sort_by", "").endswith("desc"):
        rows = rows[::-1]
    start, size = int(request.query.get("page_token") or 0), int(request.query.get("page_size") or 20)
    shown = [{name: value for name, value in row.items() if name != "package"} for row in rows[start : start + size]]
    answer: dict[str, Any] = {key: shown, "total_size": len(rows)}
    if start + size < len(rows):
        answer["next_page_token"] = str(start + size)
    return 200, answer


def create(table: dict[str, Any], row: dict[str, Any], id_key: str, unique: bool = False) -> tuple[int, Any]:
    if unique and any(other["display_name"] == row["display_name"] for other in table.values()):
        return 409, {"error": "AlreadyExists", "message": f"The name {row['display_name']} already exists"}
    row = {**row, id_key: new_id(), "created_at": now()}
    table[row[id_key]] = row
    return 200, row


def create_version(server: KfpServer, request: Request) -> tuple[int, Any]:
    pipeline = request.query["pipelineid"]
    if pipeline not in server.pipelines:
        return 404, {"message": f"Pipeline {pipeline} not found"}
    row = {"display_name": request.query["name"], "pipeline_id": pipeline, "package": request.body}
    status, answer = create(server.versions, row, "pipeline_version_id", unique=True)
    return status, {key: value for key, value in answer.items() if key != "package"}


def create_recurring(server: KfpServer, request: Request) -> tuple[int, Any]:
    if len(request.body["trigger"]["cron_schedule"]["cron"].split()) != 6:
        return 400, {"message": "Schedule cron is not supported"}
    # As the real one: no uniqueness of names.
    row = {**request.body, "status": "ENABLED" if request.body["mode"] == "ENABLE" else "DISABLED"}
    status, answer = create(server.recurring, row, "recurring_run_id")
    server.note_active()
    return status, answer


def set_mode(mode: str) -> Callable[[KfpServer, Request, str], tuple[int, Any]]:
    def handle(server: KfpServer, request: Request, identity: str) -> tuple[int, Any]:
        if identity not in server.recurring:
            return 404, {"message": f"Recurring run {identity} not found"}
        server.recurring[identity].update(mode=mode, status=f"{mode}D")
        server.note_active()
        return 200, {}

    return handle


def delete_recurring(server: KfpServer, request: Request, identity: str) -> tuple[int, Any]:
    if server.recurring.pop(identity, None) is None:
        return 404, {"message": f"Recurring run {identity} not found"}
    return 200, {}


def get_run(server: KfpServer, request: Request, identity: str) -> tuple[int, Any]:
    if identity not in server.runs:
        return 404, {"message": f"Run {identity} not found"}
    return 200, server.runs[identity]


def get_log(server: KfpServer, request: Request, run: str, pod: str) -> tuple[int, Any]:
    if pod not in server.logs:
        return 500, {"error_message": f"pods {pod} not found"}
    return 200, server.logs[pod]


def table(name: str, key: str, only: str) -> Callable[[KfpServer, Request], tuple[int, Any]]:
    def handle(server: KfpServer, request: Request) -> tuple[int, Any]:
        return listed(server, request, getattr(server, name), key, **{only: request.query.get(only, "")})

    return handle


Handler = Callable[..., tuple[int, Any]]
ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", f"{API}/healthz", lambda s, r: (200, {"multi_user": False})),
    ("GET", f"{API}/pipelines", table("pipelines", "pipelines", "namespace")),
    ("POST", f"{API}/pipelines", lambda s, r: create(s.pipelines, r.body, "pipeline_id", unique=True)),
    (
        "GET",
        f"{API}/pipelines/([^/]+)/versions",
        lambda s, r, pipeline: listed(s, r, s.versions, "pipeline_versions", pipeline_id=pipeline),
    ),
    ("POST", f"{API}/pipelines/upload_version", create_version),
    ("GET", f"{API}/experiments", table("experiments", "experiments", "namespace")),
    ("POST", f"{API}/experiments", lambda s, r: create(s.experiments, r.body, "experiment_id", unique=True)),
    ("GET", f"{API}/runs", table("runs", "runs", "experiment_id")),
    ("POST", f"{API}/runs", lambda s, r: create(s.runs, {**r.body, "state": "PENDING"}, "run_id")),
    ("GET", f"{API}/runs/([^/]+)", get_run),
    ("GET", f"{API}/recurringruns", table("recurring", "recurringRuns", "experiment_id")),
    ("POST", f"{API}/recurringruns", create_recurring),
    ("POST", f"{API}/recurringruns/([^/:]+):enable", set_mode("ENABLE")),
    ("POST", f"{API}/recurringruns/([^/:]+):disable", set_mode("DISABLE")),
    ("DELETE", f"{API}/recurringruns/([^/]+)", delete_recurring),
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", get_log),
]


def serve(server: KfpServer) -> ThreadingHTTPServer:
    class Handling(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            address = urlsplit(self.path)
            path = address.path.removeprefix(PROXY)
            server.proxied += path != address.path
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, path, query, self.read_body(raw), self.headers.get("Authorization", ""))
            server.requests.append(request)
            if server.token and request.authorization != f"Bearer {server.token}":
                self.say(401, {"error": "Unauthenticated", "message": "token is invalid"})
                return
            trouble = server.trouble(request.method, request.path)
            if trouble is None or trouble.after:
                status, answer = server.answer(request)
            if trouble is not None:
                status, answer = trouble.status, {"error": "trouble", "message": "as the test asked"}
            self.say(status, answer)

        def read_body(self, raw: bytes) -> Any:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/form-data"):
                message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
                    b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw
                )
                (part,) = message.iter_parts()  # type: ignore[attr-defined]
                return part.get_content() if part.get_content_maintype() == "text" else part.get_payload(decode=True)
            return json.loads(raw) if raw else None

        def say(self, status: int, answer: Any) -> None:
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handling)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    return http
