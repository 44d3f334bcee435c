"""What a model can call. Knows messages and namespaces; knows no model and no engine."""

from motet.tools.base import FunctionTool, Tool, ToolError

__all__ = ["FunctionTool", "Tool", "ToolError"]
