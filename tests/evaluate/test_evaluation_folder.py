"""Claims: an evaluation replaces the one before and touches nothing else; a kill at any moment
leaves one of the two whole; what cannot work is said before an image is made."""

import os
import subprocess
import sys

import pytest
from evaluations import NoisyImages, brightness, compare

from imgalign.errors import InputError
from imgalign.evaluate.evaluation import load_evaluation
from imgalign.evaluate.saved_images import load_side
from imgalign.files import lock_name
from imgalign.preferences.records import SamplerSettings

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def never_made(*arguments, **settings):
    pytest.fail("an image was made before the folder was refused")


def test_a_users_own_folders_of_the_same_names_stay(adapter, tmp_path):
    project = tmp_path / "project"
    for name in ("base", "aligned", "images-mine"):
        (project / name).mkdir(parents=True)
        (project / name / "holiday.jpg").write_text(name)
    for name in ("base.png", "aligned.json"):
        (project / name).write_text(name)
    before = contents(project)
    for _ in range(2):
        compare(adapter, project)
    assert before.items() <= contents(project).items()


@pytest.mark.parametrize("content", ["{}", '{"pairs": []}', "my notes", "[" * 100_000])
def test_an_evaluation_json_of_another_program_is_refused_before_an_image_is_made(
    adapter, tmp_path, content
):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(InputError, match=r"evaluation.json: was not made by imgalign"):
        compare(adapter, tmp_path, load=never_made)
    assert (tmp_path / "evaluation.json").read_text() == content


def test_two_evaluations_in_one_folder_are_refused_before_an_image_is_made(adapter, tmp_path):
    program = (
        "import sys; from pathlib import Path; from imgalign.files import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(InputError, match="out: another process is evaluating here"):
            compare(adapter, tmp_path / "out", load=never_made)
        child.kill()


def test_an_oracle_reward_that_cannot_judge_a_prompt_says_so_before_an_image_is_made(
    adapter, tmp_path
):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cat\nsomething of my own\n")

    def oracle(*, prompts, samples):
        if "something of my own" in prompts:
            raise InputError("oracle reward: no opinion on 'something of my own'")
        return brightness(prompts=prompts, samples=samples)

    settings = {"prompts": prompts}
    with pytest.raises(InputError, match="no opinion"):
        compare(adapter, tmp_path / "out", load=never_made, oracle=oracle, settings=settings)
    assert not (tmp_path / "out").exists()


def killed_at(number, work):
    """Do the work in a process that dies, as by kill -9, before its `number`-th change on disk.

    Returns whether it got to the end.
    """
    child = os.fork()
    if child == 0:
        done = 0

        def count(event, arguments):
            nonlocal done
            if event in CHANGES:
                done += 1
                if done == number:
                    os._exit(9)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_kill_at_any_file_operation_leaves_one_whole_evaluation(adapter, tmp_path):
    out = tmp_path / "out"

    def evaluate(num_prompts):
        return compare(adapter, out, settings={"num_prompts": num_prompts})

    def images(found):
        columns = found.images_per_prompt
        count = len(found.pairs)
        read = load_side(out / found.images, "aligned", count=count, columns=columns)
        return [image.tobytes() for image in read]

    def expected(found):
        generator = NoisyImages("storybook")
        generator.use(adapter)
        again = generator.generate(
            [pair.prompt for pair in found.pairs],
            seeds=[pair.seed for pair in found.pairs],
            settings=SamplerSettings(),
        )
        return [each.image.tobytes() for each in again]

    whole, number = False, 0
    while not whole:
        number += 1
        evaluate(2)
        whole = killed_at(number, lambda: evaluate(3))
        found = load_evaluation(out)
        assert found.num_prompts in (2, 3)
        assert images(found) == expected(found), f"killed at operation {number}"
    assert found.num_prompts == 3
    assert number > 8  # there were that many chances
    evaluate(3)
    names = {path.name for path in out.iterdir()}
    assert names == {"evaluation.json", load_evaluation(out).images}


def test_an_evaluation_beside_a_report_of_the_same_run_is_in_nobodys_way(adapter, run):
    with lock_name(run / "report.html"):
        compare(adapter, run / "evaluation")
