"""Posting JSON to an address that is a secret.

What belongs here: one post, with its limits, its tries, and errors that do not name the address.  What does not: what
is posted and when (``notices``).
"""

import http
import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from geo_assets import __version__
from geo_assets.errors import SettingsError, WebhookError
from geo_assets.redaction import redact

__all__ = ["Webhook"]

TRY_SECONDS = 10.0
"""Longest that one try takes, everything included."""
TRIES = 3
BACKOFF_SECONDS = 0.5
"""Wait before the second try; doubles."""
_REDIRECTS = 3
_THREAD = "geo_assets webhook"
_PASSING = frozenset({408, 425, 429})
"""Refusals that are worth another try; so is whatever the server itself is at fault for."""
_MAY_HAVE_ARRIVED = (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError)


class Webhook:
    """The address ``GEO_ASSETS_FAILURE_WEBHOOK``.

    Args:
        url: http or https; certificates are checked, with the system's or ``SSL_CERT_FILE``'s authorities.

    Raises:
        SettingsError: it is no URL.
    """

    def __init__(self, url: SecretStr) -> None:
        text = url.get_secret_value().strip()
        try:
            urlsplit(text)  # refuses brackets that httpx lets through
            parsed = httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise SettingsError("GEO_ASSETS_FAILURE_WEBHOOK is no URL: it must begin with https:// (or http://)")
        self._url = parsed

    def post(self, body: Mapping[str, Any], *, ends: float | None = None) -> None:
        """Post, up to three times where that may help; done when the answer is 2xx.

        What may have arrived is not posted again at once: who takes long to answer would get everything three times.

        Args:
            body: sent as JSON.
            ends: time of ``time.monotonic()`` after which no second try is to go on; default: none.

        Raises:
            WebhookError: nobody took it; says why without the address.
        """
        content = json.dumps(body).encode()
        delay = BACKOFF_SECONDS
        for left in reversed(range(TRIES)):
            try:
                self._try(content)
            except WebhookError as error:
                late = ends is not None and time.monotonic() + delay + TRY_SECONDS > ends
                if not error.is_down or error.may_have_arrived or not left or late:
                    raise
            else:
                return
            time.sleep(delay)
            delay *= 2

    def _try(self, content: bytes) -> None:
        # in a thread, because no time limit of a client covers looking up names or a server that dribbles
        answers: list[int | Exception] = []
        thread = threading.Thread(target=self._send, args=(content, answers), name=_THREAD, daemon=True)
        thread.start()
        thread.join(TRY_SECONDS)
        if not answers:
            text = f"the failure webhook gave no whole answer within {TRY_SECONDS:g} s; the post may have arrived"
            raise WebhookError(text, is_down=True, may_have_arrived=True)
        answer = answers[0]
        if isinstance(answer, _MAY_HAVE_ARRIVED):
            text = f"the failure webhook gave no answer: {self._without_url(answer)}; the post may have arrived"
            raise WebhookError(text, is_down=True, may_have_arrived=True)
        if isinstance(answer, Exception):
            # whatever it raises may quote the address, and so may what that was raised from
            raise WebhookError(f"the failure webhook cannot be reached: {self._without_url(answer)}", is_down=True)
        if http.HTTPStatus.OK <= answer < http.HTTPStatus.MULTIPLE_CHOICES:
            return
        if answer < http.HTTPStatus.BAD_REQUEST:
            raise WebhookError(
                f"the failure webhook redirects to another address ({answer}), which is not followed: set"
                " GEO_ASSETS_FAILURE_WEBHOOK to the final one",
                is_down=False,
            )
        passing = answer >= http.HTTPStatus.INTERNAL_SERVER_ERROR or answer in _PASSING
        raise WebhookError(f"the failure webhook answered {answer}", is_down=passing)

    def _send(self, content: bytes, answers: list[int | Exception]) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"geo-assets/{__version__}"}
        try:
            with httpx.Client(timeout=TRY_SECONDS, follow_redirects=False) as client:
                request: httpx.Request | None = client.build_request(
                    "POST", self._url, content=content, headers=headers
                )
                for _ in range(_REDIRECTS + 1):
                    assert request is not None  # noqa: S101 - for the type checker
                    # the body of the answer is not read: nothing is to be learned from it
                    response = client.send(request, stream=True)
                    response.close()
                    request = response.next_request
                    if request is None or not self._is_here(request):
                        break
            answers.append(response.status_code)
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            answers.append(error)

    def _is_here(self, request: httpx.Request) -> bool:
        """Whether a redirect stays with the same server and is still a post."""
        here, there = self._url, request.url
        same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
        return same and request.method == "POST"

    def _without_url(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}"
        url = self._url
        for secret in (str(url), url.raw_path.decode(), url.path, url.query.decode(), url.userinfo.decode()):
            if len(secret) > 1:
                text = text.replace(secret, "***")
        return redact(" ".join(text.split()))[:300]


def _is_not_ours(record: logging.LogRecord) -> bool:
    # httpx writes every address it asks to its log
    return record.threadName != _THREAD


logging.getLogger("httpx").addFilter(_is_not_ours)
