"""The texts of PostHog's answers, word for word."""

from __future__ import annotations

import json


def error(kind: str, code: str, detail: str) -> str:
    """A JSON error: keys in this order, no blanks."""
    return json.dumps({"type": kind, "code": code, "detail": detail, "attr": None}, separators=(",", ":"))


def _authentication_failed(detail: str) -> str:
    return error("authentication_error", "authentication_failed", detail)


TOKEN_REQUIRED = "The 'token' query parameter is required unless authenticating with a phs_-prefixed token."
TOKEN_REPEATED = "Failed to deserialize query string: duplicate field `token`"
NOT_AUTHENTICATED = error(
    "authentication_error", "not_authenticated", "Authentication credentials were not provided."
)
SECRET_INVALID = _authentication_failed("Secret API token is invalid.")
PERSONAL_INVALID = _authentication_failed("Personal API key is invalid.")
TOKEN_INVALID = _authentication_failed(
    "The provided API key is invalid or has expired. Please check your API key and try again."
)
SCOPE_MISSING = error(
    "authentication_error",
    "permission_denied",
    "Personal API key lacks required scopes (feature_flag:read or feature_flag:write).",
)
QUOTA_LIMITED = error(
    "quota_limited", "payment_required", "You have exceeded your feature flag request quota"
)
RATE_LIMITED = error("validation_error", "rate_limit_exceeded", "Rate limit exceeded")
MISS = (
    "A service dependency is temporarily unavailable. This is likely a temporary issue. "
    "Please try again later."
)
TIMEOUT = "The request timed out. This could be due to high load or network issues. Please try again later."
UNREADABLE = (
    "An internal server error occurred. Please try again later or contact support if the problem persists."
)

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
