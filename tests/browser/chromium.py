"""A headless Chromium, driven through its DevTools protocol: what a page shows, does, asks for and complains about.

As much of it as the tests need, and no more.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

_PATIENCE = 4
"""A deadline counts for a machine that is fast and idle."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def installed() -> str | None:
    """The browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Page:
    """One tab, and everything that it ever said."""

    socket: ClientConnection
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _next: int = 0

    def goto(self, address: str) -> None:
        """Opens an address and waits for its scripts."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'", what=f"{address} is loaded")

    def eval(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, timeout_s: float = 240.0, *, what: str = "") -> None:
        """Polls until an expression is true in the page. Its value stays there: an element has none elsewhere."""
        deadline = time.monotonic() + _PATIENCE * timeout_s
        while time.monotonic() < deadline:
            result = self.call("Runtime.evaluate", expression=f"!!({script})", returnByValue=True)
            if result.get("result", {}).get("value"):
                return
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s:g} s: {what or script}; complaints: {self.complaints}")

    def click(self, selector: str) -> None:
        """Clicks as a person would, at the middle of what is seen."""
        script = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        x, y = self.eval(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses at one place and releases at another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def fill(self, selector: str, text: str) -> None:
        """Sets a field and tells the page."""
        script = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(text)};"
            "for (const k of ['input', 'change']) e.dispatchEvent(new Event(k, {bubbles: true})); })()"
        )
        self.eval(script)

    def press(self, key: str) -> None:
        """One key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}.get(key, 13)
            )

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """The size and the colours of the screen."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """The page as a PNG."""
        result = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))

    def call(self, method: str, **params: Any) -> Any:
        """One command; events that come meanwhile are noted."""
        self._next += 1
        self.socket.send(json.dumps({"id": self._next, "method": method, "params": params}))
        while True:
            result = json.loads(self.socket.recv(timeout=300))
            if result.get("id") == self._next:
                assert "error" not in result, result
                return result.get("result", {})
            self._note(result)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(str([part.get("value", part.get("description")) for part in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.javascriptDialogOpening":
                self.socket.send(
                    json.dumps({"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}})
                )


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a fresh browser without a profile, a network of its own choice, or anything to remember."""
    path = installed()
    assert path is not None, "no Chromium is installed"
    profile = Path(tempfile.mkdtemp(prefix="highnoon-chromium-"))
    switches = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    switches += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [path, *switches, *sandbox, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_address(profile), max_size=None) as root:
            page = Page(root)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
        port = _address(profile).split("/")[2]
        with connect(f"ws://{port}/devtools/page/{target}", max_size=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _address(profile: Path) -> str:
    deadline = time.monotonic() + _PATIENCE * 30
    port_file = profile / "DevToolsActivePort"
    while time.monotonic() < deadline:
        if port_file.exists() and len(lines := port_file.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
