"""A folder with a recipe, its data and a small model to start from."""

from conftest import tiny_model

from sbert_mini.recipes.reader import read_recipe

TOML = """[model]
start = "start"
output = "out"
[train]
steps = 2
batch_size = 16
log_every = 1
[[task]]
name = "t"
structure = "siamese"
loss = "cosent"
train = "train.tsv"
label = "score"
high = 4.0
"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def pairs(count):
    """Return rows of two texts and a score from 0 to 4; no two rows are alike."""
    return [
        (f"the cat {LETTERS[i % 26]} {LETTERS[i // 26]}", f"{LETTERS[i * 7 % 26]} red house", i % 5)
        for i in range(count)
    ]


def write_table(file, rows):
    file.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))


def folder_with(folder, *changes, more="", rows=20, dev_rows=0):
    """Put a model, tables and a recipe into a folder, the recipe's text changed; return the recipe.

    Args:
        folder: the folder.
        changes: (old, new) of the recipe's text.
        more: added to the recipe; keys of its task first.
        rows: of `train.tsv`.
        dev_rows: of `dev.tsv`, which the task is measured on where there are some.
    """
    text = TOML + ('dev = "dev.tsv"\n' if dev_rows else "") + more
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "start").mkdir(exist_ok=True)
    tiny_model(folder / "start", **SMALL)
    write_table(folder / "train.tsv", pairs(rows))
    write_table(folder / "dev.tsv", pairs(rows + dev_rows)[rows:])
    (folder / "r.toml").write_text(text)
    return read_recipe(folder / "r.toml")
