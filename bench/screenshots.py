"""The dashboard's pictures in docs/: a simulated upstream, the real proxy, varied traffic, a real browser.

    python -m bench.screenshots [--seconds 120] [--folder docs]

Nothing on them is invented but the answers: requests pass farthing, and the page reads its ledger. Needs Chromium, and
the tests' dependencies (playwright, Pillow).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from farthing.proxy.demo_servers import Server, free_port
from farthing.proxy.traffic import Question, load_questions, sample

__all__ = ["CONFIG", "main", "requests"]

CONFIG = """state_dir = {state}

[upstream]
name = "simulated"
url = "{upstream}/v1"

[semantic]
mode = "serve"
unproven = true
threshold = 0.85
show_texts = true
deadline_ms = 500

[compress]
recode = "serve"
unproven = true
latency_usd_per_s = 0
provider_cache = "none"

[spend]
daily_usd = 0.8

[prices.models."simulated-large"]
input_usd_per_mtok = "2.50"
cached_usd_per_mtok = "1.25"
output_usd_per_mtok = "10"
source = "nobody: they are pretended"

[prices.models."simulated-small"]
input_usd_per_mtok = "0.15"
cached_usd_per_mtok = "0.075"
output_usd_per_mtok = "0.60"
source = "nobody: they are pretended"
"""
AT_ONCE = 6
SYSTEM = "You are the assistant of a bank. Answer briefly, kindly and only about the bank's own services. " * 3
REGIONS, TEAMS = ("eu-west", "eu-west", "us-east", "ap-south"), ("support", "support", "search", "docs")


def rows_of_a_tool(dice: random.Random) -> str:
    """What a tool might answer: a table as indented JSON."""
    rows = [
        {
            "booking": f"b-{dice.randrange(10**6)}",
            "amount": dice.randrange(1, 900),
            "currency": "EUR",
            "state": "settled",
        }
        for _ in range(dice.randrange(12, 30))
    ]
    return json.dumps({"account": dice.randrange(10**6), "rows": rows}, indent=4)


def requests(count: int, seed: int) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Path, body and headers of each request: questions asked again, reworded, streamed, with tools, odd and broken."""
    dice = random.Random(seed)
    asked = sample(load_questions(), count, dice, s=1.1)
    for i, question in enumerate(asked):
        headers = {
            "x-farthing-tags": f"team={dice.choice(TEAMS)},feature=faq,region={dice.choice(REGIONS)}",
            "x-farthing-user": f"user-{dice.randrange(12)}",
        }
        yield _one(i, question, headers, dice)


def _one(
    i: int, question: Question, headers: dict[str, str], dice: random.Random
) -> tuple[str, dict[str, Any], dict[str, str]]:
    chat = "/v1/chat/completions"
    model = dice.choices(["simulated-large", "simulated-small", "simulated-new"], [45, 50, 5])[0]
    said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question.text}]
    body: dict[str, Any] = {"model": model, "messages": said, "stream": dice.random() < 0.35, "max_tokens": 60}
    kind = dice.random()
    if kind < 0.10:
        said[1]["content"] = dice.choice(["Please: {}", "Hello. {}", "{} Thanks."]).format(question.text)
    elif kind < 0.20:
        call = {"id": "c1", "type": "function", "function": {"name": "bookings", "arguments": "{}"}}
        body["messages"] = [
            *said,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": rows_of_a_tool(dice)},
        ]
    elif kind < 0.26 and model == "simulated-large":
        said[1]["content"] = f"Case {i}: {question.text}"
        headers["x-farthing-route"] = "simulated-small"
    elif kind < 0.30:
        headers["x-farthing-cache"] = "off"
    elif kind < 0.33:
        return "/v1/embeddings", {"model": "simulated-small", "input": question.text}, headers
    elif kind < 0.345:
        body["max_tokens"] = -1
    return chat, body, headers


async def drive(base: str, seconds: float) -> None:
    """Send until the time is over, more at some times than at others."""
    until, serial = time.monotonic() + seconds, 0
    todo = requests(100_000, 7)
    async with httpx.AsyncClient(base_url=base, timeout=30.0, headers={"Authorization": "Bearer pretended"}) as http:

        async def client(number: int) -> None:
            nonlocal serial
            dice = random.Random(number)
            while time.monotonic() < until:
                path, body, headers = next(todo)
                serial += 1
                # A waiting time that swells and falls, so that charts have a shape.
                wave = 0.15 + 0.5 * abs(((until - time.monotonic()) % 40) / 20 - 1)
                with contextlib.suppress(httpx.HTTPError):
                    if body.get("stream") and dice.random() < 0.03:
                        async with http.stream("POST", path, json=body, headers=headers) as answer:
                            await anext(answer.aiter_raw())
                    else:
                        await http.post(path, json=body, headers=headers)
                await asyncio.sleep(wave * dice.random())

        await asyncio.gather(*(client(number) for number in range(AT_ONCE)))


async def pictures(base: str, span: str, telling: str, folder: Path) -> None:
    """The three pictures. `span`: the address's. `telling`: the request whose details are shown."""
    from playwright.async_api import async_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width, height, scheme in (
            ("dashboard", 1280, 1240, "light"),
            ("dashboard-request", 1280, 980, "dark"),
            ("dashboard-phone", 420, 1500, "light"),
        ):
            page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            await page.goto(f"{base}/farthing/#{span}")
            await page.wait_for_selector("main[data-state=ready]")
            await page.uncheck("#live")
            await page.wait_for_timeout(1000)
            if name == "dashboard-request":
                await page.fill("#filter-text", telling)
                await page.wait_for_selector(f"[aria-label='Details of {telling}']")
                await page.wait_for_timeout(800)
                await page.click(f"[aria-label='Details of {telling}']")
                await page.wait_for_selector("#detail-body .story")
            await page.mouse.move(0, 0)
            small(await page.screenshot(), folder / f"{name}.png")
        await browser.close()


def small(png: bytes, path: Path) -> None:
    """Write it with the 256 colours that come nearest: a third of the bytes, and no difference that one sees."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


async def told_best(base: str) -> str:
    """The id of the request about which there is most to tell."""
    async with httpx.AsyncClient(base_url=base) as http:
        listed = (await http.get("/farthing/api/requests", params={"limit": "200", "cache": "miss"})).json()["requests"]
        rows = [(await http.get(f"/farthing/api/requests/{each['id']}")).json() for each in listed]
    priced = [row for row in rows if row["cost_usd"] is not None and row["outcome"] == "completed"]
    causes = ("saved_compress_usd", "saved_route_usd", "saved_prompt_cache_usd")
    best = max(priced, key=lambda row: (sum(float(row[cause]) != 0 for cause in causes), row["compress"], row["ts"]))
    return str(best["id"])


async def run(seconds: float, folder: Path) -> None:
    """Start the servers, send, look."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        upstream, port = free_port(), free_port()
        config = home / "farthing.toml"
        config.write_text(CONFIG.format(state=json.dumps(str(home / "state")), upstream=f"http://127.0.0.1:{upstream}"))
        simulated = [sys.executable, "-m", "farthing.proxy.simulated", "--port", str(upstream)]
        serving = [
            str(Path(sys.executable).with_name("farthing")),
            "serve",
            "--config",
            str(config),
            "--port",
            str(port),
        ]
        base = f"http://127.0.0.1:{port}"
        async with contextlib.AsyncExitStack() as stack:
            for title, argv, ready in (
                (
                    "simulated",
                    [*simulated, "--prefill-ms", "60", "--token-ms", "4"],
                    f"http://127.0.0.1:{upstream}/health",
                ),
                ("farthing", serving, f"{base}/healthz"),
            ):
                server = await Server.start(title, argv, home / f"{title}.log")
                stack.push_async_callback(server.stop)
                await server.ready(ready, 60.0)
            await asyncio.sleep(3)  # the embedder loads
            begun = time.time()
            await drive(base, seconds)
            await asyncio.sleep(1.5)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun))
            await pictures(base, f"since={stamp}.000Z&by=tag:region", await told_best(base), folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    options = parser.parse_args()
    asyncio.run(run(options.seconds, options.folder))


if __name__ == "__main__":
    main()
