"""Run files and peer files: what is refused, in which words, and what names a run."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmnet import config, registry
from swarmnet.config import RunFile, apply_overrides, differing_keys, fingerprint, load_peer
from swarmnet.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = sorted((CONFIGS / "runs").glob("*.toml"))
PEERS = sorted((CONFIGS / "peers").glob("*.toml"))

MINIMAL = """
name = "tiny"
[target]
tokens = 1000
minutes = 1.0
[model]
name = "causal_lm"
"""


def run_of(text: str) -> RunFile:
    return RunFile(text.encode(), "tiny.toml")


def with_line(line: str, section: str = "") -> str:
    """MINIMAL with one more line, on top or right after the head of ``section``."""
    if not section:
        return line + MINIMAL
    assert f"[{section}]\n" in MINIMAL
    return MINIMAL.replace(f"[{section}]\n", f"[{section}]\n{line}\n")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        run_of(text)
    message = str(caught.value)
    assert message.startswith("tiny.toml: ")
    assert "\n" not in message
    return message


# What loads


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_shipped_run_files_load(path):
    run = RunFile.load(path)
    assert run.config.name == path.stem
    assert run.raw == path.read_bytes()


@pytest.mark.parametrize("path", PEERS, ids=lambda path: path.stem)
def test_shipped_peer_files_load(path):
    assert load_peer(path) != load_peer(None)


def test_configs_are_shipped():
    assert {"demo", "noloco"} <= {path.stem for path in RUNS}
    assert {"laptop-cpu", "one-gpu"} <= {path.stem for path in PEERS}


def test_noloco_is_the_papers():
    run = RunFile.load(CONFIGS / "runs" / "noloco.toml").config
    outer = run.outer.config("outer")
    assert (outer.alpha, outer.beta, outer.gamma) == (0.5, 0.7, 0.7)
    assert run.cadence.config("cadence").h == 20


def test_defaults_of_a_minimal_run():
    run = run_of(MINIMAL).config
    assert run.outer.name == "average"
    assert run.consensus.matching.name == "hypercube"
    assert run.seed == 0


def test_a_name_and_a_table_say_the_same():
    text = run_of(with_line('codec = "bf16"')).config
    table = run_of(MINIMAL + '[codec]\nname = "bf16"\n').config
    assert text.codec == table.codec


def test_options_of_a_choice_reach_its_config():
    run = run_of(MINIMAL + '[codec]\nname = "int8"\nblock = 64\n').config
    assert run.codec.config("codec").block == 64


def test_a_config_is_frozen():
    run = run_of(MINIMAL).config
    with pytest.raises(ValueError, match="frozen"):
        run.seed = 1


# What is refused in a run file


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        (with_line("sede = 1"), "sede", "seed"),
        (with_line("schem = 1"), "schem", "schema"),
        (with_line("token = 5", "target"), "target.token", "tokens"),
        (MINIMAL + '[codec]\nname = "int8"\nblok = 64\n', "codec.blok", "block"),
        (MINIMAL + "[consensus]\nbudget = 5\n", "consensus.budget", "budget_s"),
    ],
)
def test_an_unknown_key_gets_a_guess(text, key, meant):
    message = refusal(text)
    assert f"unknown key {key!r}" in message
    assert f"Did you mean {meant!r}?" in message


def test_an_unknown_key_like_no_other_gets_no_guess():
    message = refusal(with_line("xylophone = 1"))
    assert "unknown key 'xylophone'" in message
    assert "mean" not in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (with_line('seed = "many"'), "seed"),
        (with_line("seed = -1"), "seed"),
        (with_line("seed = 1.5"), "seed"),
        (with_line("schema = 2"), "schema"),
        (with_line("codec = 8"), "codec"),
        (with_line("batch = 8"), "batch"),
        (MINIMAL.replace("1000", '"many"'), "target.tokens"),
        (MINIMAL.replace("1000", "0"), "target.tokens"),
        (MINIMAL.replace("1.0", "nan"), "target.minutes"),
        (MINIMAL.replace("1.0", "-1.0"), "target.minutes"),
        (MINIMAL.replace('"tiny"', '"../tiny"'), "name"),
        (MINIMAL.replace('"tiny"', '"Tiny"'), "name"),
        (MINIMAL + '[codec]\nname = "int8"\nblock = "wide"\n', "codec.block"),
        (MINIMAL + "[schedule]\nwarmup = 1.0\n", "schedule.warmup"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(text, key):
    assert f"tiny.toml: {key}: " in refusal(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (MINIMAL.replace('name = "tiny"', ""), "name"),
        (MINIMAL.replace("tokens = 1000", ""), "target.tokens"),
        (MINIMAL + "[codec]\nblock = 64\n", "codec.name"),
        ("", "name"),
    ],
)
def test_a_missing_key_is_named(text, key):
    assert f"key {key!r} is missing" in refusal(text)


@pytest.mark.parametrize("folder", sorted(set(registry.FOLDERS) - {"model"}))
def test_an_unknown_choice_lists_the_known_ones(folder):
    message = refusal(with_line(f'{folder} = "zzz"'))
    assert f"{folder} = 'zzz' is not known; known: " in message
    assert all(name in message for name in registry.names(folder))


def test_an_unknown_choice_gets_a_guess():
    assert "Did you mean 'int8'?" in refusal(with_line('codec = "int9"'))


def test_an_unknown_matching_of_the_consensus_phase_is_refused():
    assert "'zzz' is not known" in refusal(MINIMAL + '[consensus]\nmatching = "zzz"\n')


@pytest.mark.parametrize("name", ["os", "..config", "int8.Int8", "__init__", "", "raw/../raw"])
def test_a_choice_is_never_a_way_to_other_modules(name):
    assert "is not known" in refusal(with_line(f"codec = '{name}'"))


@pytest.mark.parametrize(
    ("alpha", "gamma"), [(0.5, 1.5), (0.5, 2.0), (0.5, -0.1), (0.9, 0.7), (0.0, 2.0), (0.5, 0.0)]
)
def test_unstable_alpha_and_gamma_are_refused_with_the_interval(alpha, gamma):
    text = f'[outer]\nname = "noloco"\nalpha = {alpha}\nbeta = 0.7\ngamma = {gamma}\n'
    message = refusal(MINIMAL + text)
    assert "tiny.toml: outer: gamma" in message
    assert f"0 < gamma < {2 * (1 - alpha**2):.4g}" in message


def test_stable_alpha_and_gamma_are_taken():
    text = '[outer]\nname = "noloco"\nalpha = 0.5\nbeta = 0.7\ngamma = 1.4\n'
    assert run_of(MINIMAL + text).config.outer.config("outer").gamma == 1.4


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe",
        b"name = ",
        b"name = 1\nname = 2",
        b"a = " + b"[" * 30_000,
        b"a = " + b"{a=" * 5_000,
        b"seed = " + b"9" * 5_000,
        b".".join([b"a"] * 30_000) + b" = 1",
        b"#" * (config.MAX_RUN_FILE_BYTES + 1),
    ],
    ids=["no-utf8", "torn", "twice", "brackets", "tables", "digits", "dots", "long"],
)
def test_bytes_that_are_no_run_file_are_refused(raw):
    with pytest.raises(ConfigError, match=r"^tiny\.toml: "):
        RunFile(raw, "tiny.toml")


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    try:
        RunFile(raw)
    except ConfigError:
        return


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: "):
        RunFile.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        RunFile.load(tmp_path)


# Peer files


def test_peer_defaults_need_no_file():
    peer = load_peer(None)
    assert peer.device == "auto"
    assert peer.port == 0


def test_peer_file_and_overrides(tmp_path):
    path = tmp_path / "peer.toml"
    path.write_text('threads = 2\nannounce = ["/ip4/203.0.113.7/tcp/31330"]\n')
    peer = load_peer(path, ["threads=3", "texts.abc=/srv/text"])
    assert peer.threads == 3
    assert peer.announce == ("/ip4/203.0.113.7/tcp/31330",)
    assert peer.texts == {"abc": Path("/srv/text")}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("port=70000", "port: "),
        ("port=low", "port: "),
        ("device=gpu", "device: "),
        ("thread=2", "Did you mean 'threads'?"),
        ("serve_s=-1", "serve_s: "),
    ],
)
def test_bad_peer_settings_are_refused(override, words):
    with pytest.raises(ConfigError, match=r"^peer settings: ") as caught:
        load_peer(None, [override])
    assert words in str(caught.value)


# --set


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=2", {"a": {"b": 2, "c": 1}, "d": "x"}),
        ("a.b = 2.5", {"a": {"b": 2.5, "c": 1}, "d": "x"}),
        ("a.c=true", {"a": {"c": True}, "d": "x"}),
        ("a.c=[1, 2]", {"a": {"c": [1, 2]}, "d": "x"}),
        ("a=plain words", {"a": "plain words", "d": "x"}),
        ('d="7"', {"a": {"c": 1}, "d": "7"}),
        ("d=a=b", {"a": {"c": 1}, "d": "a=b"}),
        ("d=", {"a": {"c": 1}, "d": ""}),
        ("e.f.g=1", {"a": {"c": 1}, "d": "x", "e": {"f": {"g": 1}}}),
        ("d.block=64", {"a": {"c": 1}, "d": {"name": "x", "block": 64}}),
        ("d=" + "9" * 5000, {"a": {"c": 1}, "d": "9" * 5000}),
    ],
)
def test_overrides_set_one_key(override, expected):
    table = {"a": {"c": 1}, "d": "x"}
    assert apply_overrides(table, [override]) == expected
    assert table == {"a": {"c": 1}, "d": "x"}


def test_the_last_override_wins():
    assert apply_overrides({}, ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("override", ["", "a", "=1", "a..b=1", ".a=1", "a.=1", "a.c.d=1"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides({"a": {"c": 1}}, [override])


def test_overrides_make_another_run_file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(with_line('codec = "int8"'))
    plain = RunFile.load(path)
    changed = RunFile.load(path, ["codec.block=64", "target.tokens=5"])
    assert changed.config.codec.config("codec").block == 64
    assert changed.config.target.tokens == 5
    assert changed.fingerprint != plain.fingerprint
    assert RunFile(changed.raw).config == changed.config
    assert RunFile.load(path, ["codec.block=64", "target.tokens=5"]).raw == changed.raw


def test_a_wrong_override_is_refused_like_a_wrong_file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"unknown key 'target\.token'"):
        RunFile.load(path, ["target.token=5"])


# What names a run


def test_the_fingerprint_is_what_it_was():
    assert fingerprint(b'name = "tiny"\n') == "dcbea5b0d5132b9c10c619ce85485476"


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=64), st.binary(max_size=64))
def test_the_fingerprint_tells_bytes_apart(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (one == other)
    assert len(fingerprint(one)) == 32


def test_the_fingerprint_is_of_bytes_and_schema(monkeypatch):
    commented = MINIMAL + "# a word\n"
    assert run_of(commented).config == run_of(MINIMAL).config
    assert run_of(commented).fingerprint != run_of(MINIMAL).fingerprint
    before = fingerprint(b"")
    monkeypatch.setattr(config, "SCHEMA", 2)
    assert fingerprint(b"") != before


def test_differing_keys_are_named_with_both_values():
    mine = MINIMAL.encode()
    theirs = with_line("seed = 7").replace("1000", "2000").encode()
    assert differing_keys(mine, theirs) == [
        "seed: '(absent)' -> 7",
        "target.tokens: 1000 -> 2000",
    ]


def test_files_that_say_the_same_differ_in_no_key():
    assert differing_keys(MINIMAL.encode(), (MINIMAL + "# a word\n").encode()) == []


def test_a_strangers_keys_cannot_steer_the_terminal():
    (line,) = differing_keys(b"", b'"\\u001b]0;title\\u0007" = "\\u001b[2J"')
    assert line.isprintable()


@pytest.mark.parametrize("raw", [b"\xff", b"x = [" * 10_000, b"x." * 20_000 + b"x = 1"])
def test_a_strangers_file_that_is_no_toml_is_refused(raw):
    with pytest.raises(ConfigError):
        differing_keys(MINIMAL.encode(), raw)


def test_run_files_hold_no_paths():
    for path in RUNS:
        assert not _paths(tomllib.loads(path.read_text()))


def _paths(value: object) -> list[str]:
    if isinstance(value, dict):
        return [found for inner in value.values() for found in _paths(inner)]
    return [value] if isinstance(value, str) and ("/" in value or "\\" in value) else []


@pytest.mark.parametrize("name", ["everyone", "random_groups"])
def test_the_end_of_a_run_averages_in_pairs(name):
    line = f'consensus = {{matching = "{name}"}}\n'
    assert 'use "hypercube"' in refusal(with_line(line))
