"""Who may ask a service, and how much of a request is read.

A browser carries requests of any web page to a server on this machine, by forms and scripts (CSRF), or as
the server itself under a name that the page's owner has pointed here (DNS rebinding). So a server without a token
answers only to names of this machine (Host), and to pages that it has served (Origin). A token needs neither: no
browser adds it by itself. A page gets it as a cookie, by the address `/?token=TOKEN`; with that, Origin counts again.
"""

import hmac
import re
from ipaddress import ip_address

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "framepack_relax_token"


class Guard:
    """Who may ask, and how much of a request is read."""

    def __init__(self, app: ASGIApp, token: str, most: int) -> None:
        self.app, self.token, self.most = app, token.encode(), most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        asked, read = HTTPConnection(scope), 0
        if self.token and scope["path"] == "/" and self._is_token(asked.query_params.get("token", "")):
            entered = RedirectResponse("/", 303)
            entered.set_cookie(COOKIE, self.token.decode(), httponly=True, samesite="strict")
            return await entered(scope, receive, send)
        if refused := self._refuses(scope["path"], asked.headers, asked.cookies.get(COOKIE, "")):
            status, fact, more = refused
            return await JSONResponse({"detail": fact}, status, headers=more)(scope, receive, send)

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                raise HTTPException(413, self._too_large())
            return message

        await self.app(scope, counted, send)

    def _refuses(self, path: str, headers: Headers, cookie: str) -> tuple[int, str, dict[str, str]] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        foreign = origin is not None and origin not in (f"http://{host}", f"https://{host}")
        if self.token:
            said = headers.get("authorization", "").removeprefix("Bearer ")
            if path != "/health" and not self._is_token(said) and (foreign or not self._is_token(cookie)):
                cure = "send `Authorization: Bearer TOKEN`, or open /?token=TOKEN"
                return 401, f"a token is needed: {cure}", {"WWW-Authenticate": "Bearer"}
        elif not is_loopback(re.sub(r":[0-9]+$", "", host).strip("[]")):
            return 403, f"Host {host[:60]!r} is no name of this machine: without a token only 127.0.0.1 is answered", {}
        elif foreign:
            return 403, f"Origin {(origin or '')[:60]!r}: without a token pages of other servers may not ask", {}
        length = headers.get("content-length", "")
        return (413, self._too_large(), {}) if length.isdecimal() and int(length) > self.most else None

    def _is_token(self, said: str) -> bool:
        return hmac.compare_digest(said.encode("utf8", "surrogateescape"), self.token)

    def _too_large(self) -> str:
        return f"the request has more than {self.most} bytes; send smaller images"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
