"""An option that takes one value is given once; the parser alone would keep the last and say nothing."""

import json

import pytest
from conftest import one_error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["encode", "a", "--dim", 3, "--dim", 3], "--dim"),
        (["encode", "a", "-m", "one", "--model", "two"], "--model/-m"),
        (["encode", "a", "-m", "one", "--model=two"], "--model/-m"),
        (["encode", "a", "-qq"], "--quiet/-q"),
        (["search", "x", "q", "--with-text", "--without-text"], "--with-text/--without-text"),
        (["search", "x", "q", "--json", "--json"], "--json"),
        (["index", "delete", "x", "--filter", "a = 1", "--filter", "b = 2"], "--filter"),
        (["--debug", "--debug", "models", "list"], "--debug"),
        (["recipes", "show", "-h", "--help"], "-h"),
    ],
)
def test_an_option_given_twice_is_an_error_that_names_it(sbmini, arguments, named):
    one_error(sbmini(*arguments), 2, f"{named}", "is given 2 times")


def test_options_of_several_values_texts_and_the_environment_count_as_nothing(sbmini, make_model, tmp_path):
    path = make_model()
    done = sbmini("encode", "--", "-q", "-q")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["-q", "-q"]
    assert sbmini("encode", "the cat", "-m", path, env={"SBMINI_MODEL": "elsewhere"}).returncode == 0
    (tmp_path / "p.tsv").write_text(
        "sentence1\tsentence2\tscore\n" + "a cat\ta dog\t1\nbread\tyeast\t2\nsun\tmoon\t3\n"
    )
    done = sbmini("bench", "sts", "--pairs", "p.tsv", "-m", path, "-m", path)
    assert "given 2 times" not in done.stderr


def test_every_command_refuses_every_option_of_one_value_given_twice():
    import typer
    from sbert_mini.cli.main import app
    from typer.core import TyperGroup

    def commands(command, words):
        if isinstance(command, TyperGroup):
            for name, inner in command.commands.items():
                yield from commands(inner, [*words, name])
        else:
            yield words, command

    checked = 0
    for words, command in commands(typer.main.get_command(app), []):
        context = command.context_class(command, info_name=" ".join(words))
        for option in command.params:
            if option.param_type_name != "option":
                continue
            given = [option.opts[0]] if option.is_flag else [option.opts[0], "1"]
            try:
                command.parse_args(context, [*given, *given])
                message = ""
            except typer.TyperException as error:
                message = error.format_message()
            assert ("given 2 times" in message) == (not option.multiple), (words, option.opts, message)
            checked += 1
    assert checked > 100
