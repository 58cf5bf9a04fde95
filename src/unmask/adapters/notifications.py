"""Messages to people: e-mail over SMTP, and chat through a webhook that Slack and Teams understand.

Addresses and passwords come from the environment, where Kubernetes puts them from a secret (`unmask-notifications`).
"""

from __future__ import annotations

import json
import logging
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Literal
from urllib.parse import urlsplit

from unmask.errors import ConfigError, UnmaskError

logger = logging.getLogger(__name__)
Security = Literal["starttls", "tls", "none"]
PORTS: Mapping[str, int] = {"starttls": 587, "tls": 465, "none": 25}
TIMEOUT_S = 20.0
ATTEMPTS = 3
FIRST_WAIT_S = 1.0


class NotificationError(UnmaskError):
    """A message could not be delivered."""


@dataclass(frozen=True)
class Message:
    """What is said.

    Attributes:
        subject: One line.
        text: A few lines of plain text.
        link: Address to look at; may be empty.
        level: Decides on the colour in chat.
    """

    subject: str
    text: str
    link: str = ""
    level: Literal["good", "attention", "bad"] = "good"


@dataclass(frozen=True)
class Mail:
    """How e-mail is sent.

    Attributes:
        host: SMTP server.
        port: Its port.
        security: starttls, tls from the first byte, or none.
        username: Empty sends without logging in.
        password: Never logged.
        sender: Address.
        recipients: Addresses.
    """

    host: str
    port: int
    security: Security
    username: str
    password: str
    sender: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class Channels:
    """Where messages go.

    Attributes:
        mail: E-mail, if it is set up.
        webhook: Address of a chat's incoming webhook, itself a secret; empty if there is none.
    """

    mail: Mail | None
    webhook: str


def read_channels(environment: Mapping[str, str]) -> Channels:
    """Read the settings.

    Args:
        environment: ``UNMASK_SMTP_HOST``, ``_PORT``, ``_SECURITY`` (starttls, tls, none), ``_USERNAME``, ``_PASSWORD``,
            ``UNMASK_MAIL_FROM``, ``UNMASK_MAIL_TO`` (addresses with commas), ``UNMASK_WEBHOOK_URL``.

    Returns:
        The channels; without host and webhook there are none.

    Raises:
        ConfigError: A value is missing or wrong; all are told together, passwords and addresses of hooks never.
    """
    given = {key.removeprefix("UNMASK_"): value.strip() for key, value in environment.items() if value.strip()}
    wrong = []
    webhook = given.get("WEBHOOK_URL", "")
    if webhook and urlsplit(webhook).scheme not in ("http", "https"):
        wrong.append("UNMASK_WEBHOOK_URL is no http(s) address")
    mail = None
    if host := given.get("SMTP_HOST"):
        security = given.get("SMTP_SECURITY", "starttls").lower()
        if security not in PORTS:
            wrong.append(f"UNMASK_SMTP_SECURITY is {security!r}, not starttls, tls or none")
        port = given.get("SMTP_PORT", str(PORTS.get(security, 587)))
        if not port.isdigit() or not 0 < int(port) < 65536:
            wrong.append(f"UNMASK_SMTP_PORT is {port!r}, not a port")
        recipients = tuple(part.strip() for part in given.get("MAIL_TO", "").split(",") if part.strip())
        sender = given.get("MAIL_FROM", "")
        wrong += [f"UNMASK_MAIL_TO: {r!r} is no address" for r in recipients if "@" not in r]
        wrong += ["UNMASK_MAIL_TO is missing"] * (not recipients) + ["UNMASK_MAIL_FROM is missing"] * (not sender)
        username, password = given.get("SMTP_USERNAME", ""), given.get("SMTP_PASSWORD", "")
        if bool(username) != bool(password):
            wrong.append("of UNMASK_SMTP_USERNAME and UNMASK_SMTP_PASSWORD one is missing")
        if not wrong:
            mail = Mail(host, int(port), security, username, password, sender, recipients)  # type: ignore[arg-type]
    if wrong:
        raise ConfigError(
            f"Messages cannot be sent: {'; '.join(wrong)}.", "Mend the secret unmask-notifications (manifests/)."
        )
    return Channels(mail, webhook)


def send(message: Message, channels: Channels, first_wait_s: float = FIRST_WAIT_S) -> list[str]:
    """Send a message to every channel; one that fails does not keep the others from theirs.

    Args:
        message: What is said.
        channels: Where.
        first_wait_s: Before the second of three tries; doubles.

    Returns:
        Names of the channels that took it.

    Raises:
        NotificationError: A channel did not take it, after all were tried.
    """
    delivered, failed = [], []
    jobs: list[tuple[str, Callable[[], None]]] = []
    if mail := channels.mail:
        jobs.append((f"e-mail over {mail.host}", lambda: send_mail(message, mail)))
    if channels.webhook:
        # The path of a webhook is its password.
        jobs.append((f"webhook at {urlsplit(channels.webhook).hostname}", lambda: post(message, channels.webhook)))
    for name, job in jobs:
        for attempt in range(ATTEMPTS):
            try:
                job()
                delivered.append(name)
                break
            except NotificationError as error:
                failed.append(f"{name}: {error.problem} {error.fix}")
                break
            except (OSError, smtplib.SMTPException) as error:
                if attempt == ATTEMPTS - 1:
                    failed.append(f"{name}: {type(error).__name__}: {error}.")
                    break
                logger.warning("%s: %s; trying again ...", name, error)
                time.sleep(first_wait_s * 2**attempt)
    if failed:
        raise NotificationError(
            "A message was not delivered: " + " ".join(failed), "Check the secret unmask-notifications and the network."
        )
    return delivered


def send_mail(message: Message, mail: Mail, trust: ssl.SSLContext | None = None) -> None:
    """Send an e-mail.

    Args:
        message: What is said.
        mail: How.
        trust: Certificates that are trusted; the system's when left out.

    Raises:
        NotificationError: The server refuses login, sender or a recipient.
        OSError: Nobody answers.
    """
    letter = EmailMessage()
    letter["Subject"] = " ".join(f"[unmask] {message.subject}".split())
    letter["From"], letter["To"] = mail.sender, ", ".join(mail.recipients)
    letter["Date"], letter["Message-ID"] = formatdate(localtime=False), make_msgid(domain="unmask.invalid")
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(f"{message.text}\n" + (f"\n{message.link}\n" if message.link else ""))
    context = trust or ssl.create_default_context()
    try:
        with _smtp(mail, context) as server:
            if mail.security == "starttls":
                server.starttls(context=context)
            if mail.username:
                server.login(mail.username, mail.password)
            refused = server.send_message(letter)
    except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError) as error:
        raise NotificationError(
            f"{mail.host} refuses the login of {mail.username} ({error}).", "Check user, password and security."
        ) from error
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, ssl.SSLCertVerificationError) as error:
        raise NotificationError(
            f"{mail.host} refuses ({error}).", "Check the addresses and the certificate."
        ) from error
    if refused:
        raise NotificationError(f"{mail.host} refuses {', '.join(refused)}.", "Check these addresses.")


def _smtp(mail: Mail, context: ssl.SSLContext) -> smtplib.SMTP:
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_S, context=context)
    return smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S)


def post(message: Message, address: str) -> None:
    """Post to a webhook, in the form that its host wants.

    Args:
        message: What is said.
        address: Of the webhook.

    Raises:
        NotificationError: The hook refuses (4xx).
        OSError: Nobody answers, or the hook fails (5xx).
    """
    body = json.dumps(chat_body(message, address)).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code in (408, 429) or error.code >= 500:
            raise
        raise NotificationError(
            f"it refuses (HTTP {error.code}).", "Make a new webhook in the chat and put it into the secret."
        ) from error


def chat_body(message: Message, address: str) -> dict[str, object]:
    """Build what a webhook takes.

    Args:
        message: What is said.
        address: Of the webhook; Teams is known by its host.

    Returns:
        An adaptive card for Teams, otherwise ``text`` with Slack's marks, which Mattermost and others take as well.
    """
    host = urlsplit(address).hostname or ""
    if host.endswith((".office.com", ".logic.azure.com", ".powerplatform.com", ".webhook.office.com")):
        colour = {"good": "Good", "attention": "Warning", "bad": "Attention"}[message.level]
        blocks = [
            {"type": "TextBlock", "text": message.subject, "weight": "Bolder", "color": colour, "wrap": True},
            {"type": "TextBlock", "text": message.text, "wrap": True},
        ]
        card: dict[str, object] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": blocks,
        }
        if message.link:
            card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": message.link}]
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return {"type": "message", "attachments": [attachment]}
    text = f"*{_escaped(message.subject)}*\n{_escaped(message.text)}"
    return {"text": text + (f"\n<{message.link}|Open>" if message.link else "")}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
