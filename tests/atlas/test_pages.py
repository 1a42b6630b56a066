"""Pages of HTML: texts are data, and nothing of them is markup; the style is the one that the page's policy allows."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from sbert_mini.atlas.labels import Label
from sbert_mini.atlas.pages import explanation_page, groups_page

HOSTILE = "<script>alert(1)</script> \" ' & </style> \x1b[31m \u202e bread"


class Reader(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(default_embedder):
    return explanation_page(default_embedder.explain(HOSTILE, "Bread and butter"))


def test_texts_are_no_markup_and_control_characters_are_visible(page):
    groups = groups_page(HOSTILE, [Label((HOSTILE,), 2, (0,), (1,))], {0: HOSTILE, 1: "\ud800"}, 3)
    for made in (page, groups):
        reader = Reader(made)
        assert set(reader.tags).isdisjoint({"script", "img", "link", "iframe"})
        assert "<script>alert(1)</script>" in reader.text
        assert "\\x1b[31m" in reader.text
        assert "\x1b" not in made
        assert "\u202e" not in made
        assert {name for name, _ in reader.attributes}.isdisjoint({"style", "src", "href", "onclick"})


def test_the_policy_allows_the_page_s_own_style_alone(page):
    (style,) = re.findall("<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page


def test_a_heat_map_has_a_cell_a_pair_with_its_share(default_embedder):
    explanation = default_embedder.explain("a cat", "two dogs bark", removal=False)
    made = explanation_page(explanation)
    cells = re.findall(r'<td class="([pn]\d+|)" title="(-?[\d.]+)">', made)
    assert [float(share) for _, share in cells] == pytest.approx(explanation.shares.ravel().tolist(), abs=6e-5)
    strongest = max(cells, key=lambda cell: abs(float(cell[1])))
    assert strongest[0] in ("p10", "n10")


def test_groups_have_names_sizes_and_texts():
    labels = [Label(("cats", "dogs"), 7, (3, 1), (2,)), Label((), 5, (4,), ())]
    reader = Reader(groups_page("pets", labels, {1: "one", 2: "two", 3: "three", 4: "four"}, 20))
    assert "2 groups hold 12 of 20 rows." in reader.text
    assert re.search("1. cats, dogs7 rows\nmost central|1. cats, dogs7 rowsmost central", reader.text)
    assert (
        reader.text.index("three")
        < reader.text.index("one")
        < reader.text.index("two")
        < reader.text.index("2. no words")
    )
