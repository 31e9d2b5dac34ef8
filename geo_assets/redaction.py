"""The one redactor: takes secrets out of text before it is stored, shown or raised.

What belongs here: patterns of credentials that show up in URLs, connection strings, settings, JSON and error
messages of the services we use.  What does not: deciding where to redact; callers do that at their border.

The patterns are linear in the length of the text, because some of it comes out of files that strangers uploaded.
"""

import re

_MASK = "***"

_NAMES = (
    # sig and pwd are words of their own: SIGSEGV and SIGKILL name no secret
    r"(?:(?:(?<![a-z0-9])|(?<=%26)|(?<=%3f))(?:sig|pwd)(?![a-z])"
    r"|signature|account_?key|storage_?key|access_?key|shared_?access_?signature|sas_?token"
    r"|password|passwd|passphrase|client_?secret|secret|access_?token|refresh_?token|auth_?token|api[-_]?key)"
)
# what may stand between a name and its value: the rest of the name, a closing quote (JSON, a dict shown), = or :
_ASSIGNED = r"[a-z0-9_-]{0,40}[\"']?\s{0,8}(?:[=:]|%3d)\s{0,8}"

# Each pattern keeps what names the secret (group 1) and drops its value.
_PATTERNS = (
    # key=value: storage keys, SAS signatures, passwords and tokens; a quoted value may hold anything
    re.compile(rf"(?i)({_NAMES}{_ASSIGNED}\")(?:\\.|[^\"\\])+"),
    re.compile(rf"(?i)({_NAMES}{_ASSIGNED}')(?:\\.|[^'\\])+"),
    re.compile(rf"(?i)({_NAMES}{_ASSIGNED})(?![\"'])[^\s&;,\"'}}\])]+"),
    re.compile(r"(?i)\b((?:bearer|sharedkey|sharedkeylite)\s+)[A-Za-z0-9+/=._:~-]{8,}"),
    # user:password@host in any URL; greedy to the last '@' of the authority, as a password may hold one
    re.compile(r"(?i)(?<![a-z0-9])([a-z][a-z0-9+.-]{0,30}://[^\s:/@]{0,200}:)[^\s/]{1,400}(?=@)"),
)


def redact(text: str) -> str:
    """Return ``text`` with every credential it names replaced by ``***``; the rest is unchanged."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text
