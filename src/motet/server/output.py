"""Events of a turn to the items of a response and the events of its stream, in the published order.

Items are built once, here; a response's output is the list this leaves behind, and a stream is what led to it. Ids of items
hold the response's id, so that seen and unseen versions of one turn name the same things alike, and an item can be found by its id. Knows no HTTP.

    output_item.added, content_part.added, *.delta, *.done, content_part.done, output_item.done

A call of a tool that runs here stays open until it is answered (calls.py). Marks of citation in an answer become links, with a
url_citation each; files that code has made are cited where the answer names them, or at 0 where it does not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from motet.harmony import Artefact, Delta, Event, MessageEnd, MessageStart, Summary, ToolResult, TurnDone
from motet.server.calls import Called, called
from motet.server.chat import token_logprobs
from motet.server.files import File, mentions
from motet.server.kit import Kit
from motet.server.sealed import Said

if TYPE_CHECKING:
    from motet.tokenizer import Encoding
    from motet.tools.browser import CitationStream

Json = dict[str, Any]
NO_KIT = Kit()
ALL = ("code_interpreter_call.outputs", "web_search_call.results", "web_search_call.action.sources")
_CHANNELS = {"commentary": "commentary", "final": "final_answer"}


class Output:
    """Feed it a turn; `items` is the output so far."""

    def __init__(
        self,
        response_id: str,
        encoding: Encoding,
        logprobs: bool = False,
        kit: Kit = NO_KIT,
        include: Collection[str] = ALL,
        room: int = 0,
        seal: Callable[[Sequence[Said]], str] | None = None,
    ) -> None:
        """`room`: bytes of the files that may be handed over. `seal` makes the encrypted content of thinking, where it is wanted."""
        self.items: list[Json] = []
        self.files: list[File] = []
        self.ids: list[
            list[int] | None
        ] = []  # of each item, as sampled; None if it was not, or not as it stands
        self._of, self._encoding, self._logprobs = response_id, encoding, logprobs
        self._counts: Counter[str] = Counter()
        self._open: Json | None = None
        self._ids: list[int] | None = None
        self._said = ""
        self._tokens: list[Json] = []
        self._kit, self._include = kit, include
        self._call_here: Called | None = None  # a call of a tool that runs here, until it is answered
        self._cites: CitationStream | None = None
        self._notes: list[Json] = []
        self._room = room
        self._uncited: list[File] = []
        self._seal = seal

    @property
    def answered(self) -> bool:
        """Whether there is something for the user to read or for the caller to do; an empty message is neither."""
        said = (p for i in self.items if i["type"] == "message" for p in i["content"])
        return any(i["type"] in ("function_call", "mcp_approval_request") for i in self.items) or any(
            p.get("text") for p in said
        )

    def feed(self, event: Event) -> list[Json]:
        """The stream events, without their sequence numbers."""
        if isinstance(event, MessageStart):
            return self._start(event)
        if isinstance(event, Delta):
            return self._delta(event)
        if isinstance(event, MessageEnd):
            return self._end(event)
        if isinstance(event, Summary):
            return self.summarised(event)
        if isinstance(event, TurnDone):
            out = [] if self._open is None else self._end(MessageEnd("cut"))
            return out if self._call_here is None else [*out, *self._unanswered()]
        return self._answered(event) if isinstance(event, ToolResult) else []

    def servers(self, known: Collection[str] = ()) -> list[Json]:
        """The items that say what MCP servers offer, at the beginning; not of those the conversation knows already."""
        out: list[Json] = []
        for tool in self._kit.tools:
            space = tool.namespace
            if space.name not in self._kit.labels or space.name in known:
                continue
            item: Json = {
                "id": self._id("mcpl"),
                "type": "mcp_list_tools",
                "server_label": space.name,
                "tools": [],
            }
            self._add(item)
            out.append(self._event("output_item.added", item=dict(item)))
            item["tools"] = [
                {"name": f.name, "description": f.description, "annotations": None,
                 "input_schema": f.parameters or {"type": "object", "properties": {}}}
                for f in space.functions
            ]  # fmt: skip
            out += [
                self._event(f"mcp_list_tools.{w}", item_id=item["id"]) for w in ("in_progress", "completed")
            ]
            out.append(self._event("output_item.done", item=dict(item)))
        return out

    def made(self, calls: Sequence[Json]) -> list[Json]:
        """The items of calls that were made before the turn, once their caller had approved them."""
        out: list[Json] = []
        for call in calls:
            item = {"id": self._id("mcp"), **call}
            self._add(item)
            begun = {**item, "output": None, "error": None, "arguments": "", "status": "in_progress"}
            where, arguments = {"item_id": item["id"]}, item["arguments"]
            out += [
                self._event("output_item.added", item=begun),
                self._event("mcp_call.in_progress", **where),
                self._event("mcp_call_arguments.delta", **where, delta=arguments),
                self._event("mcp_call_arguments.done", **where, arguments=arguments),
                self._event(f"mcp_call.{item['status']}", **where),
                self._event("output_item.done", item=dict(item)),
            ]
        return out

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

    def sealed(self, hidden: Sequence[Said]) -> list[Json]:
        """An item that holds what its caller may not read, nothing else being there to hold it."""
        if self._seal is None or not hidden:
            return []
        item, added = self._thinking()
        item["encrypted_content"], item["status"] = self._seal(hidden), "completed"
        return [added, self._event("output_item.done", item=_copy(item))]

    def _thinking(self) -> tuple[Json, Json]:
        """An item of thinking nothing of which is shown as it is, and the event that adds it."""
        item: Json = {"id": self._id("rs"), "type": "reasoning", "summary": [], "status": "in_progress"}
        self._add(item)
        return item, self._event("output_item.added", item=_copy(item))

    def summarised(self, summary: Summary, hidden: Sequence[Said] = ()) -> list[Json]:
        """An item with a summary of thinking, and the thinking itself sealed."""
        item, added = self._thinking()
        part = {"type": "summary_text", "text": summary.text}
        where = {"item_id": item["id"], "summary_index": 0}
        item["summary"], item["status"] = [part], "completed"
        if self._seal is not None and hidden:
            item["encrypted_content"] = self._seal(hidden)
        return [
            added,
            self._event("reasoning_summary_part.added", **where, part={"type": "summary_text", "text": ""}),
            self._event("reasoning_summary_text.delta", **where, delta=summary.text),
            self._event("reasoning_summary_text.done", **where, text=summary.text),
            self._event("reasoning_summary_part.done", **where, part=part),
            self._event("output_item.done", item=_copy(item)),
        ]

    # --- messages ---

    def _start(self, start: MessageStart) -> list[Json]:
        self._ids, self._said, self._tokens = list(start.ids), "", []
        if start.is_call:
            return self._call(start)
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
            self._cites, self._notes = self._citations(), []
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._open = item
        return [
            self._event("output_item.added", item=_copy(item)),
            self._event("content_part.added", content_index=0, part=part, item_id=item["id"]),
        ]

    def _call(self, start: MessageStart) -> list[Json]:
        self._call_here = here = called(self._kit, start.recipient or "", self._include)
        if here is None:
            name = self._kit.whose(start.recipient or "")[1]
            item: Json = {"id": self._id("fc"), "type": "function_call", "call_id": self._id("call"), "name": name,
                          "arguments": "", "status": "in_progress"}  # fmt: skip
        else:
            item = {"id": self._id(here.prefix), **here.item, "status": "in_progress"}
            here.item = item
        self._add(item)
        self._open = item
        added = [self._event("output_item.added", item=_copy(item))]
        opening = None if here is None else here.opening
        return added if opening is None else [*added, self._event(opening, item_id=item["id"])]

    def _message(self, prefix: str, phase: str) -> Json:
        item: Json = {"id": self._id(prefix), "type": "message", "role": "assistant", "status": "in_progress",
                      "content": [], "phase": phase}  # fmt: skip
        self._add(item)
        return item

    def _delta(self, delta: Delta) -> list[Json]:
        item = self._open
        if self._ids is not None:
            # a text that a stop string has cut is not what was sampled
            self._ids = None if delta.text and not delta.ids else self._ids
            if self._ids is not None:
                self._ids += delta.ids
        if item is None or not (delta.text or delta.ids):
            return []
        if self._call_here is not None:
            self._said += delta.text
            event = self._call_here.delta(delta.text) if delta.text else None
            return [] if event is None else [self._event(event[0], item_id=item["id"], **event[1])]
        if item["type"] == "message" and self._cites is not None:
            return self._cited(item, delta)
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
        return [self._text(item, delta.text, self._logarithms(delta))]

    def _text(self, item: Json, text: str, tokens: list[Json]) -> Json:
        self._tokens += tokens
        return self._event(
            "output_text.delta", item_id=item["id"], content_index=0, delta=text, logprobs=tokens
        )

    def _cited(self, item: Json, delta: Delta, last: bool = False) -> list[Json]:
        """A piece of an answer with links for marks; what may become a mark waits."""
        assert self._cites is not None
        text, found = self._cites.feed(delta.text, last)
        tokens = self._logarithms(delta)
        out = [self._text(item, text, tokens)] if text or tokens or delta.ids else []
        self._said += text
        for c in found:
            note = {"type": "url_citation", "start_index": c.start_index, "end_index": c.end_index, "title": c.title, "url": c.url}  # fmt: skip
            out.append(self._note(item, note))
        return out

    def _note(self, item: Json, note: Json) -> Json:
        where = {"item_id": item["id"], "content_index": 0, "annotation_index": len(self._notes)}
        self._notes.append(note)
        return self._event("output_text.annotation.added", **where, annotation=note)

    def _cited_files(self, item: Json) -> list[Json]:
        """Citations of the files an answer names, and of those of this response that it does not."""
        session = self._kit.session
        if session is None or item["phase"] != "final_answer":
            return []
        known = session.named | {f.name: f.id for f in self.files}
        said = [(begin, end, name, known[name]) for begin, end, name in mentions(self._said, known)]
        ids = {id for _, _, _, id in said}
        # first, since whoever saves by name shall end with the one that was named
        said = [*((0, 0, f.name, f.id) for f in self._uncited if f.id not in ids), *said]
        self._uncited = []
        of = {"type": "container_file_citation", "container_id": self._kit.container}
        return [
            self._note(item, {**of, "file_id": id, "filename": name, "start_index": begin, "end_index": end})
            for begin, end, name, id in said
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
        self.ids[self.items.index(item)] = self._framed(end, "call" in item["type"])
        if self._call_here is not None:
            if end.stop == "cut":
                item["status"] = "incomplete"
            return [
                self._event(k, item_id=item["id"], **more) for k, more in self._call_here.said(self._said)
            ]
        item["status"] = "incomplete" if end.stop == "cut" else "completed"
        where = {"item_id": item["id"]}
        if item["type"] == "function_call":
            item["arguments"] = self._said
            done = self._event(
                "function_call_arguments.done", **where, name=item["name"], arguments=self._said
            )
            return [done, self._event("output_item.done", item=_copy(item))]
        out: list[Json] = []
        if item["type"] == "reasoning":
            part: Json = {"type": "reasoning_text", "text": self._said}
            out.append(self._event("reasoning_text.done", **where, content_index=0, text=self._said))
        else:
            out += [] if self._cites is None else self._cited(item, Delta(""), last=True)
            out += self._cited_files(item)
            part = {
                "type": "output_text", "text": self._said, "annotations": list(self._notes), "logprobs": self._tokens,
            }  # fmt: skip
            told = {"text": self._said, "logprobs": self._tokens}
            out.append(self._event("output_text.done", **where, content_index=0, **told))
        item["content"] = [part]
        if item["type"] == "reasoning" and self._seal is not None:
            item["encrypted_content"] = self._seal([(item, self.ids[-1])])
        out.append(self._event("content_part.done", **where, content_index=0, part=part))
        return [*out, self._event("output_item.done", item=_copy(item))]

    def _framed(self, end: MessageEnd, call: bool) -> list[int] | None:
        """The ids of a message as they stand in a later prompt: framing before, and the end that history has."""
        special = self._encoding.special
        if self._ids is None or end.stop == "cut":
            return None
        ids = list(self._ids)
        if not ids or ids[0] != special("<|start|>"):
            ids = [special("<|start|>"), *self._encoding.encode("assistant"), *ids]
        return [*ids, special("<|call|>" if call else "<|end|>")]

    def _answered(self, result: ToolResult) -> list[Json]:
        """The answer to a call of a tool that runs here. One to something that is not there finds no open item: the turn
        has answered it, and the item is whole; nor does one to a call that may not be seen."""
        here, self._call_here = self._call_here, None
        if here is None:
            return []
        told = here.answered(result)
        item = here.item
        if item["type"] == "code_interpreter_call":
            self._hand_over(item, result.artefacts)
        if item["status"] == "in_progress":
            item["status"] = "failed" if result.error and item["type"] == "mcp_call" else "completed"
        return [
            *([] if told is None else [self._event(told, item_id=item["id"])]),
            self._event("output_item.done", item=_copy(item)),
        ]

    def _hand_over(self, item: Json, artefacts: Sequence[Artefact]) -> None:
        """Names the files of a call, and those that were too many bytes to keep, under keys of our own."""
        made: list[File] = []
        for a in artefacts:
            if len(a.data) > self._room:
                item.setdefault("files_not_kept", []).append(a.name)
                continue
            self._room -= len(a.data)
            id = self._id("cfile")
            made.append(File(id, self._kit.container, a.name, a.mime, len(a.data), time.time(), a.data))
        if made:
            item["files"] = [{"file_id": f.id, "filename": f.name, "bytes": f.size} for f in made]
        self.files += made
        self._uncited += made

    def _unanswered(self) -> list[Json]:
        here, self._call_here = self._call_here, None
        assert here is not None
        here.item["status"] = (
            "completed" if here.opening is None and here.item["status"] != "incomplete" else "incomplete"
        )
        return [self._event("output_item.done", item=_copy(here.item))]

    def _citations(self) -> CitationStream | None:
        browser = self._kit.browser
        if browser is None:
            return None
        from motet.tools.browser import CitationStream

        return CitationStream(browser.address)

    # --- bookkeeping ---

    def _add(self, item: Json) -> None:
        self.items.append(item)
        self.ids.append(None)

    def _id(self, prefix: str) -> str:
        self._counts[prefix] += 1
        return f"{prefix}_{self._of.removeprefix('resp_')}{self._counts[prefix]:04x}"

    def _event(self, kind: str, **more: Any) -> Json:
        return {"type": f"response.{kind}", "output_index": len(self.items) - 1, **more}


def response_of(item_id: str) -> str:
    """The id of the response an item is of, if it is of one."""
    return f"resp_{item_id.partition('_')[2][:-4]}"


def _copy(item: Json) -> Json:
    return {**item, **({"content": list(item["content"])} if "content" in item else {})}
