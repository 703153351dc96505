"""Finding and loading language models, and what is refused in one line."""

import json

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_language import (
    CONTEXT,
    END,
    KINDS,
    PAD,
    USER,
    build_tokenizer,
    config_of,
    write_language_model,
)
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    T5Config,
)

from imgalign.errors import InputError
from imgalign.language.chat import response_tokens
from imgalign.language.loading import find_language_model, load_language_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_loaded_with_its_weights_without_dropout(folders, kind):
    found = load_language_model(str(folders[kind]), device=CPU)
    assert not any(module.training for module in found.model.modules())
    assert found.context_length == CONTEXT
    theirs = AutoModelForCausalLM.from_pretrained(folders[kind]).state_dict()
    for name, weight in found.model.state_dict().items():
        assert torch.equal(weight, theirs[name])


def test_tied_embeddings_stay_tied(tmp_path):
    folder = write_language_model(tmp_path, "qwen2", tied=True)
    model = load_language_model(str(folder), device=CPU).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_dtype_and_attention_are_those_asked_for(folders):
    model = load_language_model(
        str(folders["llama"]), device=CPU, dtype=torch.bfloat16, attention="eager"
    ).model
    assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager")
    by_default = load_language_model(str(folders["llama"]), device=CPU).model
    assert (by_default.dtype, by_default.config._attn_implementation) == (torch.float32, "sdpa")


def test_the_context_is_the_smaller_of_what_model_and_tokenizer_state(tmp_path):
    folder = write_language_model(tmp_path, "gpt2", build_tokenizer(context_length=CONTEXT - 1))
    assert load_language_model(str(folder), device=CPU).context_length == CONTEXT - 1


def test_a_model_without_a_stated_context_is_refused_unless_its_tokenizer_states_one(tmp_path):
    tokenizer = build_tokenizer()
    config = BloomConfig(
        vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2, eos_token_id=None
    )
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "does not state its context length; set model_max_length" in refused(tmp_path)
    build_tokenizer(context_length=20).save_pretrained(tmp_path)
    assert load_language_model(str(tmp_path), device=CPU).context_length == 20


@pytest.mark.parametrize(
    "name", ["no-such-folder", "runs/rewriter_sft", "a/b/c", "../up", "owner/na me"]
)
def test_a_name_that_is_nothing_says_what_is_expected(name):
    with pytest.raises(InputError, match="expected 'storybook', a folder or a hub id") as error:
        find_language_model(name)
    assert repr(name) in str(error.value)


def test_a_model_of_the_hub_without_a_connection_is_one_line(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'no-such/model' is no folder here, not in the") as error:
        load_language_model("no-such/model", device=CPU)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_says_what_is_in_it(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"expected config\.json in .*notes\.txt"):
        load_language_model(str(tmp_path), device=CPU)


def state(file, **values):
    before = json.loads(file.read_text())
    before.pop("_from_model_config", None)  # as of a file that somebody wrote
    file.write_text(json.dumps(before | values))


def refused(folder):
    with pytest.raises(InputError) as error:
        load_language_model(str(folder), device=CPU)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_tokenizer_of_another_model_is_refused(folders, tmp_path):
    folder = write_language_model(tmp_path)
    larger = build_tokenizer()
    larger.add_tokens([f"word{n}" for n in range(3)])
    larger.save_pretrained(folder)
    assert "has token number 263, the model knows 261 tokens from 0" in refused(folder)


@pytest.mark.parametrize(("more", "warned"), [(3, False), (40, True)])
def test_a_tokenizer_with_far_fewer_tokens_than_the_model_is_warned_of(
    more, warned, tmp_path, caplog
):
    larger = build_tokenizer()
    larger.add_tokens([f"word{n}" for n in range(more)])
    folder = write_language_model(tmp_path, tokenizer=larger)
    build_tokenizer().save_pretrained(folder)
    load_language_model(str(folder), device=CPU)
    said = "its tokenizer has 261 tokens and the model 301; if they belong to different models"
    assert (said in caplog.text) == warned
    assert ("different models" in caplog.text) == warned


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(("number", "meant"), [(40, "'I'"), (5000, "nothing")])
def test_a_tokenizer_to_which_the_models_end_is_text_is_refused(file, number, meant, tmp_path):
    folder = write_language_model(tmp_path)
    state(folder / file, eos_token_id=number)
    message = refused(folder)
    assert f"by {file} token number {number} ends a text, and that is {meant} to its" in message


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_end_that_is_the_default_of_a_class_says_nothing(kind, tmp_path):
    tokenizer = build_tokenizer()
    config = config_of(kind, vocab_size=len(tokenizer))
    config.eos_token_id = type(config)().eos_token_id  # 2 or 50256, as transformers saves it
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_language_model(str(tmp_path), device=CPU).ends == {tokenizer.eos_token_id}


def test_without_an_end_of_texts_that_of_a_turn_is_the_end(tmp_path):
    turns = "{% for message in messages %}<user>{{ message['content'] }}<pad>{% endfor %}<answer>"
    tokenizer = build_tokenizer(end=False, template=turns)
    folder = write_language_model(tmp_path, tokenizer=tokenizer)
    pad = tokenizer.convert_tokens_to_ids(PAD)
    assert load_language_model(str(folder), device=CPU).ends == {pad}
    (row,) = response_tokens(tokenizer, ["There are None"])
    assert tokenizer.decode(row[:-1]) == "There are None"
    assert row[-1] == pad


def test_every_end_that_the_model_states_is_one(tmp_path):
    tokenizer = build_tokenizer()
    folder = write_language_model(tmp_path, tokenizer=tokenizer)
    end, user, pad = (tokenizer.convert_tokens_to_ids(each) for each in (END, USER, PAD))
    assert load_language_model(str(folder), device=CPU).ends == {end}
    state(folder / "config.json", eos_token_id=pad)
    state(folder / "generation_config.json", eos_token_id=[end, user])
    assert load_language_model(str(folder), device=CPU).ends == {end, user, pad}
    # What the library wrote itself says nothing: it is from the defaults of a class.
    state(folder / "generation_config.json", eos_token_id=40, _from_model_config=True)
    assert load_language_model(str(folder), device=CPU).ends == {end, pad}


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    folder = write_language_model(tmp_path, "llama", build_tokenizer(end=False))
    assert "expected an end token" in refused(folder)


def test_weights_that_the_file_lacks_are_not_drawn_at_random(tmp_path):
    folder = write_language_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "1 weights are missing or of another size, model.layers.1.mlp.down" in refused(folder)


def test_pickled_weights_are_not_read(tmp_path):
    folder = write_language_model(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "safetensors" in refused(folder)


def test_code_that_a_folder_brings_is_not_run(tmp_path):
    folder = write_language_model(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Model"}}
    settings["auto_map"]["AutoConfig"] = "own.Config"
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text("raise SystemExit('it was run')")
    assert "cannot load the" in refused(folder)


def test_attention_is_never_what_the_files_of_a_model_ask_for(tmp_path):
    folder = write_language_model(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    for place in ("attn_implementation", "_attn_implementation"):
        named = settings | {place: "kernels-community/flash-attn"}
        (folder / "config.json").write_text(json.dumps(named))
        model = load_language_model(str(folder), device=CPU).model
        assert model.config._attn_implementation == "sdpa"


def test_a_model_that_is_no_language_model_is_named_by_its_kind(tmp_path):
    T5Config().save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    assert "is of the kind 't5', no causal language model" in refused(tmp_path)


def test_a_model_whose_tokens_see_later_ones_is_refused(tmp_path):
    tokenizer = build_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        is_decoder=False,
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "its tokens see those after them; expected a causal language model" in refused(tmp_path)


def test_a_folder_without_a_tokenizer_says_which_files_to_copy(tmp_path):
    folder = write_language_model(tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    assert "expected tokenizer.json in " in refused(folder)
    assert "copy the files of the model's tokenizer there" in refused(folder)


def test_damaged_files_are_one_line(tmp_path):
    folder = write_language_model(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:200])
    assert "cannot load the model" in refused(folder)
    (folder / "tokenizer.json").write_text("{")
    assert "cannot load the tokenizer" in refused(folder)
