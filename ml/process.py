"""Work that needs TensorFlow, in a process of its own: its 11 s and 600 MB stay out of ours."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Timer

from zenthos_core.errors import TrainingError

REPOSITORY = Path(__file__).resolve().parent.parent
LAST_LINES = 30


def run_module(
    module: str, arguments: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None]
) -> None:
    """Run `python -m module`, handing on each line of its standard output.

    Raises:
        TrainingError: where it fails or runs out of time, with the last lines it wrote
            (TensorFlow's chatter on standard error is shown only then).
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}
    last: deque[str] = deque(maxlen=2 * LAST_LINES)
    with (
        TemporaryFile("w+", errors="replace") as chatter,
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=chatter,
            text=True,
            errors="replace",
        ) as process,
    ):
        late = Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = Timer(timeout_s, stop)
        timer.start()
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                on_line(line.rstrip())
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        chatter.seek(0)
        last.extend(chatter.read().splitlines()[-LAST_LINES:])
    if code:
        why = f"ran out of its {timeout_s:.0f} s" if late.is_set() else f"failed with code {code}"
        raise TrainingError(f"{module} {why}:\n" + "\n".join(last))
