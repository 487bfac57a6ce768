"""What the web server costs: answers over a study of 100,000 evaluations, and streams of events beside a running study.

    python benchmarks/web_routes.py [--json FILE] [--parts routes,streams] [--evaluations 100000] [--seconds 8]

routes   a real server process on a store with a finished study of 4 objectives: seconds until it answers at all, and
         until the study is read and answered; then milliseconds of each route at the 50th and 95th percentile, asked by
         two clients at once with varying parameters.
streams  a real controller process whose evaluations wait 15 ms each; evaluations per second in turns without and with
         50 event streams open on a server of the same store.

Server, clients and controller share this machine's cores.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "web"))  # this file is called web too

from big_store import big_study
from serving import serving

from mergesearch import SearchSpace, search
from mergesearch.store.open import open_store
from mergesearch.types import Split

API = "/api/v1"
STUDY = f"{API}/studies/big"
CLIENTS = 2
REQUESTS = 60  # of each route
LISTENERS = 50
WAIT = 0.015  # seconds of one evaluation
TURNS = 6
OBJECTIVES = ("digits", "fashion", "kuzushiji", "letters")

ROUTES: dict[str, Callable[[int], str]] = {
    "health": lambda _: f"{API}/health",
    "store": lambda _: f"{API}/store",
    "metrics": lambda _: f"{API}/metrics",
    "studies": lambda i: f"{API}/studies?sort={('name', 'best', 'hypervolume')[i % 3]}",
    "study": lambda _: STUDY,
    "candidates": lambda i: f"{STUDY}/candidates?offset={1500 * i}&limit=50",
    "candidates, sorted": lambda i: (
        f"{STUDY}/candidates?sort={OBJECTIVES[i % 4]}&order=desc&front={i % 2}&offset={7 * i}&limit=100"
    ),
    "candidate": lambda i: f"{STUDY}/candidates/{1000 + 1500 * i}",
    "front": lambda _: f"{STUDY}/front",
    "front of two": lambda i: f"{STUDY}/front?objectives={OBJECTIVES[i % 4]}&objectives={OBJECTIVES[(i + 1) % 4]}",
    "front, preference": lambda i: f"{STUDY}/front?prefer=digits={i + 1},letters=9&limit=200",
    "failures": lambda i: f"{STUDY}/failures?offset={i}",
    "log": lambda i: f"{STUDY}/log?offset={3000 * i}",
    "chart front": lambda i: f"{STUDY}/charts/front?x={OBJECTIVES[i % 4]}&y={OBJECTIVES[(i + 1) % 4]}",
    "chart hypervolume": lambda _: f"{STUDY}/charts/hypervolume",
    "chart convergence": lambda _: f"{STUDY}/charts/convergence",
    "chart parallel": lambda _: f"{STUDY}/charts/parallel",
    "chart timing": lambda _: f"{STUDY}/charts/timing",
}


def routes(folder: Path, evaluations: int) -> dict[str, Any]:
    """Seconds of the cold start, and milliseconds of each route."""
    url = f"sqlite:///{folder}/big.db"
    began = time.perf_counter()
    big_study(url, evaluations=evaluations)
    print(f"store of {evaluations} evaluations written in {time.perf_counter() - began:.1f} s", flush=True)
    began = time.perf_counter()
    with serving(url) as server, httpx.Client(base_url=server.url, timeout=300.0) as client:
        client.get(f"{API}/health").raise_for_status()
        found: dict[str, Any] = {"start_seconds": time.perf_counter() - began}
        began = time.perf_counter()
        client.get(f"{API}/studies").raise_for_status()
        found["list_while_reading_ms"] = 1000.0 * (time.perf_counter() - began)
        client.get(STUDY).raise_for_status()
        found["study_read_seconds"] = time.perf_counter() - began
        found["routes"] = {}
        for name, path in ROUTES.items():
            taken, size = _ask(server.url, path)
            first, rest = taken[0], np.array(taken)
            row = {"first_ms": first, "p50_ms": float(np.median(rest)), "p95_ms": float(np.quantile(rest, 0.95))}
            found["routes"][name] = row | {"kilobytes": size / 1000.0}
            print(f"{name:20} first {first:7.1f}  p50 {row['p50_ms']:7.1f}  p95 {row['p95_ms']:7.1f} ms", flush=True)
        memory = Path(f"/proc/{server.pid}/status").read_text().split("VmRSS:")[1].split()[0]
        found["server_megabytes"] = int(memory) / 1024.0
    return found


def _ask(url: str, path: Callable[[int], str]) -> tuple[list[float], int]:
    """Milliseconds of each request, the very first one at the beginning, and the largest answer in bytes."""
    taken, sizes, lock = [], [], threading.Lock()

    def one(client: httpx.Client, place: int) -> None:
        began = time.perf_counter()
        answer = client.get(path(place))
        milliseconds = 1000.0 * (time.perf_counter() - began)
        answer.raise_for_status()
        with lock:
            taken.append(milliseconds)
            sizes.append(len(answer.content))

    def many(places: range) -> None:
        with httpx.Client(base_url=url, timeout=120.0) as client:
            for place in places:
                one(client, place)

    with httpx.Client(base_url=url, timeout=120.0) as client:
        client.get(f"{API}/health")
        one(client, 0)
    threads = [threading.Thread(target=many, args=(range(1 + k, REQUESTS, CLIENTS),)) for k in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, max(sizes)


def streams(folder: Path, seconds: float) -> dict[str, Any]:
    """Evaluations per second of a running study, in turns without and with listeners."""
    url = f"sqlite:///{folder}/running.db"
    open_store(url).close()
    with serving(url) as server, _controller(url) as alive:
        store = open_store(url)
        _until(lambda: bool(store.studies()) and len(store.events("search")) > 40, alive)
        windows: list[tuple[bool, float, float]] = []
        messages = 0
        for turn in range(TURNS):
            listening = turn % 2 == 1
            if listening:
                got, window = asyncio.run(_listen(f"{server.url}{API}/studies/search/events", seconds, store.clock))
                messages += got
            else:
                first = store.clock()
                time.sleep(seconds)
                window = (first, store.clock())
            windows.append((listening, *window))
            assert alive()
        told = np.array([at for (_, split), (_, at) in store.times("search").items() if at and split is Split.SEARCH])
        store.close()
    rates: dict[bool, list[float]] = {False: [], True: []}
    for listening, first, last in windows:
        rates[listening].append(float(((told > first) & (told <= last)).sum() / (last - first)))
    alone, heard = float(np.mean(rates[False])), float(np.mean(rates[True]))
    found = {"alone_per_second": alone, "heard_per_second": heard, "slower_percent": 100.0 * (1.0 - heard / alone)}
    print(f"{alone:.1f} evaluations/s alone, {heard:.1f} with {LISTENERS} streams: {found['slower_percent']:+.1f} %")
    turns = {"alone": rates[False], "heard": rates[True]}
    return {**found, "listeners": LISTENERS, "messages": messages, "turns": turns, "turn_seconds": seconds}


async def _listen(url: str, seconds: float, clock: Callable[[], float]) -> tuple[int, tuple[float, float]]:
    """Open the streams, and once all are open listen for `seconds`: messages, and from when to when."""
    counts = [0] * LISTENERS

    async def listen(client: httpx.AsyncClient, place: int) -> None:
        async with client.stream("GET", url) as answer:
            async for line in answer.aiter_lines():
                counts[place] += line.startswith("event:")

    limits = httpx.Limits(max_connections=LISTENERS)
    async with httpx.AsyncClient(timeout=60.0, limits=limits) as client:
        tasks = [asyncio.create_task(listen(client, place)) for place in range(LISTENERS)]
        end = time.monotonic() + 30.0
        while not all(counts) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        assert all(counts), "not every stream opened"
        first, before = clock(), sum(counts)
        await asyncio.sleep(seconds)
        last, got = clock(), sum(counts) - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return got, (first, last)


@contextmanager
def _controller(url: str) -> Iterator[Callable[[], bool]]:
    """A process that searches; yields whether it still does."""
    process = subprocess.Popen([sys.executable, __file__, "--controller", url])
    try:
        yield lambda: process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def control(url: str) -> None:
    """Search without an end: what the controller's process does."""

    def function(values: np.ndarray[Any, Any]) -> dict[str, float]:
        time.sleep(WAIT)
        return {name: float(1.0 - ((values - place / 4) ** 2).mean()) for place, name in enumerate(OBJECTIVES)}

    aims = dict.fromkeys(OBJECTIVES, "max")
    search(function, SearchSpace.box(32, 0.0, 1.0), aims, "random", 1_000_000, store=open_store(url))


def _until(done: Callable[[], bool], alive: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not done():
        assert alive(), "the controller ended"
        assert time.monotonic() < end, "the study did not start"
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", default="routes,streams")
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="Length of a turn of the part 'streams'.")
    parser.add_argument("--controller", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.controller:
        control(arguments.controller)
        return
    parts = arguments.parts.split(",")
    found: dict[str, Any] = {"made": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count()}
    found["load_before"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        if "routes" in parts:
            found["routes"] = {"evaluations": arguments.evaluations, **routes(Path(folder), arguments.evaluations)}
        if "streams" in parts:
            found["streams"] = streams(Path(folder), arguments.seconds)
    text = json.dumps(found, indent=1)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
