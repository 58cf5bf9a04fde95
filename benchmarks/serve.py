"""Prove the server under load, swaps, killed workers and hostile uploads: `python -P benchmarks/serve.py PART --url …`.

Parts: latency, load, swap, kill, fuzz, contract. Every part asks a server that runs already, over real HTTP:

    unmask serve --model models:/unmask-detector@champion --tracking-uri URI &
    python -P benchmarks/serve.py load --image face.jpg
    python -P benchmarks/serve.py swap --image face.jpg --tracking-uri URI --alias champion --versions 1 2

With -P this folder's own `statistics` does not stand in front of Python's, which MLflow wants.
`kill` and the memory figures need the server on this machine (`--pid`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import requests

PATIENCE_S = 300


class Server:
    """The server that is asked.

    Args:
        url: Its address.
        pid: Its process; None when it runs elsewhere.
    """

    def __init__(self, url: str, pid: int | None) -> None:
        self.url = url
        self.pid = pid
        self.local = threading.local()

    def post(self, content: bytes, path: str = "/v1/analyze") -> requests.Response:
        """Send a file."""
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
        return self.local.session.post(self.url + path, files={"file": ("upload", content)}, timeout=PATIENCE_S)

    def ask(self, content: bytes, counts: Counter[str]) -> tuple[float, dict]:
        """Ask until there is a place; only declared 503s are asked again."""
        begun = time.monotonic()
        while True:
            start = time.perf_counter()
            answer = self.post(content)
            seconds = time.perf_counter() - start
            counts[str(answer.status_code)] += 1
            if answer.status_code != 503:
                return seconds, answer.json()
            if "retry-after" not in answer.headers or time.monotonic() - begun > PATIENCE_S:
                raise SystemExit("a 503 without Retry-After, or no place for five minutes")
            time.sleep(0.2)

    def children(self) -> list[int]:
        """Its decoders."""
        if self.pid is None:
            return []
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def memory_mib(self) -> tuple[float, float]:
        """Resident memory of the server, and of its decoders."""
        if self.pid is None:
            return float("nan"), float("nan")
        return _resident_mib(self.pid), sum(_resident_mib(pid) for pid in self.children())

    def cpu_s(self) -> float:
        """CPU seconds of the server and its decoders so far."""
        if self.pid is None:
            return float("nan")
        return sum(_cpu_s(pid) for pid in [self.pid, *self.children()])


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(server: Server, arguments: argparse.Namespace) -> None:
    """One request at a time: wall and CPU seconds."""
    for name, path, n in (("image", arguments.image, 20), ("video", arguments.video, 5)):
        if path is None:
            continue
        content = path.read_bytes()
        for _ in range(3):
            server.post(content)
        cpu, walls, inside = server.cpu_s(), [], []
        for _ in range(n):
            start = time.perf_counter()
            answer = server.post(content)
            walls.append(time.perf_counter() - start)
            inside.append(answer.json()["timing"])
        cpu = (server.cpu_s() - cpu) / n
        middle = {key: round(float(np.median([each[key] for each in inside])), 3) for key in inside[0]}
        print(
            f"{name}: {n} requests, wall median {np.median(walls):.3f} s, "
            f"min {min(walls):.3f} s, max {max(walls):.3f} s, CPU {cpu:.3f} s a request; inside: {middle}"
        )
        if name == "video":
            floor, work = decode_alone(path)
            print(
                f"decoding it alone, by all cores: wall {floor:.3f} s, CPU {work:.3f} s; "
                f"an answer takes {np.median(walls) / floor:.2f} × as long"
            )


def decode_alone(path: Path) -> tuple[float, float]:
    """Decode a video as fast as this machine can: wall and CPU seconds, the best of three."""
    best = (float("inf"), 0.0)
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _frame in container.decode(video=0):
                pass
        best = min(best, (time.perf_counter() - wall, time.process_time() - cpu))
    return best


def load(server: Server, arguments: argparse.Namespace) -> None:
    """500 requests at concurrency 16."""
    content = arguments.image.read_bytes()
    counts: Counter[str] = Counter()
    server.ask(content, Counter())
    before = server.memory_mib()
    start, cpu = time.perf_counter(), server.cpu_s()
    with ThreadPoolExecutor(arguments.concurrency) as threads:
        answers = list(threads.map(lambda _: server.ask(content, counts), range(arguments.requests)))
    wall, cpu = time.perf_counter() - start, server.cpu_s() - cpu
    seconds = [each[0] for each in answers]
    verdicts = {each[1].get("probability") for each in answers}
    print(f"statuses: {dict(counts)}; different probabilities: {len(verdicts)}")
    print(
        f"p50 {np.quantile(seconds, 0.5):.3f} s, p99 {np.quantile(seconds, 0.99):.3f} s, "
        f"{arguments.requests / wall:.1f} a second, CPU {cpu / arguments.requests:.3f} s a request"
    )
    after = server.memory_mib()
    print(f"memory MiB: server {before[0]:.0f} -> {after[0]:.0f}, decoders {before[1]:.0f} -> {after[1]:.0f}")


def swap(server: Server, arguments: argparse.Namespace) -> None:
    """Move the alias back and forth in the registry while requests run."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=arguments.tracking_uri, registry_uri=arguments.tracking_uri)
    content = arguments.image.read_bytes()
    counts: Counter[str] = Counter()
    stop = threading.Event()
    seen: list[tuple[str, float | None]] = []

    def worker() -> None:
        while not stop.is_set():
            _, body = server.ask(content, counts)
            seen.append((body.get("model_version", "?"), body.get("probability")))

    threads = [threading.Thread(target=worker) for _ in range(arguments.concurrency)]
    for thread in threads:
        thread.start()
    for number in [*arguments.versions[1:], arguments.versions[0]]:
        time.sleep(arguments.seconds / 4)
        moved = time.perf_counter()
        client.set_registered_model_alias(arguments.model, arguments.alias, number)
        wanted = f"{arguments.model} version {number}"
        while requests.get(server.url + "/ready", timeout=30).json()["model_version"] != wanted:
            time.sleep(0.1)
        print(f"alias moved to version {number}; followed after {time.perf_counter() - moved:.1f} s")
    time.sleep(arguments.seconds / 4)
    stop.set()
    for thread in threads:
        thread.join()
    failed = sum(count for status, count in counts.items() if status not in ("200", "503"))
    print(f"statuses: {dict(counts)}; failed: {failed}; answers by version and probability: {dict(Counter(seen))}")


def kill(server: Server, arguments: argparse.Namespace) -> None:
    """Kill a decoder every second while requests run."""
    content = arguments.image.read_bytes()
    counts: Counter[str] = Counter()
    killed = 0
    with ThreadPoolExecutor(arguments.concurrency) as threads:
        answers = [threads.submit(server.ask, content, counts) for _ in range(arguments.requests)]
        while not all(answer.done() for answer in answers) and killed < arguments.kills:
            time.sleep(arguments.seconds / arguments.kills)
            for pid in server.children()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        for answer in answers:
            answer.result()
    print(f"decoders killed: {killed}; statuses: {dict(counts)}; decoders now: {len(server.children())}")


def fuzz(server: Server, arguments: argparse.Namespace) -> None:
    """Mutated uploads: no 500, no crash, nothing left, no growing memory."""
    rng = np.random.default_rng(arguments.seed)
    originals = [path.read_bytes() for path in (arguments.image, arguments.video, arguments.audio) if path is not None]
    counts: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    memory = []
    made = [mutated(originals[index % len(originals)], rng) for index in range(arguments.requests)]
    for part in range(10):
        size = len(made) // 10
        with ThreadPoolExecutor(4) as threads:
            each = list(
                threads.map(lambda content: server.ask(content, counts)[1], made[part * size : (part + 1) * size])
            )
        codes.update(body.get("code") or body.get("verdict") for body in each)
        memory.append(server.memory_mib())
    print(f"statuses: {dict(counts)}")
    print(f"answers: {dict(codes)}")
    print("memory MiB after each tenth: " + ", ".join(f"{a:.0f}+{b:.0f}" for a, b in memory))
    if arguments.work is not None:
        left = [path for path in (arguments.work / "scratch").glob("*/*") if path.is_file()]
        print(f"leftover files: {len(left)}")
    print(f"health: {requests.get(server.url + '/health', timeout=30).status_code}")
    if any(status.startswith("5") and status != "503" for status in counts):
        raise SystemExit("a 500")


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file: bits, blocks, length, order, or its headers."""
    data = np.frombuffer(content, np.uint8).copy()
    kind = rng.integers(6)
    if kind == 0:  # single bytes anywhere
        places = rng.integers(0, len(data), rng.integers(1, 50))
        data[places] = rng.integers(0, 256, len(places))
    elif kind == 1:  # bytes of the headers
        places = rng.integers(0, min(len(data), 512), rng.integers(1, 8))
        data[places] = rng.integers(0, 256, len(places))
    elif kind == 2:  # cut off
        data = data[: rng.integers(0, len(data))]
    elif kind == 3:  # a block of noise
        start = rng.integers(0, len(data))
        end = min(len(data), start + rng.integers(1, 4096))
        data[start:end] = rng.integers(0, 256, end - start)
    elif kind == 4:  # a block twice or at another place
        start, place = rng.integers(0, len(data), 2)
        data = np.concatenate([data[:place], data[start : start + 2048], data[place:]])
    else:  # extreme sizes: a run of 0xff or 0x00 in the headers
        start = rng.integers(0, min(len(data), 4096))
        data[start : start + rng.integers(1, 16)] = rng.choice([0, 255])
    return data.tobytes()


def contract(server: Server, arguments: argparse.Namespace) -> None:
    """Schemathesis against the description that the server gives of itself."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", server.url + "/openapi.json"]
    command += ["--max-examples", str(arguments.examples), "--seed", str(arguments.seed), "--no-color"]
    # A schema cannot say that bytes are a picture: requests that it allows are rightly refused.
    command += ["--exclude-checks", "positive_data_acceptance"]
    command += ["--phases", "examples,coverage,fuzzing", "--exclude-path", "/metrics"]
    with tempfile.TemporaryDirectory() as folder:  # for what schemathesis writes
        raise SystemExit(subprocess.run(command, check=False, cwd=folder).returncode)


def main() -> None:
    """Run one part."""
    parts = {each.__name__: each for each in (latency, load, swap, kill, fuzz, contract)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--pid", type=int, help="of the server, for memory and CPU")
    parser.add_argument("--work", type=Path, help="--work of the server, to look for leftovers")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--examples", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tracking-uri")
    parser.add_argument("--model", default="unmask-detector")
    parser.add_argument("--alias", default="champion")
    parser.add_argument("--versions", nargs="+", default=["1", "2"])
    arguments = parser.parse_args()
    print(json.dumps({"part": arguments.part, "requests": arguments.requests, "concurrency": arguments.concurrency}))
    parts[arguments.part](Server(arguments.url, arguments.pid), arguments)


if __name__ == "__main__":
    main()
