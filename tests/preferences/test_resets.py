"""Claims: a reset link gives its account another password, once, until its time, and as long as
whoever made it may change the account; an own password is changed by who knows the old one; every
other session ends; the first account can be made by a link that dies with it."""

from collections.abc import Callable
from functools import partial

import pytest
from clocks import Clock
from sqlalchemy import select

from imgalign.errors import InputError, StoreError
from imgalign.preferences.accounts import INVITATION, SET_UP, WRONG, WRONG_OLD, Accounts, Role
from imgalign.preferences.accounts_schema import invitations, password_resets
from imgalign.preferences.resets import NO_RESET, Resets
from imgalign.preferences.store import Store

PASSWORD = "four odd green words"
OTHER = "another few blue words"


@pytest.fixture
def people(store: Store, clock: Clock) -> Accounts:
    people = Accounts(store.database, now=clock)
    roles: dict[str, Role] = {"Ida": "admin", "Lu": "lead", "Lo": "lead", "Bea": "annotator"}
    for name, role in roles.items():
        people.add(name, PASSWORD, role=role, group="warm")
    return people


@pytest.fixture
def resets(store: Store, clock: Clock) -> Resets:
    return Resets(store.database, now=clock)


def called(people: Accounts, name: str):
    return next(each for each in people.all() if each.name == name)


def refused(what: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as error:
        what()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_reset_link_changes_the_password_once_and_ends_all_sessions(people, resets):
    sessions = [people.login("Bea", PASSWORD) for _ in range(2)]
    own = people.login("Lu", PASSWORD)
    token = resets.link("bea", by=called(people, "Lu"))
    assert resets.account(token).name == "Bea"
    assert people.of_session(sessions[0]) is not None  # until it is used
    with pytest.raises(InputError, match="expected 10 to 200 characters"):
        resets.use(token, "short")
    assert resets.use(token, OTHER).name == "Bea"
    assert [people.of_session(each) for each in sessions] == [None, None]
    assert people.of_session(own).name == "Lu"
    assert refused(lambda: people.login("Bea", PASSWORD)) == WRONG
    assert people.of_session(people.login("Bea", OTHER)).name == "Bea"
    assert resets.account(token) is None
    assert refused(lambda: resets.use(token, PASSWORD)) == NO_RESET


def test_a_link_works_until_its_time_and_only_the_newest_of_an_account(people, resets, clock):
    first = resets.link("Bea", by=None)
    second = resets.link("Bea", by=None)
    others = resets.link("Lo", by=None)
    assert resets.account(first) is None
    assert resets.account(second).name == "Bea"
    assert resets.account(others).name == "Lo"
    clock.now += INVITATION
    for token in (second, others, "", "x", "\ud800"):
        assert resets.account(token) is None
        assert refused(partial(resets.use, token, OTHER)) == NO_RESET


def test_links_are_made_by_those_who_may_change_the_account(people, resets):
    ida, lu, bea = (called(people, name) for name in ("Ida", "Lu", "Bea"))
    for name, by in (("Lo", lu), ("Lu", lu), ("Ida", lu), ("Bea", bea), ("Lu", bea), ("Ida", bea)):
        said = refused(partial(resets.link, name, by=by))
        assert "may not do that to an account of role" in said
    for name in ("Ida", "Lu", "Bea"):
        assert resets.account(resets.link(name, by=ida)).name == name
    assert "there is none" in refused(lambda: resets.link("nobody", by=ida))
    people.disable("Bea")
    assert "disabled; enable it first" in refused(lambda: resets.link("Bea", by=ida))


def test_a_link_ends_with_the_right_to_make_it(people, resets):
    token = resets.link("Bea", by=called(people, "Lu"))
    people.set_role("Bea", "lead")  # a lead's link does not open a lead's account
    assert resets.account(token) is None
    assert refused(lambda: resets.use(token, OTHER)) == NO_RESET
    people.set_role("Bea", "annotator")
    assert resets.account(token) is not None
    people.disable("Lu")
    assert resets.account(token) is None
    people.enable("Lu")
    people.set_role("Lu", "annotator")
    assert resets.account(token) is None


@pytest.mark.parametrize("end", ["disabled", "changed", "given"])
def test_a_link_ends_when_the_account_does_or_its_password_changes(people, resets, end):
    token = resets.link("Bea", by=None)
    if end == "disabled":
        people.disable("Bea")
        people.enable("Bea")
    elif end == "changed":
        people.change_password(called(people, "Bea"), PASSWORD, OTHER, session="")
    else:
        people.set_password("Bea", OTHER)
    assert resets.account(token) is None
    assert refused(lambda: resets.use(token, PASSWORD)) == NO_RESET


def test_the_token_of_a_link_is_not_in_the_database(people, resets, store):
    token = resets.link("Bea", by=None)
    with store.database.read() as connection:
        (row,) = connection.execute(select(password_resets)).all()
    assert not any(token in str(value) for value in row)


def test_who_knows_the_old_password_changes_it_and_stays(people):
    here, elsewhere = people.login("Bea", PASSWORD), people.login("Bea", PASSWORD)
    own = people.login("Lu", PASSWORD)
    bea = called(people, "Bea")
    for old in (OTHER, "", PASSWORD + " ", PASSWORD * 20, "\ud800"):
        change = partial(people.change_password, bea, old, OTHER, session=here)
        assert refused(change) == WRONG_OLD
    with pytest.raises(InputError, match="too easily guessed"):
        people.change_password(bea, PASSWORD, "bea bea bea", session=here)
    assert people.of_session(elsewhere) is not None
    people.change_password(bea, PASSWORD, OTHER, session=here)
    assert people.of_session(here).name == "Bea"
    assert people.of_session(elsewhere) is None
    assert people.of_session(own).name == "Lu"
    assert refused(lambda: people.login("Bea", PASSWORD)) == WRONG
    assert people.of_session(people.login("Bea", OTHER)) is not None


def test_the_first_account_is_an_admin_by_the_newest_link_and_then_none_works(store, clock):
    people = Accounts(store.database, now=clock)
    first, second = people.set_up(), people.set_up()
    assert people.invitation(first) is None
    assert "used, too old" in refused(lambda: people.join(first, "Ada", PASSWORD))
    assert people.invitation(second).role == "admin"
    assert people.join(second, "Ada", PASSWORD).role == "admin"
    for token in (first, second):
        assert people.invitation(token) is None
        assert "used, too old" in refused(partial(people.join, token, "Eve", PASSWORD))
    assert people.set_up() is None
    with store.database.read() as connection:
        assert connection.execute(select(invitations)).all() == []


def test_a_link_for_the_first_account_ends_with_its_day_and_with_an_account(store, clock):
    people = Accounts(store.database, now=clock)
    late = people.set_up()
    clock.now += SET_UP
    assert "used, too old" in refused(lambda: people.join(late, "Eve", PASSWORD))
    token = people.set_up()
    people.add("Ada", PASSWORD, role="admin", group="warm")  # in a terminal
    assert "used, too old" in refused(lambda: people.join(token, "Eve", PASSWORD))
    assert [each.name for each in people.all()] == ["Ada"]


def test_who_ranked_before_there_were_accounts_makes_the_first_under_their_name(store, clock):
    people = Accounts(store.database, now=clock)
    store.add_annotator("zoe", name="Zoe", group="default")
    store.add_annotator("yan", name="Yan", group="default")
    assert people.join(people.set_up(), "Zoe", PASSWORD).account_id == "zoe"
    invited = people.invite(role="annotator", group="default", by=None)
    assert "somebody else's" in refused(lambda: people.join(invited, "Yan", PASSWORD))
