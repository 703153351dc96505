"""Claims: accounts open with their password alone, invitations once, and sessions until they end;
what the database holds opens nothing; there is always an admin."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from clocks import Clock
from sqlalchemy import select

from imgalign.errors import InputError, StoreError
from imgalign.preferences import accounts as module
from imgalign.preferences import passwords
from imgalign.preferences.accounts import INVITATION, ROLES, SESSION, WRONG, Account, Accounts
from imgalign.preferences.accounts_schema import accounts, invitations, sessions
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store

PASSWORD = "four odd green words"
OTHER = "another few blue words"


@pytest.fixture
def people(store: Store, clock: Clock) -> Accounts:
    people = Accounts(store.database, now=clock)
    people.add("Ada", PASSWORD, role="admin", group="warm")
    return people


def refused(what: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as error:
        what()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_store_has_no_accounts_until_an_admin_is_made(store):
    people = Accounts(store.database)
    assert not people.exist()
    assert "first account must be an admin" in refused(
        lambda: people.add("Ada", PASSWORD, role="lead", group="warm")
    )
    people.add("Ada", PASSWORD, role="admin", group="warm")
    assert people.exist()
    assert [(each.name, each.role, each.group) for each in people.all()] == [
        ("Ada", "admin", "warm")
    ]


def test_a_session_is_opened_by_the_password_and_any_spelling_of_the_name(people, clock):
    token = people.login("  aDA ", PASSWORD)
    assert people.of_session(token).name == "Ada"
    assert people.of_session(token + "x") is None
    clock.now += SESSION - timedelta(seconds=1)
    assert people.of_session(token) is not None
    clock.now += timedelta(seconds=1)
    assert people.of_session(token) is None


def test_a_session_ends_when_it_is_left_and_others_stay(people):
    first, second = people.login("Ada", PASSWORD), people.login("Ada", PASSWORD)
    people.logout(first)
    people.logout("of nobody")
    assert people.of_session(first) is None
    assert people.of_session(second) is not None


def test_what_is_wrong_is_not_told_apart(people, store):
    people.add("Bea", PASSWORD, role="annotator", group="warm")
    people.disable("Bea")
    for name, password in (
        ("Ada", OTHER),
        ("Ada", ""),
        ("Ada", PASSWORD + " "),
        ("Ada", PASSWORD * 20),
        ("Ada", "\ud800" * 12),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("ann", PASSWORD),  # an annotator without an account
        ("Bea", PASSWORD),
        ("Bea", OTHER),
    ):
        assert refused(partial(people.login, name, password)) == WRONG


def test_a_name_without_an_account_costs_as_much_as_a_wrong_password(people, monkeypatch):
    asked = []

    class Hasher:
        def verify(self, digest: str, password: str) -> None:
            asked.append(digest)
            raise VerificationError

        def hash(self, password: str) -> str:
            return "of nobody"

    monkeypatch.setattr(passwords, "_hasher", Hasher)
    passwords._nobody.cache_clear()
    for name in ("nobody", "Ada"):
        refused(partial(people.login, name, OTHER))
    passwords._nobody.cache_clear()
    assert len(asked) == 2
    assert asked[0] == "of nobody"


def test_neither_passwords_nor_tokens_are_in_the_database(people, store):
    invited = people.invite(role="lead", group="warm", by=None)
    tokens = [people.login("Ada", PASSWORD), invited]
    with store.database.read() as connection:
        rows = [
            value
            for table in (accounts, sessions, invitations)
            for row in connection.execute(select(table))
            for value in map(str, row)
        ]
    assert not any(PASSWORD in value or token in value for value in rows for token in tokens)
    (digest,) = [value for value in rows if value.startswith("$argon2id$")]
    assert "m=65536,t=3" in digest


def test_a_password_that_is_easily_guessed_is_refused(people):
    for password, said in (
        ("short", "expected 10 to 200 characters, got 5"),
        ("x" * 201, "got 201"),
        ("aaaaaaaaaaaaaa", "too easily guessed"),
        ("bea bea bea", "too easily guessed"),
        ("BEA 12345 bea", "too easily guessed"),
        ("four odd \ud800 words", "cannot be stored"),
    ):
        with pytest.raises(InputError, match=said):
            people.add("Bea", password, role="annotator", group="warm")
    passwords.refuse_password("several odd words", "o")  # a short name is in many passwords
    with pytest.raises(InputError, match="expected a name"):
        people.add(" ", PASSWORD, role="annotator", group="warm")
    with pytest.raises(InputError, match="role: expected one of annotator, lead, admin"):
        module.refuse_role("king")
    assert len(people.all()) == 1


def test_an_invitation_opens_one_account_until_its_time(people, clock):
    token = people.invite(role="annotator", group="cosy", by=people.all()[0])
    found = people.invitation(token)
    assert (found.role, found.group, found.by) == ("annotator", "cosy", "ada")
    account = people.join(token, "Bea", OTHER)
    assert (account.role, account.group) == ("annotator", "cosy")
    assert people.of_session(people.login("bea", OTHER)) == account
    assert people.invitation(token) is None
    assert "used, too old" in refused(lambda: people.join(token, "Cid", OTHER))
    late = people.invite(role="annotator", group="cosy", by=None)
    clock.now += INVITATION
    assert "used, too old" in refused(lambda: people.join(late, "Cid", OTHER))
    assert "used, too old" in refused(lambda: people.join("", "Cid", OTHER))


def test_an_invitation_opens_no_account_of_somebody_else_and_works_afterwards(people):
    token = people.invite(role="annotator", group="warm", by=None)
    # An annotator from before there were accounts: her judgements are hers.
    for name in ("ann", " ANN ", "Ada"):
        assert "somebody else's; choose another" in refused(
            partial(people.join, token, name, OTHER)
        )
    assert people.join(token, "Cid", OTHER).name == "Cid"


def test_nobody_invites_to_more_than_they_may(people):
    def account(role: str) -> Account:
        return people.add(f"the {role}", PASSWORD, role=role, group="warm")

    lead, annotator = account("lead"), account("annotator")
    people.invite(role="annotator", group="warm", by=lead)
    refusals = ((lead, "lead"), (lead, "admin"), (annotator, "annotator"), (annotator, "lead"))
    for by, role in refusals:
        assert "may not invite" in refused(partial(people.invite, role=role, group="warm", by=by))
    for role in ROLES:
        people.invite(role=role, group="warm", by=people.all()[0])
    assert [lead.may(role) for role in ROLES] == [True, True, False]


def test_a_lead_ends_and_lets_in_annotators_and_changes_nobody_else(people):
    lead, other, bea, ada = (
        people.add(name, OTHER, role=role, group="warm")
        for name, role in (("Lu", "lead"), ("Lo", "lead"), ("Bea", "annotator"), ("Ida", "admin"))
    )
    assert people.disable("Bea", by=lead).disabled_at is not None
    assert people.enable("Bea", by=lead).disabled_at is None
    for change in (
        partial(people.set_role, "Bea", "lead", by=lead),
        partial(people.set_role, "Lu", "admin", by=lead),
        partial(people.set_role, "Lo", "annotator", by=lead),
        partial(people.disable, "Lo", by=lead),
        partial(people.disable, "Ida", by=lead),
        partial(people.disable, "Lu", by=bea),
        partial(people.set_role, "Bea", "annotator", by=bea),
    ):
        assert "may not do that to an account of role" in refused(change)
    assert [each.role for each in people.all()] == ["admin", "annotator", "admin", "lead", "lead"]
    assert people.set_role("Bea", "admin", by=ada).role == "admin"
    assert people.disable("Lo", by=ada).disabled_at is not None
    assert other.name == "Lo"


def test_an_invitation_ends_with_the_right_to_invite(people):
    lead = people.add("Lu", OTHER, role="lead", group="warm")
    token = people.invite(role="annotator", group="warm", by=lead)
    people.disable("Lu")
    assert people.invitation(token) is None
    assert "used, too old" in refused(lambda: people.join(token, "Cid", OTHER))
    people.enable("Lu")
    assert people.invitation(token) is not None
    people.set_role("Lu", "annotator")
    assert people.invitation(token) is None


def test_an_account_of_an_annotator_from_before_goes_on_with_their_judgements(people, store):
    assert people.add("Ann", OTHER, role="lead", group="warm").account_id == "ann"
    with pytest.raises(StoreError, match="already in group 'cool'"):
        people.add("bob", OTHER, role="lead", group="warm")
    assert "there is one already" in refused(
        lambda: people.add("ann", OTHER, role="lead", group="warm")
    )


def test_a_disabled_account_has_no_session_and_keeps_its_judgements(people, store, add_items):
    add_items(1)
    people.add("Bea", OTHER, role="annotator", group="warm")
    item = store.next_item("Bea")
    store.submit(
        Submission(
            annotator="Bea",
            item_id=item.item_id,
            key="first vote",
            verdict="ranked",
            ranking=((0,), (1,), (2,)),
        )
    )
    token = people.login("Bea", OTHER)
    assert people.disable("BEA").disabled_at is not None
    assert people.of_session(token) is None
    assert len(list(store.rankings())) == 1
    assert people.enable("Bea").disabled_at is None
    assert people.of_session(token) is None  # it ended
    assert people.of_session(people.login("Bea", OTHER)) is not None


def test_another_password_ends_all_sessions(people):
    token = people.login("Ada", PASSWORD)
    people.set_password("Ada", OTHER)
    assert people.of_session(token) is None
    assert refused(lambda: people.login("Ada", PASSWORD)) == WRONG
    assert people.of_session(people.login("Ada", OTHER)) is not None


def test_there_is_always_an_admin(people):
    for change in (lambda: people.disable("Ada"), lambda: people.set_role("Ada", "lead")):
        assert "the last admin" in refused(change)
    people.add("Bea", OTHER, role="annotator", group="warm")
    people.set_role("Bea", "admin")
    assert people.set_role("Ada", "annotator").role == "annotator"
    assert "the last admin" in refused(lambda: people.disable("Bea"))
    assert "there is none" in refused(lambda: people.disable("nobody"))


def test_a_password_that_changes_while_somebody_logs_in_opens_nothing(people, monkeypatch):
    class Slow:
        own = passwords._hasher()

        def verify(self, digest: str, password: str) -> None:
            self.own.verify(digest, password)
            monkeypatch.undo()
            people.set_password("Ada", OTHER)

        def check_needs_rehash(self, digest: str) -> bool:
            return False

    monkeypatch.setattr(passwords, "_hasher", Slow)
    assert refused(lambda: people.login("Ada", PASSWORD)) == WRONG


def test_an_old_digest_is_made_anew_when_its_owner_logs_in(people, store, monkeypatch):
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with monkeypatch.context() as patch:
        patch.setattr(passwords, "_hasher", lambda: weak)
        people.set_password("Ada", OTHER)
    people.login("Ada", OTHER)
    with store.database.read() as connection:
        assert "m=65536" in connection.execute(select(accounts.c.password)).scalar_one()
    people.login("Ada", OTHER)


def test_the_name_of_a_judge_or_of_a_simulated_annotator_is_no_account(people, store):
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    with pytest.raises(StoreError, match="the name of a simulated annotator"):
        people.add("cosy-1", OTHER, role="lead", group="cosy")
