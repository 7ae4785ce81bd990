"""What the guard's own process begins with; it imports little, so that it is there soon."""

import os
import signal
import threading
from multiprocessing import parent_process


def begin() -> None:
    """Leave Ctrl-C to the server, and end when it ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, daemon=True).start()


def _end_with_the_server() -> None:
    server = parent_process()
    if server is not None:
        server.join()
        os._exit(0)
