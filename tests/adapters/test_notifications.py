"""Messages about the end of a run, received by a real SMTP server and a real HTTP server on loopback."""

from __future__ import annotations

import datetime
import email
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message as Received
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from unmask.adapters import notifications
from unmask.adapters.notifications import (
    Channels,
    Mail,
    Message,
    NotificationError,
    chat_body,
    read_channels,
    send,
    send_mail,
)
from unmask.cli import cli
from unmask.errors import ConfigError

MESSAGE = Message("Run failed: nightly", "The step train failed.", "https://kfp.example/#/runs/details/1", "bad")


class Inbox:
    def __init__(self) -> None:
        self.letters: list[Received] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.busy = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.busy:
            self.busy -= 1
            return "451 Try again later"
        self.letters.append(email.message_from_bytes(envelope.content))
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        login = (data.login.decode(), data.password.decode())
        self.logins.append(login)
        return AuthResult(success=login == ("robot", "s3cret"), handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def smtp(inbox: Inbox, certificate: Path) -> Iterator[Controller]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    controller = Controller(
        inbox,
        hostname="localhost",
        port=free_port(),
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        authenticator=inbox.authenticate,
    )
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def plain_smtp(inbox: Inbox) -> Iterator[Controller]:
    controller = Controller(inbox, hostname="localhost", port=free_port())
    controller.start()
    yield controller
    controller.stop()


def port(controller: Controller) -> int:
    return int(controller.port)


class Hook:
    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.answers: list[int] = []
        hook = self

        class Handling(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handling)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/services/T0/SECRETPATH"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.http.shutdown()
    made.http.server_close()


def mail(controller: Controller, security: Any = "starttls", password: str = "s3cret") -> Mail:
    login = ("robot", password) if security == "starttls" else ("", "")
    return Mail("localhost", port(controller), security, *login, "kfp@example.org", ("a@example.org", "b@example.org"))


def test_a_letter_arrives_over_starttls_after_logging_in(smtp: Controller, inbox: Inbox, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    send_mail(MESSAGE, mail(smtp), trust)
    (letter,) = inbox.letters
    assert inbox.encrypted == [True]
    assert inbox.logins == [("robot", "s3cret")]
    assert letter["Subject"] == "[unmask] Run failed: nightly"
    assert letter["To"] == "a@example.org, b@example.org"
    body = letter.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "The step train failed." in body.decode()
    assert MESSAGE.link in body.decode()


def test_a_server_that_cannot_prove_who_it_is_gets_no_password(smtp: Controller, inbox: Inbox) -> None:
    with pytest.raises(NotificationError, match="certificate"):
        send(MESSAGE, Channels(mail(smtp), ""), first_wait_s=0.01)
    assert inbox.logins == []


def test_a_wrong_password_is_told_without_showing_it(smtp: Controller, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises(NotificationError, match="refuses the login of robot") as caught:
        send_mail(MESSAGE, mail(smtp, password="wrong-one"), trust)
    assert "wrong-one" not in str(caught.value)


def test_a_busy_server_is_tried_again(plain_smtp: Controller, inbox: Inbox) -> None:
    inbox.busy = 2
    assert send(MESSAGE, Channels(mail(plain_smtp, "none"), ""), first_wait_s=0.01) == ["e-mail over localhost"]
    assert len(inbox.letters) == 1


def test_line_breaks_cannot_add_headers(plain_smtp: Controller, inbox: Inbox) -> None:
    send_mail(Message("one\nBcc: all@example.org", "text"), mail(plain_smtp, "none"))
    assert inbox.letters[0]["Bcc"] is None
    assert inbox.letters[0]["Subject"] == "[unmask] one Bcc: all@example.org"


def test_a_webhook_gets_text_with_a_link(hook: Hook) -> None:
    send(Message("Run <1> & co", "a<b", "https://kfp.example/1"), Channels(None, hook.address))
    assert hook.bodies == [{"text": "*Run &lt;1&gt; &amp; co*\na&lt;b\n<https://kfp.example/1|Open>"}]


def test_teams_gets_a_card() -> None:
    body = json.loads(json.dumps(chat_body(MESSAGE, "https://x.webhook.office.com/webhookb2/1")))
    card = body["attachments"][0]["content"]
    assert card["type"] == "AdaptiveCard"
    assert [block["text"] for block in card["body"]] == [MESSAGE.subject, MESSAGE.text]
    assert card["actions"][0]["url"] == MESSAGE.link


def test_a_stumbling_hook_is_tried_again_and_a_refusing_one_is_not(hook: Hook) -> None:
    hook.answers = [500, 503]
    send(MESSAGE, Channels(None, hook.address), first_wait_s=0.01)
    assert len(hook.bodies) == 3
    hook.answers = [404]
    with pytest.raises(NotificationError, match="HTTP 404") as caught:
        send(MESSAGE, Channels(None, hook.address), first_wait_s=0.01)
    assert len(hook.bodies) == 4
    assert "SECRETPATH" not in str(caught.value)


def test_one_dead_channel_does_not_keep_the_other_from_its_message(hook: Hook, plain_smtp: Controller) -> None:
    dead = replace(mail(plain_smtp, "none"), port=free_port())
    with pytest.raises(NotificationError, match="e-mail over localhost"):
        send(MESSAGE, Channels(dead, hook.address), first_wait_s=0.01)
    assert len(hook.bodies) == 1


def test_settings_are_read_from_the_environment_and_all_errors_told_at_once() -> None:
    assert read_channels({}) == Channels(None, "")
    given = {
        "UNMASK_SMTP_HOST": "mail.example",
        "UNMASK_SMTP_USERNAME": "u",
        "UNMASK_SMTP_PASSWORD": "p",
        "UNMASK_MAIL_FROM": "f@example.org",
        "UNMASK_MAIL_TO": "a@example.org, b@example.org",
        "UNMASK_WEBHOOK_URL": "https://hooks.example/x",
    }
    channels = read_channels(given)
    assert channels.mail == Mail(
        "mail.example", 587, "starttls", "u", "p", "f@example.org", ("a@example.org", "b@example.org")
    )
    assert channels.webhook == "https://hooks.example/x"
    with pytest.raises(ConfigError) as caught:
        read_channels({"UNMASK_SMTP_HOST": "m", "UNMASK_SMTP_PORT": "x", "UNMASK_MAIL_TO": "nobody",
                       "UNMASK_SMTP_PASSWORD": "hidden", "UNMASK_WEBHOOK_URL": "ftp://secret"})  # fmt: skip
    text = str(caught.value)
    for word in ("UNMASK_SMTP_PORT", "'nobody'", "UNMASK_MAIL_FROM", "UNMASK_SMTP_USERNAME", "UNMASK_WEBHOOK_URL"):
        assert word in text
    assert "hidden" not in text
    assert "ftp://secret" not in text


def run_notify(monkeypatch: pytest.MonkeyPatch, hook: Hook, status: dict[str, Any], *options: str) -> str:
    monkeypatch.setattr(notifications, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("UNMASK_WEBHOOK_URL", hook.address)
    arguments = ["notify", "--status", json.dumps(status), "--run-name", "nightly", "--run-id", "r1"]
    result = CliRunner().invoke(
        cli, [*arguments, "--ui-url", "https://kfp.example", *options], catch_exceptions=False, standalone_mode=False
    )
    return result.output


def test_the_exit_step_tells_of_failure_and_success(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"state": "FAILED", "error": {"code": 9, "message": "train exited with 1"}}
    run_notify(monkeypatch, hook, failed)
    run_notify(monkeypatch, hook, {"state": "SUCCEEDED"})
    first, second = [body["text"] for body in hook.bodies]
    assert "*Run failed: nightly*" in first
    assert "train exited with 1" in first
    assert "https://kfp.example/#/runs/details/r1" in first
    assert "*Run succeeded: nightly*" in second


def test_events_that_nobody_asked_for_are_only_printed(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    out = run_notify(monkeypatch, hook, {"state": "SUCCEEDED"}, "--on", "failure,challenger")
    assert "Nobody is told" in out
    assert hook.bodies == []


def test_a_new_challenger_is_announced_once_it_waits(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("unmask-detector")
    version = client.create_model_version("unmask-detector", str(tmp_path))
    options = ["--tracking-uri", uri, "--run-created"]
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    after = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
    run_notify(monkeypatch, hook, {"state": "SUCCEEDED"}, *options, before.isoformat())
    client.set_registered_model_alias("unmask-detector", "challenger", version.version)
    run_notify(monkeypatch, hook, {"state": "SUCCEEDED"}, *options, before.isoformat().replace("+00:00", "Z"))
    run_notify(monkeypatch, hook, {"state": "SUCCEEDED"}, *options, after.isoformat())
    client.set_registered_model_alias("unmask-detector", "champion", version.version)
    run_notify(monkeypatch, hook, {"state": "SUCCEEDED"}, *options, before.isoformat())
    subjects = [body["text"].partition("\n")[0] for body in hook.bodies]
    assert subjects == [
        "*Run succeeded: nightly*",
        "*Challenger waiting: unmask-detector version 1*",
        "*Run succeeded: nightly*",
        "*Run succeeded: nightly*",
    ]
