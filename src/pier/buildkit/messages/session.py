"""What sessions offer: registries' passwords, secrets, agents (buildkit session/auth, secrets, sshforward)."""

from typing import Annotated

from pier.grpc.message import Message


class CredentialsRequest(Message):
    Host: Annotated[str, 1] = ""


class CredentialsResponse(Message):
    Username: Annotated[str, 1] = ""
    Secret: Annotated[str, 2] = ""


class FetchTokenRequest(Message):
    ClientID: Annotated[str, 1] = ""
    Host: Annotated[str, 2] = ""
    Realm: Annotated[str, 3] = ""
    Service: Annotated[str, 4] = ""
    Scopes: Annotated[list[str], 5] = []


class FetchTokenResponse(Message):
    Token: Annotated[str, 1] = ""
    ExpiresIn: Annotated[int, 2] = 0
    IssuedAt: Annotated[int, 3] = 0


class GetTokenAuthorityRequest(Message):
    Host: Annotated[str, 1] = ""
    Salt: Annotated[bytes, 2] = b""


class GetTokenAuthorityResponse(Message):
    PublicKey: Annotated[bytes, 1] = b""


class VerifyTokenAuthorityRequest(Message):
    Host: Annotated[str, 1] = ""
    Payload: Annotated[bytes, 2] = b""
    Salt: Annotated[bytes, 3] = b""


class VerifyTokenAuthorityResponse(Message):
    Signed: Annotated[bytes, 1] = b""


class GetSecretRequest(Message):
    ID: Annotated[str, 1] = ""
    annotations: Annotated[dict[str, str], 2] = {}


class GetSecretResponse(Message):
    data: Annotated[bytes, 1] = b""


class CheckAgentRequest(Message):
    ID: Annotated[str, 1] = ""


class CheckAgentResponse(Message):
    pass
