"""Downloads of releases, by whatever protocol they begin."""

from http import HTTPStatus

from fastapi import Request, Response
from opentelemetry import metrics

_downloads = metrics.get_meter(__name__).create_counter(
    "zenthos.ota.firmware_downloads", description="Downloads begun, of firmware and models."
)


def count_download(request: Request, sent: Response, kind: str, device_model: str) -> None:
    """Once for each: neither for HEAD nor for what resumes."""
    if sent.status_code == HTTPStatus.FOUND:  # S3 gets the range
        begins = request.headers.get("range", "bytes=0-").startswith("bytes=0-")
    else:
        begins = sent.headers.get("content-range", "bytes 0-").startswith("bytes 0-")
    if request.method == "GET" and sent.status_code in {200, 206, 302} and begins:
        _downloads.add(1, {"kind": kind, "device_model": device_model})
