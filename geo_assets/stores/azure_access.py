"""Where an Azure storage account is and how to sign in to it.

What belongs here: :class:`AzureAccess` and the ways to make one (key, SAS, connection string, token credential).
What does not: requests (``azure``).
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential

from geo_assets.errors import SettingsError

__all__ = ["AzureAccess"]

# Azurite's and the old emulator's published account; no secret
_EMULATOR = "devstoreaccount1"
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, kw_only=True)
class AzureAccess:
    """A blob endpoint and one way to sign in; with none, requests are anonymous (public containers)."""

    endpoint: str
    """Blob endpoint without a trailing slash, e.g. ``https://account.blob.core.windows.net``."""
    account: str
    key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    token_credential: TokenCredential | None = field(default=None, repr=False)

    @classmethod
    def of_account(
        cls,
        account: str | None,
        *,
        endpoint: str | None = None,
        key: str | None = None,
        sas_token: str | None = None,
        token_credential: TokenCredential | None = None,
    ) -> "AzureAccess":
        """Access to an account by name or endpoint, signed in by the first of key, SAS and token credential given.

        Raises:
            SettingsError: neither name nor endpoint says which account, the endpoint is no URL, the key is not
                base64, or a token would go over plain http.
        """
        if endpoint is None:
            if not account:
                raise SettingsError(
                    "the Azure blob store needs an account: set GEO_ASSETS_AZURE_ACCOUNT,"
                    " GEO_ASSETS_AZURE_ENDPOINT or GEO_ASSETS_AZURE_CONNECTION_STRING"
                )
            endpoint = f"https://{account}.blob.core.windows.net"
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("the Azure blob endpoint must be a URL such as https://account.blob.core.windows.net")
        sas_token = sas_token or parts.query or None
        # the emulator has the account in the path, the cloud in the host name
        account = account or parts.path.strip("/") or parts.hostname.partition(".")[0]
        endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        if key is not None:
            _check_key(key)
            return cls(endpoint=endpoint, account=account, key=key)
        if sas_token is not None:
            return cls(endpoint=endpoint, account=account, sas_token=sas_token.lstrip("?"))
        if token_credential is not None and parts.scheme != "https":
            raise SettingsError(
                f"tokens are sent over https only, but the Azure blob endpoint is {endpoint}; use https, or set an"
                " account key or a SAS"
            )
        return cls(endpoint=endpoint, account=account, token_credential=token_credential)

    @classmethod
    def of_connection_string(cls, text: str) -> "AzureAccess":
        """Access as a connection string says (key or SAS; ``UseDevelopmentStorage=true`` included).

        Raises:
            SettingsError: it is malformed or names no account; the text itself is not repeated.
        """
        pieces = [piece.partition("=") for piece in text.strip().split(";") if piece.strip()]
        found = {name.strip().lower(): value.strip() for name, separator, value in pieces if separator}
        if len(found) != len(pieces) or not found:
            raise SettingsError(
                "the Azure connection string is malformed: it must read Name=value;Name=value;… as the portal shows it"
            )
        if found.get("usedevelopmentstorage", "").lower() == "true":
            found = {
                "accountname": _EMULATOR,
                "accountkey": _EMULATOR_KEY,
                "blobendpoint": f"http://127.0.0.1:10000/{_EMULATOR}",
            } | found
        account, endpoint = found.get("accountname"), found.get("blobendpoint")
        if endpoint is None and account:
            protocol = found.get("defaultendpointsprotocol", "https")
            endpoint = f"{protocol}://{account}.blob.{found.get('endpointsuffix', 'core.windows.net')}"
        if endpoint is None:
            raise SettingsError("the Azure connection string names no account: it needs AccountName or BlobEndpoint")
        return cls.of_account(
            account, endpoint=endpoint, key=found.get("accountkey"), sas_token=found.get("sharedaccesssignature")
        )

    @classmethod
    def of_credential(cls, account_url: str, credential: object) -> "AzureAccess":
        """Access with a credential object as the Azure SDK takes them (key, SAS or token credential, or their text).

        This is what dagster-azure's ``AzureBlobStorageResource.get_client()`` holds.

        Raises:
            SettingsError: the object is no credential.
        """
        if credential is None:
            return cls.of_account(None, endpoint=account_url)
        if isinstance(credential, AzureNamedKeyCredential):
            named = credential.named_key
            return cls.of_account(named.name, endpoint=account_url, key=named.key)
        if isinstance(credential, AzureSasCredential):
            return cls.of_account(None, endpoint=account_url, sas_token=credential.signature)
        if isinstance(credential, str):
            # the SDK reads a plain text as the account key unless it looks like a query
            looks_signed = "sig" in dict(parse_qsl(credential.lstrip("?")))
            if looks_signed:
                return cls.of_account(None, endpoint=account_url, sas_token=credential)
            return cls.of_account(None, endpoint=account_url, key=credential)
        if callable(getattr(credential, "get_token", None)):
            token: Any = credential
            return cls.of_account(None, endpoint=account_url, token_credential=token)
        raise SettingsError(
            f"the blob store cannot sign in with a {type(credential).__name__}: give an account key, a SAS or a token"
            " credential such as azure.identity.DefaultAzureCredential()"
        )

    @property
    def sdk_credential(self) -> Any:
        """The credential in the Azure SDK's form."""
        if self.key is not None:
            return AzureNamedKeyCredential(self.account, self.key)
        if self.sas_token is not None:
            return AzureSasCredential(self.sas_token)
        return self.token_credential


def _check_key(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise SettingsError(
            "the Azure account key is not base64; copy it whole from the portal (a SAS belongs in"
            " GEO_ASSETS_AZURE_SAS_TOKEN)"
        ) from None
