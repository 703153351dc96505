from transformers import CLIPTokenizer

from imgalign.diffusion.model_names import STORYBOOK
from imgalign.diffusion.tokenizer_files import write_separate_files
from imgalign.storybook.scenes import vocabulary

FOLDER = STORYBOOK / "tokenizer"


def test_the_shipped_tokenizer_is_the_same_in_the_files_that_older_releases_read(tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    older, newer = CLIPTokenizer.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(FOLDER)
    for text in (*vocabulary(), "a red house beside two boats", "Ünlike! anything, else 42", ""):
        assert older(text).input_ids == newer(text).input_ids


def test_the_shipped_files_are_those_that_the_script_writes(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((FOLDER / "tokenizer.json").read_bytes())
    write_separate_files(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()
