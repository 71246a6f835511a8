"""What a few people live through while a crowd presses: latencies by outcome, which wrk does not tell apart.

Runs in a process of its own, ahead of the crowd in the kernel's queue where it may (nice), so that what it
measures is the server's delay and not its own.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

CONNECTIONS = 64
PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds, by whether a number was given."""

    accepted: list[float]
    refused: list[float]

    @staticmethod
    def p99(values: list[float]) -> float:
        return sorted(values)[int(len(values) * 0.99)] if values else float("nan")


async def measure(port: int, tokens: Path, requests: Path, skip: int, seconds: float) -> Latencies:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.peers.probe", str(port), str(tokens), str(requests)),
        *(str(skip), str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return Latencies(**json.loads(out))


async def _one(port: int, lines: list[bytes], ends: float, seen: list[tuple[int, float]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(random.random() * PAUSE_SECONDS)
    for line in lines:
        if time.monotonic() > ends:
            break
        started = time.perf_counter()
        writer.write(line)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        seen.append((int(head[9:12]), (time.perf_counter() - started) * 1000))
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
    writer.close()


async def _main(port: int, tokens: Path, requests: Path, skip: int, seconds: float) -> None:
    known = tokens.read_text().split()
    wanted = requests.read_text().splitlines()[skip:]
    each = int(seconds / PAUSE_SECONDS * 2) + 1
    lines = []
    for number, line in enumerate(wanted[: each * CONNECTIONS]):
        account, slot, patient = line.split()
        body = json.dumps({"slot_id": slot, "patient_id": patient}).encode()
        lines.append(
            b"POST /api/v1/appointments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {known[int(account)]}\r\nIdempotency-Key: probe{number}\r\n".encode()
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
    ends = time.monotonic() + seconds
    seen: list[tuple[int, float]] = []
    await asyncio.gather(
        *(_one(port, lines[n * each : (n + 1) * each], ends, seen) for n in range(CONNECTIONS))
    )
    accepted = [ms for status, ms in seen if status == 201]
    refused = [ms for status, ms in seen if status != 201]
    print(json.dumps({"accepted": accepted, "refused": refused}))


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(-10)
    uvloop.run(
        _main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    )
