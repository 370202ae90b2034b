"""DBOS under closed loops: dbos_chain.py POSTGRES_URL STEPS AT_ONCE WARM_UP_SECONDS SECONDS.

DBOS is a library, so clients, workflows and steps share this process. Each client starts a workflow that is a chain of
trivial steps and awaits its result, again and again. Prints `warm` when what counts begins, and then one line of JSON.
"""

import asyncio
import json
import os
import sys
import time

from dbos import DBOS

URL, STEPS, AT_ONCE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
WARM_UP, SECONDS = float(sys.argv[4]), float(sys.argv[5])

DBOS(
    config={
        "name": "chain",
        "system_database_url": URL,
        "sys_db_pool_size": 20,
        "log_level": "ERROR",
        "run_admin_server": False,
    }
)


@DBOS.step()
async def step(value: int) -> int:
    return value + 1


@DBOS.workflow()
async def chain(steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await step(value)
    return value


async def loops(duration: float) -> dict:
    times = []
    began, cpu = time.perf_counter(), time.process_time()

    async def client() -> None:
        while time.perf_counter() - began < duration:
            one = time.perf_counter()
            if await chain(STEPS) != STEPS:
                sys.exit("a chain gave the wrong result")
            times.append(time.perf_counter() - one)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    seconds, cpu_ms = time.perf_counter() - began, (time.process_time() - cpu) * 1e3
    times.sort()
    return {"runs": len(times), "seconds": seconds, "p50_ms": times[len(times) // 2] * 1e3, "cpu_ms": cpu_ms}


async def main() -> None:
    await loops(WARM_UP)
    print("warm", flush=True)
    print(json.dumps(await loops(SECONDS)), flush=True)


DBOS.launch()
asyncio.run(main())
# Its threads would be waited for; there is nothing left to lose.
os._exit(0)
