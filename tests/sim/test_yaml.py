"""Configs in YAML: plain values, each read as a person expects, and one clear line for everything else."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config import dump_yaml, load_yaml, parse_overrides
from sim.errors import UsageError
from sim.yaml_text import MOST_CHARACTERS, dump_yaml_text, load_yaml_text

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
MARKUP = st.text(st.sampled_from("ab01 .:-\n\t[]{},&*!#|>'\"%@`?<~eE+_\\\x00\x85\ufeff\ud800"), max_size=40)


def refusal(read):
    """Words of the UsageError, empty where there is none; any other error fails the test."""
    try:
        read()
    except UsageError as error:
        return str(error)
    return ""


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_is_written_is_read_as_the_same_values(values):
    assert load_yaml_text(dump_yaml(values), "text") == values


@given(st.sampled_from(["1e-3", "1e5", "0x10", "0o7", "yes", "1_000", "2020-01-01", "1:30", "<<", ".inf", "9" * 50]))
def test_texts_that_look_like_something_else_stay_texts(text):
    assert load_yaml_text(dump_yaml({text: [text]}), "text") == {text: [text]}


@given(MARKUP | st.text(max_size=60))
def test_no_text_raises_anything_but_a_usage_error_of_one_line(text):
    for read in (
        lambda: load_yaml_text(text, "text"),
        lambda: parse_overrides([text]),
        lambda: parse_overrides(["a=" + text]),
    ):
        assert "\n" not in refusal(read)


@given(st.binary(max_size=60))
def test_no_file_raises_anything_but_a_usage_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_bytes(content)
    assert refusal(lambda: load_yaml(path)) == "" or str(path) in refusal(lambda: load_yaml(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("010", 10),
        ("1_000", 1000),
        ("0x1F", 31),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("'1e-3'", "1e-3"),
        ("yes", True),
        ("off", False),
        ("null", None),
        ("", None),
        ("[1, 2e0]", [1, 2.0]),
        ("{a: 1}", {"a": 1}),
        (".inf", math.inf),
    ],
)
def test_scalars_are_read_as_a_person_expects(text, value):
    read = load_yaml_text(text, "text")
    assert read == value
    assert type(read) is type(value)
    assert parse_overrides([f"key={text}"]) == {"key": value}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands at line 1 already"),
        ("a:\n  b: 1\n  'b': 2\n", "line 3: key 'b' stands at line 2 already"),
        ("{a: 1, a: 1}", "key 'a' stands at line 1 already"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: tag"),
        ("a: !!str 1", "line 1: tag"),
        ("a: !own {}", "line 1: tag"),
        ("&a [*a]", "alias 'a' of something that is not finished"),
        ("a: *b", "alias 'b' of something that is not finished or not there"),
        ("a: &x {<<: {b: 1}}", "merge keys"),
        ("? [1, 2]\n: 3", "a key has to be plain text"),
        ("seed: " + "9" * 5000, "line 1: a number of 5,000 characters"),
        ("seed: -" + "9" * 41 + ".0", "digits are the most"),
        ("rate: 1e999", "too large for a number"),
        ("[" * 5000, "nested more than 40 deep"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins"),
        ("a: [1, 2\nb: 3", "not valid YAML at line"),
        ("a: \ud800", "Unicode"),
        ("#" * (MOST_CHARACTERS + 1), "characters"),
        (
            "a: &a [0,0,0,0,0,0,0,0,0,0]\n"
            + "".join(f"{c}: &{c} [{','.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefg", "bcdefgh", strict=True)),
            "aliases expanded",
        ),
    ],
)
def test_what_configs_do_not_use_is_refused_with_its_line_and_at_once(text, words):
    started = time.perf_counter()
    with pytest.raises(UsageError) as error:
        load_yaml_text(text, "config file 'c.yaml'")
    assert words in str(error.value)
    assert "config file 'c.yaml'" in str(error.value)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"a: \xe9", "not UTF-8"),
        (b"- 1\n", "expected a mapping, found list"),
        (b"5", "found int"),
    ],
)
def test_a_file_that_holds_no_mapping_of_text_is_named(tmp_path, content, words):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        load_yaml(path)


def test_a_folder_a_missing_file_and_an_impossible_path_are_named(tmp_path):
    for path, words in [(tmp_path, "Is a directory"), (tmp_path / "no", "No such file"), ("a\0b", "it is no path")]:
        with pytest.raises(UsageError, match=words):
            load_yaml(path)
    with pytest.raises(UsageError, match="File name too long"):
        load_yaml("x" * 5000)


def test_aliases_are_copies(tmp_path):
    found = load_yaml_text("a: &x {b: 1}\nc: *x\n", "text")
    found["a"]["b"] = 2
    assert found["c"] == {"b": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert load_yaml(path) == {"seed": 3}


def test_a_key_of_many_levels_is_refused():
    with pytest.raises(UsageError, match="levels"):
        parse_overrides([".".join("a" * 10_000) + "=1"])


def test_text_that_is_not_unicode_is_not_written():
    with pytest.raises(UsageError, match="Unicode"):
        dump_yaml_text({"expert": "rule\udcff"})
