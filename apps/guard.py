"What stands between the page and strangers: a password, a policy that browsers hold the page to, and no errands to foreign addresses."
import asyncio
import hmac

from starlette.responses import PlainTextResponse

CDN = "https://gradio.s3-us-west-2.amazonaws.com"  # where gradio's page for --share takes its own script from
ERRANDS = ("/gradio_api/file=http", "/gradio_api/proxy=")  # gradio would fetch these for whoever asks


def policy(share: bool = False) -> str:
    "A Content-Security-Policy: the page talks to nobody but its own server."
    own = f"'self'{f' {CDN}' * share}"
    return (f"default-src {own} 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src {own} data: blob:; img-src 'self' data: blob:; "
            "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'")


class Guard:
    "Every answer carries the policy; nothing is fetched for anybody."

    def __init__(self, app, share: bool = False):
        self.app = app
        self.headers = [(b"content-security-policy", policy(share).encode()), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].lower().startswith(ERRANDS):
            await PlainTextResponse("Nothing is fetched from elsewhere.", 403)(scope, receive, send)
            return

        async def guarded(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
            await send(message)

        await self.app(scope, receive, guarded)


def gate(password: str, pause: float = 0.5):
    "Whether a visitor may come in; guesses wait for one another, and each wrong one takes its time."
    turn = asyncio.Lock()

    async def enter(user: str, given: str) -> bool:
        async with turn:
            right = hmac.compare_digest(given.encode(), password.encode())
            if not right:
                await asyncio.sleep(pause)
            return right

    return enter
