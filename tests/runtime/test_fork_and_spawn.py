"""Threads and processes: one index and one model used by several at once, after a fork, and out of a pickle.

Each case runs in a child with a time limit, because what it is for would never end.
"""

import subprocess
import sys

import pytest

PREPARE = """
import copy, multiprocessing, os, pickle, sys, threading
import numpy as np
from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.text.records import Record

def unit(rows, seed=0):
    v = np.random.default_rng(seed).normal(size=(rows, 384)).astype("f4")
    return v / np.linalg.norm(v, axis=1, keepdims=True)

def records(start, stop):
    return [Record(f"row {i} river cat", id=str(i), columns={"year": i % 40}) for i in range(start, stop)]

def made(rows, kind="auto", name="x.index"):
    return IndexWriter(name, Embedder(threads=1)).create(records(0, rows), vectors=unit(rows), kind=kind)

def ids(hits):
    return [[(hit.id, round(hit.score, 5)) for hit in row] for row in hits]
"""


def run(tmp_path, code, *, limit=600):
    """Run a program in a child, and return what it prints."""
    (tmp_path / "program.py").write_text(PREPARE + code)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=limit, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


THREADS = """
index = made(300)
vectors = unit(3, 1)
kinds = {
    "plain": lambda: ids(index.search(vectors, 3)),
    "filter": lambda: ids(index.search(vectors, 3, filter="year >= 20")),
    "hybrid": lambda: ids([index.search("river cat", 3, hybrid=True, filter="year < 5")]),
    "matching": lambda: index.matching("year = 7").tolist(),
    "get": lambda: index.get("11").columns,
}
expected = {name: call() for name, call in kinds.items()}
wrong, done = [], threading.Event()
def work(number):
    for turn in range(ROUNDS):
        name = list(kinds)[(turn + number) % len(kinds)] if not ONLY_FILTER else "filter"
        try:
            if kinds[name]() != expected[name]: wrong.append(name)
        except Exception as error: wrong.append(repr(error))
def write():
    writer, turn = IndexWriter("x.index", Embedder(threads=1)), 0
    while not done.is_set():
        writer.add(records(1000 + turn, 1001 + turn), vectors=unit(1, 1000 + turn))
        IndexWriter("x.index").delete([str(1000 + turn)])
        IndexWriter("x.index").compact()
        turn += 1
threads = [threading.Thread(target=work, args=(n,)) for n in range(COUNT)]
writer = threading.Thread(target=write)
[t.start() for t in [*threads, writer]]
[t.join() for t in threads]
done.set(); writer.join()
print(wrong or "same")
"""


@pytest.mark.parametrize("count", [2, 4, 8])
def test_threads_search_beside_a_writer(tmp_path, count):
    settings = f"COUNT, ROUNDS, ONLY_FILTER = {count}, {240 // count}, False\n"
    assert run(tmp_path, settings + THREADS) == "same"


@pytest.mark.long
def test_100_000_filtered_searches_from_8_threads_beside_a_writer(tmp_path):
    settings = "COUNT, ROUNDS, ONLY_FILTER = 8, 12500, True\n"
    assert run(tmp_path, settings + THREADS, limit=3600) == "same"


@pytest.mark.parametrize(("kind", "rows"), [("auto", 40), ("SQ8", 1500), ("HNSW16", 1500), ("IVF16,SQ8", 1500)])
@pytest.mark.parametrize("queries", [1, 40])
def test_parent_and_child_of_a_fork_search_at_once(tmp_path, kind, rows, queries):
    code = f"""
index = made({rows}, {kind!r})
index = SearchIndex("x.index", threads=2)
vectors = unit({queries}, 5)
expected = ids(index.search(vectors, 3))
child = os.fork()
same = all(ids(index.search(vectors, 3)) == expected for _ in range(5))
if child == 0:
    sys.exit(0 if same else 3)
print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(tmp_path, code) == "True 0"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pools_get_the_same_answers(tmp_path, method):
    code = f"""
def search(index_and_text):
    index, text = index_and_text
    return ids([index.search(text, 3, filter="year >= 20")])
if __name__ == "__main__":
    index = made(1500, "IVF16,SQ8")
    expected = search((index, "a river"))
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        found = pool.map(search, [(index, "a river")] * 4)
    print(found == [expected] * 4)
"""
    assert run(tmp_path, code) == "True"


@pytest.mark.parametrize("backend", [None, "onnx", pytest.param("torch", marks=pytest.mark.long)])
def test_an_embedder_is_pickled_and_copied(tmp_path, backend):
    code = f"""
from sbert_mini.model.registry import resolve
model = Embedder("all-MiniLM-L6-v2", graph="fp32" if {backend!r} == "torch" else "int8", threads=1, backend={backend!r})
expected = model.encode(["a cat", "a dog runs"])
for other in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
    assert np.array_equal(other.encode(["a cat", "a dog runs"]), expected)
    names = ("model_name", "path", "graph", "backend", "threads", "fingerprint")
    assert all(getattr(other, name) == getattr(model, name) for name in names)
child = os.fork()
same = np.array_equal(model.encode(["a cat", "a dog runs"]), expected)
if child == 0:
    sys.exit(0 if same else 3)
print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(tmp_path, code) == "True 0"


def test_a_pickled_index_keeps_its_generation_and_its_folder(tmp_path):
    code = """
index = made(30)
index = SearchIndex("x.index")
data = pickle.dumps(index)
IndexWriter("x.index").delete(["3"])
IndexWriter("x.index").compact()
os.chdir("/")
for other in (pickle.loads(data), copy.copy(index), copy.deepcopy(index)):
    assert (len(other), other.generation, other.get("3").id) == (30, 1, "3")
    assert ids(other.search(unit(2), 3, filter="year > 1")) == ids(index.search(unit(2), 3, filter="year > 1"))
del index, other
os.chdir(os.path.dirname(os.path.abspath(sys.argv[0])) if os.path.isabs(sys.argv[0]) else START)
IndexWriter("x.index").delete(["4"])
try: pickle.loads(data)
except Exception as error: print(type(error).__name__, error)
"""
    printed = run(tmp_path, "START = os.getcwd()\n" + code)
    assert printed.startswith("CorruptIndexError")
    assert "does not hold generation 1 any more" in printed


def test_an_index_under_a_path_that_is_not_utf8(tmp_path):
    code = """
name = os.fsdecode(b"caf\\xe9.index")
made(30, name=name)
index = SearchIndex(name)
print(len(index.matching("year > 27")), len(index.search("river", 3, hybrid=True)))
"""
    assert run(tmp_path, code) == "2 3"


def test_a_threaded_server_answers_four_clients_with_filters(tmp_path):
    code = """
import json, urllib.parse, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
index = made(300)
def found(year):
    return ids([index.search("river cat", 3, filter=f"year >= {year} and id <> '11'")])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(found(int(self.path[1:]))).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
expected = {year: json.loads(json.dumps(found(year))) for year in range(10, 20)}
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
wrong = []
def client():
    for turn in range(50):
        year = 10 + turn % 10
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{year}", timeout=600) as answer:
            if json.load(answer) != expected[year]: wrong.append(year)
clients = [threading.Thread(target=client) for _ in range(4)]
[c.start() for c in clients]; [c.join() for c in clients]
server.shutdown(); server.server_close()
print(wrong or "same")
"""
    assert run(tmp_path, code) == "same"


def test_joblib_and_a_data_loaders_workers_get_the_same_answers(tmp_path):
    code = """
def answer(index, embedder, text):
    return ids([index.search(text, 3, filter="year < 20", embedder=embedder)])

def main():
    import joblib, torch
    index, embedder = made(300), Embedder(threads=1)
    texts = ["river", "cat", "row 7"]
    expected = [answer(index, embedder, text) for text in texts]
    for backend in ("loky", "threading"):
        found = joblib.Parallel(2, backend=backend)(joblib.delayed(answer)(index, embedder, text) for text in texts)
        print(found == expected)

    class Texts(torch.utils.data.Dataset):
        def __len__(self): return 3
        def __getitem__(self, i): return torch.from_numpy(embedder.encode(texts[i]))

    vectors = torch.stack(list(torch.utils.data.DataLoader(Texts(), batch_size=None, num_workers=2)))
    print(bool((vectors.numpy() == embedder.encode(texts)).all()))

if __name__ == "__main__":
    main()
"""
    assert run(tmp_path, code, limit=300).split() == ["True"] * 3


def test_duplicates_and_components_are_found_after_a_fork(tmp_path):
    code = """
from sbert_mini.search.dedup import deduplicate
from sbert_mini.search.reduction import fit
embedder, vectors = Embedder(threads=1), unit(900)
def kept():
    return [v.of is None for v in deduplicate(["a cat", "A cat.", "a dog", "a  cat", "bread"], embedder)]
def components():
    return np.abs(fit(vectors, 8).apply(vectors[:5])).round(4).tolist()
index = made(1500, "SQ8"); index.search(unit(40, 1), 3)
expected = kept(), components()
child = os.fork()
same = (kept(), components()) == expected
if child == 0:
    os._exit(0 if same else 3)
print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(tmp_path, code) == "True 0"
