"""The peer of `bench.ota_download`: Starlette's FileResponse, and nothing before it."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route


def main() -> None:
    """`python -m bench.ota_peer PORT FOLDER`: files of a folder by their names."""
    port, folder = int(sys.argv[1]), sys.argv[2]

    async def send(request: Request) -> FileResponse:
        return FileResponse(f"{folder}/{request.path_params['name']}")

    app = Starlette(routes=[Route("/files/{name}", send)])
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)


if __name__ == "__main__":
    main()
