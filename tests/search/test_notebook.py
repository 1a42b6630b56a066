"""What a notebook shows of rows: escaped, whatever they hold."""

from html.parser import HTMLParser

from sbert_mini import Embedder, IndexWriter, SearchIndex

EVIL = "<script>alert(1)</script> <b>dog</b> \u202e & \x1b[31m"


class Tags(HTMLParser):
    def __init__(self, document):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert attrs == []

    def handle_data(self, data):
        self.text += data


def test_rows_are_shown_and_never_a_part_of_the_page(tmp_path, converted_model):
    model = Embedder(converted_model(), threads=1)
    path = tmp_path / "<i>rows"
    IndexWriter(path, model).create([{"id": "<u>a", "text": EVIL + "x" * 3000, "<td>": EVIL}])
    index = SearchIndex(path)
    (hit,) = index.search("dog", 1, embedder=model, by="meaning")
    shown = Tags(hit._repr_html_())
    assert shown.tags == {"table", "tr", "th", "td", "pre"}
    for part in ("<u>a", "<td>", r"<script>alert(1)</script> <b>dog</b> \u202e & \x1b[31m", f"{hit.score:.4f}"):
        assert part in shown.text
    assert len(shown.text) < 2600
    whole = Tags(index._repr_html_())
    assert whole.tags == {"table", "tr", "th", "td"}
    assert "<i>rows" in whole.text
