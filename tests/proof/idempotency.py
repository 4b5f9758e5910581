"""A thousand races of two requests under one idempotency key: ``python -m tests.proof.idempotency [RACES]``.

Each race is run by two store clients of their own, as two replicas have them, on SQLite and on Postgres. Prints the
number of races that had one run and two equal answers.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from oneturn.core.run_context import RunContext
from oneturn.serving.store import RecordedAnswer
from oneturn.serving.store.database import StoreDatabase
from oneturn.serving.store.idempotency import IdempotencyKeys
from tests.postgres import running_postgres


def races(address: str, count: int) -> int:
    """Run races; return how many had one run and two equal answers."""
    replicas = [IdempotencyKeys(StoreDatabase(address, 3600)) for _ in range(2)]
    runs: list[list[int]] = [[] for _ in range(count)]

    def ask(replica: int, number: int, start: threading.Barrier) -> object:
        request = replicas[replica].request("owner", f"key-{number}", "/v1/responses", {"input": number})
        start.wait()
        with RunContext().active():
            answer = request.claim(lambda: None)
            if answer is None:
                runs[number].append(replica)
                answer = RecordedAnswer()
                answer.add({"number": number, "run": replica})
                request.end(answer)
        return answer.value

    good = 0
    with ThreadPoolExecutor(2) as pool:
        for number in range(count):
            start = threading.Barrier(2)
            first, second = (pool.submit(ask, replica, number, start) for replica in range(2))
            good += first.result() == second.result() and len(runs[number]) == 1
    for replica in replicas:
        replica.database.close()
    return good


def main() -> None:
    """Run the races on both databases."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for name, address in (("SQLite", f"sqlite:///{folder}/store.db"), ("Postgres", postgres.new_database())):
            began = time.monotonic()
            good = races(address, count)
            print(f"{name}: {good} of {count} races had one run ({time.monotonic() - began:.0f} s)")
            if good != count:
                sys.exit(1)


if __name__ == "__main__":
    main()
