"""Tiny GPT-2 and Llama models, made from a config with random weights: no download."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from treesearch import HierarchicalSoftmax, build_tree
from treesearch.errors import DataError
from treesearch.integrations.torch import collect_features, load_output_layer, replace_output_layer
from treesearch.softmax import RowwiseAdam

transformers = pytest.importorskip("transformers")

V = 37
COUNTS = np.arange(1, V + 1)[::-1].copy()
TREES = {
    "huffman": build_tree("huffman", counts=COUNTS),
    "flat": build_tree("flat", counts=COUNTS),
    "adaptive": build_tree("adaptive", counts=COUNTS, cutoffs=(8, 20), div_value=2, in_features=16),
}
IDS = torch.randint(0, V, (3, 8), generator=torch.Generator().manual_seed(0))
SPECIAL = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}


def gpt2(**settings):
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.3}
    config = transformers.GPT2Config(vocab_size=V, **sizes, **SPECIAL, **settings)
    return transformers.GPT2LMHeadModel(config)


def llama(**settings):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=V, max_position_embeddings=32, initializer_range=0.3, **sizes, **SPECIAL, **settings
    )
    return transformers.LlamaForCausalLM(config)


MAKERS = {
    "gpt2": gpt2,
    "gpt2-untied": lambda: gpt2(tie_word_embeddings=False),
    "llama": llama,
    "llama-tied": lambda: llama(tie_word_embeddings=True),
}


@pytest.fixture(params=MAKERS)
def model(request):
    torch.manual_seed(0)
    return MAKERS[request.param]().eval()


@pytest.fixture(params=TREES)
def tree(request):
    return TREES[request.param]


def hidden_states(model, ids=IDS, **inputs):
    return model.base_model(ids, **inputs).last_hidden_state


# -- loss --------------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_log_prob(model, tree):
    head = replace_output_layer(model, "lm_head", tree, counts=COUNTS)
    labels = IDS.clone()
    labels[0, 2] = labels[1, 5:] = -100
    out = model(input_ids=IDS, labels=labels)
    log_prob = head.log_prob(hidden_states(model))
    expected = [-log_prob[b, t - 1, labels[b, t]] for b in range(3) for t in range(1, 8) if labels[b, t] != -100]
    torch.testing.assert_close(out.loss, torch.stack(expected).mean())
    assert out.logits is None
    assert "logits" not in out
    torch.testing.assert_close(model(IDS).logits, log_prob)
    # as transformers computes it from logits
    torch.testing.assert_close(transformers.loss.loss_utils.ForCausalLMLoss(log_prob, labels, V), out.loss)


def test_a_flat_tree_is_the_model_before(model):
    with torch.no_grad():
        before = model(input_ids=IDS, labels=IDS)
        replace_output_layer(model, "lm_head", TREES["flat"]).logits_with_loss = True
        after = model(input_ids=IDS, labels=IDS)
    torch.testing.assert_close(after.loss, before.loss)
    torch.testing.assert_close(after.logits, before.logits.log_softmax(-1))


def test_gradients_are_those_of_the_logits(model, tree):
    replace_output_layer(model, "lm_head", tree, counts=COUNTS)
    own = model(input_ids=IDS, labels=IDS).loss
    logits = model(input_ids=IDS).logits[:, :-1].reshape(-1, V)
    flat = nn.functional.cross_entropy(logits, IDS[:, 1:].reshape(-1))
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(own, parameters), torch.autograd.grad(flat, parameters))


def test_no_logits_are_made_for_the_loss(model, monkeypatch):
    replace_output_layer(model, "lm_head", TREES["huffman"])
    monkeypatch.setattr(HierarchicalSoftmax, "log_prob", lambda *_: 1 / 0)
    model(input_ids=IDS, labels=IDS).loss.backward()
    with pytest.raises(ZeroDivisionError):
        model(input_ids=IDS)


def test_arguments_of_the_loss(model):
    head = replace_output_layer(model, "lm_head", TREES["huffman"])
    loss = model(input_ids=IDS, labels=IDS).loss
    torch.testing.assert_close(model(input_ids=IDS, labels=IDS, num_items_in_batch=7).loss, loss * 21 / 7)
    torch.testing.assert_close(model(input_ids=IDS, labels=IDS, num_items_in_batch=torch.tensor(7)).loss, loss * 3)
    shifted = nn.functional.pad(IDS[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(input_ids=IDS, labels=IDS, shift_labels=shifted).loss, loss)
    torch.testing.assert_close(model(input_ids=IDS, labels=IDS, return_dict=False)[0], loss)
    assert len(model(input_ids=IDS, labels=IDS, return_dict=False, use_cache=False)) == 1
    head.logits_with_loss = True
    assert model(input_ids=IDS, labels=IDS, return_dict=False)[1].shape == (3, 8, V)
    with pytest.raises(DataError, match=r"labels must stand beside the hidden states, \[3, 2\], but got \[3, 8\]"):
        model(input_ids=IDS, labels=IDS, logits_to_keep=2)
    assert model(input_ids=IDS).logits.shape == (3, 8, V)  # not bypassed after an error
    assert model(input_ids=IDS, logits_to_keep=2).logits.shape == (3, 2, V)


def test_labels_by_position():
    model = llama()
    replace_output_layer(model, "lm_head", TREES["huffman"])
    out = model(IDS, None, None, None, None, IDS)
    torch.testing.assert_close(out.loss, model(input_ids=IDS, labels=IDS).loss)


# -- generation --------------------------------------------------------------------------------------------------------


class AsLogits(nn.Module):
    """The flat layer of a tree: its log-probabilities, by the oracle of the layer."""

    def __init__(self, head):
        super().__init__()
        self.head = HierarchicalSoftmax(head.in_features, head.tree, kernel="reference")
        self.head.load_state_dict(head.state_dict())
        self.rows = []

    def forward(self, hidden):
        self.rows.append(hidden.shape[1])
        return self.head.log_prob(hidden)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": True, "top_k": 5},
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": True, "num_return_sequences": 2},
    ],
    ids=["greedy", "sampling", "beams", "sampled-beams"],
)
def test_generation_is_that_of_log_probabilities_as_logits(model, tree, settings):
    other = copy.deepcopy(model)
    head = replace_output_layer(model, "lm_head", tree, counts=COUNTS)
    other.lm_head = AsLogits(head)
    other.config.tie_word_embeddings = False
    runs = []
    for each in (model, other):
        torch.manual_seed(3)
        runs.append(
            each.generate(
                IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=6, return_dict_in_generate=True,
                output_scores=True, output_logits=True, **{"do_sample": False, **settings},
            )
        )  # fmt: skip
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    torch.testing.assert_close(runs[0].logits, runs[1].logits)
    assert set(other.lm_head.rows) == {1}  # transformers asked for the last position alone


def test_only_the_last_position_is_scored(model):
    head = replace_output_layer(model, "lm_head", TREES["huffman"])
    seen = []
    head.register_forward_hook(lambda _, args, output: seen.append(output.shape[1]))
    greedy = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3, do_sample=False)
    assert seen == [1, 1, 1]
    hidden = hidden_states(model, greedy[:, :-1])
    assert torch.equal(head.predict(hidden[:, 7:]), greedy[:, 8:])


# -- tied weights, saving and loading ----------------------------------------------------------------------------------


def test_ties_stay_cut(model):
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    head = replace_output_layer(model, "lm_head", TREES["huffman"])
    values = {name: value.clone() for name, value in head.state_dict().items()}
    model.tie_weights()
    model.tie_weights(recompute_mapping=False)
    assert model.get_output_embeddings() is head
    assert not hasattr(head, "weight")
    assert all(torch.equal(value, values[name]) for name, value in head.state_dict().items())
    assert model.get_input_embeddings().weight is embedding
    assert torch.equal(embedding, before)
    assert not model.config.tie_word_embeddings
    assert not model.all_tied_weights_keys


def test_save_and_load_a_whole_model(model, tmp_path):
    head = replace_output_layer(model, "lm_head", TREES["adaptive"], counts=COUNTS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
        expected = model(IDS).logits
    model.save_pretrained(tmp_path)
    head.save_pretrained(tmp_path / "head")
    loaded = type(model).from_pretrained(tmp_path)
    assert not loaded.config.tie_word_embeddings
    load_output_layer(loaded, "lm_head", tmp_path / "head")
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, expected)
        torch.testing.assert_close(loaded(input_ids=IDS, labels=IDS).loss, model(input_ids=IDS, labels=IDS).loss)


def test_copies_have_losses_of_their_own(model):
    replace_output_layer(model, "lm_head", TREES["huffman"])
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.lm_head.weights[0].mul_(3)
        log_prob = copied(input_ids=IDS).logits[:, :-1].reshape(-1, V)
        expected = nn.functional.nll_loss(log_prob, IDS[:, 1:].reshape(-1))
        torch.testing.assert_close(copied(input_ids=IDS, labels=IDS).loss, expected)
        assert model(input_ids=IDS, labels=IDS).loss != expected


def test_a_model_inside_another():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = gpt2()

        def forward(self, ids):
            return self.inner(input_ids=ids, labels=ids).loss

    outer = Outer().eval()
    head = replace_output_layer(outer, "inner.lm_head", TREES["huffman"])
    outer.inner.tie_weights()
    expected = head.log_prob(hidden_states(outer.inner))[:, :-1].gather(-1, IDS[:, 1:, None]).mean()
    torch.testing.assert_close(outer(IDS), -expected)


def test_models_that_change_their_logits_are_told():
    config = transformers.Gemma2Config(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=5.0, **SPECIAL,
    )  # fmt: skip
    model = transformers.Gemma2ForCausalLM(config)
    replace_output_layer(model, "lm_head", TREES["huffman"])
    for inputs in ({"input_ids": IDS, "labels": IDS}, {"input_ids": IDS}):
        with pytest.raises(DataError, match="softcapping") as error:
            model(**inputs)
        assert "\n" not in str(error.value)


def test_other_models_compute_their_own_losses():
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    model = transformers.BertForMaskedLM(config).eval()
    name = "cls.predictions.decoder"
    with torch.no_grad():
        before = model(input_ids=IDS, labels=IDS)
        replace_output_layer(model, name, TREES["flat"])
        model.tie_weights()
        after = model(input_ids=IDS, labels=IDS)
    torch.testing.assert_close(after.loss, before.loss)
    torch.testing.assert_close(after.logits, before.logits.log_softmax(-1))


def test_other_ties_stay(tmp_path):
    config = transformers.T5Config(
        vocab_size=V, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    head = replace_output_layer(model, "lm_head", TREES["huffman"])
    model.tie_weights()
    assert model.encoder.embed_tokens.weight is model.shared.weight
    out = model(input_ids=IDS, labels=IDS)
    torch.testing.assert_close(out.loss, -out.logits.gather(-1, IDS[..., None]).mean())  # not shifted in this model
    model.save_pretrained(tmp_path)
    head.save_pretrained(tmp_path / "head")
    loaded = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
    load_output_layer(loaded, "lm_head", tmp_path / "head")
    assert loaded.decoder.embed_tokens.weight is loaded.shared.weight
    assert torch.equal(loaded(input_ids=IDS, labels=IDS).logits, out.logits)


def test_further_terms_of_a_loss_stay():
    config = transformers.MixtralConfig(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=0.5, **SPECIAL,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config).eval()
    replace_output_layer(model, "lm_head", TREES["huffman"])
    out = model(input_ids=IDS, labels=IDS)
    log_prob = model(input_ids=IDS).logits[:, :-1].gather(-1, IDS[:, 1:, None])
    torch.testing.assert_close(out.loss, 0.5 * out.aux_loss - log_prob.mean())


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_fine_tuning(model, sparse):
    head = replace_output_layer(model, "lm_head", TREES["huffman"], counts=COUNTS, sparse=sparse).train()
    model.train()
    rows = {id(parameter) for parameter in head.parameters()}
    body = [parameter for parameter in model.parameters() if id(parameter) not in rows]
    optimizers = [torch.optim.AdamW(body, lr=5e-3)]
    optimizers += [(RowwiseAdam if sparse else torch.optim.AdamW)(head.parameters(), lr=5e-3)]
    losses = []
    for _ in range(40):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_bfloat16(dtype):
    torch.manual_seed(0)
    model = llama().eval()
    half = copy.deepcopy(model).bfloat16()
    replace_output_layer(model, "lm_head", TREES["huffman"], counts=COUNTS)
    head = replace_output_layer(half, "lm_head", TREES["huffman"], counts=COUNTS, dtype=dtype)
    assert head.weights[0].dtype == (dtype or torch.bfloat16)
    loss = half(input_ids=IDS, labels=IDS).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, model(input_ids=IDS, labels=IDS).loss, atol=0.05, rtol=0.05)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in half.parameters())
    assert half.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3).shape == (3, 11)


@pytest.mark.slow
def test_compiled_after_the_swap():
    model = gpt2().eval()
    replace_output_layer(model, "lm_head", TREES["huffman"], kernel="gpu")
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(input_ids=IDS, labels=IDS).loss, model(input_ids=IDS, labels=IDS).loss)
        torch.testing.assert_close(compiled(input_ids=IDS).logits, model(input_ids=IDS).logits)


# -- features ----------------------------------------------------------------------------------------------------------


def by_hand(model, batches):
    x, y = [], []
    for batch in batches:
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        labels = batch.get("labels", ids)
        with torch.no_grad():
            hidden = hidden_states(model, ids, attention_mask=mask)
        for b in range(ids.shape[0]):
            for t in range(ids.shape[1] - 1):
                padding = mask is not None and not (mask[b, t] and mask[b, t + 1])
                if not padding and labels[b, t + 1] != -100:
                    x.append(hidden[b, t])
                    y.append(labels[b, t + 1])
    return torch.stack(x).numpy(), torch.stack(y).numpy()


LEFT, RIGHT, LABELS = torch.ones_like(IDS), torch.ones_like(IDS), IDS.clone().flip(1)
LEFT[0, :3] = RIGHT[1, 5:] = 0
LABELS[2, 1:4] = -100
BATCHES = {
    "ids": [{"input_ids": IDS}, {"input_ids": IDS.flip(0)}],
    "padding": [{"input_ids": IDS, "attention_mask": LEFT}, {"input_ids": IDS, "attention_mask": RIGHT}],
    "labels": [{"input_ids": IDS, "attention_mask": RIGHT, "labels": LABELS}],
}


@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
def test_features_are_those_of_a_loop_by_hand(model, batches, tmp_path):
    collect_features(model, "lm_head", batches, out=tmp_path, dtype="float32")
    x, y = by_hand(model, batches)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), y)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), x, rtol=1e-6, atol=1e-6)


def test_features_predict_what_the_model_does(model, tmp_path):
    """The mean NLL of the old layer on the features is the loss of the model; so is a tree's after the swap."""
    batch = transformers.BatchEncoding({"input_ids": IDS})
    collect_features(model, "lm_head", [batch], out=tmp_path, dtype="float32")
    x, y = torch.from_numpy(np.load(tmp_path / "x.npy")), torch.from_numpy(np.load(tmp_path / "y.npy")).long()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model.lm_head(x), y)
        torch.testing.assert_close(model(input_ids=IDS, labels=IDS).loss, expected)
        head = replace_output_layer(model, "lm_head", TREES["huffman"])
        torch.testing.assert_close(model(input_ids=IDS, labels=IDS).loss, head(x, y).loss)
    collect_features(model, "lm_head", [batch], out=tmp_path / "again", dtype="float32")
    np.testing.assert_array_equal(np.load(tmp_path / "again" / "x.npy"), x)


def test_batches_that_need_targets(tmp_path):
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    masked = transformers.BertForMaskedLM(config)
    for model, layer, batch in (
        (masked, "cls.predictions.decoder", {"input_ids": IDS}),
        (gpt2(), "lm_head", {"inputs_embeds": torch.zeros(1, 2, 16)}),
    ):
        with pytest.raises(DataError, match="pass targets="):
            collect_features(model, layer, [batch], out=tmp_path)
    collect_features(
        masked, "cls.predictions.decoder", [{"input_ids": IDS}], out=tmp_path, targets=lambda batch: batch["input_ids"]
    )
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), IDS.reshape(-1))
