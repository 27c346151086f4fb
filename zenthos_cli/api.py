"""The OTA server's HTTP API, as the bearer of a token sees it; its problems become our errors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import httpx

from zenthos_core.errors import ZenthosError

if TYPE_CHECKING:
    from zenthos_core.settings import Settings

TIMEOUT_S: Final = 30.0
UPLOAD_TIMEOUT_S: Final = 600.0
PAGE: Final = 500
COME_AGAIN: Final = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


class AwayError(ZenthosError):
    """The server does not answer now, or asks to come again later."""


class RefusedError(ZenthosError):
    """The server answered with a problem; the text is its own."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """Requests that raise ZenthosError where they fail, with what to do."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a page; what is None, empty or false is not asked for."""
        left_out = (None, "", False)
        given = {n: v for n, v in query.items() if not any(v is word for word in left_out)}
        return self._send("GET", path, params=given)

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        after: str | None = ""
        while after is not None:
            page = self.get(path, **query, limit=PAGE, after=after)
            yield from page["items"]
            after = page["next"]

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON of the answer; None where there is none."""
        return self._send("POST", path, json=body) if body is not None else self._send("POST", path)

    def patch(self, path: str, body: Any) -> Any:
        """The JSON of the answer."""
        return self._send("PATCH", path, json=body)

    def upload(self, path: str, content: bytes, media_type: str) -> Any:
        """The JSON of the answer to a body that is no JSON."""
        return self._send("POST", path, content=content, headers={"Content-Type": media_type})

    def send_form(self, path: str, fields: dict[str, str], files: dict[str, Any]) -> Any:
        """The JSON of the answer to a form with files, which are read as they are sent."""
        return self._send("POST", path, data=fields, files=files, timeout=UPLOAD_TIMEOUT_S)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise AwayError(
                f"{self._http.base_url} cannot be reached ({error or type(error).__name__}):"
                " is the stack up, ZENTHOS_OTA_URL right?"
            ) from None
        if answer.status_code in COME_AGAIN:
            raise AwayError(explain(answer))
        if answer.is_error:
            raise RefusedError(explain(answer), answer.status_code)
        return answer.json() if answer.content else None


def explain(answer: httpx.Response) -> str:
    """What a problem document says, the fields that are wrong included (RFC 9457)."""
    try:
        problem = answer.json()
        text = str(problem["detail"])
        fields = [f"{field['at']}: {field['detail']}" for field in problem.get("errors", [])]
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} was answered with {answer.status_code}: is it an OTA server?"
    return "; ".join([text, *fields])


def open_api(token: str | None = None) -> Api:
    """The server of the settings that hold here, with that token or ZENTHOS_TOKEN."""
    from zenthos_core.settings import load_settings

    settings = load_settings()
    return Api(settings.ota_url, token or own_token(settings))


def own_token(settings: "Settings") -> str:
    """ZENTHOS_TOKEN, or the stack's own; ZenthosError where neither is set."""
    found = settings.token.get_secret_value() or settings.admin_token.get_secret_value()
    if not found:
        raise ZenthosError("set ZENTHOS_TOKEN: `zenthos token NAME` makes one where the stack runs")
    return found
