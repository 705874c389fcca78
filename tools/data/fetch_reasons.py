# SPDX-License-Identifier: Apache-2.0
"""Why a download failed, in a few words, from the messages that img2dataset keeps."""

import collections
import re
from collections.abc import Mapping

_TRANSIENT = "try again"
_FINAL = ""
_PATTERNS = (  # pattern, reason, whether another try may help; the first that matches
    (r"name or service not known|name resolution|getaddrinfo|nodename nor", "DNS", _TRANSIENT),
    (r"no address associated|idna|label (?:empty|too long)", "DNS", _TRANSIENT),
    (r"HTTP Error (?:408|425|429|5\d\d)", "HTTP {code}", _TRANSIENT),
    (r"HTTP Error \d+", "HTTP {code}", _FINAL),
    (r"timed? ?out", "timeout", _TRANSIENT),
    (r"certificate|\bSSL\b|\bTLS\b", "TLS", _FINAL),
    (
        r"IncompleteRead|reset|refused|closed connection|unreachable|broken pipe|aborted",
        "connection",
        _TRANSIENT,
    ),
    (r"X-Robots-Tag", "disallowed by its site (X-Robots-Tag)", _FINAL),
    (r"hash mismatch", "hash mismatch: not the image that was listed", _FINAL),
    (r"too small", "image too small", _FINAL),
    (r"aspect ratio", "aspect ratio too large", _FINAL),
    (r"decoding|cannot identify|imdecode|decode", "not an image", _FINAL),
)


def reason(message: str | None) -> str:
    """A short name of what a message says; "other" where it is none of the usual ones."""
    return _match(message)[0]


def is_transient(message: str | None) -> bool:
    """Whether another try may succeed."""
    return _match(message)[1] == _TRANSIENT


def count_reasons(statuses: Mapping[str, int]) -> collections.Counter[str]:
    """Failures by reason, from counts by message; successes are left out."""
    counts: collections.Counter[str] = collections.Counter()
    for message, count in statuses.items():
        if message != "success":
            counts[reason(message)] += count
    return counts


def top(counts: collections.Counter[str], total: int, number: int = 3) -> str:
    """The most frequent reasons with their share of `total`: "DNS 61 %, HTTP 404 9 %"."""
    found = counts.most_common(number)
    return ", ".join(f"{name} {100 * count / max(total, 1):.0f} %" for name, count in found)


def _match(message: str | None) -> tuple[str, str]:
    for pattern, name, kind in _PATTERNS:
        if re.search(pattern, message or "", re.IGNORECASE):
            code = re.search(r"HTTP Error (\d+)", message or "", re.IGNORECASE)
            return name.format(code=code[1] if code else ""), kind
    return "other", _FINAL
