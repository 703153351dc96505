"""Accounts: who may use an app on a network, as what, and as which annotator.

Without accounts everybody who reaches the app may use it, so it listens on loopback only. With
accounts a browser logs in with a name and a password and holds a session; both are kept as digests
(argon2id for passwords, SHA-256 for tokens of 256 random bits), so that a stolen database opens
nothing. People join by an invitation, and who forgot a password gives the account another one by a
reset link; both work once and until a time. An account's judgements are those of the annotator of
the same name.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

from sqlalchemy import Connection, delete, func, insert, select, update

from imgalign.errors import InputError, StoreError
from imgalign.preferences import identity, queries, validation
from imgalign.preferences.accounts_schema import accounts, invitations, password_resets, sessions
from imgalign.preferences.database import Database
from imgalign.preferences.identity import person
from imgalign.preferences.passwords import hashed, matches, refuse_password, renewed
from imgalign.preferences.records import utc_now
from imgalign.preferences.schema import annotators

Role: TypeAlias = Literal["annotator", "lead", "admin"]
"""What an account may do: judge; run projects as well, and invite annotators; and everything."""
ROLES: tuple[Role, ...] = get_args(Role)

GOVERNED: dict[Role, tuple[Role, ...]] = {"annotator": (), "lead": ("annotator",), "admin": ROLES}

SESSION = timedelta(days=30)
INVITATION = timedelta(days=7)
"""Until when an invitation or a reset link works."""
SET_UP = timedelta(days=1)
WRONG = (
    "name or password: not those of an account; check both, or ask a lead or admin for an "
    "invitation or a reset link"
)
"""For an unknown name, a wrong password and a disabled account alike."""
WRONG_OLD = "old password: not that of the account; try again, or ask for a reset link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who may log in. `account_id` is also the id of the annotator."""

    account_id: str
    name: str
    role: Role
    group: str
    created_at: datetime
    disabled_at: datetime | None = None

    def may(self, role: Role) -> bool:
        """Whether it has at least the rights of a role. Example: an admin may what a lead may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def governed(self) -> tuple[Role, ...]:
        """Roles whose accounts it may invite, disable and enable; who has two may change them."""
        return GOVERNED[self.role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation that was not used yet; its token is known to whoever was given it."""

    role: Role
    group: str
    expires_at: datetime
    by: str | None


class WrongPasswordError(StoreError):
    """A password is not that of its account; nothing else is a try of one."""


class Accounts:
    """The accounts of a store. Safe to share between threads and processes, as the store is."""

    def __init__(self, database: Database, *, now: Callable[[], datetime] = utc_now) -> None:
        self.database = database
        self._now = now

    def exist(self) -> bool:
        """Whether there is any, so that the app asks who somebody is."""
        with self.database.read() as connection:
            return _any(connection)

    def require(self) -> None:
        """StoreError where there is none."""
        if not self.exist():
            raise StoreError(
                f"{self.database.name}: has no accounts; make the first by "
                "`imgalign accounts add NAME --role admin`"
            )

    def all(self) -> list[Account]:
        """By name."""
        with self.database.read() as connection:
            rows = connection.execute(joined().order_by(accounts.c.account_id)).all()
        return [account_of(row) for row in rows]

    def add(self, name: str, password: str, *, role: Role, group: str) -> Account:
        """A new account, and its annotator.

        An annotator of that name who judged before there were accounts becomes its annotator. Only
        who can write the database may ask for that: `join` refuses such a name. InputError for a
        password that is too short, StoreError where there is such an account, and where the first
        one is no admin.
        """
        refuse_role(role)
        refuse_password(password, name)
        digest = hashed(password)  # slow, so before other writers wait
        with self.database.write() as connection:
            return self._insert(connection, name, digest, role=role, group=group)

    def invite(
        self, *, role: Role, group: str, by: Account | None, lasts: timedelta = INVITATION
    ) -> str:
        """The token of a new invitation, which is shown this once.

        `by` is whose it is, None on the command line: StoreError for an account that may not
        invite to that role. The invitation ends when they may no more.
        """
        refuse_role(role)
        validation.name("group", group)
        if by is not None and role not in by.governed:
            raise StoreError(f"invitation: {by.name} ({by.role}) may not invite as {role}")
        token, now = secrets.token_urlsafe(32), self._now()
        with self.database.write() as connection:
            connection.execute(
                insert(invitations).values(
                    digest=digest_of(token),
                    role=role,
                    group_name=group,
                    invited_by=None if by is None else by.account_id,
                    created_at=now,
                    expires_at=now + lasts,
                )
            )
        return token

    def set_up(self) -> str | None:
        """The token of an invitation to make the first account, an admin's; None if there is any.

        Of several the newest works, until there is an account.
        """
        token, now = secrets.token_urlsafe(32), self._now()
        with self.database.write() as connection:
            if _any(connection):
                return None
            connection.execute(delete(invitations))
            connection.execute(
                insert(invitations).values(
                    digest=digest_of(token),
                    role="admin",
                    group_name="default",
                    created_at=now,
                    expires_at=now + SET_UP,
                )
            )
        return token

    def invitation(self, token: str) -> Invitation | None:
        """What a token invites to; None for one that is used, too old or not an invitation."""
        with self.database.read() as connection:
            row = self._open_invitation(connection, token)
        if row is None:
            return None
        return Invitation(
            role=row.role, group=row.group_name, expires_at=row.expires_at, by=row.invited_by
        )

    def join(self, token: str, name: str, password: str) -> Account:
        """The account that an invitation opens, once.

        StoreError for an invitation that does not work, and for a name that is somebody else's.
        """
        refuse_password(password, name)
        digest = hashed(password)
        with self.database.write() as connection:
            row = self._open_invitation(connection, token)
            if row is None:
                raise StoreError("invitation: used, too old or not whole; ask for another link")
            # Who makes the first account, by a link that the server printed, may be somebody who
            # judged before there were accounts; anybody else takes no name of others.
            if _any(connection) and queries.annotator(connection, person(name)) is not None:
                raise StoreError(f"name {name!r}: somebody else's; choose another")
            account = self._insert(connection, name, digest, role=row.role, group=row.group_name)
            connection.execute(
                update(invitations)
                .where(invitations.c.digest == row.digest)
                .values(account_id=account.account_id, used_at=self._now())
            )
        return account

    def login(self, name: str, password: str) -> str:
        """The token of a new session. WrongPasswordError, always the same, where it may not be.

        The caller limits how often it is asked: each answer costs a tenth of a second on purpose.
        """
        with self.database.read() as connection:
            row = connection.execute(
                select(accounts).where(accounts.c.account_id == person(name))
            ).first()
        # Somebody unknown takes as long as a wrong password, or names could be found out.
        right = matches(None if row is None else row.password, password)
        if not right or row is None or row.disabled_at is not None:
            raise WrongPasswordError(WRONG)
        token, now, digest = secrets.token_urlsafe(32), self._now(), row.password
        newer = renewed(digest, password)
        with self.database.write() as connection:
            mine = accounts.c.account_id == row.account_id
            standing = select(accounts.c.password).where(mine, accounts.c.disabled_at.is_(None))
            if connection.execute(standing).scalar() != digest:  # changed since it was read
                raise WrongPasswordError(WRONG)
            if newer != digest:
                connection.execute(update(accounts).where(mine).values(password=newer))
            old = sessions.c.account_id == row.account_id, sessions.c.expires_at <= now
            connection.execute(delete(sessions).where(*old))
            connection.execute(
                insert(sessions).values(
                    digest=digest_of(token),
                    account_id=row.account_id,
                    created_at=now,
                    expires_at=now + SESSION,
                )
            )
        return token

    def of_session(self, token: str) -> Account | None:
        """The account of a session; None for one that ended, or of an account that is disabled."""
        condition = (
            sessions.c.digest == digest_of(token),
            sessions.c.expires_at > self._now(),
            accounts.c.disabled_at.is_(None),
        )
        with self.database.read() as connection:
            row = connection.execute(joined(by_session=True).where(*condition)).first()
        return None if row is None else account_of(row)

    def logout(self, token: str) -> None:
        """End a session; nothing for one that there is not."""
        with self.database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.digest == digest_of(token)))

    def disable(self, name: str, *, by: Account | None = None) -> Account:
        """End all sessions of an account and refuse new ones; what it judged stays.

        `by` is who does it, here and below; None on the command line. StoreError where they may
        not, and for the last admin.
        """
        return self._change(name, by, disabled_at=self._now())

    def enable(self, name: str, *, by: Account | None = None) -> Account:
        """Let an account log in again."""
        return self._change(name, by, disabled_at=None)

    def set_role(self, name: str, role: Role, *, by: Account | None = None) -> Account:
        """Give an account another role; StoreError where the last admin would be none."""
        refuse_role(role)
        return self._change(name, by, role=role)

    def set_password(self, name: str, password: str) -> Account:
        """Give an account another password, and end its sessions."""
        refuse_password(password, name)
        return self._change(name, None, password=hashed(password))

    def change_password(self, account: Account, old: str, new: str, *, session: str) -> None:
        """Another password for whoever knows the old one; all sessions but theirs end.

        WrongPasswordError for a wrong old password. The caller limits how often it is asked.
        """
        mine = accounts.c.account_id == account.account_id
        standing = select(accounts.c.password).where(mine, accounts.c.disabled_at.is_(None))
        with self.database.read() as connection:
            digest = connection.execute(standing).scalar()
        if not matches(digest, old):
            raise WrongPasswordError(WRONG_OLD)
        refuse_password(new, account.name)
        newer = hashed(new)
        with self.database.write() as connection:
            if connection.execute(standing).scalar() != digest:  # changed since it was read
                raise WrongPasswordError(WRONG_OLD)
            connection.execute(update(accounts).where(mine).values(password=newer))
            shut(connection, account.account_id, but=session)

    def _insert(
        self, connection: Connection, name: str, digest: str, *, role: Role, group: str
    ) -> Account:
        now = self._now()
        if not _any(connection):
            if role != "admin":
                raise StoreError(f"account {name!r}: the first account must be an admin")
            connection.execute(delete(invitations))  # to make the first account: `set_up`
        if connection.execute(joined().where(accounts.c.account_id == person(name))).first():
            raise StoreError(f"account {name!r}: there is one already; choose another name")
        annotator = identity.register(
            connection, name, display=name, group=group, client=None, now=now
        )
        if annotator.kind != "a person":
            raise StoreError(f"account {name!r}: the name of {annotator.kind}; choose another")
        connection.execute(
            insert(accounts).values(
                account_id=annotator.annotator_id, role=role, password=digest, created_at=now
            )
        )
        return Account(
            account_id=annotator.annotator_id,
            name=annotator.name,
            role=role,
            group=annotator.group,
            created_at=now,
        )

    def _change(self, name: str, by: Account | None, **values: object) -> Account:
        account_id = person(name)
        with self.database.write() as connection:
            governed(connection, name, by, becomes=values.get("role"))
            mine = accounts.c.account_id == account_id
            connection.execute(update(accounts).where(mine).values(**values))
            admins = select(func.count()).where(
                accounts.c.role == "admin", accounts.c.disabled_at.is_(None)
            )
            if not connection.execute(admins).scalar_one():
                raise StoreError(
                    f"account {name!r}: the last admin, without whom nobody could invite; make "
                    "another one first"
                )
            if "password" in values or values.get("disabled_at") is not None:
                shut(connection, account_id)
            return account_of(connection.execute(joined().where(mine)).one())

    def _open_invitation(self, connection: Connection, token: str) -> Any:
        inviter = accounts.c.role.label("role_of_inviter"), accounts.c.disabled_at
        row = connection.execute(
            select(invitations, *inviter)
            .outerjoin(accounts, accounts.c.account_id == invitations.c.invited_by)
            .where(
                invitations.c.digest == digest_of(token),
                invitations.c.used_at.is_(None),
                invitations.c.expires_at > self._now(),
            )
        ).first()
        if row is None or row.invited_by is None:
            return row
        stands = row.disabled_at is None and row.role in GOVERNED[row.role_of_inviter]
        return row if stands else None


def refuse_role(role: str) -> None:
    """InputError for a role that there is not."""
    if role not in ROLES:
        raise InputError(f"role: expected one of {', '.join(ROLES)}, got {role!r}")


def governed(
    connection: Connection, name: str, by: Account | None, *, becomes: object = None
) -> Account:
    """The account of a name; StoreError where `by` may not change it, or to the role it becomes."""
    row = connection.execute(joined().where(accounts.c.account_id == person(name))).first()
    if row is None:
        raise StoreError(f"account {name!r}: there is none; see `imgalign accounts list`")
    if by is not None and not {row.role, becomes or row.role} <= {*by.governed}:
        raise StoreError(
            f"account {name!r}: {by.name} ({by.role}) may not do that to an account of "
            f"role {row.role}; ask an admin"
        )
    return account_of(row)


# Built once: it is asked with each request, and building it takes longer than the database does.
ANY = select(accounts.c.account_id).limit(1)


def _any(connection: Connection) -> bool:
    return connection.execute(ANY).first() is not None


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def shut(connection: Connection, account_id: str, *, but: str = "") -> None:
    """End the reset links of an account and its sessions, but that of one token."""
    connection.execute(delete(password_resets).where(password_resets.c.account_id == account_id))
    others = sessions.c.account_id == account_id, sessions.c.digest != digest_of(but)
    connection.execute(delete(sessions).where(*others))


def joined(*, by_session: bool = False) -> Any:
    """Accounts with the name and group of their annotators."""
    table = accounts.join(annotators, accounts.c.account_id == annotators.c.annotator_id)
    if by_session:
        table = table.join(sessions, sessions.c.account_id == accounts.c.account_id)
    return select(accounts, annotators.c.name, annotators.c.group_name).select_from(table)


def account_of(row: Any) -> Account:
    """The account of a row of `joined`."""
    return Account(
        account_id=row.account_id,
        name=row.name,
        role=row.role,
        group=row.group_name,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )
