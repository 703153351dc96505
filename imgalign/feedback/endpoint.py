"""A judge behind an OpenAI-compatible endpoint: `POST {url}/chat/completions`.

llama.cpp, vLLM, Ollama, LM Studio and hosted models speak this protocol. Several questions are
under way at once, and replies come in the order of the questions. What passes is tried again: no
connection, no answer in time, 429 and 5xx. The key is sent as a bearer token to this URL alone: it
is in no message, and redirects are not followed.
"""

import asyncio
import base64
import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import httpx
from pydantic import Field, NonNegativeInt, PositiveInt

from imgalign.config import Config
from imgalign.errors import InputError, JudgeError, first_line, in_one_line
from imgalign.feedback.question import Question, Reply, read_reply
from imgalign.files import parse_json
from imgalign.images import decode_image, png

log = logging.getLogger(__name__)

KEY = "IMGALIGN_JUDGE_KEY"
"""The environment variable with the API key."""
LARGEST_RESPONSE = 2**20
"""Bytes."""
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 120.0
"""Seconds between two attempts, whatever the server asks for."""
PASSING = frozenset({408, 409, 425, 429})
"""Status codes beside 5xx that may be another one soon."""
UNASKABLE = frozenset({400, 413, 422})
"""Status codes that say that this question cannot be answered, such as one that is too long."""
SHOWN = 200
"""Characters of a server's message in ours."""

Content: TypeAlias = str | list[dict[str, Any]]
"""Of a message, as the protocol has it."""


class EndpointConfig(Config):
    """How an endpoint is asked."""

    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds for one reply; a model that thinks before it answers needs more."""

    retries: NonNegativeInt = 5
    """How often a question is asked again where that may help."""

    first_wait: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds before the second attempt; each later wait is twice as long, or what the server asks
    for."""

    parallel: PositiveInt = 4
    """Questions under way at once; more is faster where the server batches them."""

    max_tokens: PositiveInt = 1024
    """Longest reply. A letter needs few; a model that thinks before it answers needs many."""

    image_size: Annotated[int, Field(ge=32, le=4096)] = 512
    """Pixels of the longer side to which images are reduced; smaller ones stay as they are."""


class EndpointJudge:
    """A model behind an endpoint as `judge.Judge`.

    `url` is what clients call the base URL, such as http://127.0.0.1:8080/v1. InputError for
    another kind of URL, and for a key that no header can hold.
    """

    revision: str | None = None

    def __init__(
        self, url: str, model: str, *, key: str | None = None, config: EndpointConfig | None = None
    ) -> None:
        self.config = config or EndpointConfig()
        self.url = checked_url(url)
        self.model = model
        self.host: str | None = self.url.netloc.decode("ascii")
        self.image_size: int | None = self.config.image_size
        self._key = checked_key(key)
        self._options: Mapping[str, int] = {"temperature": 0, "max_tokens": self.config.max_tokens}
        self._has_answered = self._has_replied = False
        if self._key and self.url.scheme == "http" and not _is_here(self.url):
            log.warning("%s: the key is sent unencrypted; use https where you can", self.url)

    def replies(self, questions: Iterable[Question]) -> Generator[Reply, None, None]:
        """A reply to each question, in order.

        JudgeError where the server cannot be reached, refuses the key or the model, or is no
        OpenAI-compatible endpoint.
        """
        waiting: deque[asyncio.Task[Reply]] = deque()
        with asyncio.Runner() as runner:
            loop, client = runner.get_loop(), self._client()
            slots = asyncio.Semaphore(self.config.parallel)
            try:
                for question in questions:
                    waiting.append(loop.create_task(self._ask(client, slots, question)))
                    if len(waiting) == 2 * self.config.parallel:
                        yield runner.run(_result(waiting.popleft()))
                while waiting:
                    yield runner.run(_result(waiting.popleft()))
            finally:
                runner.run(_stop(waiting, client))

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            # The whole reply has a limit of its own, in `_post`.
            timeout=httpx.Timeout(None, connect=min(CONNECT_SECONDS, self.config.timeout)),
            # A proxy to the internet leads to no server of this machine.
            trust_env=not _is_here(self.url),
        )

    async def _ask(
        self, client: httpx.AsyncClient, slots: asyncio.Semaphore, question: Question
    ) -> Reply:
        content = content_of(question, image_size=self.config.image_size)
        attempts = 0
        while True:
            options, asked_to_wait = self._options, None
            try:
                async with slots:
                    response = await self._post(client, content, options)
            except (httpx.RequestError, TimeoutError) as error:
                failure = self._no_answer(error)
            else:
                self._has_answered = True
                if response.is_success:
                    return self._read(response)
                said = self._said(response)
                if response.status_code in UNASKABLE:
                    # Others may have found out meanwhile what this server does not take.
                    if options is not self._options or self._without_unsupported(said):
                        continue
                    return Reply(problem=f"the server answers {response.status_code}: {said}")
                if not _may_pass(response):
                    raise self._refused(response, said)
                failure, asked_to_wait = f"{response.status_code}: {said}", _retry_after(response)
            attempts += 1
            if attempts > self.config.retries:
                raise JudgeError(
                    f"{self.url}: no reply in {attempts} attempts ({failure}); what was judged is "
                    "kept, so try again later; a slow server may need a longer timeout, or fewer "
                    "questions in parallel"
                )
            wait = asked_to_wait or self.config.first_wait * 2 ** (attempts - 1)
            await asyncio.sleep(min(wait, LONGEST_WAIT))

    async def _post(
        self, client: httpx.AsyncClient, content: Content, options: Mapping[str, int]
    ) -> httpx.Response:
        """The response, read up to a limit in size and time."""
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **options}
        read = bytearray()
        async with (
            asyncio.timeout(self.config.timeout),
            client.stream("POST", f"{self.url}/chat/completions", json=body) as response,
        ):
            async for part in response.aiter_bytes():
                read += part
                if len(read) > LARGEST_RESPONSE:
                    raise JudgeError(
                        f"{self.url}: a reply of over {LARGEST_RESPONSE} bytes; is it an "
                        "OpenAI-compatible endpoint?"
                    )
        return httpx.Response(response.status_code, headers=_plain(response), content=bytes(read))

    def _read(self, response: httpx.Response) -> Reply:
        """The reply; one that is no chat completion is a JudgeError where there was none before,
        and no choice after that.
        """
        try:
            choice = parse_json(response.content)["choices"][0]
            text, ended = text_of(choice["message"].get("content")), choice.get("finish_reason")
            reply = read_reply(text)
        except (ValueError, LookupError, TypeError, AttributeError):
            said = self._said(response)
            if self._has_replied:
                return Reply(said=f"no chat completion: {said}")
            raise JudgeError(
                f"{self.url}: expected a chat completion, got {said!r}; is it the "
                "base URL of an OpenAI-compatible server, such as http://127.0.0.1:8080/v1?"
            ) from None
        self._has_replied = True
        if reply.choice is None and ended == "length":
            return Reply(said=f"{reply.said} (cut off after {self.config.max_tokens} tokens)")
        return reply

    def _no_answer(self, error: Exception) -> str:
        """What is wrong, for a message; JudgeError where no server was ever there."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._has_answered:
            raise JudgeError(
                f"{self.url}: cannot be reached ({first_line(error)}); is the server running, and "
                "the URL right?"
            ) from None
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return f"nothing within {self.config.timeout:g} s"
        return first_line(error)

    def _refused(self, response: httpx.Response, said: str) -> JudgeError:
        code = response.status_code
        if code in (401, 403):
            what = f"refuses the key in {KEY}" if self._key else f"wants a key; set {KEY}"
            return JudgeError(f"{self.url}: the server {what} ({code}: {said})")
        if code == 404:
            return JudgeError(
                f"{self.url}: no model {self.model!r}, or no chat completions at this URL "
                f"(404: {said})"
            )
        return JudgeError(f"{self.url}: expected a chat completion, got status {code}: {said}")

    def _said(self, response: httpx.Response) -> str:
        """The server's message in one line, without the key, should it repeat it."""
        # JSON is UTF-8; what else a header names may be no encoding of text at all.
        text = response.content.decode("utf-8", "replace")
        try:
            found = parse_json(response.content)
            error = found.get("error", found.get("detail", text))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            pass  # no JSON, or no object
        text = text if self._key is None else text.replace(self._key, "***")
        return in_one_line(" ".join(text.split()))[:SHOWN] or "nothing"

    def _without_unsupported(self, said: str) -> bool:
        """Whether the options can do without what the server says that it does not support."""
        options = dict(self._options)
        if "unsupported" not in said.lower():
            return False
        if "max_completion_tokens" in said and "max_tokens" in options:
            options["max_completion_tokens"] = options.pop("max_tokens")
        elif "temperature" in said and "temperature" in options:
            del options["temperature"]
        else:
            return False
        self._options = options
        return True


def checked_url(text: str) -> httpx.URL:
    """A base URL; InputError for another kind, or one with a name, a password or a query in it."""
    try:
        url = httpx.URL(text.rstrip("/"))
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.userinfo or url.query or url.fragment or "@" in text:
        raise InputError(
            f"url: expected no name, password or query in it; a key belongs in {KEY}, and is kept "
            "nowhere"
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"url: expected one such as http://127.0.0.1:8080/v1, got {text!r:.200}")
    if url.path.endswith("/chat/completions"):
        raise InputError(f"url: leave /chat/completions out of it, got {text!r:.200}")
    return url


def checked_key(key: str | None) -> str | None:
    """A key that a header can hold, or None for an empty one; InputError otherwise."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY}: expected printable ASCII characters; is it the whole key?")
    return key or None


def content_of(question: Question, *, image_size: int) -> Content:
    """The content of the message: text, or text and images as data URLs."""
    parts = question.parts()
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part, image_size)}}
        for part in parts
    ]


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message; some servers cut it into parts, of which others are thoughts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


@lru_cache(maxsize=32)  # the images of an item come in many questions
def data_url(image: bytes, size: int) -> str:
    """A PNG, reduced to `size` pixels on its longer side, as text."""
    pixels = decode_image(image)
    pixels.thumbnail((size, size))
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"


def _may_pass(response: httpx.Response) -> bool:
    return response.status_code in PASSING or response.is_server_error


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait; None where it gives none, or a date."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _plain(response: httpx.Response) -> list[tuple[str, str]]:
    """What is kept of the headers of a response, whose content was decompressed."""
    return [(name, value) for name, value in response.headers.items() if name == "retry-after"]


def _is_here(url: httpx.URL) -> bool:
    return url.host in ("127.0.0.1", "::1", "localhost")


async def _result(task: asyncio.Task[Reply]) -> Reply:
    return await task


async def _stop(waiting: Iterable[asyncio.Task[Reply]], client: httpx.AsyncClient) -> None:
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await client.aclose()
