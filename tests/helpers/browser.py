"""A headless Chromium, driven by the DevTools protocol over two pipes: no driver, no port, no package."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 180.0  # seconds until a command or a condition counts as failed: MLflow took over 60 s on a busy machine


def find_chromium() -> str | None:
    """The browser named by CHROMIUM, else the first of Debian's and Google's names on the path."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. `problems` collects console errors, uncaught exceptions and failed requests, with their address."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser, self._from_browser = to_browser, from_browser
        self._received = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Result of one protocol command. Raises RuntimeError when the browser refuses it."""
        number = next(self._ids)
        session = {"sessionId": self._session} if self._session else {}
        command = json.dumps({"id": number, "method": method, "params": parameters, **session})
        _write(self._to_browser, command.encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def open(self, address: str) -> None:
        """Load `address`, with nothing noted in `problems` yet."""
        self.problems.clear()
        failure = self.call("Page.navigate", url=address).get("errorText")
        if failure:
            raise RuntimeError(f"{address}: {failure}")
        self.until("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """Value of a JavaScript expression; a promise is awaited. Raises RuntimeError with what the script threw."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(_exception(done["exceptionDetails"]))
        return done["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait for a JavaScript expression to become true."""
        give_up = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > give_up:
                raise RuntimeError(f"still not true after {PATIENCE:g} s: {condition}")
            time.sleep(0.1)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Size of the window in CSS pixels; `mobile` heeds the viewport tag and lays scroll bars over the content."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`, as the system would ask for it; without animated scrolling, so that positions hold."""
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        settings = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=settings)

    def press(self, key: str, code: int) -> None:
        """One key down and up; `code` is its Windows key code, which Chromium goes by."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def _next(self) -> dict[str, Any]:
        """The next message of the browser; events that tell of a problem are noted."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from_browser], [], [], PATIENCE)
            part = os.read(self._from_browser, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the browser ended or no longer answers; see chromium.log beside its profile")
            self._received += part
        text, _, self._received = self._received.partition(b"\0")
        message = json.loads(text)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                texts = [str(argument.get("value", argument.get("description"))) for argument in parameters["args"]]
                self.problems.append(f"console: {' '.join(texts)}")
            case "Runtime.exceptionThrown":
                self.problems.append(_exception(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                entry = parameters["entry"]
                self.problems.append(f"log: {entry['text']} {entry.get('url', '')}")
        return message


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _exception(details: dict[str, Any]) -> str:
    return f"exception: {details.get('exception', {}).get('description', details['text'])}"


@contextmanager
def chromium(executable: str, profile: Path) -> Iterator[Page]:
    """A fresh browser with one tab; `profile` is its folder. It ends with the context."""
    to_browser, from_browser = os.pipe(), os.pipe()

    def give_pipes() -> None:  # in the child: the protocol's pipes are its descriptors 3 and 4
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser[0], from_browser[1])]
        for end, number in zip(ends, (3, 4), strict=True):
            os.dup2(end, number)

    command = [executable, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
    command += ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=False, preexec_fn=give_pipes
        )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Page(to_browser[1], from_browser[0])
    finally:
        os.close(to_browser[1])  # which ends it
        os.close(from_browser[0])
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
