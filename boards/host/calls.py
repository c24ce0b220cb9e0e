"""Calls of the standard protocol: any server of it, ours or Triton, as a client sees it."""

from typing import Any

import grpc

from boards.credentials.identity import Identity
from boards.host.connection import ConnectionLostError
from boards.protocol.address import Address
from boards.protocol.messages import METHODS, SERVICE, message

_LARGEST_BYTES = 64 * 1024 * 1024


class Caller:
    """A channel to one server; methods are those of the protocol."""

    def __init__(self, place: Address, board: str, identity: Identity | None) -> None:
        self._place = place
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", _LARGEST_BYTES),
            ("grpc.max_receive_message_length", _LARGEST_BYTES),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.enable_retries", 0),
            # Boards are near; nobody else is to see, or to stop, what goes to them.
            ("grpc.enable_http_proxy", 0),
            # Two hosts in one process must not share a connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if identity is None:
            self._channel = grpc.insecure_channel(str(place), options)
        else:
            # A board is known by its name, wherever it is.
            options.append(("grpc.ssl_target_name_override", board))
            credentials = grpc.ssl_channel_credentials(
                identity.authority, identity.key, identity.certificate
            )
            self._channel = grpc.secure_channel(str(place), credentials, options)
        self._methods = {method: self._method(method) for method in METHODS}

    def call(self, method: str, request: Any, seconds: float) -> Any:
        """Call and wait; raises ConnectionLostError."""
        try:
            return self._methods[method](request, timeout=seconds)
        except grpc.RpcError as error:
            raise ConnectionLostError(f"{self._place}: {told(error)}") from None

    def future(self, method: str, request: Any) -> grpc.Future:
        """Call without waiting."""
        return self._methods[method].future(request)

    def close(self) -> None:
        """Close the channel, and with it every call."""
        self._channel.close()

    def _method(self, name: str) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(f"{name}Response").FromString,
        )


def told(error: Any) -> str:
    """Say what a failed call says."""
    return f"{error.code().name}: {error.details()}"
