"""A worker's command line without its models: echoes bytes on two ports, as an emulated board.

The second port answers with the process's own arguments, as JSON, and closes.
"""

import argparse
import contextlib
import json
import signal
import socket
import sys
import threading


def echo(connection):
    with connection, contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            connection.sendall(piece)


def tell(connection):
    with connection:
        connection.sendall(json.dumps(sys.argv[1:]).encode())


def serve(listener, answer):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def two_ports(host, port):
    """Listen on `port`, or any if it is 0, and on the next."""
    while True:
        first = socket.create_server((host, port))
        try:
            return first, socket.create_server((host, first.getsockname()[1] + 1))
        except OSError:
            first.close()
            if port:
                raise


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--listen")
    parser.add_argument("--broken", action="store_true")
    asked, _ = parser.parse_known_args()
    if asked.broken:
        sys.exit("this board has no power")
    host, port = asked.listen.rsplit(":", 1)
    first, second = two_ports(host, int(port))
    for listener, answer in ((first, echo), (second, tell)):
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
    sys.stdout.write(f"serving nothing on {host}:{first.getsockname()[1]}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
