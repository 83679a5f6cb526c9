"""The fake engine as a process of a stand-in pod: socket, `/readyz`, and `/live`, which reads its arena anew.

`python <this file>`; faults are read from `faults.json` in the runtime directory before each request:
``{"memory": 1000000, "dies_at": {"commit": 1}, "refuse": {"prepare": "LayoutMismatch"}}``; each death is taken once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders.fake_engine import Died, FakeEngine
from modelparams import errors
from modelparams.arena import ReadableArena
from modelparams.index import tensors_digest
from modelparams.protocol import Answer, Prepare, Region, Slot, SlotPhase

FAULTS = "faults.json"


def digest_in(arena: memoryview, index: Region) -> str:
    """The tensors' digest as they lie there.

    Raises:
        IndexInvalid: it is not the one that the publisher sealed.
    """
    readable = ReadableArena(arena, index)
    salt = bytes.fromhex(readable.index.salt)
    found = tensors_digest(salt, ((name, spec, readable.tensor(name)) for name, spec in readable.specs.items()))
    if found != readable.index.tensors_digest:
        raise errors.IndexInvalid("the tensors are not those of the index")
    return found


class ProcessEngine(FakeEngine):
    """Dies for real, and knows where each slot's index is."""

    regions: dict[Slot, Region]

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, look=digest_in)
        self.regions = {}

    def answer(self, line: bytes) -> Answer:
        self._read_faults(json.loads(line)["op"])
        return super().answer(line)

    def _read_faults(self, op: str) -> None:
        path = self.directory / FAULTS
        faults: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.memory = faults.get("memory", 1 << 40)
        refused = faults.get("refuse", {}).get(op)
        self.refusals = {op: [errors.by_reason(refused, "told to refuse")]} if refused else {}
        if faults.get("dies_at", {}).get(op, 0) > 0:
            faults["dies_at"][op] -= 1
            path.write_text(json.dumps(faults))
            os._exit(9)

    def _prepare(self, request: Prepare) -> Answer:
        answer = super()._prepare(request)
        self.regions[request.slot] = request.index
        return answer

    def live(self) -> dict[str, str]:
        """Version and digest of what a request would be answered with, computed now."""
        for slot, state in self.slots.items():
            if state.phase is SlotPhase.CURRENT and state.resident:
                arena = memoryview((self.directory / slot.file_name).read_bytes())
                return {"version": str(state.resident.version), "digest": digest_in(arena, self.regions[slot])}
        return {}


async def _http(engine: ProcessEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readline()).split()[1]
    while await reader.readline() not in (b"\r\n", b""):
        pass
    live = engine.live()
    status = "200 OK" if live or path != b"/readyz" else "503 Service Unavailable"
    body = json.dumps(live).encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until killed."""
    engine = ProcessEngine(Path(os.environ["MODELPARAMS_RUNTIME_DIR"]))
    engine.kill()  # the socket of a former life
    await engine.start()
    host, port = os.environ["MODELPARAMS_HOST"], int(os.environ["MODELPARAMS_PORT"])
    server = await asyncio.start_server(lambda r, w: _http(engine, r, w), host, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Died:
        sys.exit(9)
