"""Headless Chromium over the DevTools protocol's pipe, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""None: not installed (Debian's package is ``chromium``)."""


LONGEST_S = 120.0
"""For a machine that is busy; what takes that long has failed."""


class PageError(RuntimeError):
    """The page, or the browser for it, could not do what was asked."""


class Chromium:
    """A browser with one page; a context manager. ``errors``: what went wrong in the page since it was opened."""

    def __init__(self, width: int = 1200, height: int = 800, *, dark: bool = False) -> None:
        assert BROWSER is not None
        theirs, self._out = os.pipe()
        self._in, back = os.pipe()

        def connect() -> None:  # the browser reads descriptor 3 and writes descriptor 4
            moved = [os.dup(theirs), os.dup(back)]
            os.dup2(moved[0], 3)
            os.dup2(moved[1], 4)
            for place in (3, 4):  # one that was moved there already would be closed
                os.set_inheritable(place, True)

        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            [BROWSER, *options, "--remote-debugging-pipe", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self._buffer, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        target = self._first_page()
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setEmulatedMedia", features=[_scheme(dark)])
        self.resize(width, height)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path, ready: str, seconds: float = LONGEST_S) -> None:
        """Open a file and wait until an expression of JavaScript is true."""
        self.go(page.absolute().as_uri(), ready, seconds)

    def go(self, url: str, ready: str, seconds: float = LONGEST_S) -> None:
        """Open an address and wait until an expression of JavaScript is true there."""
        self.errors.clear()
        # The page before may still be there when the command is answered, and ready for long.
        self.run("window.left = true")
        self.call("Page.navigate", url=url)
        self.wait(f"!window.left && ({ready})", seconds)

    def wait(self, condition: str, seconds: float = LONGEST_S) -> None:
        """Until an expression of JavaScript is true. While it has no value, as on a page to come, it is not."""
        end = time.monotonic() + seconds
        failed = ""
        while True:
            try:
                if self.run(f"Boolean({condition})"):
                    return
                failed = ""
            except PageError as error:
                failed = f"{error}; "
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} was not true within {seconds} s; {failed}errors: {self.errors}")
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise PageError(result["exceptionDetails"].get("exception", {}).get("description", str(result)))
        return result["result"].get("value")

    def key(self, key: str) -> None:
        """Press a key."""
        typed = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def resize(self, width: int, height: int) -> None:
        """The size of the page in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, file: Path) -> None:
        """What is seen now, as PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _first_page(self) -> str:
        """The page that it was started with, which is made a moment after the browser answers."""
        end = time.monotonic() + LONGEST_S
        while True:
            for each in self.call("Target.getTargets")["targetInfos"]:
                if each["type"] == "page":
                    return str(each["targetId"])
            if time.monotonic() > end:
                raise TimeoutError("the browser has no page")
            time.sleep(0.02)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], LONGEST_S)[0]:
                raise TimeoutError(f"the browser has not answered for {LONGEST_S:g} s")
            block = os.read(self._in, 1 << 16)
            if not block:
                raise RuntimeError("the browser has ended")
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        parameters = answer.get("params", {})
        match answer.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith(("file:", "data:")):
                self.errors.append(f"asked for {parameters['request']['url']}")
        return answer


def _scheme(dark: bool) -> dict[str, str]:
    return {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}


OVERFLOWING = """(() => {
  const scrolls = (one) => one && one !== document.documentElement &&
    (/(auto|scroll)/.test(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
  return [...document.querySelectorAll('body *')].filter((one) => {
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (!box.width || !box.height || scrolls(one.parentElement)) return false;
    if (one.closest('svg') && one.tagName !== 'svg') return false;
    const wide = one.scrollWidth > one.clientWidth + 1 && style.display !== 'inline' && style.overflowX === 'visible';
    return wide || box.right > innerWidth + 1 || box.left < -1;
  }).map((one) => `${one.tagName} ${one.id || one.className}: ${one.textContent.slice(0, 60)}`);
})()"""
"""An expression: the elements that stick out of the page or of their own box, which scrolls nowhere."""
