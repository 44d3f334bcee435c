"""Calls of tools that run here, as items and their events: code_interpreter_call, web_search_call, mcp_call.

An item is opened by a call, named by its arguments and closed by the tool's answer. What was asked and answered word for word
stands in it too (`arguments`, `output`), since the API's own fields do not hold it and a conversation that is sent back as
items must. Knows items; knows no turns.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from typing import Any, Protocol

from motet.harmony import ToolResult
from motet.server.kit import Kit

Json = dict[str, Any]
Said = tuple[str, Json]
"""(the name of an event without `response.`, its fields)"""
IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif")


class Called(Protocol):
    """A call under way."""

    prefix: str
    item: Json
    opening: str | None

    def delta(self, text: str) -> Said | None:
        """The event of a piece of the call's text, if there is one."""
        ...

    def said(self, text: str) -> list[Said]:
        """The events of a call that is complete and now runs."""
        ...

    def answered(self, result: ToolResult) -> str | None:
        """Takes the answer in; the name of the event that tells it."""
        ...


def called(kit: Kit, recipient: str, include: Collection[str]) -> Called | None:
    """The item of a call; None for a function of the caller's, whom it leaves to run it."""
    space, name = kit.whose(recipient)
    if space == "functions":
        return None
    if kit.waits(recipient):
        return _Ask(space, name)
    if space == "python":
        return _Python(kit, include)
    return _Search(kit, name, include) if space == "browser" else _Mcp(space, name)


class _Python:
    prefix = "ci"
    opening: str | None = "code_interpreter_call.in_progress"

    def __init__(self, kit: Kit, include: Collection[str]) -> None:
        self._shows = "code_interpreter_call.outputs" in include
        self.item: Json = {
            "type": "code_interpreter_call",
            "code": "",
            "container_id": kit.container,
            "outputs": None,
        }

    def delta(self, text: str) -> Said | None:
        return "code_interpreter_call_code.delta", {"delta": text}

    def said(self, text: str) -> list[Said]:
        self.item["code"] = text
        return [
            ("code_interpreter_call_code.done", {"code": text}),
            ("code_interpreter_call.interpreting", {}),
        ]

    def answered(self, result: ToolResult) -> str | None:
        if self._shows:
            pictures = [a for a in result.artefacts if a.mime in IMAGES]
            outputs: list[Json] = [{"type": "logs", "logs": result.text}]
            for a in pictures:
                url = f"data:{a.mime};base64,{base64.b64encode(a.data).decode()}"
                outputs.append({"type": "image", "url": url})
            self.item["outputs"] = outputs
        return "code_interpreter_call.completed"


class _Search:
    prefix = "ws"
    opening: str | None = "web_search_call.in_progress"

    def __init__(self, kit: Kit, name: str, include: Collection[str]) -> None:
        self._kit, self._include, self._name = kit, include, name
        self.item: Json = {"type": "web_search_call", "action": self._action({}, None), "arguments": ""}

    def delta(self, text: str) -> Said | None:
        return None

    def said(self, text: str) -> list[Said]:
        self.item["arguments"] = text
        self.item["action"] = self._action(_object(text), None)
        return [("web_search_call.searching", {})]

    def answered(self, result: ToolResult) -> str | None:
        self.item["action"] = self._action(_object(self.item["arguments"]), result)
        if "web_search_call.results" in self._include:
            self.item["output"] = result.text
        return "web_search_call.completed"

    def _action(self, arguments: Json, result: ToolResult | None) -> Json:
        """What the API calls it; where it led is known from the page that was shown."""
        browser = self._kit.browser
        page = None if browser is None or result is None or result.error else browser.shown(result.text)
        url = "" if page is None else page.url.split("/find?pattern=")[0]
        if self._name == "open":
            given = arguments.get("id")
            return {"type": "open_page", "url": url or (given if isinstance(given, str) else None)}
        if self._name == "find":
            return {"type": "find_in_page", "pattern": _text(arguments.get("pattern")), "url": url}
        query = _text(arguments.get("query"))
        action: Json = {"type": "search", "query": query, "queries": [query]}
        if "web_search_call.action.sources" in self._include:
            links = [] if page is None else dict.fromkeys(page.links.values())
            action["sources"] = [{"type": "url", "url": u} for u in links]
        return action


class _Ask:
    """A call that waits for approval: it ends the turn, and is not made."""

    prefix = "mcpr"
    opening: str | None = None

    def __init__(self, label: str, name: str) -> None:
        self.item: Json = {
            "type": "mcp_approval_request",
            "server_label": label,
            "name": name,
            "arguments": "",
        }

    def delta(self, text: str) -> Said | None:
        return None

    def said(self, text: str) -> list[Said]:
        self.item["arguments"] = text
        return []

    def answered(self, result: ToolResult) -> str | None:
        return None


class _Mcp:
    prefix = "mcp"
    opening: str | None = "mcp_call.in_progress"

    def __init__(self, label: str, name: str) -> None:
        self.item: Json = {"type": "mcp_call", "server_label": label, "name": name, "arguments": "", "output": None,
                           "error": None, "approval_request_id": None}  # fmt: skip

    def delta(self, text: str) -> Said | None:
        return "mcp_call_arguments.delta", {"delta": text}

    def said(self, text: str) -> list[Said]:
        self.item["arguments"] = text
        return [("mcp_call_arguments.done", {"arguments": text})]

    def answered(self, result: ToolResult) -> str | None:
        self.item["output"] = result.text
        if result.error:
            said = [{"type": "text", "text": result.text}]
            self.item["error"] = {"type": "mcp_tool_execution_error", "content": said}
            return "mcp_call.failed"
        return "mcp_call.completed"


def _object(text: str) -> Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
