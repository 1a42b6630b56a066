"""Names and defaults of options: those of the command line, and those of Python."""

import inspect

import pytest
from conftest import one_error
from sbert_mini.cli import bench, dedup, encode, index, predict, search
from sbert_mini.cli.notes import OPTION_OF, in_options

from sbert_mini import Embedder, Predictor
from sbert_mini.errors import UsageError
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.model.registry import BUILTIN
from sbert_mini.runtime.job import EncodeJob, EncodeSettings
from sbert_mini.runtime.stream import plan_texts
from sbert_mini.search.deadline import TIME_LIMIT_S
from sbert_mini.search.kinds import check_kind


def default(function, name):
    return inspect.signature(function).parameters[name].default


def test_defaults_of_options_are_those_of_python():
    sizes = [default(command, "batch_size") for command in (encode.encode, dedup.dedup, predict.predict, index.create)]
    sizes += [default(command, "batch_size") for command in (index.add, index.update, Predictor.predict_stream)]
    assert set(sizes) == {default(plan_texts, "batch_size")} == {EncodeSettings().batch_size}
    assert {default(command, "filter_timeout") for command in (search.search, index.delete)} == {TIME_LIMIT_S}
    assert {default(command, "peer") for command in (bench.speed, bench.search)} == {PEER_MODEL}
    assert PEER_MODEL in BUILTIN


def test_a_search_in_milvus_refuses_a_time_limit_of_filters(sbmini_here):
    wrong = ("search", "milvus://127.0.0.1:1/none", "a cat", "--filter", "n > 1", "--filter-timeout", 60)
    one_error(sbmini_here(*wrong), 2, "--filter-timeout is not for Milvus")


@pytest.mark.parametrize("name", OPTION_OF)
def test_a_parameter_is_replaced_once_and_by_its_option_alone(name):
    assert in_options(f"{name} is wrong, not {name}", name) == f"{OPTION_OF[name]} is wrong, not {name}"
    assert in_options(f"{name} is wrong", None) == f"{name} is wrong"


def test_python_names_parameters_and_the_command_options(tmp_path, make_model, sbmini_here):
    with pytest.raises(UsageError, match=r"^pca must be at least 1 and below the 384 components"):
        check_kind("auto", 384, pca=4000)
    embedder = Embedder(make_model(), threads=1)
    (tmp_path / "v.npy.partial").mkdir()
    with pytest.raises(UsageError, match=r"go on with it \(resume=True\)"):
        EncodeJob(tmp_path / "v.npy", embedder, EncodeSettings())
    one_error(sbmini_here("encode", "-i", "-", "-o", "v.npy", stdin="a cat\n"), 2, "go on with it (--resume)")
    one_error(sbmini_here("encode", "a cat", "--threads", 9999), 2, "error: --threads must be", "9999")
    one_error(sbmini_here("encode", "a cat", env={"SBMINI_THREADS": "x"}), 2, "error: SBMINI_THREADS must be")


def test_an_unknown_option_of_a_call_is_refused_by_name(make_model):
    embedder = Embedder(make_model(), threads=1)
    for call in (embedder.encode, embedder.encode_query, embedder.encode_stream):
        with pytest.raises(UsageError, match=r"there is no option 'batchsize': did you mean batch_size\?"):
            call(["a cat"], batchsize=3)
    with pytest.raises(UsageError, match="there is no option 'prompt': there are batch_size, show_progress_bar"):
        embedder.encode_pairs([("a cat", "a dog")], prompt="x")
