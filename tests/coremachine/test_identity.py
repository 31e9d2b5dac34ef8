"""Names of things: exact formulas, and what holds of every partition key."""

import hashlib
import re
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from geo_assets.coremachine.identity import (
    MAX_PARTITION_KEY,
    check_job_id,
    decode_partition_key,
    encode_partition_key,
    mapping_key,
    predecessor_task_id,
    task_id,
)
from geo_assets.errors import ParameterError

JOB = "149580b8d06f0036537a68bbf149ba9f4e72160438cab4c08ce63591081a61e1"

# Characters that have a meaning somewhere come up often enough to stand next to each other
TROUBLE = "%,|[]\"\\*.. \n\t\r\0\u200e\u2028\u00a0\u3000é\u0301\u1100\u1161\u11a8\u09c7\u09be/#?&;:+~'Å\u212b\ufb01"
NAMES = st.text(st.one_of(st.sampled_from(TROUBLE), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=60)
FORBIDDEN = frozenset('%,|[]"\\*') - {"%"}


# --- job and task ids ------------------------------------------------------------------------------------


def test_task_ids_are_the_originals() -> None:
    assert task_id(JOB, 1, "list") == hashlib.sha256(f"{JOB}|s1|list".encode()).hexdigest()[:16]
    # written down once, so that a change of the formula cannot hide behind itself
    assert task_id(JOB, 1, "list") == "3226d478cbafe4be"
    assert task_id(JOB, 2, "a/ü b.tif") == "3092a4131667da79"


def test_a_predecessor_is_the_same_unit_in_the_stage_before() -> None:
    assert predecessor_task_id(JOB, 2, "chunk_1") == task_id(JOB, 1, "chunk_1")
    assert predecessor_task_id(JOB, 1, "chunk_1") is None


def test_job_ids_are_64_hexadecimal_digits() -> None:
    assert check_job_id(JOB.upper()) == JOB
    with pytest.raises(ParameterError, match=r"^job_id must be 64 characters \(SHA256 hash\), got 3$"):
        check_job_id("abc")
    with pytest.raises(ParameterError, match=r"^job_id must be a valid hexadecimal hash$"):
        check_job_id("g" * 64)
    with pytest.raises(ParameterError, match="hexadecimal"):
        check_job_id("1" * 63 + "\n")


def test_mapping_keys_sort_as_they_count() -> None:
    keys = [mapping_key("chunk", number) for number in (0, 9, 10, 99, 100, 123_456)]
    assert keys == sorted(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", key) for key in keys)


# --- partition keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "container",
        "container/folder/blob.tif",
        "geo.roads",
        "container/With Space.tif",
        "c/100#1?x=y&z;(a)~b+c:d@e'f",
        "c/straße/日本.tif",
        "c/\u00e9.tif",
        JOB,
    ],
)
def test_ordinary_names_are_their_own_keys(name: str) -> None:
    assert encode_partition_key(name) == name
    assert decode_partition_key(name) == name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a...b", "a.%2E.b"),
        ("[a...b]", "%5Ba.%2E.b%5D"),
        ("..", ".%2E"),
        ("a,b", "a%2Cb"),
        ("a|b", "a%7Cb"),
        ("a%2Fb", "a%252Fb"),
        ("%", "%25"),
        ('say "hi"', "say %22hi%22"),
        ("a\\b", "a%5Cb"),
        ("*.tif", "%2A.tif"),
        (" a b ", "%20a b%20"),
        ("a\n", "a%0A"),
        ("a\x00b", "a%00b"),
        ("\u00a0a", "%C2%A0a"),
        ("a\u200eb", "a%E2%80%8Eb"),
        ("e\u0301", "e%CC%81"),
        ("\u212b", "%E2%84%AB"),  # the Ångström sign, which NFC turns into Å
        ("\u1100\u1161", "\u1100%E1%85%A1"),  # two Hangul letters that NFC joins
        ("😀.tif", "😀.tif"),
    ],
)
def test_troublesome_characters_are_percent_encoded(name: str, key: str) -> None:
    assert encode_partition_key(name) == key
    assert decode_partition_key(key) == name


@given(NAMES)
@example("a...b")
@example("\u1100\u1161\u11a8")
@example("\u09c7\u09be")
@example("%2C")
def test_every_key_gives_its_name_back_and_holds_nothing_troublesome(name: str) -> None:
    key = encode_partition_key(name)
    assert decode_partition_key(key) == name
    assert not FORBIDDEN & set(key)
    assert ".." not in key
    assert key == key.strip()
    assert key.isprintable() or all(character.isprintable() or _is_blank(character) for character in key)
    assert len(key.encode()) <= MAX_PARTITION_KEY


def _is_blank(character: str) -> bool:
    # blanks inside a name may stand; private and unassigned characters are not ours to judge
    return unicodedata.category(character) in {"Zs", "Co", "Cn"}


@given(NAMES, NAMES)
@example("\u00e9", "e\u0301")
@example("%2C", ",")
@example("a.%2E", "a..")
def test_two_names_never_share_a_key(one: str, other: str) -> None:
    assume(one != other)
    assert encode_partition_key(one) != encode_partition_key(other)


@given(NAMES)
@example("\u1112\u1161\u11ab")
@example("A\u030a")
def test_a_key_survives_unicode_normalisation_and_is_never_taken_for_its_twins(name: str) -> None:
    key = encode_partition_key(name)
    assert unicodedata.normalize("NFC", key) == key
    for form in ("NFC", "NFD"):
        twin = unicodedata.normalize(form, name)
        if twin != name:
            assert unicodedata.normalize("NFC", encode_partition_key(twin)) != key
    decomposed = unicodedata.normalize("NFD", key)
    if decomposed != key:  # whoever decomposes a key gets told, not another partition
        with pytest.raises(ParameterError):
            decode_partition_key(decomposed)


@given(NAMES)
def test_decoding_refuses_what_encoding_does_not_make(text: str) -> None:
    try:
        name = decode_partition_key(text)
    except ParameterError as error:
        assert "partition key" in str(error)  # noqa: PT017 - either way the property holds
    else:
        assert encode_partition_key(name) == text


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a,b",
        "a..b",
        "a%2cb",  # lower-case digits
        "a%41b",  # needlessly encoded
        "a%",
        "a%2",
        "a%FFb",  # not UTF-8
        "%ED%A0%80",  # a surrogate, spelt out
        " a",
        "e\u0301",
        "a\ud800",
        "[a...b]",
        "x" * (MAX_PARTITION_KEY + 1),
    ],
)
def test_hand_made_keys_are_refused(key: str) -> None:
    with pytest.raises(ParameterError, match="partition key"):
        decode_partition_key(key)


def test_the_refusal_shows_the_key_and_says_what_to_do() -> None:
    with pytest.raises(ParameterError) as caught:
        decode_partition_key("a,b")
    assert "'a,b' is not a valid partition key" in str(caught.value)
    assert "submit the job by its parameters" in str(caught.value)


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "blob-\udc80.tif"])
def test_lone_surrogates_are_refused_in_words_that_can_be_printed(name: str) -> None:
    with pytest.raises(ParameterError, match="not valid text") as caught:
        encode_partition_key(name)
    str(caught.value).encode()


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ParameterError, match="cannot be empty"):
        encode_partition_key("")


def test_the_longest_blob_name_fits() -> None:
    name = "c" * 63 + "/" + "ä" * 512 + "x" * 512
    assert decode_partition_key(encode_partition_key(name)) == name


@pytest.mark.parametrize("name", ["x" * 2049, "日" * 683, "," * 683])
def test_keys_are_bounded_in_bytes(name: str) -> None:
    assert decode_partition_key(encode_partition_key(name[: 2048 // 3])) == name[: 2048 // 3]
    with pytest.raises(ParameterError, match=r"a partition key of \d+ bytes is too long \(at most 2048\)"):
        encode_partition_key(name)
