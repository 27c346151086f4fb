"""`python -m bench NAME` is `zenthos bench NAME`."""

import sys

from zenthos_cli.main import app

app(["bench", *sys.argv[1:]])
