"""A headless browser driven over the Chrome DevTools Protocol, for tests that do what a reader does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Self

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38,
        "ArrowRight": 39, "ArrowDown": 40}  # fmt: skip
SECONDS = 60


def find_browser() -> str:
    """The browser on this machine, or a skipped test that says which ones were looked for."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    return found


class Browser:
    """One tab. All that the page complains of stands in `errors`, all that it asks for in `requests`."""

    def __init__(self, folder: Path) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loop = asyncio.new_event_loop()
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        silent = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
        self._process = subprocess.Popen(
            [find_browser(), *options, *silent, f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # what Debian calls the browser is a script that starts it
        )
        self._socket: Any = None
        self._number = 0

    def __enter__(self) -> Self:
        port = self._read_port()
        for _ in range(100):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                break
            time.sleep(0.05)
        request = HTTPRequest(pages[0]["webSocketDebuggerUrl"], request_timeout=SECONDS)
        self._socket = self._run(lambda: websocket_connect(request, max_message_size=1 << 28))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(SECONDS)
        self._loop.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its answer; events that come before it are kept."""
        self._number += 1
        command = json.dumps({"id": self._number, "method": method, "params": parameters})
        self._run(lambda: self._socket.write_message(command))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def open(self, page: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Open a page and wait for its load event."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=page.as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression of the page; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        self.send("Input.dispatchKeyEvent", type="keyDown", **known)
        self.send("Input.dispatchKeyEvent", type="keyUp", **known)

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.send("Input.insertText", text=text)

    def centre(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        x, y = self.run(
            f"(async () => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({ block: 'center', behavior: 'instant' });"
            " const frame = () => new Promise(requestAnimationFrame); await frame(); await frame();"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return x, y

    def point(self, selector: str) -> None:
        """Move the pointer over an element."""
        x, y = self.centre(selector)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click an element."""
        x, y = self.centre(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, selector: str, share: float) -> None:
        """Drag a slider's thumb to a share of its track."""
        box = f"document.querySelector({json.dumps(selector)})"
        _, y = self.centre(selector)
        left, width, place, last = self.run(
            f"[{box}.getBoundingClientRect().x, {box}.offsetWidth, Number({box}.value), Number({box}.max)]"
        )
        ends = [left + 11 + (width - 22) * at for at in (place / last, share)]
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=ends[0], y=y, button="left", clickCount=1)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=ends[1], y=y, button="left", buttons=1)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=ends[1], y=y, button="left", clickCount=1)

    def shoot(self, path: Path, *, whole: bool = False) -> None:
        """Write a screenshot, of the window or of the whole page."""
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _receive(self) -> dict[str, Any]:
        """The next message; what it tells of errors and requests is kept."""
        text = self._run(lambda: asyncio.wait_for(self._socket.read_message(), SECONDS))
        if text is None:
            raise AssertionError("the browser went away")
        message: dict[str, Any] = json.loads(text)
        method, told = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.errors.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        return message

    def _read_port(self) -> int:
        """The port that the browser says it listens on."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
                return int(found[1])
        raise AssertionError("the browser ended before it listened")

    def _run(self, begin: Callable[[], Any]) -> Any:
        """Begin something asynchronous, and wait for it."""

        async def wait() -> Any:
            return await begin()

        return self._loop.run_until_complete(wait())
