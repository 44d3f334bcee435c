"""Pages from the web, and the search services that find them; keys come from the environment.

A page's address is checked where it counts: the connection goes to the very address that was found harmless, at every
redirect again, so that neither a redirect nor a name that resolves differently a moment later leads into a private
network. Knows no page stack.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from motet.errors import UserError
from motet.tools import base
from motet.tools.browser import page as pages
from motet.tools.browser import reader
from motet.tools.browser.formats import decoded, kind_of
from motet.tools.browser.page import Page
from motet.tools.browser.tool import Hit

if TYPE_CHECKING:
    import ssl

    import httpcore
    import httpx

AGENT = "motet (a tool of a language model)"
MAX_REDIRECTS = 5


@dataclass(frozen=True)
class Limits:
    """What one fetch may take. `tries` counts the first one too."""

    bytes: int = 8 << 20
    seconds: float = 30.0
    tries: int = 3
    backoff_s: float = 0.5


def harmless(address: str) -> bool:
    """Whether an IP address belongs to the public internet; an IPv4 address inside an IPv6 one counts as itself."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in ipaddress.ip_network("64:ff9b::/96") or ip in ipaddress.ip_network("::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if ip in ipaddress.ip_network("64:ff9b:1::/48"):
            return False
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


class Refused(OSError):
    """An address that is not to be visited; never tried again."""


class TooSlow(OSError):
    """The time of a fetch is over; never tried again."""


class _Answered(OSError):
    """A status that is no page."""

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"{host} answered {status}")
        self.status = status


class _Busy(OSError):
    """An answer worth a second try, perhaps after `wait_s`."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


def _network(private: bool, seconds: float, end: float) -> httpcore.NetworkBackend:
    """Connections to checked addresses only. What comes byte by byte, a header too, comes until `end` (time.monotonic())."""
    import httpcore

    class Timed(httpcore.NetworkStream):
        def __init__(self, inner: httpcore.NetworkStream) -> None:
            self.inner = inner

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self.inner.read(max_bytes, _left(end, timeout, seconds))

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self.inner.write(buffer, _left(end, timeout, seconds))

        def close(self) -> None:
            self.inner.close()

        def start_tls(
            self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
        ) -> httpcore.NetworkStream:
            return Timed(self.inner.start_tls(ssl_context, server_hostname, _left(end, timeout, seconds)))

        def get_extra_info(self, info: str) -> Any:
            return self.inner.get_extra_info(info)

    class Checked(httpcore.SyncBackend):
        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: Any = None,
            local_address: Any = None,
            socket_options: Any = None,
        ) -> httpcore.NetworkStream:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as e:
                raise httpcore.ConnectError(f"the name {host} is not known ({e})") from None
            addresses = list(dict.fromkeys(str(a[4][0]) for a in found))
            if not private and (bad := [a for a in addresses if not harmless(a)]):
                raise Refused(f"{host} is {bad[0]}, an address that is not public; it is not visited")
            error: Exception = httpcore.ConnectError(f"{host} has no address")
            for address in addresses:
                try:
                    left = _left(end, timeout, seconds)
                    return Timed(super().connect_tcp(address, port, left, local_address, socket_options))
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as e:
                    error = e
            raise error

        def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
            raise Refused("sockets of this machine are not visited")

    return Checked()


def _client(private: bool, seconds: float, end: float) -> httpx.Client:
    """A client on such connections; no proxy, since a proxy would resolve names itself."""
    import httpcore
    import httpx

    transport = httpx.HTTPTransport(verify=_certificates(), trust_env=False)
    # httpx has no public way to say how names become connections; httpcore, below it, has.
    transport._pool = httpcore.ConnectionPool(
        ssl_context=_certificates(), network_backend=_network(private, seconds, end)
    )
    return httpx.Client(
        transport=transport, trust_env=False, follow_redirects=False, timeout=min(10.0, seconds),
        headers={"User-Agent": AGENT, "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,application/pdf;q=0.8,*/*;q=0.1", "Accept-Encoding": "gzip"},
    )  # fmt: skip


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to believe; reading them takes longer than many a page."""
    import httpx

    return httpx.create_ssl_context()


def _left(end: float, timeout: float | None, seconds: float) -> float:
    """What a step on the network may take; OSError when the whole has taken too long, or nobody waits for it."""
    left = end - time.monotonic()
    if left <= 0 or base.cancelled():
        raise TooSlow(f"it took longer than {seconds:g} s")
    return left if timeout is None else min(left, timeout)


class Fetcher:
    """Fetches pages within limits. `private` allows addresses that are not public."""

    def __init__(self, private: bool = False, limits: Limits = Limits()) -> None:
        self.private, self.limits = private, limits

    def page(self, url: str, source: bool = False) -> Page:
        """The page at a URL, after redirects."""
        address, mime, charset, data = self._retrying("GET", url)
        kind = kind_of(mime)
        if kind is None:
            raise ValueError(f"its content is {mime or 'of no stated type'}, which is no text")
        if source:
            return pages.from_text(decoded(data, charset), f"view-source:{address}", address)
        return reader.read(address, kind, data, charset)

    def json(self, method: str, url: str, key: str = "", **request: Any) -> Any:
        """The JSON a service answers with. `key` names the variable whose key it may not accept."""
        import json

        try:
            _, _, charset, data = self._retrying(method, url, **request)
        except _Answered as e:
            if key and e.status in (401, 403):
                raise OSError(f"{e}: it does not accept the key in {key}") from None
            raise
        try:
            return json.loads(decoded(data, charset))
        except (ValueError, RecursionError):
            raise ValueError(f"{urlsplit(url).netloc} did not answer with JSON") from None

    def _retrying(self, method: str, url: str, **request: Any) -> tuple[str, str, str | None, bytes]:
        import httpx

        end = time.monotonic() + min(self.limits.seconds, base.seconds_left())
        for attempt in range(self.limits.tries):
            wait = self.limits.backoff_s * 2**attempt
            try:
                with _client(self.private, self.limits.seconds, end) as client:
                    return self._follow(client, method, url, request)
            except (_Busy, httpx.TransportError) as e:
                asked = getattr(e, "wait_s", 0.0)
                wait = max(wait, asked)
                last = attempt + 1 == self.limits.tries
                if last or base.cancelled() or time.monotonic() + wait > end:
                    patience = f", and asks to wait for {asked:.0f} s" if asked >= 1 else ""
                    raise OSError(f"{str(e) or type(e).__name__}{patience}") from None
                base.current().stop.wait(wait)
            except httpx.InvalidURL as e:
                raise ValueError(f"it is no URL ({e})") from None
        raise AssertionError("unreachable")

    def _follow(
        self, client: httpx.Client, method: str, url: str, request: dict[str, Any]
    ) -> tuple[str, str, str | None, bytes]:
        for _ in range(MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("only http and https addresses are visited")
            if parts.username is not None or parts.password is not None:
                raise ValueError("addresses with a user name are not visited")
            with client.stream(method, url, **request) as answer:
                if answer.has_redirect_location and method == "GET":
                    url = urljoin(url, answer.headers["location"])
                    # The new address says what is asked; a key is for the one it was given for.
                    same = (urlsplit(url).scheme, urlsplit(url).netloc) == (parts.scheme, parts.netloc)
                    request = {"headers": request["headers"]} if same and "headers" in request else {}
                    continue
                if answer.status_code in (429, 500, 502, 503, 504):
                    raise _Busy(
                        f"{parts.netloc} answered {answer.status_code}",
                        _seconds(answer.headers.get("retry-after")),
                    )
                if answer.status_code >= 300:
                    raise _Answered(parts.netloc, answer.status_code)
                mime = answer.headers.get("content-type", "").split(";")[0].strip().lower()
                return str(answer.url), mime, answer.charset_encoding, b"".join(self._body(answer))
        raise OSError(f"more than {MAX_REDIRECTS} redirects")

    def _body(self, answer: httpx.Response) -> Iterator[bytes]:
        """Unpacked here, piece by piece: a few bytes may stand for gigabytes."""
        packed = answer.headers.get("content-encoding", "").strip().lower()
        if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ValueError(f"it is packed in a way that was not asked for ({packed[:40]})")
        unpack = zlib.decompressobj(47) if packed not in ("", "identity") else None
        size = 0
        for piece in answer.iter_raw():
            try:
                said = piece if unpack is None else unpack.decompress(piece, self.limits.bytes + 1 - size)
            except zlib.error:
                raise ValueError("it is damaged: it cannot be unpacked") from None
            size += len(said)
            if size > self.limits.bytes:
                raise ValueError(f"it is larger than {self.limits.bytes >> 20} MiB")
            yield said


def _seconds(text: str | None) -> float:
    """What Retry-After asks for: seconds, or a date (RFC 9110, 10.2.3). 0 for anything else."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if text is None:
        return 0.0
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if text.strip().isdecimal():
            return min(float(text), 1e9)
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    return 0.0


def _key(name: str, service: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"Searching with {service} needs a key; put it into the environment variable {name}.")
    if not re.fullmatch(r"[!-~]+", key):  # it would be spelled in the error of who sends it
        raise UserError(
            f"The environment variable {name} holds no key: there are spaces or signs in it; copy the key again."
        )
    return key


class FetchBackend:
    """Opens pages; has nothing to search with."""

    source = "web"

    def __init__(self, fetcher: Fetcher | None = None) -> None:
        self.fetcher = fetcher or Fetcher()

    def search(self, query: str, topn: int) -> list[Hit]:
        """There is no search service here."""
        raise ValueError("there is no search service; open a page by its URL")

    def fetch(self, url: str, source: bool) -> Page:
        """The page at a URL."""
        return self.fetcher.page(url, source)


class SearxngBackend(FetchBackend):
    """A SearXNG server, named by URL or SEARXNG_URL. The server itself may be private, the pages may not."""

    def __init__(self, url: str | None = None, fetcher: Fetcher | None = None) -> None:
        super().__init__(fetcher)
        self.url = url or os.environ.get("SEARXNG_URL", "")
        if not self.url.startswith(("http://", "https://")):
            raise UserError(
                "Searching with SearXNG needs its address; put it into SEARXNG_URL, such as http://localhost:8080."
            )
        self._service = Fetcher(True, self.fetcher.limits)

    def search(self, query: str, topn: int) -> list[Hit]:
        """/search?format=json."""
        address = f"{self.url.rstrip('/')}/search"
        found = self._service.json("GET", address, params={"q": query, "format": "json"})
        return _hits(found, "results", "content")[:topn]


class ExaBackend(FetchBackend):
    """Exa (EXA_API_KEY): /search; pages are fetched by ourselves."""

    def __init__(self, fetcher: Fetcher | None = None, url: str = "https://api.exa.ai") -> None:
        super().__init__(fetcher)
        self._key, self.url = _key("EXA_API_KEY", "Exa"), url
        self._service = Fetcher(url.startswith("http://"), self.fetcher.limits)

    def search(self, query: str, topn: int) -> list[Hit]:
        """POST /search with summaries."""
        body = {"query": query, "numResults": topn, "contents": {"summary": True}}
        headers = {"x-api-key": self._key}
        found = self._service.json("POST", f"{self.url}/search", "EXA_API_KEY", json=body, headers=headers)
        return _hits(found, "results", "summary")[:topn]


class YouBackend(FetchBackend):
    """You.com (YDC_API_KEY): /v1/search; pages are fetched by ourselves."""

    def __init__(self, fetcher: Fetcher | None = None, url: str = "https://ydc-index.io") -> None:
        super().__init__(fetcher)
        self._key, self.url = _key("YDC_API_KEY", "You.com"), url
        self._service = Fetcher(url.startswith("http://"), self.fetcher.limits)

    def search(self, query: str, topn: int) -> list[Hit]:
        """GET /v1/search; web results, then news."""
        found = self._service.json(
            "GET",
            f"{self.url}/v1/search",
            "YDC_API_KEY",
            params={"query": query, "count": topn},
            headers={"X-API-Key": self._key},
        )
        results = found.get("results") if isinstance(found, dict) else None
        if not isinstance(results, dict):
            raise ValueError("the search service answered with something else than results")
        kinds = [k for k in ("web", "news") if results.get(k) is not None]
        hits = [hit for k in kinds for hit in _hits(results, k, "description")]
        return hits[:topn]


def _hits(found: Any, name: str, summary: str) -> list[Hit]:
    """Results as services write them; what has no URL is left out. ValueError for no list of results at all."""
    rows = found.get(name) if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise ValueError("the search service answered with something else than results")
    out = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("url"), str):
            said, pieces = row.get(summary), row.get("snippets")
            if not isinstance(said, str) or not said:
                said = " ".join(s for s in pieces if isinstance(s, str)) if isinstance(pieces, list) else ""
            title = row.get("title")
            out.append(Hit(title if isinstance(title, str) and title else row["url"], row["url"], said))
    return out
