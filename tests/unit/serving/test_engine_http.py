"""The OpenAI-compatible front of an engine with a real, tiny model."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from builders.arenas import tiny
from builders.engines import engine, put_live, stage, until
from modelparams_serving.engine import rendering, tokenizing
from modelparams_serving.engine.__main__ import Engine
from modelparams_serving.engine.metrics import Metrics

pytestmark = pytest.mark.model
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GREEDY = {"prompt": "hello", "temperature": 0, "max_tokens": 12, "return_token_ids": True}
HELLO = [{"role": "user", "content": "hello"}]
Scene = Callable[[Engine, httpx.AsyncClient], Awaitable[Any]]


def live(directory: Path, scene: Scene, **changes: Any) -> Any:
    """Play a scene on an engine that serves tiny-llama 1.0.0."""

    async def whole() -> Any:
        async with engine(directory, **changes) as (made, client):
            await put_live(made.swapper, tiny())
            return await scene(made, client)

    return asyncio.run(whole())


async def events(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Any]:
    """The events of a stream, the end mark as None."""
    found = []
    async with client.stream("POST", path, json=body | {"stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line:
                data = line.removeprefix("data: ")
                found.append(None if data == "[DONE]" else json.loads(data))
    return found


def test_nothing_is_ready_before_a_version_is_applied(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path) as (made, client):
            assert (await client.get("/healthz")).status_code == 200
            await stage(made.swapper, tiny())
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/v1/models")).json()["data"] == []
            refused = await client.post(COMPLETIONS, json=GREEDY)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "no_version"
            made.swapper.commit(tiny().commit())
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post(COMPLETIONS, json=GREEDY)).status_code == 200

    asyncio.run(scene())


def test_every_answer_names_the_version_that_made_it(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        await stage(made.swapper, tiny("1.1.0"))
        for version in (tiny("1.0.0"), tiny("1.1.0")):
            made.swapper.commit(version.commit())
            for path, body in ((COMPLETIONS, GREEDY), (CHAT, {"messages": HELLO, "max_tokens": 2})):
                answer = await client.post(path, json=body)
                assert answer.headers["x-modelparams-version"] == str(version.resident.version)
                assert answer.headers["x-modelparams-digest"] == str(version.digest)
                named = {"version": str(version.resident.version), "digest": str(version.digest)}
                assert answer.json()["model_params"] == named
                assert answer.json()["system_fingerprint"] == version.digest.short
                assert answer.json()["model"] == "tiny-llama"
                assert all(e is None or e["model_params"] == named for e in await events(client, path, body))

    live(tmp_path, scene)


def test_a_stream_carries_the_tokens_and_text_of_the_whole_answer(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        whole = (await client.post(COMPLETIONS, json=GREEDY)).json()
        chunks = await events(client, COMPLETIONS, GREEDY | {"stream_options": {"include_usage": True}})
        assert chunks.pop() is None
        assert chunks.pop()["usage"] == whole["usage"]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
        assert [t for choice in choices for t in choice["token_ids"]] == whole["choices"][0]["token_ids"]
        assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
        assert choices[-1]["finish_reason"] == "length" == whole["choices"][0]["finish_reason"]
        assert len(chunks) > 5

    live(tmp_path, scene)


def test_chat_streams_deltas_and_renders_the_versions_own_template(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        body = {"messages": HELLO, "max_tokens": 5, "temperature": 0, "return_token_ids": True}
        whole = (await client.post(CHAT, json=body)).json()
        assert whole["object"] == "chat.completion"
        assert made.swapper.current is not None
        assert whole["prompt_token_ids"] == made.swapper.current.tokenizer.chat(HELLO)
        first, *rest = await events(client, CHAT, body)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in rest if chunk)
        assert text == whole["choices"][0]["message"]["content"]

    live(tmp_path, scene)


def test_a_prompt_of_token_ids_is_taken_as_it_is(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        answer = (await client.post(COMPLETIONS, json=GREEDY | {"prompt": [9, 8, 7]})).json()
        assert answer["prompt_token_ids"] == [9, 8, 7]

    live(tmp_path, scene)


def test_a_seed_repeats_an_answer_and_greedy_ignores_it(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async def ids(**wish: Any) -> list[int]:
            body = GREEDY | {"temperature": 1.0, "max_tokens": 20} | wish
            found: list[int] = (await client.post(COMPLETIONS, json=body)).json()["choices"][0]["token_ids"]
            return found

        beside = asyncio.gather(*(ids(seed=n) for n in range(4)))
        assert await ids(seed=1) == await ids(seed=1) == (await beside)[1]
        assert await ids(seed=1) != await ids(seed=2)
        assert await ids(seed=1, temperature=0) == await ids(seed=2, temperature=0)

    live(tmp_path, scene)


def test_a_stop_string_ends_the_answer_before_it(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        full = (await client.post(COMPLETIONS, json=GREEDY)).json()["choices"][0]["text"]
        stop = next(c for c in full[1:] if c.isascii() and c != full[0])
        cut = (await client.post(COMPLETIONS, json=GREEDY | {"stop": [stop]})).json()["choices"][0]
        assert (cut["text"], cut["finish_reason"]) == (full[: full.index(stop)], "stop")

    live(tmp_path, scene)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETIONS, {}, "prompt"),
    (COMPLETIONS, {"prompt": ""}, "no tokens"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "one prompt"),
    (COMPLETIONS, {"prompt": [100_000]}, "token ids are 0 to"),
    (COMPLETIONS, {"prompt": "a", "n": 2}, "n is not supported"),
    (COMPLETIONS, {"prompt": "a", "logprobs": 1}, "logprobs is not supported"),
    (COMPLETIONS, {"prompt": "a", "logprobs": 0}, "logprobs is not supported"),
    (COMPLETIONS, {"prompt": "a", "top_k": 5}, "top_k is not supported"),
    (COMPLETIONS, {"prompt": "a", "repetition_penalty": 1.1}, "repetition_penalty is not supported"),
    (COMPLETIONS, {"prompt": "a", "stop": 5}, "stop: give a text or a list of at most 16 texts"),
    (COMPLETIONS, {"prompt": ["a", 1]}, "prompt: give a text or a list of token ids"),
    (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature"),
    (COMPLETIONS, {"prompt": "a", "top_p": 0}, "top_p"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 100_000}, "exceed the context of 256 tokens"),
    (COMPLETIONS, {"prompt": "a" * 1000, "max_tokens": 1}, "exceed the context"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": HELLO, "tools": [{}]}, "tools is not supported"),
    (CHAT, {"messages": HELLO, "logprobs": True}, "logprobs is not supported"),
    (CHAT, {"messages": HELLO, "chat_template": "{{ 1 }}"}, "chat_template is not supported"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only parts of type text"),
    (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "tools are not"),
    ("/v1/embeddings", {"input": "a"}, "generates text"),
]


def test_a_bad_request_is_told_what_is_wrong_and_harms_nobody(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        for path, body, says in REFUSED:
            refused = await client.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error"), body
            assert says in refused.json()["error"]["message"], body
            assert (await client.post(COMPLETIONS, json=GREEDY)).status_code == 200, body

    live(tmp_path, scene)


BLAMED: list[tuple[str, dict[str, Any], str | None]] = [
    (COMPLETIONS, {}, "prompt"),
    (COMPLETIONS, {"prompt": ""}, "prompt"),
    (COMPLETIONS, {"prompt": [100_000]}, "prompt"),
    (COMPLETIONS, {"prompt": "a" * 1000}, "prompt"),
    (COMPLETIONS, {"prompt": "a" * 100_000}, "prompt"),
    (COMPLETIONS, {"prompt": "a", "n": 2}, "n"),
    (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature"),
    (COMPLETIONS, {"prompt": "a", "model": "another"}, "model"),
    (COMPLETIONS, {"prompt": "a", "tools": [{}], "n": 2}, "n"),
    (CHAT, {"messages": HELLO, "tools": [{}]}, "tools"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 1000}]}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 100_000}]}, "messages"),
    (CHAT, {"messages": [*HELLO, {"role": "user"}]}, "messages.1.content"),
    ("/v1/embeddings", {"input": "a", "dimensions": 5}, "dimensions"),
    ("/v1/embeddings", {"input": "a"}, None),
]


def test_an_error_names_the_field_that_is_to_blame(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        answers = [await client.post(path, json=body) for path, body, _ in BLAMED]
        assert [answer.json()["error"]["param"] for answer in answers] == [param for *_, param in BLAMED]
        broken = await client.post(COMPLETIONS, content=b"{")
        assert broken.json()["error"]["param"] is None

    live(tmp_path, scene)


def test_fields_that_ask_for_nothing_are_taken_as_clients_send_them(tmp_path: Path) -> None:
    nothing = {"n": 1, "logprobs": None, "logit_bias": {}, "top_k": -1, "frequency_penalty": 0.0, "user": "me"}

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        plain, more = [await client.post(COMPLETIONS, json=GREEDY | fields) for fields in ({}, nothing)]
        assert more.json()["choices"] == plain.json()["choices"]

    live(tmp_path, scene)


def test_a_message_in_parts_is_the_same_as_their_text(tmp_path: Path) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    whole = [{"role": "user", "content": "hel\nlo"}]

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        bodies = [{"messages": m, "max_tokens": 1, "return_token_ids": True} for m in (parts, whole)]
        one, two = [(await client.post(CHAT, json=body)).json()["prompt_token_ids"] for body in bodies]
        assert one == two

    live(tmp_path, scene)


def test_a_temperature_too_small_to_divide_by_is_greedy(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        bodies = [GREEDY | {"temperature": t, "top_p": 0.9} for t in (0, 1e-40, 1e-6)]
        said = [(await client.post(COMPLETIONS, json=body)).json()["choices"][0]["token_ids"] for body in bodies]
        assert said[0] == said[1] == said[2]

    live(tmp_path, scene)


def test_a_body_longer_than_any_request_is_refused(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b" " * 500

        for content in (b" " * 1500, pieces()):  # with its length in the head, and without
            refused = await client.post(COMPLETIONS, content=content)
            assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
        assert (await client.post(COMPLETIONS, json=GREEDY)).status_code == 200

    live(tmp_path, scene, max_body_bytes=1000)


def test_what_cannot_fit_is_refused_before_tokens_are_made_of_it(tmp_path: Path) -> None:
    """Of megabytes that takes seconds, in which no swap and no probe would be answered."""
    empty = {"role": "user", "content": ""}
    hostile = [
        (COMPLETIONS, {"prompt": "a" * 100_000}),
        (COMPLETIONS, {"prompt": [1] * 100_000}),
        (CHAT, {"messages": [{"role": "user", "content": "a" * 100_000}]}),
        (CHAT, {"messages": [{"role": "u" * 100_000, "content": "a"}]}),
        (CHAT, {"messages": [empty] * 10_000}),
    ]

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        tokenizer, made_of = made.swapper.current.tokenizer, []
        tokenizer.encode = lambda text, **_: made_of.append(text)  # type: ignore[method-assign,assignment,func-returns-value]
        for path, body in hostile:
            assert (await client.post(path, json=body)).status_code == 400
        assert made_of == []

    live(tmp_path, scene)


def test_a_long_prompt_is_made_tokens_of_beside_the_loop_that_swaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "_SHORT", 1000)

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        tokenizer, threads = made.swapper.current.tokenizer, []
        encode = tokenizer.encode

        def noting(text: str, *, special: bool) -> list[int]:
            threads.append(threading.current_thread() is threading.main_thread())
            return encode(text, special=special)

        tokenizer.encode = noting  # type: ignore[method-assign]
        for text in ("a", "a" * 5000):
            await client.post(COMPLETIONS, json={"prompt": text})
            await client.post(CHAT, json={"messages": [{"role": "user", "content": text}]})
        # A chat's is rendered by a template, which may go on without end, whatever it is of.
        assert threads == [True, False, False, False]

    live(tmp_path, scene)


def test_a_template_without_end_is_left_and_takes_a_place_from_chats_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_AT_ONCE", 1)
    monkeypatch.setattr(rendering, "_SECONDS", 0.1)
    ends = threading.Event()

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        tokenizer = made.swapper.current.tokenizer
        chat = tokenizer.chat
        tokenizer.chat = lambda messages: chat(messages) if ends.wait() else []  # type: ignore[method-assign]
        for _ in ("left", "without a place"):
            refused = await client.post(CHAT, json={"messages": HELLO})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["type"] == "server_error"
            assert "chat template did not end in time" in refused.json()["error"]["message"]
        assert made.swapper.requests == 0
        assert sum(thread.name == "render" for thread in threading.enumerate()) == 1
        assert (await client.post(COMPLETIONS, json=GREEDY)).status_code == 200
        monkeypatch.setattr(rendering, "_SECONDS", 60.0)
        ends.set()
        assert (await client.post(CHAT, json={"messages": HELLO, "max_tokens": 2})).status_code == 200

    try:
        live(tmp_path, scene)
    finally:
        ends.set()


def test_a_template_that_fails_on_the_messages_is_the_requests_fault(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path) as (made, client):
            await put_live(made.swapper, tiny(assets={"chat_template.jinja": b"{{ messages[0]['content'] + 1 }}"}))
            refused = await client.post(CHAT, json={"messages": HELLO})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_prompt")

    asyncio.run(scene())


def test_what_nobody_thought_of_is_an_error_in_the_same_form(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        made.swapper.current.tokenizer.encode = None  # type: ignore[method-assign, assignment]
        failed = await client.post(COMPLETIONS, json=GREEDY)
        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
        assert failed.headers["x-modelparams-version"] == "1.0.0"
        assert made.swapper.requests == 0
        assert 'code="500"' in (await client.get("/metrics")).text

    live(tmp_path, scene)


def test_an_error_names_the_version_that_the_request_began_on(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        await stage(made.swapper, tiny("1.1.0"))
        assert made.swapper.current is not None
        service = made.swapper.current.service
        running = asyncio.create_task(client.post(COMPLETIONS, json=GREEDY | {"max_tokens": 200}))
        await until(lambda: made.swapper.requests == 1)
        made.swapper.commit(tiny("1.1.0").commit())
        service._manager.model.forward = None  # type: ignore[union-attr]
        failed = await running
        assert (failed.status_code, failed.headers["x-modelparams-version"]) == (503, "1.0.0")

    live(tmp_path, scene)


def test_another_model_or_path_or_no_json_is_refused(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        other = await client.post(COMPLETIONS, json=GREEDY | {"model": "gpt-9"})
        assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.post(COMPLETIONS, json=GREEDY | {"model": "tiny-llama"})).status_code == 200
        assert (await client.get("/v2")).status_code == 404
        listed = (await client.get("/v1/models")).json()["data"][0]
        assert listed["id"] == "tiny-llama"
        assert (await client.get("/v1/models/tiny-llama")).json() == listed
        other = await client.get("/v1/models/other")
        assert (other.status_code, other.json()["error"]["message"][:22]) == (404, "there is no such model")
        assert (await client.get(COMPLETIONS)).status_code == 405
        assert (await client.post(COMPLETIONS, content=b"{")).status_code == 400

    live(tmp_path, scene)


def test_more_than_the_engine_takes_are_told_to_come_back(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        with made.swapper.lease():
            refused = await client.post(COMPLETIONS, json=GREEDY)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await client.post(COMPLETIONS, json=GREEDY)).status_code == 200

    live(tmp_path, scene, max_requests=1)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(tmp_path: Path, stream: bool) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        body = json.dumps(GREEDY | {"max_tokens": 240, "stream": stream}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await until(lambda: made.swapper.requests == 1)
        if stream:
            await reader.readuntil(b"token_ids")
        writer.close()
        await until(lambda: made.swapper.requests == 0)
        assert made.swapper.current is not None
        manager = made.swapper.current.service._manager  # type: ignore[union-attr]
        await until(lambda: not manager.batch_processor.has_pending_requests())

    live(tmp_path, scene)


def test_a_client_that_leaves_the_line_before_the_template_keeps_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "monotonic", lambda: 0.0)  # the line moves, so nobody in it is refused

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        places = made.swapper.current.renderer._places
        while not places.locked():
            await places.acquire()
        body = json.dumps({"messages": HELLO}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: made.swapper.requests == 1)
        writer.close()
        await until(lambda: made.swapper.requests == 0, seconds=20)

    live(tmp_path, scene)


def test_a_stream_that_fails_ends_with_an_error_and_no_end_mark(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        made.swapper.current.service._manager.model.forward = None  # type: ignore[union-attr]
        *_, last = await events(client, COMPLETIONS, GREEDY)
        assert last["error"]["type"] == "server_error"
        assert (await client.post(COMPLETIONS, json=GREEDY)).status_code == 503
        assert (await client.get("/healthz")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503

    live(tmp_path, scene)


def test_while_it_leaves_the_engine_is_unready_and_finishes_what_runs(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path) as (made, client):
            await put_live(made.swapper, tiny())
            running = asyncio.create_task(client.post(COMPLETIONS, json=GREEDY | {"max_tokens": 200}))
            await until(lambda: made.swapper.requests == 1)
            made.drain.begin()
            unready = await client.get("/readyz")
            late = await client.post(COMPLETIONS, json=GREEDY)  # routed before the pod's unreadiness was known
            assert (unready.status_code, late.status_code) == (503, 200)
            assert (await running).json()["usage"]["completion_tokens"] == 200

    asyncio.run(scene())


def test_an_engine_that_has_said_long_enough_that_it_leaves_refuses_new_requests(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path, late_seconds=0) as (made, client):
            await put_live(made.swapper, tiny())
            running = asyncio.create_task(client.post(COMPLETIONS, json=GREEDY | {"max_tokens": 200}))
            await until(lambda: made.swapper.requests == 1)
            made.drain.begin()
            late = await client.post(COMPLETIONS, json=GREEDY)
            assert (late.status_code, late.headers["retry-after"], late.headers["connection"]) == (503, "1", "close")
            assert late.json()["error"]["code"] == "leaving"
            assert (await running).json()["usage"]["completion_tokens"] == 200

    asyncio.run(scene())


def test_metrics_count_requests_tokens_and_pauses_by_version(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        await client.post(COMPLETIONS, json=GREEDY)
        await events(client, COMPLETIONS, GREEDY)
        text = (await client.get("/metrics")).text
        assert 'modelparams_engine_requests_total{code="200",endpoint="completions",version="1.0.0"} 2.0' in text
        assert 'modelparams_engine_tokens_total{version="1.0.0"} 24.0' in text
        assert "modelparams_engine_swap_pause_seconds_count 1.0" in text
        assert f'digest="{tiny().digest}",model="tiny-llama",version="1.0.0"}} 1.0' in text

    live(tmp_path, scene)


def test_metrics_keep_the_versions_that_the_slots_hold_and_forget_the_rest(tmp_path: Path) -> None:
    """A pod that is never restarted would tell of every version that it ever served, at each scrape."""

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        await client.post(COMPLETIONS, json=GREEDY)
        for version in ("1.1.0", "1.2.0"):
            await put_live(made.swapper, tiny(version))
            await client.post(COMPLETIONS, json=GREEDY)
        text = (await client.get("/metrics")).text
        counted = "modelparams_engine_requests_total", "modelparams_engine_tokens_total"
        told = [line for line in text.splitlines() if line.startswith(counted)]
        assert [sum(f'version="1.{minor}.0"' in line for line in told) for minor in range(3)] == [0, 2, 2]

    live(tmp_path, scene)


def test_an_answer_that_ends_after_its_version_was_dropped_is_forgotten_with_the_next() -> None:
    metrics = Metrics()
    for code, version in (("200", "1.0.0"), ("499", "1.0.0"), ("200", "1.2.0"), ("503", "")):
        metrics.requests.labels("embeddings", code, version).inc()
    metrics.keep_only({"1.2.0", "1.3.0"})
    text = metrics.text().decode()
    assert [f'version="{version}"' in text for version in ("1.0.0", "1.2.0", "")] == [False, True, True]


def test_embeddings_can_be_asked_for_as_base64() -> None:
    from modelparams_serving.engine.pooling import encoded

    given = encoded(array("f", [1.0, -2.0]), "base64")
    assert isinstance(given, str)
    assert struct.unpack("<2f", base64.b64decode(given)) == (1.0, -2.0)
