"What stands between the page and strangers: a password, limits of size, a policy that browsers keep, and no errands."

import asyncio
import hmac
import ipaddress
from collections import Counter
from contextvars import ContextVar

from fastapi import HTTPException
from starlette.responses import PlainTextResponse

from cocoift.arena.session import MOST_BYTES, MOST_PICTURES

CDN = "https://gradio.s3-us-west-2.amazonaws.com"  # where gradio's page for --share takes its own script from
ERRANDS = ("/gradio_api/file=http", "/gradio_api/proxy=")  # gradio would fetch these for whoever asks
UPLOAD = "/gradio_api/upload"
# bytes of a request: with files, of others
MOST_UPLOADED, MOST_SENT = (MOST_BYTES * MOST_PICTURES + 1_000_000, 1_000_000)
CALLER: ContextVar[str] = ContextVar("caller", default="")  # whose request is being handled


def policy(share: bool = False) -> str:
    """A Content-Security-Policy: the page talks to nobody but its own server. Gradio 6.31 compiles the JavaScript of
    every event with `js=` when the page is loaded (`new AsyncFunction`): without 'unsafe-eval' no page appears."""
    own = f"'self'{f' {CDN}' * share}"
    return (
        f"default-src {own} 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src {own} data: blob:; "
        "img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    )


def refused(scope) -> tuple[int, str] | None:  # status, why
    "Why a request is not handed on."
    path, length = scope["path"].lower(), dict(scope["headers"]).get(b"content-length", b"")
    if path.startswith(ERRANDS):
        return 403, "Nothing is fetched from elsewhere."
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return None
    if not length.isdigit():
        return 411, "Say how long it is."
    return (
        (413, "That is too large.") if int(length) > (MOST_UPLOADED if path.startswith(UPLOAD) else MOST_SENT) else None
    )


class Guard:
    "Every answer carries the policy; nothing is fetched for anybody, and nothing too large is read."

    def __init__(self, app, share: bool = False):
        self.app = app
        self.headers = [
            (b"content-security-policy", policy(share).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope, receive, send):
        async def guarded(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
            await send(message)

        if scope["type"] == "http":
            CALLER.set(household(scope["client"][0] if scope.get("client") else ""))
            if why := refused(scope):
                await PlainTextResponse(why[1], why[0])(scope, receive, guarded)
                return
        await self.app(scope, receive, guarded)


def household(address: str) -> str:
    "Those who are one guesser: an IPv4 address, or the 64 bits of an IPv6 one that are given to a household."
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network(f"{ip}/64", strict=False))


class Gate:
    """Whether a visitor may come in. Guesses from one address are looked at one after another, and each wrong one
    takes its time; nobody waits for another address."""

    def __init__(
        self,
        password: str,
        pause: float = 0.5,  # seconds that a wrong guess takes
        patience: int = 8,  # guesses of an address that may wait
    ):
        self.password, self.pause, self.patience = password.encode(), pause, patience
        self.waiting: Counter[str] = Counter()  # only of those who are: whoever is answered is forgotten
        self.turns: dict[str, asyncio.Lock] = {}

    async def enter(self, user: str, guess: str) -> bool:  # a method: gradio awaits no object that can be called
        caller = CALLER.get()
        if self.waiting[caller] >= self.patience:
            raise HTTPException(429, "Too many guesses at once from your address: try again in a few seconds.")
        self.waiting[caller] += 1
        try:
            async with self.turns.setdefault(caller, asyncio.Lock()):
                right = hmac.compare_digest(guess.encode(), self.password)
                if not right:
                    await asyncio.sleep(self.pause)
                return right
        finally:
            self.waiting[caller] -= 1
            if not self.waiting[caller]:
                del self.waiting[caller], self.turns[caller]
