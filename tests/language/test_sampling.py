"""Claims: texts come with the probabilities of the model, and are those that it was asked for."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from policies import language
from scipy.stats import chisquare
from tiny_language import END, LETTERS, USER, build_tokenizer, write_language_model
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from imgalign.algorithms.checks import require
from imgalign.errors import NumericsError
from imgalign.language.policy import LanguagePolicy
from imgalign.language.scoring import pick
from imgalign.policy import Trajectory

PROMPTS = ["a boat", "the green tree and a boat", "a red house"]
STEPS = 6


def biased(policy: LanguagePolicy, by: float) -> LanguagePolicy:
    """The same with the logit of its end token raised or lowered."""

    def changed(_: object, __: object, logits: Tensor) -> Tensor:
        end: Tensor = torch.arange(logits.shape[-1]) == policy.tokenizer.eos_token_id
        return logits + by * end

    policy.network.model.get_output_embeddings().register_forward_hook(changed)
    return policy


def written(policy: LanguagePolicy, rows: Sequence[Sequence[int]]) -> Trajectory:
    """A trajectory of these tokens."""
    limit = policy.config.max_new_tokens
    tokens = torch.tensor([[*row, *[policy.network.fill] * (limit - len(row))] for row in rows])
    prompts = ["a boat"] * len(rows)
    return Trajectory(
        prompts=prompts,
        prompt_ids=prompts,
        seeds=list(range(len(rows))),
        log_probs=torch.zeros(tokens.shape),
        mask=torch.arange(limit) < torch.tensor([len(row) for row in rows])[:, None],
        replay={"tokens": tokens},
    )


# --- probabilities


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_log_probabilities_are_those_of_plain_transformers_one_text_at_a_time(
    talkers, kind, temperature
):
    policy = language(talkers[kind], max_new_tokens=STEPS, batch_size=4, temperature=temperature)
    trajectory = policy.sample(PROMPTS, seeds=[1, 2, 3])
    data = policy.given(trajectory)
    given = policy.log_prob(data, policy.draw(data, seeds=[1, 2, 3])).values
    model = AutoModelForCausalLM.from_pretrained(talkers[kind]).eval()
    tokenizer = AutoTokenizer.from_pretrained(talkers[kind])
    for row, prompt in enumerate(PROMPTS):
        before = tokenizer(prompt)["input_ids"]
        if tokenizer.chat_template:
            before = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
        own = trajectory.replay["tokens"][row][trajectory.mask[row]].tolist()
        with torch.no_grad():
            logits = model(torch.tensor([[*before, *own]])).logits[0, len(before) - 1 : -1]
        for scale, found in ((temperature, trajectory.log_probs[row]), (1.0, given[row])):
            each = (logits / scale).log_softmax(dim=1)[torch.arange(len(own)), own]
            if found.ndim:
                assert_close(found[: len(own)], each, rtol=1e-5, atol=1e-5)
                assert not found[len(own) :].any()
            else:
                assert_close(found.detach(), each.sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_picked_by_the_softmax_of_their_logits(temperature):
    logits = torch.tensor([1.0, -math.inf, 0.0, 2.0, 0.5, -1.0])
    count = 5000
    luck = torch.stack(
        [
            torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in range(count)
        ]
    )
    found = pick((logits / temperature).expand(count, -1), luck).bincount(minlength=6)
    expected = count * (logits.double() / temperature).softmax(dim=0)
    assert found[1] == 0
    there = expected > 0
    assert chisquare(found[there].numpy(), expected[there].numpy()).pvalue > 0.01


def test_a_token_without_any_probability_is_never_picked_at_the_ends_of_luck():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]])
    for luck, expected in ((0.0, 1), (0.5 - 1e-12, 1), (0.5, 2), (1 - 2**-53, 2)):
        assert pick(logits, torch.tensor([luck], dtype=torch.float64)).item() == expected


def test_logits_that_are_not_numbers_are_an_error():
    with pytest.raises(NumericsError, match="not finite"):
        pick(torch.tensor([[0.0, math.nan]]), torch.tensor([0.5], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_first_two_tokens_of_many_seeds_come_as_often_as_the_model_says(talkers, temperature):
    folder, count = talkers["llama"], 4000
    policy = language(folder, max_new_tokens=2, batch_size=1000, temperature=temperature)
    found = policy.sample(["a red house"] * count, seeds=range(count)).replay["tokens"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    before = AutoTokenizer.from_pretrained(folder)("a red house")["input_ids"]
    size, end = model.config.vocab_size, policy.tokenizer.eos_token_id

    def chances(rows: list[list[int]]) -> Tensor:
        with torch.no_grad():
            logits = model(torch.tensor(rows)).logits[:, -1].double()
        return (logits / temperature).softmax(dim=1)

    first = chances([before])[0]
    joint = first[:, None] * chances([[*before, token] for token in range(size)])
    # Nothing follows an end: all that would is one case.
    joint[end] = 0.0
    joint[end, policy.network.fill] = first[end]
    seen = Counter(map(tuple, found.tolist()))
    frequent = [tuple(place) for place in (count * joint > 8).nonzero().tolist()]
    assert len(frequent) > 20
    expected = [count * joint[place].item() for place in frequent]
    observed = [seen[place] for place in frequent]
    expected.append(count - sum(expected))
    observed.append(count - sum(observed))
    assert chisquare(observed, expected).pvalue > 0.01


# --- ends


def test_a_text_that_never_ends_has_no_end_token(talkers):
    policy = biased(language(talkers["llama"], max_new_tokens=STEPS, batch_size=4), -1e4)
    trajectory = policy.sample(PROMPTS, seeds=[1, 2, 3])
    assert trajectory.mask.all()
    assert not (trajectory.replay["tokens"] == policy.tokenizer.eos_token_id).any()
    data = policy.given(trajectory)
    assert policy.elements(data).tolist() == [STEPS] * 3
    whole = policy.log_prob(data, policy.draw(data, seeds=[1, 2, 3])).values
    assert_close(whole, trajectory.log_probs.sum(dim=1))


def test_a_text_that_ends_at_once_is_one_step_and_empty(talkers):
    policy = biased(language(talkers["llama"], max_new_tokens=STEPS, batch_size=4), 1e4)
    trajectory = policy.sample(PROMPTS, seeds=[1, 2, 3])
    assert trajectory.mask.sum(dim=1).tolist() == [1, 1, 1]
    assert policy.decode(trajectory) == ["", "", ""]
    encoded, given = policy.encode(PROMPTS, ["", "", ""]), policy.given(trajectory)
    assert torch.equal(encoded.content["length"], given.content["length"])
    assert torch.equal(encoded.content["tokens"][:, 0], given.content["tokens"][:, 0])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_end_of_a_text_is_its_last_step_and_nothing_follows(talkers, kind):
    policy = biased(language(talkers[kind], max_new_tokens=STEPS, batch_size=8), 1.5)
    trajectory = policy.sample(PROMPTS * 10, seeds=range(30))
    tokens, mask = trajectory.replay["tokens"], trajectory.mask
    lengths = mask.sum(dim=1)
    assert len(lengths.unique()) > 2
    assert torch.equal(mask, torch.arange(STEPS) < lengths[:, None])
    ends = (tokens == policy.tokenizer.eos_token_id) & mask
    assert ends.sum(dim=1).max() == 1
    assert ends[torch.arange(30), lengths - 1][lengths < STEPS].all()
    assert not ends[:, :-1][mask[:, 1:]].any()


# --- as texts


@pytest.mark.parametrize("text", ["a  b", "a\n\tb", "a , b . c 's !", "it 's  n't", "é→ü"])
def test_decoding_keeps_a_text_as_it_is(tmp_path, text):
    tokenizer = build_tokenizer()
    folder = write_language_model(tmp_path / "bytes", "llama", tokenizer)
    # As in the files of some models: text is to be tidied up.
    file = folder / "tokenizer_config.json"
    tidy = "clean_up_tokenization_spaces"
    asked = {tidy: True, f"{tidy}_for_bpe_even_though_it_will_corrupt_output": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | asked))
    policy = language(folder, max_new_tokens=24)
    tokens = tokenizer(text)["input_ids"]
    end = policy.tokenizer.eos_token_id
    user = tokenizer.convert_tokens_to_ids(USER)
    rows = [tokens, [*tokens, end], [user, *tokens[:1], user, *tokens[1:], end]]
    assert policy.decode(written(policy, rows)) == [text] * 3
    space = tokenizer(" ")["input_ids"]
    # Without a chat template it goes on with the prompt, and what stands between them is its own.
    assert policy.decode(written(policy, [[*space, *tokens, *space, end]])) == [f" {text} "]


def test_sampling_stops_at_each_of_the_ends_that_the_model_states(tmp_path):
    tokenizer = build_tokenizer(letters=LETTERS)
    folder = write_language_model(tmp_path, tokenizer=tokenizer)
    end, user = (tokenizer.convert_tokens_to_ids(each) for each in (END, USER))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, user]}))
    policy = language(folder, max_new_tokens=24, batch_size=48)
    trajectory = policy.sample(["a boat"] * 48, seeds=range(48))
    rows = [row[there].tolist() for row, there in zip(*tokens_and_mask(trajectory), strict=True)]
    assert {row[-1] for row in rows} > {end, user}
    assert not any({end, user} & set(row[:-1]) for row in rows)
    assert policy.finished(trajectory).tolist() == [row[-1] in (end, user) for row in rows]


def tokens_and_mask(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    return trajectory.replay["tokens"], trajectory.mask


def test_a_text_that_ended_is_encoded_to_the_tokens_that_were_sampled(tmp_path):
    policy = language(write_language_model(tmp_path / "bytes"), max_new_tokens=24)
    texts = ["a red cat", "", f"{END} spelled", "é  , ü"]
    data = policy.encode(["a boat"] * 4, texts)
    rows = [
        row[:length].tolist()
        for row, length in zip(data.content["tokens"], data.content["length"], strict=True)
    ]
    assert all(row[-1] == policy.tokenizer.eos_token_id for row in rows)
    trajectory = written(policy, rows)
    assert policy.decode(trajectory) == texts
    given = policy.given(trajectory)
    for name, content in data.content.items():
        assert torch.equal(given.content[name], content)


# --- the cache


def wrong_positions(asked: dict[str, Any]) -> None:
    """Of a new token: padding is counted, a column taken for the place in the text."""
    if asked["input_ids"].shape[1] == 1:
        asked["position_ids"] = torch.full_like(
            asked["input_ids"], asked["attention_mask"].shape[1] - 1
        )


def no_mask(asked: dict[str, Any]) -> None:
    """Padding is read."""
    asked["attention_mask"] = torch.ones_like(asked["attention_mask"])


def no_memory(asked: dict[str, Any]) -> None:
    """What was read before is forgotten."""
    number = asked["input_ids"].shape[1]
    asked["attention_mask"] = asked["attention_mask"][:, -number:]
    for name in asked.keys() & {"cache", "past_key_values"}:
        asked[name] = None


def no_cache(asked: dict[str, Any]) -> None:
    """The model cannot do it."""
    raise ValueError("no cache here")


@pytest.mark.parametrize("fault", [wrong_positions, no_mask, no_memory, no_cache])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generation_with_a_wrong_cache_fails_the_check_of_a_run(talkers, kind, fault):
    policy = language(talkers[kind])
    require(policy.checks())

    def disturb(_: object, args: Any, asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        changed = dict(asked)
        if asked["use_cache"]:
            fault(changed)
        return args, changed

    policy.network.model.register_forward_pre_hook(disturb, with_kwargs=True)
    with pytest.raises(NumericsError, match="sampling has the probabilities of scoring"):
        require(policy.checks())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_model_whose_padding_changes_a_text_fails_the_check_of_a_run(talkers, kind):
    policy = language(talkers[kind])

    def disturb(_: object, args: Any, asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # In sampling and in scoring alike, as in a recurrent model that takes no mask.
        return args, asked | {"attention_mask": torch.ones_like(asked["attention_mask"])}

    policy.network.model.register_forward_pre_hook(disturb, with_kwargs=True)
    with pytest.raises(NumericsError, match="sampling has the probabilities of scoring"):
        require(policy.checks())


# --- what it costs


class Counted:
    """How much of the network is asked for: columns that are read, and rows of logits."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.read: list[tuple[int, int]] = []
        self.logits: list[tuple[int, int]] = []
        model = policy.network.model
        model.register_forward_pre_hook(self._read, with_kwargs=True)
        model.get_output_embeddings().register_forward_pre_hook(self._head)

    def _read(self, _: object, __: object, asked: dict[str, Any]) -> None:
        self.read.append(tuple(asked["input_ids"].shape))

    def _head(self, _: object, states: tuple[Tensor]) -> None:
        self.logits.append((states[0].shape[0], states[0].shape[1]))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_a_prompt_is_read_once_and_logits_are_those_of_responses_only(talkers, kind):
    policy = biased(language(talkers[kind], max_new_tokens=STEPS, batch_size=4), -1e4)
    longest = max(len(row) for row in policy._prompt_tokens(PROMPTS))
    counted = Counted(policy)
    trajectory = policy.sample(PROMPTS, seeds=[1, 2, 3])
    # With a cache one column a step, and then all steps once more, for exact log-probabilities.
    scored = (3, longest + STEPS - 1)
    assert counted.read == [(3, longest), *[(3, 1)] * (STEPS - 1), scored]
    assert counted.logits == [*[(3, 1)] * STEPS, (3, STEPS)]
    counted.read, counted.logits = [], []
    policy.step_distributions(trajectory, policy.units(trajectory)[0])
    data = policy.given(trajectory)
    policy.log_prob(data, policy.draw(data, seeds=[1, 2, 3]))
    assert counted.read == [scored] * 2
    assert counted.logits == [(3, STEPS)] * 2
    counted.read, counted.logits = [], []
    policy.step_distributions(trajectory, torch.tensor([0, 2]))
    assert (counted.read, counted.logits) == ([(3, longest + 2)], [(3, 2)])


def test_sampling_stops_when_every_text_has_ended(talkers):
    policy = biased(language(talkers["llama"], max_new_tokens=STEPS, batch_size=4), 1e4)
    counted = Counted(policy)
    policy.sample(PROMPTS, seeds=[1, 2, 3])
    assert len(counted.logits) == 2
    data = policy.encode(PROMPTS, ["a", "", "so"])
    counted.logits = []
    policy.log_prob(data, policy.draw(data, seeds=[1, 2, 3]))
    assert counted.logits == [(3, 3)]
