"""A notice from a cloud's metadata service: a URL answers 200, with a certain word if one is asked.

AWS    url = "http://169.254.169.254/latest/meta-data/spot/instance-action"
       token_url = "http://169.254.169.254/latest/api/token"
GCP    url = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
       headers = { Metadata-Flavor = "Google" }, expect = "TRUE"
Azure  url = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
       headers = { Metadata = "true" }, expect = "Preempt"
"""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError

from pydantic import Field

from swarmnet.config import Section

MAX_BODY_BYTES = 16 * 1024
TOKEN_TTL = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
TOKEN_HEADER = "X-aws-ec2-metadata-token"


class Url:
    """Asks without proxies, follows no redirect, and reads no more than it needs."""

    class Config(Section):
        url: str = Field(pattern=r"^https?://", description="what is asked")
        headers: dict[str, str] = Field({}, description="sent with the question")
        expect: str = Field("", description="the answer must hold this; empty: any answer does")
        token_url: str = Field(
            "", pattern=r"^(https?://.*)?$", description="where AWS gives a token for the question"
        )
        timeout_s: float = Field(2.0, gt=0, le=60, description="longer is no answer")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirect(), urllib.request.HTTPHandler()
        )

    def look(self) -> str | None:
        config, headers = self.config, dict(self.config.headers)
        if config.token_url:
            headers[TOKEN_HEADER] = self._ask(config.token_url, TOKEN_TTL, "PUT")
        try:
            body = self._ask(config.url, headers, "GET")
        except HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        return f"{config.url} says so" if config.expect in body else None

    def _ask(self, url: str, headers: Mapping[str, str], method: str) -> str:
        request = urllib.request.Request(url, headers=dict(headers), method=method)
        try:
            with self._opener.open(request, timeout=self.config.timeout_s) as answer:
                body: bytes = answer.read(MAX_BODY_BYTES)
        except http.client.HTTPException as error:
            raise OSError(f"{url}: no HTTP: {error!r}") from error
        return body.decode(errors="replace").strip()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A metadata service sends nobody elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None
