"""The one redactor: takes secrets out of text before it is stored, shown or raised.

What belongs here: patterns of credentials that show up in URLs, connection strings and error messages of the
services we use.  What does not: deciding where to redact; callers do that at their border.
"""

import re

_MASK = "***"

# Each pattern keeps what names the secret (group 1) and drops its value.
_PATTERNS = (
    # SAS signature, storage keys, passwords and tokens as key=value in URLs and connection strings
    re.compile(
        r"(?i)\b((?:sig|signature|accountkey|account_key|sharedaccesssignature|sas_token|password|passwd|pwd"
        r"|client_secret|access_token|refresh_token|api[-_]?key|secret)\s*[=:]\s*[\"']?)[^\s&;,\"'}\])]+"
    ),
    re.compile(r"(?i)\b((?:bearer|sharedkey|sharedkeylite)\s+)[A-Za-z0-9+/=._:~-]{8,}"),
    # user:password@host in any URL; greedy to the last '@' of the authority, as a password may hold one
    re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]+(?=@)"),
)


def redact(text: str) -> str:
    """Return ``text`` with every credential it names replaced by ``***``; the rest is unchanged."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text
