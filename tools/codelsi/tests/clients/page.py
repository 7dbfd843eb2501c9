"""Uses the page of a server in headless Chromium, by keyboard: CHROMIUM ADDRESS KEY BASE ADAPTER [SCREENSHOT]. Fails by an
assertion."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time

chromium, address, key, base, adapter, *screenshot = sys.argv[1:]


class Browser:
    """A browser that is spoken to by DevTools' protocol over its file descriptors 3 and 4."""

    def __init__(self, profile):
        read_ours, write_theirs = os.pipe()
        read_theirs, write_ours = os.pipe()

        def wire():
            # 3 and 4 may be among the numbers that the pipes have.
            high = [os.dup(read_theirs), os.dup(write_theirs)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}", "--window-size=1100,900", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(read_theirs)
        os.close(write_theirs)
        self.incoming, self.outgoing = os.fdopen(read_ours, "rb"), os.fdopen(write_ours, "wb")
        self.last, self.session, self.rest = 0, None, b""
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.outgoing.write(json.dumps(message).encode() + b"\0")
        self.outgoing.flush()
        while True:
            while b"\0" not in self.rest:
                more = self.incoming.read1(65536)
                assert more, "the browser has ended"
                self.rest += more
            text, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}: {self.value('document.body.innerText')}"
            time.sleep(0.05)

    def press(self, key, modifiers=0):
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key],
                 "modifiers": modifiers}
        text = {"text": " "} if key == " " else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def tab_to(self, expression):
        """Goes on with the Tab key until an element has the focus."""
        for _ in range(40):
            if self.value(f"document.activeElement === {expression}"):
                return
            self.press("Tab")
        raise AssertionError(f"the keyboard does not reach {expression}")


def check(browser):
    browser.call("Page.enable")
    browser.call("Page.navigate", url=address + "/")
    browser.wait("document.readyState === 'complete'")
    # Without the key nothing is listed, and the page says why.
    browser.wait("document.querySelector('#no-models').textContent.includes('key')")
    browser.value("document.body.focus()")
    browser.tab_to("document.querySelector('#key')")
    browser.type(key)
    browser.press("Tab")
    browser.wait("document.querySelectorAll('[name=model]').length === 2")
    # Both models, side by side.
    browser.tab_to(f"document.querySelector('[name=model][value={adapter}]')")
    browser.press(" ")
    assert browser.value("document.querySelectorAll('[name=model]:checked').length") == 2
    browser.tab_to("document.querySelector('#max_tokens')")
    browser.value("document.activeElement.select()")
    browser.type("24")
    browser.tab_to("document.querySelector('#temperature')")
    browser.value("document.activeElement.select()")
    browser.type("0")
    browser.tab_to("document.querySelector('#prompt')")
    browser.value("document.querySelector('#prompt').select()")
    browser.type("const total: number = 1; // sum\nreturn ")
    browser.press("Enter", modifiers=2)
    browser.wait("document.querySelector('#answers').getAttribute('aria-busy') === 'false'")
    names = browser.value("[...document.querySelectorAll('article h2 span')].map(e => e.textContent)")
    assert sorted(names) == sorted([base, adapter]), names
    texts = browser.value("[...document.querySelectorAll('article pre')].map(e => e.textContent)")
    assert all(texts) and texts[0] != texts[1], texts
    assert not browser.value("document.querySelector('.bad')")
    spans = browser.value("(() => { const pre = document.createElement('pre'); "
                          "highlight(pre, 'const x: number = 1; // <b>'); "
                          "return [...pre.querySelectorAll('span')].map(e => e.className + e.textContent) })()")
    assert spans == ["keywordconst", "typenumber", "number1", "comment// <b>"], spans
    # Light and dark, by the system's wish.
    backgrounds = []
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        backgrounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
        if screenshot:
            image = browser.call("Page.captureScreenshot", format="png")["data"]
            with open(f"{screenshot[0]}-{scheme}.png", "wb") as file:
                file.write(base64.b64decode(image))
    assert backgrounds[0] != backgrounds[1], backgrounds
    # The page fits a narrow window.
    browser.call("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=False)
    assert browser.value("document.documentElement.scrollWidth") <= 380


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    browser = Browser(profile)
    try:
        check(browser)
    finally:
        browser.process.kill()
        browser.process.wait()
print("ok")
