"""Who is logged in: a signed cookie that names an admin key, and a token that only the console's own forms know."""

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from itsdangerous import BadSignature, URLSafeTimedSerializer

from limbeck.guard.secret import Pepper

COOKIE: Final = "limbeck_session"
LIFETIME_S: Final = 8 * 3600
_SALT = "limbeck console"


@dataclass(frozen=True, slots=True)
class Session:
    """The admin key's id, and a number drawn at login."""

    admin: str
    nonce: str


class Sessions:
    """Signs and reads sessions under the pepper."""

    def __init__(self, pepper: Pepper) -> None:
        self._secret = pepper.cookie()
        self._serializer = URLSafeTimedSerializer(self._secret, salt=_SALT)

    def begin(self, admin: str) -> str:
        """Return the cookie of a new session."""
        return str(self._serializer.dumps([admin, secrets.token_urlsafe(16)]))

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie, None if it is none of ours or older than eight hours."""
        try:
            admin, nonce = self._serializer.loads(cookie, max_age=LIFETIME_S)
        except (BadSignature, ValueError, TypeError):
            return None
        return Session(str(admin), str(nonce))

    def token(self, session: Session) -> str:
        """Return what a form of this session must send along."""
        text = f"{session.admin}:{session.nonce}".encode()
        return hmac.new(self._secret.encode(), text, sha256).hexdigest()

    def genuine(self, session: Session, token: str) -> bool:
        """Tell whether a form came from this session's pages."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())
