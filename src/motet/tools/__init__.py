"""What a model can call. Knows messages and namespaces; knows no model and no engine."""

from motet.tools.base import Answer, Artefact, Tool, ToolError, cancelled, progress
from motet.tools.functions import FunctionTool
from motet.tools.named import named, toolbox

__all__ = [
    "Answer",
    "Artefact",
    "FunctionTool",
    "Tool",
    "ToolError",
    "cancelled",
    "named",
    "progress",
    "toolbox",
]
