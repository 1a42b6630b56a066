"""The encoder against Hugging Face's BertModel, and against its own formulas."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig as HfConfig
from transformers import BertModel

from sbert_mini.encoder.bert import MiniBert, attention, gelu_tanh
from sbert_mini.encoder.pooling import SentenceHead, pool
from sbert_mini.errors import CorruptModelError, UnsupportedModelError, UsageError
from sbert_mini.model.choices import POOLING_MODES
from sbert_mini.model.layout import BertConfig, read_layout
from sbert_mini.model.weights import read_bert_weights
from sbert_mini.text.batching import pad
from sbert_mini.text.tokenizer import TextTokenizer


def ragged(rng, lengths, vocab, types=2):
    seq = max(lengths)
    ids = torch.from_numpy(rng.integers(0, vocab, (len(lengths), seq)))
    mask = torch.tensor([[1] * n + [0] * (seq - n) for n in lengths])
    segments = torch.from_numpy(rng.integers(0, types, (len(lengths), seq)))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}


@pytest.mark.parametrize("lengths", [(1,), (2, 1), (5, 17, 3), (64, 11, 40), (512, 301), (256, 7, 1, 129)])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_real_weights_equal_hugging_face(minilm, rng, lengths, implementation):
    ours = MiniBert.from_pretrained(minilm)
    theirs = BertModel.from_pretrained(minilm, attn_implementation=implementation).eval()
    batch = ragged(rng, lengths, 30522)
    with torch.no_grad():
        a = ours(**batch, output_hidden_states=True)
        b = theirs(**batch, output_hidden_states=True)
    seen = batch["attention_mask"].bool()
    assert (a.last_hidden_state - b.last_hidden_state)[seen].abs().max() <= 1e-5
    for mine, other in zip(a.hidden_states, b.hidden_states, strict=True):
        assert (mine - other)[seen].abs().max() <= 2e-5
    assert (a.pooler_output - b.pooler_output).abs().max() <= 1e-5


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 5),
    head_dim=st.sampled_from([1, 3, 7, 16]),
    layers=st.integers(1, 4),
    wide=st.integers(1, 61),
    vocab=st.integers(2, 97),
    types=st.integers(1, 3),
    positions=st.integers(1, 41),
    act=st.sampled_from(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]),
    epsilon=st.sampled_from([1e-12, 1e-6, 1e-3]),
    seed=st.integers(0, 2**31),
)
def test_random_configurations_equal_hugging_face_in_float64(
    heads, head_dim, layers, wide, vocab, types, positions, act, epsilon, seed
):
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=heads * head_dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=wide,
        hidden_act=act,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        initializer_range=0.5,
    )
    torch.manual_seed(seed)
    ours = MiniBert(config).double().eval()
    theirs = BertModel(HfConfig(**config.to_json())).double().eval()
    theirs.load_state_dict(ours.state_dict())
    rng = np.random.default_rng(seed)
    batch = ragged(rng, rng.integers(1, positions + 1, 3).tolist(), vocab, types)
    with torch.no_grad():
        a, b = ours(**batch), theirs(**batch)
    seen = batch["attention_mask"].bool()
    assert (a.last_hidden_state - b.last_hidden_state)[seen].abs().max() <= 1e-10
    assert (a.pooler_output - b.pooler_output).abs().max() <= 1e-10


@pytest.mark.parametrize("masked", [False, True])
def test_fast_attention_equals_the_written_out_one(rng, masked):
    q, k, v = (torch.from_numpy(rng.standard_normal((2, 3, 11, 5))) for _ in range(3))
    bias = None
    if masked:
        bias = torch.zeros(2, 1, 1, 11, dtype=torch.float64)
        bias[1, :, :, 7:] = torch.finfo(torch.float64).min
    fast = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    torch.testing.assert_close(attention(q, k, v, bias), fast, atol=1e-12, rtol=0)


def test_attention_by_hand():
    # One head, two keys, head_dim 4: scores are q·k / 2; weights e^s / sum.
    q = torch.tensor([[[[2.0, 0, 0, 0]]]])
    k = torch.tensor([[[[1.0, 0, 0, 0], [3.0, 0, 0, 0]]]])
    v = torch.tensor([[[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]])
    first, second = math.exp(1) / (math.exp(1) + math.exp(3)), math.exp(3) / (math.exp(1) + math.exp(3))
    torch.testing.assert_close(attention(q, k, v, None), torch.tensor([[[[first, second, 0, 0]]]]))


def test_tanh_gelu_is_its_formula():
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    formula = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(gelu_tanh(x), formula, atol=1e-12, rtol=0)


def test_a_masked_token_changes_nothing(rng):
    model = MiniBert(BertConfig(53, 20, 2, 5, 31)).double().eval()
    batch = ragged(rng, (9, 4), 53)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
        batch["input_ids"][1, 4:] = 17
        after = model(**batch).last_hidden_state
    torch.testing.assert_close(before[1, :4], after[1, :4], atol=1e-13, rtol=0)


def test_gradients_reach_every_parameter_and_dropout_only_acts_in_training(rng):
    model = MiniBert(BertConfig(53, 20, 2, 5, 31))
    batch = ragged(rng, (9, 4), 53)
    output = model.train()(**batch)
    (output.last_hidden_state.square().sum() + output.pooler_output.sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert not torch.equal(model(**batch).last_hidden_state, model(**batch).last_hidden_state)
    model.eval()
    torch.testing.assert_close(model(**batch).last_hidden_state, model(**batch).last_hidden_state, atol=0, rtol=0)
    still = model.train().with_dropout(0.0)
    torch.testing.assert_close(still(**batch).last_hidden_state, still(**batch).last_hidden_state, atol=0, rtol=0)


def test_saving_and_loading_gives_the_same_bytes_back(make_model):
    path = make_model()
    model = MiniBert.from_pretrained(path)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == model.config.parameter_shapes(pooler=True)
    assert all(p.requires_grad for p in model.parameters())
    assert not model.training
    again = path / "again"
    model.save_pretrained(again)
    assert (again / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()
    assert BertModel.from_pretrained(again).config.hidden_size == 28


@pytest.mark.parametrize("spelling", ["bert. prefix", "gamma and beta", "task head", "shards", "float16", "bfloat16"])
def test_other_spellings_of_a_checkpoint_are_read(make_model, spelling):
    path = make_model()
    expected = load_file(path / "model.safetensors")
    stored = dict(expected)
    if spelling == "bert. prefix":
        stored = {f"bert.{name}": t for name, t in stored.items()}
    elif spelling == "gamma and beta":
        renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, old in renamed.items():
            stored = {name.replace(new, old): t for name, t in stored.items()}
    elif spelling == "task head":
        stored["cls.predictions.bias"] = torch.zeros(3)
    elif spelling in ("float16", "bfloat16"):
        stored = {name: t.to(getattr(torch, spelling)) for name, t in stored.items()}
        expected = {name: t.float() for name, t in stored.items()}
    if spelling == "shards":
        (path / "model.safetensors").unlink()
        names = sorted(stored)
        index = {}
        for number, half in enumerate((names[::2], names[1::2])):
            file = f"model-{number}.safetensors"
            save_file({name: stored[name].clone() for name in half}, path / file)
            index.update(dict.fromkeys(half, file))
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    else:
        save_file(stored, path / "model.safetensors")
    state = MiniBert.from_pretrained(path).state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_a_pickle_is_refused_with_the_way_out(make_model):
    path = make_model()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(
        CorruptModelError, match=r"pytorch_model\.bin.*torch\.load\(.*weights_only=True.*model\.safetensors"
    ):
        MiniBert.from_pretrained(path)


def test_damaged_and_misfitting_weights_are_refused(make_model):
    path = make_model()
    file = path / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptModelError, match="cannot be read as safetensors"):
        MiniBert.from_pretrained(path)
    file.write_bytes(data)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(CorruptModelError, match="lacks 32 of the 87 weights"):
        MiniBert.from_pretrained(path)
    (path / "config.json").write_text(json.dumps({**config, "intermediate_size": 45}))
    with pytest.raises(CorruptModelError, match=r"\(44, 28\).*\(45, 28\)"):
        MiniBert.from_pretrained(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "'roberta'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "decoder"),
        ({"hidden_act": "swish"}, "swish"),
        ({"num_attention_heads": 3}, "28 is not one of 3"),
    ],
)
def test_other_architectures_are_refused(change, message):
    config = BertConfig(hidden_size=28, num_attention_heads=7).to_json()
    with pytest.raises(UnsupportedModelError, match=message):
        BertConfig.from_json({**config, **change})


def test_a_sequence_longer_than_the_positions_is_refused():
    model = MiniBert(BertConfig(53, 20, 1, 5, 31, max_position_embeddings=13))
    with pytest.raises(UsageError, match=r"13 positions.*14 tokens"):
        model(torch.zeros(1, 14, dtype=torch.long))
    with pytest.raises(UsageError, match=r"\(1, 13\).*\(1, 12\)"):
        model(torch.zeros(1, 13, dtype=torch.long), torch.ones(1, 12))


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_pooling_equals_sentence_transformers(rng, mode):
    from sentence_transformers.sentence_transformer.modules import Pooling

    tokens = torch.from_numpy(rng.standard_normal((3, 11, 7)))
    mask = torch.tensor([[1] * n + [0] * (11 - n) for n in (11, 1, 6)])
    theirs = Pooling(7, mode)({"token_embeddings": tokens, "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(pool(tokens, mask, mode), theirs, atol=1e-12, rtol=0)


def test_pooling_by_hand():
    tokens = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    by_hand = {
        "cls": [1.0, -4.0],
        "mean": [2.0, -3.0],
        "max": [3.0, -2.0],
        "mean_sqrt_len_tokens": [4 / math.sqrt(2), -6 / math.sqrt(2)],
        "weightedmean": [7 / 3, -8 / 3],
    }
    assert set(by_hand) == set(POOLING_MODES)
    for mode, expected in by_hand.items():
        torch.testing.assert_close(pool(tokens, mask, mode), torch.tensor([expected]))


def test_sentence_head_equals_sentence_transformers_modules(make_model):
    from sentence_transformers import SentenceTransformer

    path = make_model(
        modules=[
            {"kind": "Pooling", "word_embedding_dimension": 28, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True},
            {"kind": "Dense", "in_features": 56, "out_features": 19},
            {"kind": "Dense", "in_features": 19, "out_features": 13, "bias": False,
             "activation_function": "torch.nn.modules.linear.Identity"},
            {"kind": "Normalize"},
        ]
    )  # fmt: skip
    layout = read_layout(path)
    tokenizer = TextTokenizer.from_directory(path, layout.max_seq_length)
    texts = ["the cat sleeps.", "a red house", "bread dough rises, a tree?"]
    ids, mask, types = (torch.from_numpy(a) for a in pad(tokenizer.encode(texts), 0))
    with torch.no_grad():
        ours = SentenceHead(layout)(MiniBert.from_pretrained(path)(ids, mask, types).last_hidden_state, mask)
    theirs = SentenceTransformer(str(path), local_files_only=True).encode(texts, convert_to_tensor=True)
    assert ours.shape == (3, 13)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_weights_are_read_without_torch_in_the_stored_dtype(make_model):
    path = make_model()
    weights = read_bert_weights(path, read_layout(path).config)
    assert all(isinstance(w, np.ndarray) and w.dtype == np.float32 for w in weights.values())
