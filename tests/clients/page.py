#!/usr/bin/env python3
"""The page of `halo serve` in a headless Chromium, driven as a user does: chat, a second turn, edit, regenerate, a dropped
file, stop, reload, a narrow window, dark colours, keys alone. It must log no error, its content security policy included.

    CLIENT=page tests/clients/environment tests/clients/page.py build/halo demo/teacher

HALO_SCREENSHOTS=DIR keeps pictures of it.
"""
import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import websocket

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "comparisons"))
import serving

# A line's end keeps tokens of an answer apart from those of its prompt.
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
FIRST = "The old man went down to the mill by the river. " * 8  # more than the 64 tokens from which on reusing pays
SECONDS = 60  # that anything may take
READ = re.compile(r"^([\d,]+) tokens read, (?:([\d,]+) reused|none reused.*?); ([\d,]+) written")


class Browser:
    """A page of a Chromium of our own, by the DevTools protocol."""

    def __init__(self, folder):
        # Those that tests/CMakeLists.txt looks for.
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program is None:
            sys.exit("page.py: there is no chromium, chromium-browser or google-chrome; install one of them")
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"listening on ws://([^/]+)/", line):
                break
        else:
            sys.exit("chromium ended before it listened")
        # It goes on to complain, and would stand still once the pipe is full.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        with urllib.request.urlopen(f"http://{found.group(1)}/json/list") as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=SECONDS)
        self.number = 0
        self.complaints = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.hear(message)

    def hear(self, message):
        about = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["text"])
        if message["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])

    def value(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (script, result)
        return result["result"].get("value")

    def wait(self, script):
        """The script's value, once there is one."""
        end = time.monotonic() + SECONDS
        while not (value := self.value(script)):
            assert time.monotonic() < end, f"never came: {script}; {self.value('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def key(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text="\r" if key == "Enter" and kind == "keyDown" else "",
                      windowsVirtualKeyCode={"Enter": 13, "Escape": 27, "Tab": 9}[key])

    def write(self, text):
        self.value("document.getElementById('words').focus()")
        self.call("Input.insertText", text=text)

    def picture(self, name):
        if folder := os.environ.get("HALO_SCREENSHOTS"):
            image = self.call("Page.captureScreenshot", format="png")["data"]
            (pathlib.Path(folder) / f"{name}.png").write_bytes(base64.b64decode(image))

    def close(self):
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self.process.terminate()
        self.process.wait()


class Talk:
    """What a user sees and does."""

    def __init__(self, browser):
        self.browser = browser

    def set(self, field, value):
        self.browser.value(f"""(() => {{ const field = document.getElementById({json.dumps(field)});
            field.value = {json.dumps(value)}; field.dispatchEvent(new Event("change")); }})()""")

    def turns(self, role):
        return self.browser.value(
            f"[...document.querySelectorAll('.turn.{role} .body')].map((body) => body.textContent)")

    def click(self, label):
        """The last button of that name."""
        self.browser.value(
            f"[...document.querySelectorAll('button')].filter((b) => b.textContent === {json.dumps(label)}).at(-1).click()")

    def answer(self):
        """The last answer and (tokens read, reused, written), once it has ended."""
        self.browser.wait("document.getElementById('stop').hidden && document.querySelectorAll('.turn.assistant').length > 0")
        text = self.turns("assistant")[-1]
        figures = self.browser.value("[...document.querySelectorAll('.turn.assistant .figures')].at(-1).textContent")
        found = READ.match(figures)
        assert found, figures
        return text, [int((group or "0").replace(",", "")) for group in found.groups()]

    def say(self, text):
        self.browser.write(text)
        self.browser.key("Enter")
        self.browser.wait("!document.getElementById('words').value")
        return self.answer()


def check(browser, port):
    talk = Talk(browser)
    browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
    browser.wait("document.title !== 'halo' && document.title")
    talk.click("Settings")
    assert browser.value("!document.getElementById('settings').hidden")
    for field, value in (("temperature", "0"), ("max_tokens", "40"), ("system", "You tell stories.")):
        talk.set(field, value)
    talk.click("Settings")

    first, (read, reused, written) = talk.say(FIRST)
    assert first and read > 64 and reused == 0 and written == 40, (first, read, reused, written)
    browser.picture("1-answer")
    second, (read, reused, _) = talk.say("And **then**?\n\n```\nx = 1\n```")
    assert second and 0 < reused < read, (read, reused)
    assert browser.value("document.getElementById('context').value") > 0
    assert browser.value("document.getElementById('states').value") > 0, "no state in use"
    assert talk.turns("user") == [FIRST, "And **then**?\n\n```\nx = 1\n```"]

    talk.click("Again")
    again, (read, reused, _) = talk.answer()
    assert again == second and reused >= read - 1, (again, second, read, reused)

    talk.click("Edit")
    assert browser.value("document.getElementById('words').value").startswith("And **then**?")
    browser.value("document.getElementById('words').value = ''")
    other, (read, reused, _) = talk.say("And her sister?")
    assert 0 < reused < read, (read, reused)
    assert talk.turns("user") == [FIRST, "And her sister?"] and len(talk.turns("assistant")) == 2

    browser.value("""(() => { const data = new DataTransfer();
        data.items.add(new File(["Once upon a time there was a mill.".repeat(20)], "mill.txt", {type: "text/plain"}));
        document.dispatchEvent(new DragEvent("dragover", {dataTransfer: data, cancelable: true}));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true})); })()""")
    assert "mill.txt" in browser.wait("document.getElementById('files').textContent")
    browser.picture("2-file")
    _, (read, reused, _) = talk.say("What is this?")
    assert talk.turns("user")[-1].startswith("File mill.txt:\n\nOnce upon a time") and read > 150, read

    # Stopped by a button and by a key; the server stops too.
    talk.set("max_tokens", "0")
    for stop in (lambda: talk.click("Stop"), lambda: browser.key("Escape")):
        browser.write("Go on")
        browser.key("Enter")
        browser.wait("!document.getElementById('stop').hidden && document.querySelector('.turn.assistant:last-child .body').textContent")
        stop()
        browser.wait("document.getElementById('stop').hidden")
        figures = browser.value("[...document.querySelectorAll('.turn.assistant .figures')].at(-1).textContent")
        assert figures == "stopped", figures
        end = time.monotonic() + SECONDS
        while serving.metrics(port)["halo_num_requests_running"] > 0:
            assert time.monotonic() < end, "the server goes on"
            time.sleep(0.05)
    talk.set("max_tokens", "40")

    before = talk.turns("user"), talk.turns("assistant")
    browser.call("Page.reload")
    browser.wait("document.title !== 'halo' && document.querySelectorAll('.turn').length > 0")
    assert (talk.turns("user"), talk.turns("assistant")) == before
    assert browser.value("document.getElementById('system').value") == "You tell stories."
    assert browser.value("document.getElementById('context').value") > 0

    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=False)
    talk.set("theme", "dark")
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), "it is wider than a narrow window"
    dark = browser.value("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150, dark
    browser.picture("3-narrow-dark")
    browser.call("Emulation.clearDeviceMetricsOverride")
    talk.set("theme", "light")

    # Keys alone: from the box on to the button that sends.
    browser.write("Once more")
    for _ in range(5):
        if browser.value("document.activeElement.id") == "send":
            break
        browser.key("Tab")
    assert browser.value("document.activeElement.id") == "send"
    browser.key("Enter")
    browser.wait("!document.getElementById('words').value")
    talk.answer()
    browser.picture("4-light")

    talk.click("New")
    assert not talk.turns("user") and browser.value("document.getElementById('context').value") == 0
    assert not browser.complaints, browser.complaints


def main():
    halo, teacher = sys.argv[1:3]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        model = pathlib.Path(folder) / "model"
        shutil.copytree(teacher, model)
        (model / "chat_template.jinja").write_text(TEMPLATE)
        server, port = serving.start(halo, str(model), ["--memory", "0.2", "--alias", "storyteller"])
        browser = Browser(f"{folder}/browser")
        try:
            check(browser, port)
        finally:
            browser.close()
            server.terminate()
            server.wait()
    print("the page does what its users do")


main()
