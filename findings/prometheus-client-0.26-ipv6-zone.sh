#!/usr/bin/env bash
# prometheus_client 0.26.0: `start_http_server` refuses a link-local IPv6 address with its zone.
#
# Behaviour: start_http_server(0, "fe80::1%lo") raises OSError 22, Invalid argument, where a socket of
# Python's own binds to the same address, and where "::1" is served.  Why: the address is resolved by
# getaddrinfo, which gives (host, port, flow, scope), of which only the host is kept; a link-local
# address without its scope cannot be bound.
# What it costs: a board that has no other address cannot serve its figures on it; nonn-plan refuses
# such an address for --metrics and names another one.
#
# Seen: bound by a socket, refused by prometheus_client.  Fails if that changes.
# Needs a network namespace of one's own (unshare), in which it makes the address.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet prometheus_client==0.26.0
cat >"$work/zone.py" <<'PY'
import socket

from prometheus_client import start_http_server

start_http_server(0, "::1")
place = socket.getaddrinfo("fe80::1%lo", 0, socket.AF_INET6, socket.SOCK_STREAM)[0][4]
socket.create_server(place, family=socket.AF_INET6).close()
print("a socket binds to fe80::1%lo")
try:
    start_http_server(0, "fe80::1%lo")
except OSError as error:
    print(f"prometheus_client: {error}")
    raise SystemExit(error.errno != 22) from None
raise SystemExit("prometheus_client serves it")
PY
unshare --user --map-root-user --net sh -c \
    'ip link set lo up && ip addr add fe80::1/64 dev lo nodad && exec "$@"' \
    sh "$work/venv/bin/python" "$work/zone.py"
