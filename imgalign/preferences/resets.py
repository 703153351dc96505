"""Reset links: who forgot a password gets one from a lead or admin, and chooses another password.

Built as invitations are: the link works once and until a time, and only the digest of its token is
kept. It works as long as whoever made it may change the account, so that a link that a lead made
for an annotator does not open the account of a lead.
"""

import secrets
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, delete, insert, update

from imgalign.errors import StoreError
from imgalign.preferences.accounts import (
    GOVERNED,
    INVITATION,
    Account,
    account_of,
    digest_of,
    governed,
    joined,
    shut,
)
from imgalign.preferences.accounts_schema import accounts, password_resets
from imgalign.preferences.database import Database
from imgalign.preferences.passwords import hashed, refuse_password
from imgalign.preferences.records import utc_now

NO_RESET = "reset link: used, too old or not whole; ask a lead or admin for another"


class Resets:
    """The reset links of a store."""

    def __init__(self, database: Database, *, now: Callable[[], datetime] = utc_now) -> None:
        self.database = database
        self._now = now

    def link(self, name: str, *, by: Account | None) -> str:
        """The token of a new reset link of an account, shown this once; earlier ones end.

        `by` is who makes it, None on the command line. StoreError where they may not change that
        account, and where it is disabled.
        """
        token, now = secrets.token_urlsafe(32), self._now()
        with self.database.write() as connection:
            account = governed(connection, name, by)
            if account.disabled_at is not None:
                raise StoreError(f"account {name!r}: disabled; enable it first")
            mine = password_resets.c.account_id == account.account_id
            connection.execute(delete(password_resets).where(mine))
            connection.execute(
                insert(password_resets).values(
                    digest=digest_of(token),
                    account_id=account.account_id,
                    made_by=None if by is None else by.account_id,
                    created_at=now,
                    expires_at=now + INVITATION,
                )
            )
        return token

    def account(self, token: str) -> Account | None:
        """Whose password a token resets; None for one that is used, too old or no reset link."""
        with self.database.read() as connection:
            return self._account(connection, token)

    def use(self, token: str, password: str) -> Account:
        """Give the account of a reset link another password, once, and end its sessions.

        StoreError for a link that does not work, InputError for a password that is refused, after
        which the link still works.
        """
        account = self.account(token)
        if account is None:
            raise StoreError(NO_RESET)
        refuse_password(password, account.name)
        digest = hashed(password)
        with self.database.write() as connection:
            if self._account(connection, token) is None:
                raise StoreError(NO_RESET)
            mine = accounts.c.account_id == account.account_id
            connection.execute(update(accounts).where(mine).values(password=digest))
            shut(connection, account.account_id)
        return account

    def _account(self, connection: Connection, token: str) -> Account | None:
        maker = accounts.alias()
        row = connection.execute(
            joined()
            .add_columns(
                password_resets.c.made_by,
                maker.c.role.label("role_of_maker"),
                maker.c.disabled_at.label("maker_disabled_at"),
            )
            .join(password_resets, password_resets.c.account_id == accounts.c.account_id)
            .outerjoin(maker, maker.c.account_id == password_resets.c.made_by)
            .where(
                password_resets.c.digest == digest_of(token),
                password_resets.c.expires_at > self._now(),
                accounts.c.disabled_at.is_(None),
            )
        ).first()
        if row is None:
            return None
        by_command = row.made_by is None
        stands = by_command or (
            row.maker_disabled_at is None and row.role in GOVERNED[row.role_of_maker]
        )
        return account_of(row) if stands else None
