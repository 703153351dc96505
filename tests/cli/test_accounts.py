"""Claims: accounts are made, invited, changed and ended on the command line; nothing secret is an
argument, which other users of a machine can read."""

import io
from pathlib import Path

import pytest

from imgalign.cli import accounts as commands
from imgalign.cli.main import main
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store

PASSWORD = "four odd green words"
HERE = ["--database", "sqlite:///imgalign.db"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    return tmp_path


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, typed: str = PASSWORD + "\n", code: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main(["accounts", *words, *HERE]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def test_an_admin_a_link_and_what_becomes_of_those_who_take_it(ask):
    assert "no such database" in ask("add", "Ada", "--role", "admin", code=2)
    made = ask("add", "Ada", "--role", "admin", "--create")
    assert "Ada may log in: admin: as a lead, starts training" in made
    link = ask("invite", "--group", "cosy", "--address", "https://studio.example/").strip()
    assert link.startswith("https://studio.example/join#")
    with Store.open(create=False) as store:
        people = Accounts(store.database)
        people.join(link.partition("#")[2], "Bea", PASSWORD)
        session = people.login("Bea", PASSWORD)
        lines = ask("list").splitlines()
        assert [line.partition(", since")[0] for line in lines] == [
            "Ada: admin, group default",
            "Bea: annotator, group cosy",
        ]
        assert "Bea is lead: judges, runs projects" in ask("role", "bea", "lead")
        assert people.of_session(session).role == "lead"
        ask("password", "Bea", typed="another few blue words\r\n")
        assert people.of_session(session) is None
        session = people.login("Bea", "another few blue words")
        assert ask("disable", "BEA") == "Bea is disabled\n"
        assert people.of_session(session) is None
        assert ", disabled since 20" in ask("list")
        assert ask("enable", "Bea") == "Bea may log in again\n"


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (["invite"], "", "has no accounts; make the first by `imgalign accounts add NAME --role"),
        (["list"], "", "has no accounts"),
        (["disable", "Ada"], "", "has no accounts"),
        (["add", "Bea"], PASSWORD, "the first account must be an admin"),
        (["add", "Bea", "--role", "admin"], "short", "expected 10 to 200 characters, got 5"),
        (["add", "Bea", "--role", "admin"], "", "expected 10 to 200 characters, got 0"),
        (["add", "Bea", "--role", "king"], PASSWORD, "'king' is not one of"),
        (["add", " ", "--role", "admin"], PASSWORD, "expected a name"),
    ],
)
def test_what_cannot_be_is_one_line(ask, words, typed, said):
    Store.open("sqlite:///imgalign.db").close()
    found = ask(*words, typed=typed, code=2)
    assert said in found
    assert found.count("\n") == 1


def test_a_link_to_nowhere_is_refused(ask):
    ask("add", "Ada", "--role", "admin", "--create")
    said = ask("invite", "--address", "studio.example", code=2)
    assert "--address: expected one like https://studio.example, got 'studio.example'" in said


def test_a_password_at_a_terminal_is_typed_twice_and_not_seen(ask, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    given: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(commands, "getpass", lambda prompt: given.pop(0))
    given[:] = [PASSWORD, PASSWORD]
    assert main(["accounts", "add", "Ada", "--role", "admin", "--create", *HERE]) == 0
    given[:] = [PASSWORD, PASSWORD + "x"]
    assert main(["accounts", "add", "Bea", *HERE]) == 2
    with Store.open(create=False) as store:
        assert [each.name for each in Accounts(store.database).all()] == ["Ada"]
