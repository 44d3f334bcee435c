"""The stream of a response as a client adds it up, for tests that compare it with the object at its end."""

from __future__ import annotations

from typing import Any


def fold_events(events: list[Any]) -> list[dict[str, Any]]:
    """The output as a client adds it up from deltas alone, checking the order of the published stream on the way."""
    items: list[dict[str, Any]] = []
    open_item: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    assert [e.sequence_number for e in events] == list(range(len(events)))
    for e in events:
        kind = e.type.removeprefix("response.")
        if hasattr(e, "output_index"):
            assert e.output_index == len(items) - (kind != "output_item.added")
        if hasattr(e, "item_id"):
            assert open_item is not None and e.item_id == open_item["id"]
        if kind == "output_item.added":
            assert open_item is None and getattr(e.item, "status", "in_progress") == "in_progress"
            open_item = {"id": e.item.id, "type": e.item.type, "parts": [], "arguments": ""}
            items.append(open_item)
        elif kind in ("content_part.added", "reasoning_summary_part.added"):
            assert part is None and open_item is not None
            part = {"text": ""}
            open_item["parts"].append(part)
        elif kind in (
            "output_text.delta",
            "reasoning_text.delta",
            "reasoning_summary_text.delta",
            "refusal.delta",
        ):
            assert part is not None
            part["text"] += e.delta
        elif kind in ("output_text.done", "reasoning_text.done", "reasoning_summary_text.done"):
            assert part is not None and e.text == part["text"]
        elif kind in ("content_part.done", "reasoning_summary_part.done"):
            part = None
        elif kind == "output_text.annotation.added":
            assert part is not None and e.annotation_index == len(part.setdefault("annotations", []))
            part["annotations"].append(e.annotation.model_dump())
        elif kind in (
            "function_call_arguments.delta",
            "mcp_call_arguments.delta",
            "code_interpreter_call_code.delta",
        ):
            assert open_item is not None
            open_item["arguments"] += e.delta
        elif kind in ("function_call_arguments.done", "mcp_call_arguments.done"):
            assert open_item is not None and e.arguments == open_item["arguments"]
        elif kind == "code_interpreter_call_code.done":
            assert open_item is not None and e.code == open_item["arguments"]
        elif kind == "output_item.done":
            assert part is None and open_item is not None and e.item.id == open_item["id"]
            open_item = None
    assert open_item is None
    return items


def summed(output: list[Any]) -> list[dict[str, Any]]:
    """A finished output in the form of `fold_events`."""
    out = []
    for item in output:
        parts = [*(getattr(item, "summary", None) or []), *(getattr(item, "content", None) or [])]
        texts: list[dict[str, Any]] = [
            {"text": getattr(p, "text", None) or getattr(p, "refusal", "")} for p in parts
        ]
        for text, p in zip(texts, parts, strict=True):
            if getattr(p, "annotations", None):
                text["annotations"] = [a.model_dump() for a in p.annotations]
        said = (
            "" if item.type in ("web_search_call", "mcp_approval_request") else getattr(item, "arguments", "")
        )
        out.append(
            {"id": item.id, "type": item.type, "parts": texts, "arguments": getattr(item, "code", said)}
        )
    return out
