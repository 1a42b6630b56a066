"""A map's page: texts stay data, its policy allows its own parts alone, and labels of a picture do not overlap."""

import base64
import gzip
import hashlib
import json
import re

import numpy as np

from sbert_mini.atlas.coloring import colorings_of, group_coloring
from sbert_mini.atlas.map_page import map_page, on_grid
from sbert_mini.atlas.picture import without_overlap

EVIL = "</script><script>alert(1)</script><!-- $policy \u202e"


def page():
    positions = np.array([[0, 0], [1, 2], [4, 2]], np.float32)
    groups = group_coloring(np.array([0, 0, -1]), [EVIL])
    return map_page(EVIL, positions, ["a", EVIL, "c"], ["x", EVIL, "\ud800"], [groups], [(0, EVIL)]).decode()


def test_texts_are_no_markup():
    text = page()
    assert "alert(1)" not in re.sub(r'<script type="application/json".*?</script>', "", text).replace(
        "alert(1)&lt;", ""
    )
    assert text.count("<script") == 3
    assert "\u202e" not in text
    head = json.loads(re.search(r'<script type="application/json" id="head">(.*?)</script>', text, re.DOTALL)[1])
    assert head["labels"][0]["name"].startswith("</script>")
    rows = json.loads(gzip.decompress(base64.b64decode(re.search(r'id="rows">([^<]*)<', text)[1])))
    assert rows["ids"] == ["a", EVIL, "c"]
    assert rows["texts"][2] == "\ud800"


def test_the_policy_names_the_style_and_the_script():
    text = page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        assert base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")
    assert "http" not in re.sub(r"http://www.w3.org/2000/svg|http-equiv", "", text)


def test_the_grid_keeps_proportions():
    assert on_grid(np.array([[0, 0], [10, 5]], np.float32)).tolist() == [[0, 16384], [65535, 49151]]
    assert on_grid(np.zeros((1, 2), np.float32)).tolist() == [[32768, 32768]]


def test_no_two_boxes_overlap():
    boxes = [(0, 0, 2, 1), (1, 0, 3, 1), (2, 0, 4, 1), (0, 1, 2, 2)]
    assert without_overlap(boxes) == [True, False, True, True]


def test_columns_have_colours_by_their_values():
    rows = [{"lang": "en" if i % 3 else "de", "n": i, "key": f"k{i}", "one": 1} for i in range(60)]
    made, without = colorings_of(rows)
    assert [coloring.name for coloring in made] == ["lang", "n"]
    assert without == ["key", "one"]
    assert list(made[0].names) == ["en", "de", "other values or none"]
    assert np.bincount(made[1].codes).tolist() == [10] * 6
