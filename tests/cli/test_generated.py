"""The manual page and the completions that the build makes of the table of options."""

import re
import shutil
import subprocess

import pytest
from conftest import fails, run
from test_process import COMMANDS


def options_of(command):
    """--name of each option in `lik COMMAND --help`."""
    text = run(command, "--help")[0].split("\noptions:\n")[1]
    found = re.findall(r"^  (?:-\w, |    )--([a-z-]+)", text, re.M)
    described = re.findall(r"^  (?:-\w, |    )--[a-z-]+\S* *(?:\S+ )? *\S", text, re.M)
    assert found and len(described) == len(found), "an option without its meaning"
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_once_for_its_command(command):
    found = options_of(command)
    assert len(set(found)) == len(found)
    text = run(command, "--help")[0]
    assert not any(f"{other}:" in text.split("\noptions:\n")[1] for other in ("demo", "explain", "score"))
    assert "generate" not in text


@pytest.mark.parametrize("kind", ["man", "bash", "zsh", "fish"])
def test_all_commands_and_options_are_there(kind):
    text = run("--generate", kind)[0].replace("\\-", "-")
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text)
        for option in options_of(command):
            wanted = {"fish": rf"from {command}' -l {option}\b", "man": rf"--{option}\b"}
            assert re.search(wanted.get(kind, rf"--{option}\b"), text), (command, option)
    fails(2, "man, bash, zsh or fish, not 'csh'", args=["--generate", "csh"])


def complete(tmp_path, *words):
    (tmp_path / "lik").write_text(run("--generate", "bash")[0])
    script = """source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lik
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "-c", script, "bash", str(tmp_path / "lik"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split(
        "\n"
    )[:-1]


def test_bash_completes(tmp_path):
    assert complete(tmp_path, "lik", "re") == ["rerank"]
    assert complete(tmp_path, "lik", "explain", "--gr") == ["--grid"]
    assert complete(tmp_path, "lik", "score", "--gr") == [""]
    assert complete(tmp_path, "lik", "score", "--color", "a") == ["auto", "always"]
    assert complete(tmp_path, "lik", "score", "--color", "=", "al") == ["always"]
    assert complete(tmp_path, "lik", "score", "--color", "=") == ["auto", "always", "never"]
    (tmp_path / "queries.npy").touch()
    (tmp_path / "two words").touch()
    assert complete(tmp_path, "lik", "score", "two") == ["two words"]
    assert complete(tmp_path, "lik", "score", "quer") == ["queries.npy"]


def test_descriptions_keep_their_apostrophes():
    assert r"the page\'s picture" in run("--generate", "fish")[0]
    assert (
        "cpu, cpu:LEVEL"
        in run("--generate", "fish")[0].split(" -l device ")[1].split(" -d ")[1].split("\n")[0]
    )
    assert r"the page'\''s picture" in run("--generate", "zsh")[0]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_them(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "x").write_text(run("--generate", shell)[0])
    done = subprocess.run([shell, "-n", tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_manual_page_is_sound(tmp_path):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    (tmp_path / "lik.1").write_text(run("--generate", "man")[0])
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "error", tmp_path / "lik.1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
