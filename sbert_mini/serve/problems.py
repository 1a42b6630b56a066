"""What a request is answered where it cannot be met: a status, and one line in JSON, in the form of OpenAI's API."""

from collections.abc import Mapping
from typing import Any

from sbert_mini.errors import (
    IndexLockedError,
    IndexNotFoundError,
    InputError,
    ModelMismatchError,
    SbertMiniError,
    UsageError,
)

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_STATUS: tuple[tuple[type[SbertMiniError], int], ...] = (
    (IndexLockedError, 409),
    (ModelMismatchError, 409),
    (IndexNotFoundError, 404),
    (UsageError, 400),
    (InputError, 400),
)


class ProblemError(SbertMiniError):
    """A request that is not met.

    Args:
        status: of the answer.
        text: what was wrong, for people.
        parameter: the part of the request that was.
        headers: of the answer.
    """

    def __init__(
        self, status: int, text: str, parameter: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.parameter, self.headers = status, parameter, dict(headers or {})


class BadBodyError(ProblemError):
    """A body of a request that does not fit its schema."""

    def __init__(self, text: str) -> None:
        super().__init__(400, text)


def problem_of(error: SbertMiniError) -> ProblemError:
    """Return the answer to an error of this package: 4xx where the request is the cause, else 500 without details."""
    if isinstance(error, ProblemError):
        return error
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return ProblemError(status, str(error), getattr(error, "parameter", None))
    return ProblemError(500, "the server could not do this; its log says why")


def body_of(problem: ProblemError) -> dict[str, Any]:
    """Return the body of an answer."""
    kind = _TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    return {"error": {"message": str(problem), "type": kind, "param": problem.parameter, "code": None}}
