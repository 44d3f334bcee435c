"""What a request follows: earlier responses by id, items by reference, calls that were approved; and what becomes of it all, the
conversation the model reads. Knows the store and items; knows no turns and no streams.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from motet.harmony import Conversation, render
from motet.server.asked import ResponsesRequest
from motet.server.auth import Key
from motet.server.errors import ApiError
from motet.server.host import Host
from motet.server.kit import Kit
from motet.server.output import response_of
from motet.server.sealed import Said
from motet.server.store import RUNNING, Record
from motet.turn import declare

Json = dict[str, Any]
ANSWER = 1024  # tokens an answer may want where nobody says
POLL_S = 0.25  # how often a response that another process makes is looked at


async def before(host: Host, request: ResponsesRequest, key: Key) -> list[Record]:
    """The turns a request follows, oldest first. ApiError when one is not there or not over."""
    id = request.previous_response_id
    if id is None:
        return []
    store = host.store
    found = None if store is None else await asyncio.to_thread(store.chain, id, key.name)
    if found is None:
        said = f"There is no response {id[:80]!r} to follow; it may be deleted, or was not stored."
        raise ApiError(404, said, param="previous_response_id", code="previous_response_not_found")
    if any(r.status in RUNNING for r in found):
        said = "The previous response is not over; wait for it."
        raise ApiError(409, said, param="previous_response_id", code="conflict")
    for record in found:
        record.read = await read(host, record.input, key)
    return found


async def read(host: Host, items: Sequence[Json], key: Key) -> list[Said]:
    """Input items as the model is to read them: in the place of references and of encrypted thinking stands what they mean.

    What is stored, and given back to callers, is the input as it came, since what they mean may be more than a caller may see.
    ApiError 404 for a reference to nothing, 400 for what cannot be decrypted.
    """
    out: list[Said] = []
    for n, item in enumerate(items):
        path = f"input[{n}]"
        if item.get("type") == "item_reference":
            out += await asyncio.to_thread(_meant, host, item.get("id"), path, key)
        elif item.get("type") == "reasoning" and item.get("encrypted_content") is not None:
            out += _opened(host, item, path, key)
        else:
            out.append((item, None))
    return out


def _meant(host: Host, id: Any, path: str, key: Key) -> list[Said]:
    record, shown = _shown(host, id, key)
    if record is not None:
        if (said := host.vault.open(key.name, (shown or {}).get("encrypted_content"))) is not None:
            return said
        for item, ids in zip(record.output, record.ids, strict=True):
            if item["id"] == id:
                return [(item, ids)]
    why = f"{path} refers to an item that is not here; it may be deleted, or was not stored."
    raise ApiError(404, why, param=path, code="not_found")


async def seen(host: Host, items: Sequence[Json], key: Key) -> list[Json]:
    """Input items as their caller may read them: for a reference what was shown of its item, if that is still there."""
    out = []
    for item in items:
        shown = None
        if item.get("type") == "item_reference":
            _, shown = await asyncio.to_thread(_shown, host, item.get("id"), key)
        out.append(item if shown is None else shown)
    return out


def _shown(host: Host, id: Any, key: Key) -> tuple[Record | None, Json | None]:
    """The stored response that an item is of, and the item as its caller saw it; None for what is not there."""
    record = host.store.find(response_of(id), key.name) if host.store and isinstance(id, str) else None
    output = record.response["output"] if record else ()
    return record, next((i for i in output if i.get("id") == id), None)


def _opened(host: Host, item: Json, path: str, key: Key) -> list[Said]:
    found = host.vault.open(key.name, item["encrypted_content"])
    if found is not None:
        return found
    if item.get("content"):  # what can be read says it all
        return [({k: v for k, v in item.items() if k != "encrypted_content"}, None)]
    field = f"{path}.encrypted_content"
    said = f"{field} was not made for this key by this server, or by one that has forgotten how; leave the item out."
    raise ApiError(400, said, param=field, code="invalid_encrypted_content")


async def elsewhere(host: Host, id: str, key: Key, end: bool = False) -> Record | None:
    """A stored response, when whatever process makes it is done with it. `end`: asks that process to stop it."""
    store = host.store
    if store is None:
        return None
    record = await asyncio.to_thread(store.find, id, key.name)
    if end and record is not None and record.status in RUNNING:
        await asyncio.to_thread(store.stop, id, key.name)
    while record is not None and record.status in RUNNING:
        await asyncio.sleep(POLL_S)
        record = await asyncio.to_thread(store.find, id, key.name)
    return record


def conversation_of(
    request: ResponsesRequest, records: Sequence[Record], after: Sequence[Json] = ()
) -> Conversation:
    """What the model reads: earlier turns as they were sampled, then the new items."""
    items: list[Json] = []
    sampled: list[tuple[str, list[int] | None]] = []  # of each assistant message, what it says and its ids
    for record in records:
        items += [item for item, _ in record.read]
        sampled += _sampled(record.read)
        for item, ids in zip(record.output, record.ids, strict=True):
            if item["type"] == "function_call" and item["status"] != "completed":
                continue  # a call that was cut off was never made
            if item["type"] in ("mcp_list_tools", "mcp_approval_request"):
                continue  # the first is declared with the tools; of the second the call is told, once it is made
            items.append(item)
            sampled.append((_text(item), ids))
    sampled += _sampled(request.said)
    conversation = Conversation.from_responses(request.conversation(items, after))
    return with_ids(conversation, sampled)


def _sampled(read: Sequence[Said]) -> list[tuple[str, list[int] | None]]:
    spoken = [(item, ids) for item, ids in read if _speaks(item)]
    return [("", None) if ids is None else (_text(item), ids) for item, ids in spoken]


def with_ids(conversation: Conversation, sampled: Sequence[tuple[str, list[int] | None]]) -> Conversation:
    """The conversation with the ids of its first assistant messages. Where a text is not the one the ids were read as, the
    text counts."""
    messages, left = list(conversation.messages), iter(sampled)
    for n, m in enumerate(messages):
        if m.role != "assistant":
            continue
        text, ids = next(left, ("", None))
        if ids is not None and text == m.text:
            messages[n] = replace(m, ids=tuple(ids))
    return replace(conversation, messages=tuple(messages))


_SPEAKS = ("function_call", "code_interpreter_call", "web_search_call", "mcp_call")


def _speaks(item: Json) -> bool:
    """Whether an input item becomes a message of the assistant."""
    if item.get("type") == "reasoning":
        return bool(item.get("content") or item.get("summary"))
    return item.get("type") in _SPEAKS or item.get("role") == "assistant"


def _text(item: Json) -> str:
    if "call" in item["type"]:
        return str(item["code"] if item["type"] == "code_interpreter_call" else item["arguments"])
    return "".join(p.get("text", "") for p in item.get("content") or ())


def fitted(
    conversation: Conversation, request: ResponsesRequest, kit: Kit, host: Host, most: int | None
) -> Conversation:
    """With truncation "auto": the conversation without its oldest turns, as many as must go for the prompt and `most` new tokens
    to fit. Instructions and the last question stay, whatever their length."""
    config = getattr(getattr(host.engine, "model", None), "config", None)
    if request.truncation != "auto" or config is None:
        return conversation
    room = config.max_position_embeddings - min(most or ANSWER, config.max_position_embeddings // 2)
    messages = conversation.messages
    asked = [n for n, m in enumerate(messages) if m.role == "user"]
    lead = next((n for n, m in enumerate(messages) if m.role not in ("system", "developer")), len(messages))

    def without(n: int) -> Conversation:
        return replace(conversation, messages=(*messages[:lead], *messages[n:]))

    def fits(n: int) -> bool:
        said = declare(without(n), kit.tools, request.rules())
        return bool(len(render(said, host.encoding)) <= room)

    if fits(lead) or not asked:
        return conversation
    return without(asked[min(bisect_left(asked, True, key=fits), len(asked) - 1)])


async def approved(host: Host, request: ResponsesRequest, records: Sequence[Record], kit: Kit) -> list[Json]:
    """Runs the calls a caller has approved, and says of others that they were not: mcp_call items without an id."""
    here = request.given
    items = [*(i for r in records for i in r.output), *request.items]
    waiting = {i.get("id"): i for i in items if i.get("type") == "mcp_approval_request"}
    for made in (i for i in items if i.get("type") == "mcp_call"):
        waiting.pop(made.get("approval_request_id"), None)
    out = []
    for n, given in enumerate(here):
        if given.get("type") != "mcp_approval_response":
            continue
        path, id = f"input[{n}].approval_request_id", given.get("approval_request_id")
        asked = waiting.pop(id, None)
        if asked is None:
            raise ApiError(400, f"{path} names no request that waits for approval.", param=path)
        if given.get("approve") is True:
            asking = asyncio.get_running_loop().run_in_executor(host.workshop.threads, kit.ask, asked, path)
            answer = await asking
            output, error = answer.text, answer.error
        else:
            output, error = f"The user did not approve this call. {given.get('reason') or ''}".strip(), True
        kept = {k: asked.get(k) for k in ("server_label", "name", "arguments")}
        said = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": output}]}
        out.append({"type": "mcp_call", **kept, "output": output, "error": said if error else None,
                    "approval_request_id": id, "status": "failed" if error else "completed"})  # fmt: skip
    return out
