"""The two tools that models know by heart, `browser` and `python`, in the words they were trained on.

Text from openai/harmony (golden files test_browser_tool_only and test_browser_and_python_tool). Runs nothing.
"""

from __future__ import annotations

from motet.harmony.schema import Function, Namespace


def _object(properties: dict[str, object], required: list[str] | None = None) -> dict[str, object]:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


_MINUS_ONE = {"type": "number", "default": -1}
BROWSER = Namespace(
    "browser",
    "Tool for browsing.\n"
    "The `cursor` appears in brackets before each browsing display: `[{cursor}]`.\n"
    "Cite information from the tool using the following format:\n"
    "`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.\n"
    "Do not quote more than 10 words directly from the tool output.\n"
    "sources=web (default: web)",
    (
        Function(
            "search",
            "Searches for information related to `query` and displays `topn` results.",
            _object(
                {
                    "query": {"type": "string"},
                    "topn": {"type": "number", "default": 10},
                    "source": {"type": "string"},
                },
                ["query"],
            ),
        ),
        Function(
            "open",
            "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing `num_lines` lines.\n"
            "Valid link ids are displayed with the formatting: `【{id}†.*】`.\n"
            "If `cursor` is not provided, the most recent page is implied.\n"
            "If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n"
            "If `loc` is not provided, the viewport will be positioned at the beginning of the document or centered on the most relevant passage, if available.\n"
            "Use this function without `id` to scroll to a new location of an opened page.",
            _object(
                {
                    "id": {"type": ["number", "string"], "default": -1},
                    "cursor": _MINUS_ONE,
                    "loc": _MINUS_ONE,
                    "num_lines": _MINUS_ONE,
                    "view_source": {"type": "boolean", "default": False},
                    "source": {"type": "string"},
                }
            ),
        ),
        Function(
            "find",
            "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
            _object({"pattern": {"type": "string"}, "cursor": _MINUS_ONE}, ["pattern"]),
        ),
    ),
)
PYTHON = Namespace(
    "python",
    "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. This tool should be used for internal reasoning, but not for code that is intended to be visible to the user (e.g. when creating plots, tables, or files).\n"
    "\n"
    "When you send a message containing Python code to python, it will be executed in a stateful Jupyter notebook environment. python will respond with the output of the execution or time out after 120.0 seconds. The drive at '/mnt/data' can be used to save and persist user files. Internet access for this session is UNKNOWN. Depends on the cluster.",
)
BUILTIN = {"browser": BROWSER, "python": PYTHON}
