"""Builds the image and runs it as the Dockerfile says. Exit status 0: all held; 1: something didn't; 3: no tool.

    python3 deploy/try_image.py [--tool docker|podman] [--base BASE] [--image NAME] [any other word of `build`]

Needs Python, and docker or podman. With --image nothing is built. Containers have no network but loopback: a small
upstream runs in a container of the same image, and the farthings share its network. The base is the Dockerfile's, or
--base: an image with `python` and pip, of the lock's minor version. What is made here is removed, but for the image.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
HARD = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
STATE = "/var/lib/farthing/state"
PATIENCE_S = 120

# A stream's second half is sent when somebody asks for /release: it is under way for as long as the test wants.
UPSTREAM = """
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
released, asked = threading.Event(), []
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/release':
            released.set()
        self.whole({'asked': len(asked)})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['content-length'])))
        asked.append(body)
        said = {'index': 0, 'message': {'role': 'assistant', 'content': 'four'}, 'finish_reason': 'stop'}
        if not body.get('stream'):
            usage = {'prompt_tokens': 9, 'completion_tokens': 1, 'total_tokens': 10}
            told = {'id': 'a', 'object': 'chat.completion', 'created': 1, 'model': 'm'}
            return self.whole(told | {'choices': [said], 'usage': usage})
        self.send_response(200)
        self.send_header('content-type', 'text/event-stream')
        self.end_headers()
        for words, end in (('one ', None), ('two', 'stop')):
            choice = {'index': 0, 'delta': {'content': words}, 'finish_reason': end}
            chunk = {'id': 'b', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'm', 'choices': [choice]}
            self.wfile.write(b'data: ' + json.dumps(chunk).encode() + b'\\n\\n')
            self.wfile.flush()
            if not end:
                released.wait(100)
        self.wfile.write(b'data: [DONE]\\n\\n')
    def whole(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(('127.0.0.1', 9000), Answers).serve_forever()
"""

ASK = """
import json, sys, urllib.request
body = {'model': 'gpt-4o-mini', 'messages': [{'role': 'user', 'content': 'two and two'}]}
request = urllib.request.Request('http://127.0.0.1:8080/v1/chat/completions', json.dumps(body).encode(),
                                 {'content-type': 'application/json', 'authorization': 'Bearer a'})
with urllib.request.urlopen(request, timeout=60) as answer:
    print(answer.headers['x-farthing-cache'], json.load(answer)['choices'][0]['message']['content'])
"""

# Says when the stream has begun, waits until the farthing takes no new connection (it drains), and has the rest sent.
STREAM = """
import http.client, json, socket, time
link = http.client.HTTPConnection('127.0.0.1', 8080, timeout=60)
body = {'model': 'gpt-4o-mini', 'stream': True, 'messages': [{'role': 'user', 'content': 'count'}]}
headers = {'content-type': 'application/json', 'authorization': 'Bearer a'}
link.request('POST', '/v1/chat/completions', json.dumps(body), headers)
answer = link.getresponse()
read = answer.readline()
print('begun', flush=True)
while True:
    try:
        socket.create_connection(('127.0.0.1', 8080), 1).close()
    except OSError:
        break
    time.sleep(0.05)
http.client.HTTPConnection('127.0.0.1', 9000, timeout=9).request('GET', '/release')
read += answer.read()
print('whole' if b'two' in read and read.rstrip().endswith(b'[DONE]') else repr(read))
"""

INSIDE = """
import os
capable = [line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')]
try:
    open('/opt/farthing/written', 'w')
    root = 'writable'
except OSError as error:
    root = os.strerror(error.errno)
state = os.stat('/var/lib/farthing/state')
none = all(int(one, 16) == 0 for one in capable)
print(os.getuid(), os.getgid(), root, none, oct(state.st_mode & 0o777), state.st_uid)
"""


class Tool:
    """docker or podman, and what was started by it."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.mark = f"farthing-try-{secrets.token_hex(4)}"

    def __call__(self, *words: str, patience_s: float = PATIENCE_S) -> str:
        """What it prints. Raises subprocess.CalledProcessError: it failed."""
        ran = subprocess.run(
            [self.program, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=patience_s,
        )
        return ran.stdout.strip()

    def status(self, *words: str) -> int:
        """How it ended."""
        return subprocess.run([self.program, *words], capture_output=True, check=False, timeout=PATIENCE_S).returncode

    def python(self, container: str, program: str) -> str:
        """What a program prints that the image's Python runs in the container."""
        return self("exec", container, "python", "-c", program)


def until(what: Callable[[], bool]) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.2)
    return False


def built(tool: Tool, base: str | None, image: str, more: list[str]) -> None:
    given = ["--build-arg", f"BASE={base}"] if base else []
    docker = ["--format", "docker"] if Path(tool.program).name == "podman" else []  # OCI's format has no HEALTHCHECK
    subprocess.run([tool.program, "build", *docker, *given, *more, "--tag", image, str(HERE.parent)], check=True)


def layers(tool: Tool, image: str) -> str:
    """Size and origin of each layer that holds something, the newest first."""
    said = tool("history", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image)
    rows = [line.partition("\t") for line in said.splitlines()]
    return "\n".join(f"{int(size):>12,}  {by[:90].strip()}" for size, _, by in rows if size.isdigit() and int(size))


def served(tool: Tool, image: str, name: str, net: str, volume: str) -> None:
    """A farthing on that volume, once its health check says so."""
    quick = ("--health-interval", "1s", "--health-retries", "2", "--health-start-period", "0s")
    told = ("--env", "FARTHING_UPSTREAM=http://127.0.0.1:9000/v1")
    mount = ("--volume", f"{volume}:{STATE}")
    tool("run", "--detach", "--name", name, "--network", f"container:{net}", *HARD, *quick, *told, *mount, image)


def checks(tool: Tool, image: str) -> list[tuple[str, bool, str]]:
    """What was checked, whether it held, and what was seen."""
    up, one, two, volume = (f"{tool.mark}-{what}" for what in ("upstream", "one", "two", "state"))
    found: list[tuple[str, bool, str]] = []

    def seen(what: str, want: object, got: object) -> None:
        found.append((what, want == got, str(got)))

    def health(container: str) -> str:
        return str(json.loads(tool("inspect", container))[0]["State"].get("Health", {}).get("Status"))

    check = ("python", "/opt/farthing/healthcheck.py")
    try:
        tool(
            "run", "--detach", "--name", up, "--network", "none", *HARD, "--entrypoint", "python", image, "-c", UPSTREAM
        )
        seen("health check where no farthing is", 1, tool.status("exec", up, *check))
        served(tool, image, one, up, volume)
        seen("serves, and is told healthy", True, until(lambda: health(one) == "healthy"))
        seen("health check of a farthing", True, until(lambda: tool.status("exec", one, *check) == 0))
        seen(
            "user, root, no capability, state",
            "10001 10001 Read-only file system True 0o700 10001",
            tool.python(one, INSIDE),
        )
        seen("first answer", "miss four", tool.python(up, ASK))
        seen("second answer", "hit-exact four", tool.python(up, ASK))
        tool("kill", "--signal", "STOP", one)
        seen("a stopped one is told unhealthy", True, until(lambda: health(one) == "unhealthy"))
        tool("kill", "--signal", "CONT", one)
        seen("and healthy again", True, until(lambda: health(one) == "healthy"))
        with subprocess.Popen(
            [tool.program, "exec", up, "python", "-c", STREAM], stdout=subprocess.PIPE, text=True
        ) as client:
            assert client.stdout is not None
            seen("a stream begins", "begun", client.stdout.readline().strip())
            tool("kill", "--signal", "TERM", one)
            seen("SIGTERM: the stream comes whole", "whole", client.stdout.read().strip())
        seen("SIGTERM: exit status", 0, int(tool("wait", one)))
        served(tool, image, two, up, volume)
        seen("another one on the same volume", True, until(lambda: health(two) == "healthy"))
        seen("answers what the first one kept", "hit-exact four", tool.python(up, ASK))
        tool("stop", "--time", "90", two)
        seen("stop: exit status", 0, int(tool("wait", two)))
    finally:
        for name in (one, two, up):
            tool.status("rm", "--force", "--volumes", name)
        tool.status("volume", "rm", volume)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tool", default=next(filter(None, map(shutil.which, ("docker", "podman"))), None))
    parser.add_argument("--base", help="an image with Python, in the Dockerfile's place")
    parser.add_argument("--image", help="an image that is there already: nothing is built")
    given, more = parser.parse_known_args(arguments)
    if given.tool is None or subprocess.run([given.tool, "info"], capture_output=True, check=False).returncode:
        sys.stderr.write("neither docker nor podman works here\n")
        return 3
    tool, image = Tool(given.tool), given.image or "farthing:try"
    if not given.image:
        built(tool, given.base, image, more)
    sys.stdout.write(f"layers of {image}, bytes:\n{layers(tool, image)}\n\n")
    found = checks(tool, image)
    for what, held, got in found:
        sys.stdout.write(f"{'ok  ' if held else 'FAIL'}  {what}: {got}\n")
    return 0 if all(held for _, held, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
