"""A `tokenizer.json` of BERT is built anew and gives the same ids; any other is refused, or trusted by name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sbert_mini import Embedder
from sbert_mini.errors import CorruptModelError, SbertMiniError, UnsupportedModelError
from sbert_mini.model.registry import resolve
from sbert_mini.text.tokenizer import TextTokenizer, open_tokenizer
from sbert_mini.text.tokenizer_file import read_tokenizer

MODELS = ["sbert-mini", "sbert-mini-fast", "all-MiniLM-L6-v2"]


@pytest.fixture(scope="module")
def both():
    """Each model's tokenizer as it is built anew, and as the library reads its file."""
    opened = []
    for name in MODELS:
        file = resolve(name) / "tokenizer.json"
        opened.append(
            (TextTokenizer.from_directory(file.parent, 128), TextTokenizer(Tokenizer.from_file(str(file)), 128))
        )
    return opened


@pytest.fixture
def folder(make_model):
    """A model directory with a `tokenizer.json`, and a function that changes the file."""
    path = make_model()
    TextTokenizer.from_directory(path, 31).save(path)
    file = path / "tokenizer.json"

    def change(alter):
        data = json.loads(file.read_text())
        alter(data)
        file.write_text(json.dumps(data))
        return path

    return change


def test_what_is_built_is_what_the_file_describes(both):
    for built, read in both:
        assert built.backend.to_str() == read.backend.to_str()


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_ids_are_those_of_the_library_for_any_text_and_pair(both, a, b):
    for built, read in both:
        assert built.encode([a, b, (a, b)]) == read.encode([a, b, (a, b)])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer", None),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaaaaa"}),
        ("normalizer", {"type": "Sequence", "normalizers": []}),
        ("post_processor", None),
        ("post_processor", {"type": "RobertaProcessing"}),
    ],
)
def test_a_tokenizer_that_is_not_berts_is_refused_with_the_way_out(folder, part, value):
    path = folder(lambda data: data.update({part: value}))
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json has another .*--trust-tokenizer"):
        read_tokenizer(path, {})


def test_a_template_that_gives_other_ids_is_refused(folder):
    path = folder(lambda data: data["post_processor"]["special_tokens"]["[SEP]"].update(ids=[7]))
    with pytest.raises(UnsupportedModelError, match="another post-processor"):
        read_tokenizer(path, {})


@pytest.mark.long
def test_a_trusted_tokenizer_is_taken_as_it_is_by_every_door(folder, sbmini_here, tmp_path):
    import sbert_mini

    path = folder(lambda data: data.update(pre_tokenizer={"type": "WhitespaceSplit"}))
    with pytest.raises(UnsupportedModelError, match="trust_tokenizer=True"):
        Embedder(path)
    with pytest.raises(UnsupportedModelError, match="trust_tokenizer=True"):
        sbert_mini.load(path, device="cpu")
    ids = Embedder(path, trust_tokenizer=True).tokenize("the cat.")["input_ids"].tolist()
    assert (
        sbert_mini.load(path, device="cpu", trust_tokenizer=True)[0].text_tokenizer.encode(["the cat."])[0].ids
        == ids[0]
    )
    assert len(ids[0]) == 4  # "cat." is one word there
    (tmp_path / "t.txt").write_text("".join(f"the cat number {i}\n" for i in range(80)))
    commands = [("encode", "the cat"), ("bench", "sts", "--sets", "builtin", "--json")]
    commands.append(("bench", "speed", "--no-peer", "-i", "t.txt", "--texts", 64, "--rounds", 1))
    commands.append(("bench", "pairs", "-i", "t.txt", "--n", 50, "--sample", 8, "--rounds", 1))
    for command in commands:
        done = sbmini_here(*command, "-m", path)
        assert (done.returncode, "--trust-tokenizer" in done.stderr) == (1, True)
        done = sbmini_here(*command, "-m", path, "--trust-tokenizer")
        assert done.returncode == 0, done.stderr


def test_a_panic_of_a_trusted_tokenizer_is_an_error_of_ours(folder):
    split = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    path = folder(lambda data: data.update(pre_tokenizer=split))
    with pytest.raises(CorruptModelError, match="the tokenizer failed"):
        TextTokenizer.from_directory(path, 31, trust=True).encode(["a" * 60 + "c"])


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: data["model"]["vocab"].update({"a": -1}),
        lambda data: data["model"]["vocab"].update({"a": 1 << 31}),
        lambda data: data["model"]["vocab"].update({"a": 1.5}),
        lambda data: data["model"]["vocab"].update({"\ud800": 3}),
        lambda data: data["model"]["vocab"].clear(),
        lambda data: data["model"].update({"unk_token": "nowhere"}),
        lambda data: data["model"].update(max_input_chars_per_word=1 << 40),
        lambda data: data["added_tokens"][0].update(id=9),
        lambda data: data["model"].pop("vocab"),
    ],
)
def test_a_damaged_vocabulary_is_one_error_with_the_file(folder, alter):
    with pytest.raises(CorruptModelError, match=r"tokenizer\.json: "):
        read_tokenizer(folder(alter), {})


def test_ids_that_the_model_lacks_are_refused_at_opening(folder):
    from sbert_mini.model.layout import read_layout

    path = folder(lambda data: data["model"]["vocab"].update({"zebra": 5000}))
    with pytest.raises(SbertMiniError, match="ids up to 5000"):
        open_tokenizer(read_layout(path))


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_vocabulary_has_a_greatest_size(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate((1 << 26) + 1)
    with pytest.raises(CorruptModelError, match=rf"{name} cannot be read: it is larger than 67108864 bytes"):
        read_tokenizer(tmp_path, {})
