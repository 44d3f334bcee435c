"""The browser tool and where its pages come from: a folder (`local`), the web (`fetch`), or a search service."""

from motet.tools.browser.cite import Citation, CitationStream, cited
from motet.tools.browser.tool import Backend, BrowserTool, Hit

__all__ = ["Backend", "BrowserTool", "Citation", "CitationStream", "Hit", "backend", "cited"]


def backend(name: str) -> Backend:
    """A backend by its name on the command line: a folder, fetch, exa, youcom, searxng or searxng=URL.

    UserError for a folder that holds nothing, or a service without its key.
    """
    from motet.tools.browser import corpus, web

    word, _, value = name.partition("=")
    if word == "searxng":
        return web.SearxngBackend(value or None)
    services = {"fetch": web.FetchBackend, "exa": web.ExaBackend, "youcom": web.YouBackend}
    return services[name]() if name in services else corpus.LocalBackend(name)
