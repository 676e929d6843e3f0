"""A headless Chromium that opens a page and is told what to do, over its DevTools pipe."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BINARY = next(filter(None, map(shutil.which, NAMES)), None)
LIMIT_S = 60
# Chromium reads from descriptor 3 and writes to 4.
LAUNCH = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); "
LAUNCH += "os.execv(sys.argv[3], sys.argv[3:])"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


class Browser:
    """One tab. `problems` are errors of scripts and what the page's policy refused."""

    def __init__(self, process, read_end, write_end):
        self.process, self.read_end, self.write_end = process, read_end, write_end
        self.rest, self.number, self.session, self.problems = b"", 0, {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def receive(self):
        end = time.monotonic() + LIMIT_S
        while b"\0" not in self.rest:
            assert select.select([self.read_end], [], [], end - time.monotonic())[0], "no answer"
            received = os.read(self.read_end, 2**20)
            assert received, "Chromium ended"
            self.rest += received
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            told = answer.get("params", {})
            if "exceptionDetails" in told or told.get("entry", {}).get("level") == "error":
                self.problems.append(told)
        assert "error" not in answer, answer
        return answer["result"]

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def evaluate(self, expression):
        options = {"returnByValue": True, "awaitPromise": True}
        options["allowUnsafeEvalBlockedByCSP"] = False
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression):
        end = time.monotonic() + LIMIT_S
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"{expression} stays false"
            time.sleep(0.02)

    def press(self, key, shift=False):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 * shift, **text)

    def point(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start, end, button="left"):
        held = {"button": button, "buttons": 2 if button == "right" else 1}
        self.point("mousePressed", *start, clickCount=1, **held)
        self.point("mouseMoved", *end, **held)
        self.point("mouseReleased", *end, clickCount=1, button=button)

    def photograph(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def open_browser(profile):
    """Start Chromium with its files in the folder `profile`; it ends with the block."""
    ends = [os.pipe(), os.pipe()]
    (told, write_end), (read_end, tells) = ends
    passed = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (told, tells)]
    command = [sys.executable, "-c", LAUNCH, *map(str, passed), BINARY, *OPTIONS]
    command += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=passed, stderr=subprocess.DEVNULL, **streams)
    for end in (told, tells, *passed):
        os.close(end)
    try:
        yield Browser(process, read_end, write_end)
    finally:
        process.terminate()
        process.wait()
        os.close(read_end)
        os.close(write_end)
