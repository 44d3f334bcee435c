"""Events of a turn to the items of a response and the events of its stream, in the published order.

Items are built once, here; a response's output is the list this leaves behind, and a stream is what led to it. Ids of items
follow from the response's id, so that seen and unseen versions of one turn name the same things alike. Knows no HTTP.

    output_item.added, content_part.added, *.delta, *.done, content_part.done, output_item.done
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from motet.harmony import Delta, Event, MessageEnd, MessageStart, Summary, ToolResult, TurnDone
from motet.server.chat import token_logprobs

if TYPE_CHECKING:
    from motet.tokenizer import Encoding

Json = dict[str, Any]
_CHANNELS = {"commentary": "commentary", "final": "final_answer"}


class Output:
    """Feed it a turn; `items` is the output so far."""

    def __init__(self, response_id: str, encoding: Encoding, logprobs: bool = False) -> None:
        self.items: list[Json] = []
        self.ids: list[
            list[int] | None
        ] = []  # of each item, as sampled; None if it was not, or not as it stands
        self._of, self._encoding, self._logprobs = response_id, encoding, logprobs
        self._counts: Counter[str] = Counter()
        self._open: Json | None = None
        self._ids: list[int] | None = None
        self._said = ""
        self._tokens: list[Json] = []

    @property
    def answered(self) -> bool:
        """Whether there is something for the user or for the caller to do."""
        return any(i["type"] != "reasoning" for i in self.items)

    def feed(self, event: Event) -> list[Json]:
        """The stream events, without their sequence numbers."""
        if isinstance(event, MessageStart):
            return self._start(event)
        if isinstance(event, Delta):
            return self._delta(event)
        if isinstance(event, MessageEnd):
            return self._end(event)
        if isinstance(event, Summary):
            return self._summary(event)
        if isinstance(event, TurnDone) and self._open is not None:
            return self._end(MessageEnd("cut"))
        return self._result(event) if isinstance(event, ToolResult) else []

    def refuse(self, text: str) -> list[Json]:
        """A message that says why there is no answer."""
        item = self._message("msg", "final_answer")
        part = {"type": "refusal", "refusal": ""}
        done = {"type": "refusal", "refusal": text}
        item["content"], item["status"] = [done], "completed"
        at = {"item_id": item["id"], "output_index": len(self.items) - 1, "content_index": 0}
        begun = {**item, "content": [], "status": "in_progress"}
        return [
            self._event("output_item.added", item=begun),
            {"type": "response.content_part.added", **at, "part": part},
            {"type": "response.refusal.delta", **at, "delta": text},
            {"type": "response.refusal.done", **at, "refusal": text},
            {"type": "response.content_part.done", **at, "part": done},
            self._event("output_item.done", item=dict(item)),
        ]

    # --- messages ---

    def _start(self, start: MessageStart) -> list[Json]:
        self._ids, self._said, self._tokens = list(start.ids), "", []
        if start.is_call:
            item = self._call(start)
            return [self._event("output_item.added", item=_copy(item))]
        if start.channel == "analysis":
            item = {
                "id": self._id("rs"),
                "type": "reasoning",
                "summary": [],
                "content": [],
                "status": "in_progress",
            }
            self._add(item)
            part: Json = {"type": "reasoning_text", "text": ""}
        else:
            item = self._message("msg", _CHANNELS.get(start.channel or "", "commentary"))
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._open = item
        return [
            self._event("output_item.added", item=_copy(item)),
            self._event("content_part.added", content_index=0, part=part, item_id=item["id"]),
        ]

    def _call(self, start: MessageStart) -> Json:
        name = (start.recipient or "").removeprefix("functions.")
        item = {"id": self._id("fc"), "type": "function_call", "call_id": self._id("call"), "name": name,
                "arguments": "", "status": "in_progress"}  # fmt: skip
        self._add(item)
        self._open = item
        return item

    def _message(self, prefix: str, phase: str) -> Json:
        item: Json = {"id": self._id(prefix), "type": "message", "role": "assistant", "status": "in_progress",
                      "content": [], "phase": phase}  # fmt: skip
        self._add(item)
        return item

    def _delta(self, delta: Delta) -> list[Json]:
        item = self._open
        if self._ids is not None:
            # a text that a stop string has cut is not what was sampled
            self._ids = [*self._ids, *delta.ids] if delta.ids or not delta.text else None
        if item is None or not (delta.text or delta.ids):
            return []
        self._said += delta.text
        if item["type"] == "function_call":
            return (
                [self._event("function_call_arguments.delta", item_id=item["id"], delta=delta.text)]
                if delta.text
                else []
            )
        if item["type"] == "reasoning":
            return [
                self._event("reasoning_text.delta", item_id=item["id"], content_index=0, delta=delta.text)
            ]
        tokens = self._logarithms(delta)
        self._tokens += tokens
        return [
            self._event(
                "output_text.delta", item_id=item["id"], content_index=0, delta=delta.text, logprobs=tokens
            )
        ]

    def _logarithms(self, delta: Delta) -> list[Json]:
        if not self._logprobs:
            return []
        found = token_logprobs(delta, self._encoding)
        for entry in (e for token in found for e in (token, *token["top_logprobs"])):
            entry["bytes"] = entry["bytes"] or []  # a control token has none, and this API wants a list
        return found

    def _end(self, end: MessageEnd) -> list[Json]:
        item, self._open = self._open, None
        if item is None:
            return []
        item["status"] = "incomplete" if end.stop == "cut" else "completed"
        self.ids[self.items.index(item)] = self._framed(end, item["type"] == "function_call")
        where = {"item_id": item["id"]}
        if item["type"] == "function_call":
            item["arguments"] = self._said
            done = self._event(
                "function_call_arguments.done", **where, name=item["name"], arguments=self._said
            )
            return [done, self._event("output_item.done", item=_copy(item))]
        if item["type"] == "reasoning":
            part: Json = {"type": "reasoning_text", "text": self._said}
            text = self._event("reasoning_text.done", **where, content_index=0, text=self._said)
        else:
            part = {"type": "output_text", "text": self._said, "annotations": [], "logprobs": self._tokens}
            text = self._event(
                "output_text.done", **where, content_index=0, text=self._said, logprobs=self._tokens
            )
        item["content"] = [part]
        closed = self._event("content_part.done", **where, content_index=0, part=part)
        return [text, closed, self._event("output_item.done", item=_copy(item))]

    def _framed(self, end: MessageEnd, call: bool) -> list[int] | None:
        """The ids of a message as they stand in a later prompt: framing before, and the end that history has."""
        special = self._encoding.special
        if self._ids is None or end.stop == "cut":
            return None
        ids = list(self._ids)
        if not ids or ids[0] != special("<|start|>"):
            ids = [special("<|start|>"), *self._encoding.encode("assistant"), *ids]
        return [*ids, special("<|call|>" if call else "<|end|>")]

    def _summary(self, summary: Summary) -> list[Json]:
        item: Json = {"id": self._id("rs"), "type": "reasoning", "summary": [], "status": "in_progress"}
        self._add(item)
        added = self._event("output_item.added", item=_copy(item))
        part = {"type": "summary_text", "text": summary.text}
        where = {"item_id": item["id"], "summary_index": 0}
        item["summary"], item["status"] = [part], "completed"
        return [
            added,
            self._event("reasoning_summary_part.added", **where, part={"type": "summary_text", "text": ""}),
            self._event("reasoning_summary_text.delta", **where, delta=summary.text),
            self._event("reasoning_summary_text.done", **where, text=summary.text),
            self._event("reasoning_summary_part.done", **where, part=part),
            self._event("output_item.done", item=_copy(item)),
        ]

    def _result(self, result: ToolResult) -> list[Json]:
        """A call of something that is not there was answered by the turn itself; its item is whole already."""
        return []

    # --- bookkeeping ---

    def _add(self, item: Json) -> None:
        self.items.append(item)
        self.ids.append(None)

    def _id(self, prefix: str) -> str:
        self._counts[prefix] += 1
        digest = hashlib.sha256(f"{self._of}/{prefix}/{self._counts[prefix]}".encode()).hexdigest()
        return f"{prefix}_{digest[:40]}"

    def _event(self, kind: str, **more: Any) -> Json:
        return {"type": f"response.{kind}", "output_index": len(self.items) - 1, **more}


def _copy(item: Json) -> Json:
    return {**item, **({"content": list(item["content"])} if "content" in item else {})}
