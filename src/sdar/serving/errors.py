"""What a client is told, in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}`` and a status."""

from __future__ import annotations

from typing import Any

TOO_LONG = "context_length_exceeded"
"""Code of messages that leave no room for the response."""


class ApiError(Exception):
    """A request that is not answered. ``param`` names the field at fault, ``code`` is for programs."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON object of the reply."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def wrong(param: str, must_be: str, got: str | None = None) -> ApiError:
    """A field that has a value which it cannot have; ``got``: what it has, in a few words."""
    told = f"{param} must be {must_be}" + ("" if got is None else f", got {got}")
    return ApiError(400, told, param=param, code="invalid_value")


def too_long(context: int, prompt: int, response: int) -> ApiError:
    """Messages and response that exceed the model's context, all in tokens."""
    return ApiError(
        400,
        f"this model's maximum context length is {context} tokens, but the messages have {prompt} and the response "
        f"may have {response}; shorten the messages, or lower max_tokens",
        param="messages",
        code=TOO_LONG,
    )
