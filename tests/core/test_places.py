"""Claims: what a command writes replaces only what imgalign made, and two of them never write to
one place at a time."""

import pytest

from imgalign.config import dump_config
from imgalign.demo import DemoConfig, run_demo
from imgalign.errors import InputError
from imgalign.files import lock_folder, lock_name
from imgalign.report.writing import write_report
from imgalign.train.config import TrainConfig


@pytest.fixture
def run(tmp_path):
    """As much of a run as a report needs."""
    folder = tmp_path / "run"
    folder.mkdir()
    dump_config(TrainConfig(), folder / "config.yaml")
    return folder


def test_a_report_replaces_a_report_and_nothing_else(run, tmp_path):
    mine = tmp_path / "thesis.html"
    mine.write_text("<html>my thesis</html>")
    with pytest.raises(InputError, match=r"thesis.html: is no report of imgalign"):
        write_report(run, out=mine)
    assert mine.read_text() == "<html>my thesis</html>"
    with pytest.raises(InputError, match="expected a file for the report, got a folder"):
        write_report(run, out=tmp_path)
    page = write_report(run, out=tmp_path / "report.html")
    assert write_report(run, out=page) == page


def test_two_reports_of_one_name_are_refused(run):
    with (
        lock_name(run / "report.html"),
        pytest.raises(InputError, match=r"report.html: another process is writing this"),
    ):
        write_report(run)
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml"]


def test_two_demos_in_one_folder_are_refused(tmp_path):
    out = tmp_path / "demo"
    with lock_folder(out), pytest.raises(InputError, match="demo: another process is running"):
        run_demo(out, settings=DemoConfig(num_prompts=1))
    assert not out.exists()
