"""The page in a real browser: every kind of file, the keyboard, a phone, and not one address outside the server."""

from __future__ import annotations

import re
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_server import Live

CHROMIUM = Path("/usr/bin/chromium")
DESKTOP, PHONE = 1280, 390  # widths in pixels

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as running:
        # A sandbox needs rights that containers do not give; the pages are our own.
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, live: Live, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, open; complaints of the browser and foreign addresses fail the test."""
    context = browser.new_context(viewport={"width": getattr(request, "param", PHONE), "height": 850}, locale="en-GB")
    context.set_default_timeout(120_000)
    wrong: list[str] = []

    def watch(opened: Any) -> None:
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
        opened.on(
            "request",
            lambda sent: wrong.append(sent.url) if not sent.url.startswith((live.url, f"blob:{live.url}")) else None,
        )

    context.on("page", watch)
    opened = context.new_page()
    opened.goto(live.url)
    opened.wait_for_selector("#model:not(:empty)")
    yield opened
    assert wrong == []
    context.close()


def fits(page: Any) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def choose(page: Any, name: str, content: bytes, kind: str = "application/octet-stream") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})


@pytest.mark.parametrize("page", [DESKTOP, PHONE], indirect=True)
def test_a_video_with_everything_around_it(page: Any, live: Live, clip: Path) -> None:
    choose(page, "<b>clip<i>.mp4", clip.read_bytes())
    page.wait_for_selector("#verdict")
    assert page.evaluate("document.activeElement.id") == "result"  # a screen reader reads on here
    expected = live.post("/v1/analyze", clip).json()
    shown = page.inner_text("#result")
    assert expected["summary"] in shown
    assert expected["warnings"][0] in shown
    assert "<b>clip<i>.mp4" in shown
    assert page.locator(".timeline rect").count() == len(expected["timeline"])
    assert page.locator(".faces img").count() == len(expected["faces"])
    assert "Over the video" in shown
    assert "What could not be measured" in shown
    assert "genuine files wrongly called fake: 10 % [1 % to 40 %], of 10 files" in shown
    assert fits(page)

    page.get_by_role("button", name="Show what spoke for a fake").click()
    page.wait_for_selector("text=Orange speaks for a fake")
    assert page.evaluate("[...document.querySelectorAll('.faces img')].every(i => i.complete && i.naturalWidth > 0)")

    page.get_by_role("button", name="This was wrong").click()
    page.wait_for_selector("text=Thank you")

    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report to print").click()
    report = opened.value
    report.wait_for_selector("body[data-ready=yes]")
    assert expected["summary"] in report.inner_text("#result")
    assert report.locator("details:not([open])").count() == 0
    assert fits(report)
    assert len(report.pdf()) > 20_000


def test_a_picture_does_not_queue_among_films(page: Any, face: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url.rpartition("/v1/")[2]) if sent.method == "POST" else None)
    choose(page, "face.jpg", face.read_bytes(), "image/jpeg")
    page.wait_for_selector("#verdict")
    assert asked == ["analyze"]
    assert re.search(r"This picture .* in 100", page.inner_text(".verdict"))
    assert page.locator(".timeline").count() == 0
    assert page.locator(".faces img").count() == 1
    assert fits(page)


def sound(path: Path) -> bytes:
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(8000)
        stream.writeframes(bytes(16_000))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sound", "This file cannot be judged by this detector"),
        ("broken", "The file is "),
        ("text", "This kind of file is not read here"),
        ("oversized", "The file is too large"),
        ("faceless", "This file could not be judged"),
    ],
)
def test_files_that_get_no_verdict(page: Any, kind: str, words: str, clip: Path, tmp_path: Path) -> None:
    shade = np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 1, 3))
    contents = {
        "sound": lambda: sound(tmp_path / "a.wav"),
        "broken": lambda: clip.read_bytes()[:3000],
        "text": lambda: b"only words " * 100,
        "oversized": lambda: bytes(5 << 20),
        "faceless": lambda: cv2.imencode(".png", shade)[1].tobytes(),
    }
    choose(page, f"{kind}.bin", contents[kind]())
    page.get_by_role("heading", name=words).first.wait_for()
    assert page.is_hidden("#work")
    if kind != "faceless":
        assert page.locator("#problem[role=alert]").is_visible()
    assert fits(page)


def test_the_keyboard_reaches_everything(page: Any, face: Path) -> None:
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached == [
        "Skip to the content",
        "Check a file",
        "How the detector is doing",
        "file",
        "camera-open",
        reached[5],
    ]
    with page.expect_file_chooser() as chooser:
        page.locator("#file").press("Enter")
    chooser.value.set_files(str(face))
    page.wait_for_selector("#verdict")
    buttons = page.locator("#result button, #result summary, #result a, #result input")
    assert buttons.evaluate_all("all => all.every(each => each.tabIndex >= 0)")
    # Every field and picture has a name, every button words.
    assert page.locator("img:not([alt])").count() == 0
    assert page.evaluate("[...document.querySelectorAll('input')].every(i => i.labels.length > 0)")


def test_the_camera(page: Any) -> None:
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_selector("#camera:not([hidden])")
    page.get_by_role("button", name="Take a picture").click()
    # The browser's test camera shows no face: an honest answer all the same.
    page.wait_for_selector("#verdict")
    assert page.is_hidden("#camera")


def test_no_picture_is_taken_before_the_camera_shows_one(page: Any) -> None:
    page.evaluate("""() => {
        const canvas = document.createElement("canvas");
        const stream = canvas.captureStream(0);
        const draw = () => {
            canvas.getContext("2d").fillRect(0, 0, 300, 150);
            stream.getVideoTracks()[0].requestFrame();
        };
        navigator.mediaDevices.getUserMedia = async () => stream;
        window.wakeCamera = () => setInterval(draw, 50);
    }""")
    page.get_by_role("button", name="Use the camera").click()
    take = page.get_by_role("button", name="Take a picture")
    take.wait_for()
    assert take.is_disabled()
    page.evaluate("window.wakeCamera()")
    take.click()  # waits until it can be pressed
    page.wait_for_selector("#verdict")
    assert page.is_hidden("#problem")


def test_the_monitoring_page(page: Any, live: Live) -> None:
    page.goto(live.url + "/monitoring")
    page.wait_for_selector("#versions section")
    assert "Genuine files called fake" in page.inner_text("#versions")
    assert fits(page)
